"""docs/tutorials/new-data.md with its runs in a cluster, by Argo and by KFP. Long: the image is several GB."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipelines.sentiment.make_data import run
from tests.cluster import setting
from tests.cluster.bucket import new_bucket
from tests.cluster.ground import Ground
from tests.cluster.kfp import KFP, kfp_env, store_secrets
from tests.cluster.space import new_space
from tests.servers import web
from tidegate.registry.model import Registry

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(3600)]
PAGE = Path(__file__).parents[2] / "docs/tutorials/new-data.md"
SCRIPT = re.search(r'```python\n("""Write the reviews.*?)```', PAGE.read_text(), re.DOTALL)
NAME = "sentiment"


@dataclass(frozen=True)
class Reviews:
    """The tutorial's data repository, where pods can read it.

    Attributes:
        repo: the working tree.
        url: where its ``.git`` is served.
    """

    repo: Path
    url: str

    @property
    def reference(self) -> str:
        return f"dvc+{self.url}/repo/.git@main:reviews"

    def push(self, version: str) -> None:
        assert SCRIPT
        (self.repo / "write_reviews.py").write_text(SCRIPT[1])
        subprocess.run([sys.executable, "write_reviews.py", version], cwd=self.repo, check=True)
        run(self.repo, "dvc", "add", "--quiet", "reviews")
        run(self.repo, "git", "add", "--all")
        run(self.repo, "dvc", "push", "--quiet")
        run(self.repo, "git", "commit", "--quiet", "-m", f"Reviews, version {version}")
        run(self.repo, "git", "update-server-info")


@pytest.fixture
def reviews(tmp_path: Path) -> Iterator[Reviews]:
    folder = tmp_path / "data"
    (folder / "remote").mkdir(parents=True)
    (folder / "repo").mkdir()
    with web(folder, setting.HOST) as url:
        made = Reviews(folder / "repo", url)
        run(made.repo, "git", "init", "--quiet", "--initial-branch=main")
        run(made.repo, "dvc", "init", "--quiet")
        run(made.repo, "dvc", "remote", "add", "--quiet", "--default", "storage", f"{url}/remote")
        run(made.repo, "dvc", "remote", "modify", "--quiet", "--local", "storage", "url", str(folder / "remote"))
        yield made


@contextlib.contextmanager
def place(engine: str, ground: Ground, folder: Path) -> Iterator[tuple[Ground, dict[str, str]]]:
    """A bucket of its own, where the pods of an engine find it, and the environment of who starts runs there."""
    with contextlib.ExitStack() as stack:
        bucket = stack.enter_context(new_bucket(folder / "mc"))
        own = replace(ground, bucket=bucket)
        if engine == "kfp":
            name = f"tidegate-test-{secrets.token_hex(4)}"
            stack.enter_context(store_secrets(name, bucket))
            yield own, kfp_env(name, bucket)
        else:
            space = stack.enter_context(new_space(folder / "space"))
            space.stock(bucket)
            space.kubeconfig(ground.account)
            yield replace(own, space=space), bucket.values("submit")


ENGINES = ["argo", pytest.param("kfp", marks=pytest.mark.skipif(not KFP, reason="needs TIDEGATE_TEST_KFP"))]


@pytest.mark.parametrize("engine", ENGINES)
def test_new_data_becomes_a_new_challenger_by_itself(
    engine: str, with_git: Ground, reviews: Reviews, tmp_path: Path
) -> None:
    policy = with_git.root / "pipelines/sentiment/policy.toml"
    policy.write_text(policy.read_text().replace('alias = "champion"', 'alias = "challenger"'))
    words = ["watch", "pipelines/sentiment/pipeline.py", "--engine", engine, "--no-mirror"]
    words[1] = str(with_git.root / words[1])
    words += ["--data", f"data={reviews.reference}", "-p", "epochs=4"]
    with place(engine, with_git, tmp_path) as (ground, env):
        registry = Registry(ground.bucket.store("registrar"))
        reviews.push("1")
        first = ground.tidegate(*words, "--once", **env)
        assert (first.code, registry.state(NAME).aliases) == (0, {"challenger": 1}), first.said
        registrar = {**env, **ground.bucket.values("registrar")}
        assert ground.tidegate("model", "promote", f"{NAME}@challenger", **registrar).code == 0
        watcher = ground.start(*words, "--poll", "2", **env)
        try:
            reviews.push("2")
            _registered(registry, 2)
        finally:
            time.sleep(10)  # the run ends after its version is there
            os.kill(watcher.pid, signal.SIGTERM)
            out, err = watcher.communicate(timeout=120)
        assert registry.state(NAME).aliases == {"champion": 1, "challenger": 2}, out + err
        again = ground.tidegate(*words, "--once", **env)
        assert (again.code, "not-new" in again.out + again.err) == (0, True), again.said
        assert len(registry.state(NAME).versions) == 2


def _registered(registry: Registry, version: int) -> None:
    end = time.monotonic() + 900
    while version not in registry.state(NAME).versions:
        assert time.monotonic() < end, "nothing was registered"
        time.sleep(2)
