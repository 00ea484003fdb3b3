"""Write components/<name>/README.md from each component's signature; ``--check`` only says which are out of date."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import docstring_parser

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def main() -> int:
    stale = []
    for file in sorted(ROOT.glob("components/*/component.py")):
        path, text = file.with_name("README.md"), readme(file.parent.name)
        if not path.exists() or path.read_text() != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(text)
    print("\n".join(stale) or "every README says what its component's signature says")
    return 1 if stale and "--check" in sys.argv else 0


def readme(name: str) -> str:
    module = importlib.import_module(f"components.{name}.component")
    component = getattr(module, name)
    spec = component.component_spec
    said = inspect.getdoc(component.python_func) or ""
    means = {p.arg_name: p.description or "" for p in docstring_parser.parse(said).params}
    inputs = [_row(n, d, f" {_default(d)} |", means) for n, d in (spec.inputs or {}).items()]
    outputs = [_row(n, d, "", means) for n, d in (spec.outputs or {}).items()]
    text = said.partition("\nArgs:\n")[0].strip().replace("``", "`")
    call = ", ".join(f"{n}=…" for n, d in (spec.inputs or {}).items() if not d.optional)
    image = spec.implementation.container.image.rpartition("/")[2]
    return f"""# {name}

{text}

{_table(["input", "type", "default", "meaning"], inputs)}

{_table(["output", "type", "meaning"], outputs)}

```python
from components.{name}.component import {name}

task = {name}({call})
```

Image family: `{image}`. This page is written by `scripts/component_readmes.py` from the signature.
"""


def _row(name: str, declared: Any, default: str, means: dict[str, str]) -> str:
    kind = declared.type.partition("@")[0].removeprefix("system.")
    meaning = " ".join(means.get(name, "").replace("``", "`").replace("|", "\\|").split())
    return f"| `{name}` | {kind} |{default} {meaning} |"


def _default(declared: Any) -> str:
    return f"`{declared.default!r}`" if declared.optional else "required"


def _table(titles: list[str], rows: list[str]) -> str:
    return "\n".join([f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *rows])


if __name__ == "__main__":
    raise SystemExit(main())
