"""Train a small transformer on text and export it to ONNX."""

from kfp.dsl import Dataset, Input, Model, Output

import tidegate


@tidegate.component(image="transformers")
def train_transformer(
    data: Input[Dataset],
    model: Output[Model],
    base: str = "",
    text: str = "text",
    label: str = "label",
    epochs: int = 14,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    max_length: int = 48,
    seed: int = 0,
) -> float:
    """Train from scratch, or from ``base`` (any ``from_pretrained`` name or folder); return the last epoch's loss."""
    from pathlib import Path

    from components import dataset
    from components.train_transformer import export, training

    frame = dataset.read(data.path)
    options = training.Options(base, epochs, batch_size, learning_rate, max_length, seed)
    trained = training.train(frame[text].to_list(), frame[label].to_list(), options)
    export.write(trained, Path(model.path))
    model.metadata.update(
        {"framework": "transformers", "base": base or "scratch", "rows": frame.height, "loss": trained.loss}
    )
    return trained.loss
