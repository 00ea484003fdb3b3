"""What the documentation shows is run; what it links to is there."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("components/*/README.md"),
        *ROOT.glob("pipelines/*/README.md"),
    ]
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def run(folder: Path, *args: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tidegate", "run", "pipeline.py", "--json", "--no-mirror", *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def project(folder: Path, page: str, module: str) -> Path:
    steps, pipeline = blocks(ROOT / page, "python")
    (folder / "pyproject.toml").touch()
    (folder / "steps").mkdir()
    (folder / "steps" / module).write_text(steps)
    (folder / "pipeline.py").write_text(pipeline)
    return folder


def test_the_readmes_component_and_pipeline_run_and_are_cached(tmp_path: Path) -> None:
    folder = project(tmp_path, "README.md", "grade.py")
    assert run(folder, "-p", "n=14")["outputs"] == {"Output": 3.0}
    assert all(s["cached"] for s in run(folder, "-p", "n=14")["steps"])


def test_the_first_tutorial_runs_as_it_says(tmp_path: Path) -> None:
    folder = project(tmp_path, "docs/tutorials/first-pipeline.md", "words.py")
    body = run(folder, "-p", "text=a gate opens by itself")
    assert body["outputs"] == {"Output": "itself"}
    assert "SKIPPED" in {s["state"] for s in body["steps"]}
    again = run(folder, "-p", "text=a gate opens by itself")
    assert all(s["cached"] for s in again["steps"] if s["state"] != "SKIPPED")


def test_the_flow_on_the_page_of_metaflow_runs_and_is_cached(tmp_path: Path) -> None:
    flow, pipeline, _ = blocks(ROOT / "docs/metaflow.md", "python")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "flow.py").write_text(flow)
    (tmp_path / "pipeline.py").write_text(pipeline)
    assert run(tmp_path)["outputs"] == {"Output": 120.0}
    assert all(s["cached"] for s in run(tmp_path)["steps"])


def test_the_policy_on_its_page_is_a_policy(tmp_path: Path) -> None:
    from tidegate.registry.policy import read

    (tmp_path / "policy.toml").write_text(blocks(ROOT / "docs/policy.md", "toml")[0])
    assert read(tmp_path / "policy.toml").champion


def test_the_table_of_rollouts_on_the_page_of_policies_has_every_key_with_its_default() -> None:
    from tidegate.registry.rollout_policy import KEYS, RolloutPolicy, read

    table = tomllib.loads(blocks(ROOT / "docs/policy.md", "toml")[1])["rollout"]
    assert read(table, "policy.md") == RolloutPolicy()
    assert table.keys() == KEYS


def test_the_settings_on_the_page_of_the_local_engine_are_settings(tmp_path: Path) -> None:
    from tidegate.engines.local.host import read_host
    from tidegate.project import read_project

    (tmp_path / "pyproject.toml").write_text(blocks(ROOT / "docs/local.md", "toml")[0])
    host = read_host(read_project(tmp_path))
    assert host.prefix("alpine:3.20") == ()
    assert host.prefix("ghcr.io/me/it:1") == ("nix", "develop", "-c")
    assert host.secrets == {"db": tmp_path / "secrets/db.env"}
    assert host.volume("data-claim") == tmp_path / "data"


def test_the_settings_on_the_page_of_argo_are_settings(tmp_path: Path) -> None:
    from dataclasses import replace

    from tidegate.engines.argo.settings import ArgoSettings, read_settings
    from tidegate.project import read_project

    (tmp_path / "pyproject.toml").write_text(blocks(ROOT / "docs/argo.md", "toml")[0])
    said = read_settings(read_project(tmp_path))
    assert said == replace(ArgoSettings(), context="staging", image="registry.example/tidegate@sha256:0000")


def test_the_settings_and_the_lock_on_the_page_of_images_are_read(tmp_path: Path) -> None:
    from tidegate.author.images import read_lock
    from tidegate.images.family import read
    from tidegate.images.reference import parse
    from tidegate.project import read_project

    settings, lock = blocks(ROOT / "docs/images.md", "toml")
    (tmp_path / "pyproject.toml").write_text(settings)
    (tmp_path / "images.lock").write_text(lock)
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "images" / "train" / "requirements.txt").touch()
    family = read(read_project(tmp_path), "train")
    assert parse(family.base).digest
    assert family.env == {"OMP_NUM_THREADS": "1"}
    assert read_lock(tmp_path).families["train"].code


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_file_that_where_names_is_there() -> None:
    for name in re.findall(r"`(src/[^`]+)`", (ROOT / "docs" / "where.md").read_text()):
        assert (ROOT / name).exists(), name


def test_every_test_that_a_promise_names_is_there() -> None:
    named = re.findall(r"`(tests|components|pipelines)(/[^`:]+)::(\w+)`", (ROOT / "docs" / "PROMISES.md").read_text())
    assert len(named) > 20
    for top, path, test in named:
        assert f"def {test}(" in (ROOT / f"{top}{path}").read_text(), test


def test_a_promise_says_which_of_its_tests_need_a_cluster_or_the_long_setting() -> None:
    page = (ROOT / "docs" / "PROMISES.md").read_text()
    named = re.findall(r"`((?:tests|components|pipelines)/[^`:]+)::(\w+)`((?: \((?:cluster|long)\))*)", page)
    assert {said for *_, said in named} > {" (cluster)", " (long)"}
    for path, test, said in named:
        assert set(re.findall(r"\w+", said)) == marks(path, test) & {"cluster", "long"}, test


def marks(path: str, test: str) -> set[str]:
    """The marks of a test and of its module."""
    tree = ast.parse((ROOT / path).read_text())
    marked = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "pytestmark"]
    marked += [d for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == test for d in n.decorator_list]
    each = [e for m in marked for e in (m.elts if isinstance(m, ast.List) else [m])]
    return {ast.unparse(e).removeprefix("pytest.mark.").partition("(")[0] for e in each}
