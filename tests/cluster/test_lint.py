"""Argo's own linter finds no fault in what is compiled."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.ground import Ground

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def linter() -> list[str]:
    for words in (["argo-lint"], ["argo", "lint", "--offline"]):
        if shutil.which(words[0]):
            return words
    pytest.skip("needs argo or argo-lint on PATH")


@pytest.mark.parametrize("form", ["argo", "argo-template", "argo-cron"])
def test_the_linter_finds_no_fault_in_any_flow_or_pipeline(
    form: str, ground: Ground, linter: list[str], tmp_path: Path
) -> None:
    flows = [f.stem for f in ground.flows.glob("*.yaml")]
    cron = ("--cron", "0 6 * * *") if form == "argo-cron" else ()
    refused = []
    for flow in (*flows, "pipelines/iris/pipeline.py", "pipelines/fraud/pipeline.py"):
        file = tmp_path / f"{Path(flow).parent.name}{Path(flow).stem}.yaml"
        ran = ground.tidegate("compile", ground.file(flow), "--to", form, "--allow-tags", *cron, "-o", str(file))
        assert ran.code == 0 or (cron and ran.error["code"] == "parameter-missing"), ran.err
        refused += [flow] if ran.code else []
    assert refused == (["pods"] if cron else [])  # it cannot run without being given something
    linted = subprocess.run([*linter, *map(str, tmp_path.glob("*.yaml"))], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr
