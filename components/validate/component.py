"""Check data against a schema before anything is trained on it."""

from kfp.dsl import HTML, Dataset, Input, Output

import tidegate


@tidegate.component(image="train")
def validate(data: Input[Dataset], schema: str, report: Output[HTML]) -> int:
    """Check every row against a schema; return the rows, or fail naming columns, checks and first values.

    Args:
        data: any dataset.
        schema: a pandera schema by name: ``components/validate/schemas/<schema>.py`` and a line in ``checks.py``.
        report: a page that says what holds or fails.
    """
    from pathlib import Path

    from components import dataset
    from components.validate.checks import check

    frame = dataset.read(data.path)
    found = check(frame, schema)
    Path(report.path).write_text(found.html, encoding="utf-8")
    for line in found.lines:
        print(line)
    found.refuse()
    return frame.height
