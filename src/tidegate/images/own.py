"""tidegate itself as a distribution inside an image: the very code that builds the image.

From a checkout its version carries the digest of the sources (``0.1.0+src.1a2b3c4d``), so that images of different
sources never pass for the same environment.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from tidegate.errors import ConfigError
from tidegate.images import environment
from tidegate.images.environment import Interpreter, record, record_line, script

PACKAGE = Path(__file__).parents[1]
_WHEEL = b"Wheel-Version: 1.0\nGenerator: tidegate\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def sources() -> list[Path]:
    """Every file of the running tidegate, sorted."""
    found = (p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc")
    return sorted(found)


def version() -> str:
    """The running tidegate's version; from a checkout with the digest of its sources."""
    said = metadata.version("tidegate").partition("+")[0]
    if "site-packages" in PACKAGE.parts:
        return metadata.version("tidegate")
    files = (f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.relative_to(PACKAGE)}\n" for p in sources())
    return f"{said}+src.{hashlib.sha256(''.join(files).encode()).hexdigest()[:12]}"


def install(tree: Path, python: Interpreter) -> None:
    """Put tidegate into the environment in the folder ``tree``.

    Raises:
        ConfigError: the running tidegate was never installed, so nothing says what it is.
    """
    try:
        said = metadata.distribution("tidegate").read_text("METADATA") or ""
    except metadata.PackageNotFoundError as e:
        raise ConfigError("tidegate runs here without being installed", hint="pip install -e .") from e
    made = version()
    info = f"tidegate-{made}.dist-info"
    head = said.replace(f"Version: {metadata.version('tidegate')}\n", f"Version: {made}\n", 1)
    files = {f"tidegate/{p.relative_to(PACKAGE).as_posix()}": p.read_bytes() for p in sources()}
    files |= {
        f"{info}/METADATA": head.encode(),
        f"{info}/WHEEL": _WHEEL,
        f"{info}/INSTALLER": b"tidegate\n",
        f"{info}/entry_points.txt": b"[console_scripts]\ntidegate = tidegate.cli:main\n",
        "../../../bin/tidegate": script("tidegate.cli", "main"),
    }
    lines = [record_line(name, data) for name, data in sorted(files.items())]
    files[f"{info}/RECORD"] = record([*lines, [f"{info}/RECORD", "", ""]])
    for name, data in files.items():
        path = (tree / python.site / name).resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tree / "bin" / "tidegate").chmod(0o755)
    environment.compile_all(tree, python)


def inside(distributions: list[str]) -> bool:
    """Whether a lock brings tidegate already."""
    return any(d.startswith("tidegate-") for d in distributions)
