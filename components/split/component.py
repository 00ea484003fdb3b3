"""Divide data in order, the earlier part for training."""

from kfp.dsl import Dataset, Input, Output

import tidegate


@tidegate.component(image="train")
def split(data: Input[Dataset], train: Output[Dataset], test: Output[Dataset], by: str, fraction: float = 0.7) -> int:
    """Cut a table along a column; return the rows held out.

    Args:
        data: any dataset.
        train: the rows below the cut.
        test: the rows at the cut and above: no value of ``by`` is on both sides.
        by: a column, such as a date.
        fraction: the part of the rows, in (0, 1), that the cut stands behind.
    """
    from components import dataset
    from components.split.order import cut

    parts = cut(dataset.read(data.path), by, fraction)
    for artifact, (frame, part) in zip((train, test), parts, strict=True):
        dataset.write(frame, artifact.path)
        artifact.metadata.update({**data.metadata, "rows": frame.height, "part": part})
    return parts[1][0].height
