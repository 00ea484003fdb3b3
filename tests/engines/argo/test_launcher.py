"""What a pod's program says before it knows anything of a step."""

import subprocess
import sys

import pytest

from tidegate.engines.argo.container import LAST, LAUNCHER, SIDECAR


@pytest.mark.parametrize("program", [LAUNCHER, SIDECAR, LAST])
def test_a_workflow_of_another_version_than_its_image_is_told_so_and_nothing_runs(program: str) -> None:
    """One that says ``launcher beside`` would else have the sidecar run somebody else's command."""
    done = subprocess.run([sys.executable, "-m", program, "beside"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "error[argo-version]: the pod's program is given 'beside'" in done.stderr
    assert "Traceback" not in done.stderr
