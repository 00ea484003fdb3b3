"""Train a scikit-learn classifier on a table and export it to ONNX."""

from kfp.dsl import Dataset, Input, Model, Output

import tidegate


@tidegate.component(image="train")
def train_sklearn(
    data: Input[Dataset],
    model: Output[Model],
    label: str,
    estimator: str = "logistic_regression",
    hyper_parameters: dict = {},  # noqa: B006 - kfp reads the default
    ignore: list = [],  # noqa: B006
    seed: int = 0,
) -> int:
    """Fit a classifier on raw columns and export it to ONNX, preparation included; return the rows.

    The same data and parameters give the same bytes on any number of cores.

    Args:
        data: numbers, flags and text; only floats may have gaps.
        model: model.onnx (an input a raw column), model.skops, signature.json, requirements.txt.
        label: the column to predict, integers or text.
        estimator: ``logistic_regression`` (scaled), ``random_forest`` or ``hist_gradient_boosting``.
        hyper_parameters: of that estimator.
        ignore: columns that are no features.
        seed: of the estimator.
    """
    from pathlib import Path

    from components import dataset
    from components.train_sklearn import export, fit

    frame = dataset.without(dataset.read(data.path), ignore)
    fitted = fit.fit(frame, label, estimator, hyper_parameters, seed)
    export.write(fitted, frame.drop(label), Path(model.path))
    model.metadata.update({"framework": "scikit-learn", "estimator": estimator, "rows": frame.height})
    return frame.height
