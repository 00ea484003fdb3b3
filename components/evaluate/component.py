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
    """Measure a model, or the procedure that made it; return the accuracy.

    Without ``folds`` this very model is scored, by the code that serves it: accuracy, macro-F1, log-loss; for two classes
    PR-AUC, ROC-AUC, recall at 1 % false positives, Brier score, calibration error; and where there is a model.skops how far
    the graph is from it. With ``folds`` the evidence is on the procedure: clones are fitted on all folds but one.

    Args:
        model: a model folder; any with a graph, text models too.
        data: rows it has not seen; with ``folds``, the rows it was fitted on.
        evaluation: the evidence that ``register`` judges.
        metrics: the same numbers, for kfp's page.
        confusion: counts by true and predicted class.
        label: the column with the true classes.
        folds: 0, or 2 and more.
        seed: of the folds.
        ignore: columns to leave out.
        champion: a model to compare with on the same rows; an empty folder is none. How predictions moved is counted by
            the ``edges`` of its metadata.
    """
    from pathlib import Path

    from components import dataset
    from components.evaluate import holdout, procedure, report

    frame = dataset.without(dataset.read(data.path), ignore)
    if folds:
        measured = procedure.measure(Path(model.path), frame, label, folds, seed)
    else:
        against = None
        if champion:
            known = champion.metadata
            against = holdout.Champion(Path(champion.path), int(known.get("version", 0)), known.get("edges"))
        measured = holdout.measure(Path(model.path), frame, label, against)
    report.write(Path(evaluation.path), measured, Path(data.path), Path(model.path))
    metrics.metadata.update(report.numbers(measured.metrics))
    confusion.log_confusion_matrix([str(c) for c in measured.classes], measured.confusion)
    return measured.metrics["accuracy"]
