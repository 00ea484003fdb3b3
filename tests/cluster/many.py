"""A component with many inputs, which nobody wants to write down."""

import importlib.util
from pathlib import Path
from typing import Any

COUNT = 200
SOURCE = """from kfp import dsl

from tests.language.kit import component, say


@component
def total({inputs}) -> int:
    return sum(len(v) for v in [{names}])


@dsl.pipeline(name="many")
def many({inputs}) -> int:
    one = say(text=v0)
    return total({given}).output
"""


def many_values(folder: Path) -> Any:
    """A pipeline whose step reads ``COUNT`` values, among them one that a step made."""
    names = [f"v{i}" for i in range(COUNT)]
    inputs = ", ".join(f"{n}: str = {'x' * i!r}" for i, n in enumerate(names))
    given = ", ".join(f"{n}={n if i else 'one.output'}" for i, n in enumerate(names))
    file = folder / "many_values.py"
    file.write_text(SOURCE.format(inputs=inputs, names=", ".join(names), given=given))
    spec = importlib.util.spec_from_file_location("many_values", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.many
