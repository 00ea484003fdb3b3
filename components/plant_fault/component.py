"""Make a version that passes the gate and fails live: for rehearsing that it is taken back."""

from kfp.dsl import Input, Model, Output

import tidegate


@tidegate.component(image="train")
def plant_fault(
    model: Input[Model], planted: Output[Model], column: str, fault: str = "fails", above: float = 1e6, work: int = 48
):
    """Copy a model with a fault in its graph that no row of an evaluation shows.

    Its predictions stay what they are, so that every gate on them passes; only live traffic can tell.

    Args:
        model: a model folder with a graph.
        planted: the same with the fault; ``fault`` is in its metadata.
        column: a numeric input, which the fault hangs on.
        fault: ``fails``: scoring raises an error where the column is greater than ``above``; ``slow``: each call does
            ``work`` products of matrices for nothing.
        above: rows that an evaluation does not have.
        work: of a slow model; 48 are some milliseconds.
    """
    from pathlib import Path

    from components.plant_fault.graph import plant

    plant(Path(model.path), Path(planted.path), column, fault, above, work)
    planted.metadata["fault"] = fault
