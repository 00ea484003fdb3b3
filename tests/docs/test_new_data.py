"""The tutorial on new data, as its reader does it: real DVC, real training, the real gate, two terminals."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.ground import copied
from tests.docs.page import Terminals, blocks, environment
from tidegate.registry.model import Registry
from tidegate.store.local import LocalStore
from tidegate.store.runs import Runs
from tidegate.trigger.history import STARTED, History

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorials" / "new-data.md"
pytestmark = pytest.mark.early


def git(folder: Path, *words: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(["git", *words], cwd=folder, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Terminals]:
    """Whoever reads the page, standing in a clone."""
    clone, env = tmp_path / "tidegate", environment(Path(sys.executable).parent)
    copied(ROOT, clone)
    git(clone, "init", "--quiet")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "As it is", env=env)
    reader = Terminals(clone, env, tmp_path / "second-terminal")
    yield reader
    reader.close()


@pytest.mark.timeout(1800)  # on a machine that does much else
def test_pushed_data_makes_a_challenger_by_itself_as_the_tutorial_says(reader: Terminals, tmp_path: Path) -> None:
    reader.follow(blocks(PAGE), endless="tidegate watch")
    assert reader.interrupt() == 130
    clone, data = tmp_path / "tidegate", tmp_path / "reviews"
    store = LocalStore(clone / ".tidegate")
    state = Registry(store).state("sentiment")
    assert state.aliases == {"champion": 1, "challenger": 2}
    pins = [v.lineage["revision"] for v in state.versions.values()]
    assert pins == [git(data, "rev-parse", "main~2"), git(data, "rev-parse", "main~1")]
    started = [h.run_id for h in History(store, "sentiment").newest() if h.kind == STARTED]
    assert sorted(started) == sorted(v.run for v in state.versions.values()), "the last commit started nothing"
    assert len(list(Runs(store).list(10))) == 2
    assert state.versions[2].lineage["commit"] == git(clone, "rev-parse", "HEAD")
    assert not state.versions[2].lineage.get("dirty")
