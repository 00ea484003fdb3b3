"""What a pod's program says before it knows anything of a step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.engines.argo.container import LAST, LAUNCHER, SIDECAR


@pytest.mark.parametrize("program", [LAUNCHER, SIDECAR, LAST])
def test_a_workflow_of_another_version_than_its_image_is_told_so_and_nothing_runs(program: str) -> None:
    """One that says ``launcher beside`` would else have the sidecar run somebody else's command."""
    done = subprocess.run([sys.executable, "-m", program, "beside"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "error[argo-version]: the pod's program is given 'beside'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pods_program_ends_with_its_parts_code_and_all_that_it_said(tmp_path: Path) -> None:
    """It does not wait for the interpreter to be taken apart, so what is not flushed would be lost."""
    part = "from tidegate.engines.argo.launcher import launch\nlaunch(lambda site: print(site.pod.run_id) or 3)"
    env = {**os.environ, "TIDEGATE_STORE": str(tmp_path), "TIDEGATE_RUN_ID": "run-1"}
    env.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run([sys.executable, "-c", part], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "run-1\n", "")
