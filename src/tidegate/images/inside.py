"""What an image is, told from inside it: ``python -m tidegate.images.inside PKG.MODULE:FUNC…`` prints one line of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tidegate.author.closure import closure
from tidegate.plan.key import environment_digest
from tidegate.project import find_root


def look(functions: Sequence[str], root: Path) -> dict[str, Any]:
    """The environment's digest, what is installed, and the code digest of each function that is here."""
    code = {f: closure(f.partition(":")[0], root) for f in functions}
    return {
        "environment": environment_digest(),
        "distributions": sorted([d.name, d.version] for d in metadata.distributions()),
        "code": {f: c.digest for f, c in code.items() if c.files},
    }


if __name__ == "__main__":
    print(json.dumps(look(sys.argv[1:], find_root(Path.cwd()))))
