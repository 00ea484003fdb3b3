"""The compiled forms beside each pipeline are what the pipeline compiles to."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_compiled_forms_beside_the_pipelines_are_theirs() -> None:
    done = subprocess.run([sys.executable, "scripts/golden.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}run scripts/golden.py\n{done.stderr}"
