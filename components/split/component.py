"""Divide data in order, the earlier part for training."""

from kfp.dsl import Dataset, Input, Output

import tidegate


@tidegate.component(image="train")
def split(data: Input[Dataset], train: Output[Dataset], test: Output[Dataset], by: str, fraction: float = 0.7) -> int:
    """Split at a value of the column ``by`` (none on both sides), ``fraction`` of the rows first; return the rows held out."""
    from components import dataset
    from components.split.order import cut

    parts = cut(dataset.read(data.path), by, fraction)
    for artifact, (frame, part) in zip((train, test), parts, strict=True):
        dataset.write(frame, artifact.path)
        artifact.metadata.update({**data.metadata, "rows": frame.height, "part": part})
    return parts[1][0].height
