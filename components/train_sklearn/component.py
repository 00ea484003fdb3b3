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
    """Fit ``estimator`` on every column but ``label`` and those in ``ignore``; return the number of rows."""
    from pathlib import Path

    from components import dataset
    from components.train_sklearn import export, fit

    frame = dataset.without(dataset.read(data.path), ignore)
    fitted = fit.fit(frame, label, estimator, hyper_parameters, seed)
    export.write(fitted, frame.drop(label), Path(model.path))
    model.metadata.update({"framework": "scikit-learn", "estimator": estimator, "rows": frame.height})
    return frame.height
