"""Measure a model, or the procedure that made it, on data."""

from kfp.dsl import Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output

import tidegate


@tidegate.component(image="train")
def evaluate(
    model: Input[Model],
    data: Input[Dataset],
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    label: str,
    folds: int = 0,
    seed: int = 0,
    ignore: list = [],  # noqa: B006 - kfp reads the default
    champion: Input[Model] = None,
) -> float:
    """Measure on held-out rows, or with ``folds`` by cross-validation of the procedure; return the accuracy."""
    from pathlib import Path

    from components import dataset
    from components.evaluate import holdout, procedure, report

    frame = dataset.without(dataset.read(data.path), ignore)
    if folds:
        measured = procedure.measure(Path(model.path), frame, label, folds, seed)
    else:
        against = (Path(champion.path), int(champion.metadata.get("version", 0))) if champion else ()
        measured = holdout.measure(Path(model.path), frame, label, *against)
    report.write(Path(evaluation.path), measured, Path(data.path), Path(model.path))
    metrics.metadata.update(report.numbers(measured.metrics))
    confusion.log_confusion_matrix([str(c) for c in measured.classes], measured.confusion)
    return measured.metrics["accuracy"]
