import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.images import project as projects
from tests.images.server import FakeRegistry, serving
from tidegate.images import registry as registries

# a registry that does not answer is asked again at once
IMPATIENT = """
from tidegate.cli import main
from tidegate.images import registry
registry._AGAIN = (0.0, 0.0, 0.0)
main()
"""
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with serving(FakeRegistry()) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(registries, "_AGAIN", (0.0, 0.0, 0.0))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    return projects.make(tmp_path / "project", tmp_path / "wheels")


@pytest.fixture
def cli(root: Path) -> Cli:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", IMPATIENT, "images", *args]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    return run


def log_in(folder: Path, host: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": "dXNlcjpzZWNyZXQ="}}}))
