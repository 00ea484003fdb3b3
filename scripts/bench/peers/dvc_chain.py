"""DVC: the text of a dvc.yaml and of the script that its stages run. A shell and an interpreter a stage."""

STEP = """import sys
import time
from pathlib import Path

value = int(Path(sys.argv[1]).read_text()) + 1
time.sleep(float(sys.argv[3]))
Path(sys.argv[2]).write_text(str(value))
print(value)
"""


def chain(n: int) -> str:
    """Stages in a row."""
    return "stages:\n" + "".join(_stage(i, f"v{i}", f"v{i + 1}", 0.0) for i in range(n))


def fan(n: int) -> str:
    """Stages that sleep, none after another; ``dvc repro`` runs one at a time."""
    return "stages:\n" + "".join(_stage(i, "v0", f"w{i}", 0.5) for i in range(n))


def _stage(i: int, source: str, target: str, seconds: float) -> str:
    return (
        f"  s{i}:\n    cmd: python step.py {source} {target} {seconds}\n"
        f"    deps: [{source}, step.py]\n    outs: [{target}]\n"
    )
