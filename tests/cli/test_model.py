"""Models on the command line: listed, shown, promoted, judged, audited, mirrored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_run import ROOT, Said, tidegate
from tests.registry.made import candidate, evaluation
from tests.servers import free_port
from tidegate.registry.register import register
from tidegate.store.local import LocalStore


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").touch()
    for number in (1, 2):
        register(candidate(tmp_path, number), LocalStore(tmp_path / ".tidegate"))
    return tmp_path


def good(said: Said) -> str:
    assert said.code == 0, said.err
    return said.out


def test_models_are_listed_and_a_version_shows_why_it_may_be_served(project: Path) -> None:
    assert "m  " in good(tidegate(project, "model", "ls"))
    assert json.loads(good(tidegate(project, "model", "ls", "--json"))) == [
        {"name": "m", "versions": 2, "aliases": {"champion": 2}}
    ]
    shown = good(tidegate(project, "model", "show", "m:1"))
    for part in ("m version 1 (no alias)", "sha256:", "pass: accuracy 0.97 is above 0.95", "dvc+x"):
        assert part in shown
    body = json.loads(good(tidegate(project, "model", "show", "m@champion", "--json")))
    assert (body["version"], body["aliases"]) == (2, ["champion"])


def test_what_only_reads_makes_no_store_where_its_name_is_mistyped(project: Path) -> None:
    for words in (
        ["model", "ls"],
        ["model", "show", "m"],
        ["runs", "ls"],
        ["audit", "verify"],
        ["rollout", "history", "m"],
    ):
        said = tidegate(project, *words, "--store", "stroe")
        assert said.code in (0, 2), said.err
        assert not (project / "stroe").exists(), words


def test_promoting_moves_the_alias_once_and_the_ledger_verifies(project: Path) -> None:
    assert "m@champion is now version 1" in good(tidegate(project, "model", "promote", "m:1"))
    assert "m@champion already was version 1" in good(tidegate(project, "model", "promote", "m:1"))
    assert "m@blessed is now version 2" in good(tidegate(project, "model", "promote", "m:2", "--alias", "blessed"))
    assert "m: 4 records, 2 versions" in good(tidegate(project, "audit", "verify"))


def test_a_damaged_ledger_record_is_loud_everywhere_and_exits_3(project: Path) -> None:
    record = project / ".tidegate" / "ledger" / "m" / "000000000000.json"
    record.write_bytes(record.read_bytes().replace(b"0.97", b"0.99"))
    for command in (
        ["audit", "verify"],
        ["model", "show", "m"],
        ["model", "promote", "m:1"],
        ["serve", "m"],
        ["model", "ls"],
    ):
        said = tidegate(project, *command)
        assert (said.code, "error[ledger-damaged]" in said.err) == (3, True), command


def test_a_gate_is_tried_on_files_with_its_exit_code(project: Path) -> None:
    (project / "evaluation.json").write_text(json.dumps(evaluation()))
    policy = str(ROOT / "pipelines" / "iris" / "policy.toml")
    passed = tidegate(project, "gate", "check", policy, "evaluation.json")
    assert (passed.code, "verdict: pass" in passed.out) == (0, True)
    refused = tidegate(project, "gate", "check", policy, "evaluation.json", "--tighten", "0.99", "--json")
    assert (refused.code, refused.json["outcome"]) == (1, "fail")
    assert tidegate(project, "gate", "check", policy, "evaluation.json", "--tighten", "0.1").code == 2


def test_an_unreachable_mlflow_is_noted_and_the_run_is_safe(project: Path) -> None:
    source = "import tidegate\nfrom kfp import dsl\n@tidegate.component\ndef one() -> int:\n    return 1\n"
    (project / "steps.py").write_text(source)
    (project / "pipe.py").write_text(
        "from kfp import dsl\nfrom steps import one\n@dsl.pipeline(name='p')\ndef p() -> int:\n    return one().output\n"
    )
    nowhere = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    said = tidegate(project, "run", "pipe.py", "--json", env=nowhere)
    assert (said.code, said.json["outputs"]) == (0, {"Output": 1})
    assert "tidegate model sync" in said.err
    assert tidegate(project, "runs", "show").code == 0
    synced = tidegate(project, "model", "sync", env=nowhere)
    assert (synced.code, "mlflow-" in synced.err) == (3, True)


def test_an_image_that_holds_other_code_is_refused_when_compiling_for_a_cluster(project: Path) -> None:
    (project / "steps.py").write_text(
        "import tidegate\n@tidegate.component(image='train')\ndef one() -> int:\n    return 1\n"
    )
    (project / "pipe.py").write_text(
        "from kfp import dsl\nfrom steps import one\n@dsl.pipeline(name='p')\ndef p() -> int:\n    return one().output\n"
    )
    lock = 'version = 1\n[family.train]\nimage = "registry.example/train@sha256:{0}"\n[family.train.code]\n"steps:one" = "sha256:{0}"\n'
    (project / "images.lock").write_text(lock.format("1" * 64))
    said = tidegate(project, "compile", "pipe.py", "--pinned")
    assert (said.code, "error[code-mismatch]" in said.err) == (1, True)
    assert "registry.example/train@sha256:" in good(tidegate(project, "compile", "pipe.py"))
