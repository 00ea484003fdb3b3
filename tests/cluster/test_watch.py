"""Watchers in a real cluster, by the manifests: data that comes in pieces has one run, after it is whole."""

import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.cluster import setting
from tests.cluster.bucket import Bucket, new_bucket
from tests.cluster.ground import PLAIN
from tests.cluster.image import build_families
from tests.cluster.kfp import KFP, NAMESPACE, kfp_env, store_secrets
from tests.cluster.shell import kubectl
from tests.cluster.space import Space, new_space
from tests.engines.argo.rendered import MANIFESTS
from tidegate.author.images import read_lock
from tidegate.data import ref
from tidegate.engines.kfp.client import KfpBackend, open_backend
from tidegate.engines.kfp.settings import KfpSettings
from tidegate.store.runs import Runs
from tidegate.trigger.history import History

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
POLL, QUIET = 2, 6
PIPELINE = """
from kfp import dsl

@dsl.container_component
def told(data: str, out: dsl.OutputPath(str)):
    return dsl.ContainerSpec(image="IMAGE", command=["sh", "-c", 'mkdir -p "${1%/*}"; printf %s "$0" > "$1"'], args=[data, out])

@dsl.pipeline(name="counted")
def counted(data: str) -> str:
    return told(data=data).outputs["out"]
"""


@pytest.fixture
def own_bucket(tmp_path: Path) -> Iterator[Bucket]:
    if not setting.MINIO:
        pytest.skip("needs an object store: TIDEGATE_TEST_MINIO=…")
    with new_bucket(tmp_path / "mc") as made:
        yield made


@pytest.fixture
def own_space(own_bucket: Bucket, tmp_path: Path) -> Iterator[Space]:
    with new_space(tmp_path / "space") as made:
        made.stock(own_bucket)
        made.make_secret("tidegate-store-submit", own_bucket.values("submit", inside=True))
        yield made


@pytest.fixture
def watchers(own_space: Space, own_bucket: Bucket, root: Path, tmp_path: Path) -> str:
    """Two watchers, as manifests/watch has them; the Deployment's name."""
    quick = f"--no-mirror, --poll, '{POLL}', --quiet, '{QUIET}', --lease, '20']"
    applied("deployment.yaml", {"--no-mirror]": quick}, own_space, own_bucket, root, tmp_path / "watch")
    kubectl("--namespace", own_space.name, "rollout", "status", "deployment/tidegate-watch", "--timeout=180s")
    return "deployment/tidegate-watch"


@pytest.fixture
def looks(own_space: Space, own_bucket: Bucket, root: Path, tmp_path: Path) -> None:
    """A look every minute, as manifests/watch has it for Argo."""
    quick = {"*/5 * * * *": "* * * * *", "--once]": f"--once, --quiet, '{QUIET}']"}
    applied("cron-workflow.yaml", quick, own_space, own_bucket, root, tmp_path / "watch")


def applied(manifest: str, changes: dict[str, str], space: Space, bucket: Bucket, root: Path, folder: Path) -> None:
    """Do what kustomization.yaml tells its readers to do, with one of the manifests that it offers."""
    build_families(root, setting.BASE, "watch")
    families = read_lock(root).families
    shutil.copytree(MANIFESTS.parent / "watch", folder)
    launcher, watch = families["base"].image, families["watch"].image
    compiled(launcher, folder)
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    name, _, digest = watch.partition("@")
    said |= {"namespace": space.name, "images": [{"name": "tidegate-watch", "newName": name, "digest": digest}]}
    said["resources"] = [manifest]
    said["configMapGenerator"][0]["literals"] = [f"DATA=data={bucket.uri}/given/rows"]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(said))
    text = re.sub(r"registry\.example/team/base@sha256:0+", launcher, (folder / manifest).read_text())
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / manifest).write_text(text)
    kubectl("apply", "-k", str(folder))


def compiled(image: str, folder: Path) -> None:
    """Write the pipeline, in an image that has a shell, as pipeline.yaml."""
    (folder / "pipeline.py").write_text(PIPELINE.replace("IMAGE", image))
    command = [sys.executable, "-m", "tidegate", "compile", "pipeline.py", "--to", "ir", "-o", "pipeline.yaml"]
    subprocess.run(command, cwd=folder, check=True, env={"PYTHONPATH": ":".join(sys.path)})


def put(own_bucket: Bucket, number: int) -> str:
    """Put one more piece; return the pin of the data as it is then."""
    own_bucket.give(f"given/rows/part-{number}", f"row {number}\n")
    return str(ref.resolve(f"{own_bucket.uri}/given/rows"))


def started(own_space: Space) -> list[str]:
    return own_space.kubectl("get", "workflows", "-o", "name").split()


def test_data_that_comes_in_pieces_has_one_run_after_it_is_whole_and_new_data_the_next_though_a_watcher_dies(
    watchers: str, own_space: Space, own_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert watchers
    for name, value in own_bucket.values("submit").items():
        monkeypatch.setenv(name, value)
    for number in range(5):
        put(own_bucket, number)
        assert started(own_space) == []
        time.sleep(QUIET * 2 / 3)  # the pieces come for 20 s, each before the data is quiet
    whole = put(own_bucket, 5)
    assert _ended(own_space, own_bucket, 1) == whole
    own_space.kubectl("delete", "pod", "-l", "app.kubernetes.io/name=tidegate-watch", "--wait=false")
    more = put(own_bucket, 6)
    assert _ended(own_space, own_bucket, 2) == more
    assert len(started(own_space)) == 2
    kinds = [h.kind for h in History(own_bucket.store("submit"), "counted").newest()]
    assert (kinds.count("started"), kinds.count("ended")) == (2, 2)


def _ended(own_space: Space, own_bucket: Bucket, count: int, *, by: str = "argo") -> str:
    """The data of the newest run, as soon as so many have ended; none may fail."""
    runs, end = Runs(own_bucket.store("steps")), time.monotonic() + 240
    while time.monotonic() < end:
        found = [(r, o) for r in runs.list(10) if (o := runs.outcome(r.id))]
        assert {o.state for _, o in found} <= {"SUCCEEDED"}
        if len(found) >= count:
            record, outcome = found[0]
            said = (
                {} if by == "kfp" else {"Output": record.parameters["data"]}
            )  # KFP's API has no outputs of others' steps
            assert outcome.outputs["parameters"] == said
            return str(record.parameters["data"])
        time.sleep(1)
    raise AssertionError(own_space.kubectl("logs", "-l", "app.kubernetes.io/name=tidegate-watch", "--tail=50"))


@pytest.mark.long
def test_a_cronworkflow_whose_step_looks_starts_what_is_new_and_ends_where_nothing_is(
    looks: None, own_space: Space, own_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in own_bucket.values("submit").items():
        monkeypatch.setenv(name, value)
    first = put(own_bucket, 0)
    assert _ended(own_space, own_bucket, 1) == first
    _looked(partial(_phases, own_space), "Succeeded", 2)
    assert len(list(Runs(own_bucket.store("steps")).list(10))) == 1
    second = put(own_bucket, 1)
    assert _ended(own_space, own_bucket, 2) == second


@pytest.fixture
def recurring(own_bucket: Bucket, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpBackend]:
    """A look every minute, as manifests/watch has it for KFP; what is marked in it is set."""
    build_families(root, setting.BASE, "watch")
    families, name = read_lock(root).families, f"tidegate-test-{secrets.token_hex(4)}"
    compiled(families["base"].image, tmp_path)
    text = (MANIFESTS.parent / "watch/recurring.py").read_text()
    text = re.sub(r"^IMAGE = .*", f'IMAGE = "{families["watch"].image}"', text, flags=re.MULTILINE)
    text = re.sub(r"^EXPERIMENT = .*", f'EXPERIMENT = "{name}"', text, flags=re.MULTILINE)
    text = text.replace("tidegate-store-submit", f"{name}-submit").replace(
        '"tidegate-watch", "/watch"', f'"{name}", "/watch"'
    )
    own = {k: v for k, v in kfp_env(name, own_bucket).items() if "SECRET" in k and "KFP" in k}
    text = text.replace('"--once", "--data"]', f'"--once", "--quiet", "{QUIET}", "--data"]').replace(
        '"HOME": "/tmp"', f'"HOME": "/tmp", **{own}'
    )
    (tmp_path / "recurring.py").write_text(text)
    submit = [f"--from-literal={k}={v}" for k, v in own_bucket.values("submit", inside=True).items()]
    kubectl("-n", NAMESPACE, "create", "secret", "generic", f"{name}-submit", *submit)
    kubectl("-n", NAMESPACE, "create", "configmap", name, f"--from-file={tmp_path / 'pipeline.yaml'}")
    monkeypatch.chdir(tmp_path)
    env = {**PLAIN, **kfp_env(name, own_bucket), "PYTHONPATH": ":".join(sys.path)}
    schedule, data = [sys.executable, "-m", "tidegate", "schedule"], f"data=data={own_bucket.uri}/given/rows"
    with store_secrets(name, own_bucket):
        try:
            words = ["apply", "recurring.py", "--name", name, "--cron", "* * * * *", "-p", data]
            subprocess.run([*schedule, *words, "--engine", "kfp"], env=env, check=True)
            yield open_backend(KfpSettings(host=KFP, experiment=name))
        finally:
            end = time.monotonic() + 120  # while a look goes on it is refused
            while subprocess.run([*schedule, "rm", name, "--engine", "kfp"], env=env).returncode:
                assert time.monotonic() < end
                time.sleep(5)
            kubectl("-n", NAMESPACE, "delete", "secret", f"{name}-submit")
            kubectl("-n", NAMESPACE, "delete", "configmap", name)


@pytest.mark.long
@pytest.mark.skipif(not KFP, reason="needs Kubeflow Pipelines: TIDEGATE_TEST_KFP=http://…")
def test_a_recurring_run_whose_step_looks_starts_what_is_new_and_ends_where_nothing_is(
    recurring: KfpBackend, own_space: Space, own_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in own_bucket.values("submit").items():
        monkeypatch.setenv(name, value)
    first = put(own_bucket, 0)
    assert _ended(own_space, own_bucket, 1, by="kfp") == first
    before = _recurred(recurring).count("SUCCEEDED")
    _looked(partial(_recurred, recurring), "SUCCEEDED", before + 1)
    assert len(list(Runs(own_bucket.store("steps")).list(10))) == 1
    second = put(own_bucket, 1)
    assert _ended(own_space, own_bucket, 2, by="kfp") == second


def _recurred(backend: KfpBackend) -> list[str]:
    """The states of the runs that looked."""
    experiment = backend.experiment(backend._settings.experiment)
    found = backend._client.list_runs(experiment_id=experiment, page_size=100).runs or ()
    return [r.state for r in found if r.recurring_run_id]


def _phases(own_space: Space) -> list[str]:
    """The phases of the Workflows that looked; none may fail."""
    labels = "workflows.argoproj.io/cron-workflow=tidegate-watch"
    said = "jsonpath={range .items[*]}{.status.phase}{'\\n'}{end}"
    phases = own_space.kubectl("get", "workflows", "-l", labels, "-o", said).split()
    assert not {"Failed", "Error"} & set(phases)
    return phases


def _looked(looks: Callable[[], list[str]], ended: str, count: int) -> None:
    """Wait until so many looks have ended well."""
    end = time.monotonic() + 240
    while looks().count(ended) < count:
        assert time.monotonic() < end, looks()
        time.sleep(1)
