"""DVC references: a moving name is resolved once, and what DVC brings is checked, which DVC itself does not do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.pull_data.component import pull_data
from components.resolve_data.component import resolve_data
from pipelines.sentiment.make_data import make
from tests.servers import web
from tidegate.author.testing import run_component
from tidegate.data.dvc import fetch, parse_pin, resolve
from tidegate.errors import Damaged, NotFound, UsageError
from tidegate.store.blobs import digest_path
from tidegate.store.memory import MemoryStore
from tidegate.trigger.watch import NOT_NEW, RAN, UNSETTLED, Order, Watch, Watcher


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dvc")
    make(folder, 60, 20)
    return folder


@pytest.fixture
def repo(made: Path, tmp_path: Path) -> Path:
    """A copy with a remote of its own, to be spoiled."""
    shutil.copytree(made, tmp_path / "data", symlinks=True)
    config = tmp_path / "data" / "repo" / ".dvc" / "config"
    config.write_text(config.read_text().replace(str(made), str(tmp_path / "data")))
    git(tmp_path / "data" / "repo", "commit", "-qam", "Move the remote")
    for tag in ("v1", "v2"):
        git(tmp_path / "data" / "repo", "tag", "-f", tag)
    shutil.rmtree(tmp_path / "data" / "repo" / ".dvc" / "cache", ignore_errors=True)
    return tmp_path / "data" / "repo"


def git(repo: Path, *args: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    return subprocess.run(["git", *who, *args], cwd=repo, check=True, capture_output=True, text=True).stdout.strip()


def test_a_tag_is_resolved_to_a_commit_and_dvcs_md5_without_reading_data(made: Path) -> None:
    repo = made / "repo"
    pin = resolve(f"dvc+{repo}@v1:reviews")
    assert pin.commit == git(repo, "rev-parse", "v1")
    assert pin.md5.endswith(".dir")
    assert parse_pin(str(pin)) == pin
    assert resolve(f"dvc+{repo}@v2:reviews").md5 != pin.md5
    assert resolve(f"dvc+file://{repo}@v1:reviews").md5 == pin.md5


def test_a_branch_elsewhere_that_has_not_moved_is_not_cloned_again(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    branch = git(repo, "rev-parse", "--abbrev-ref", "HEAD")
    reference = f"dvc+file://{repo}@{branch}:reviews"
    pin = resolve(reference)
    monkeypatch.setattr("tidegate.data.dvc._git_folder", None)
    assert resolve(reference) == pin
    monkeypatch.undo()
    git(repo, "commit", "-q", "--allow-empty", "-m", "Touch nothing")
    moved = resolve(reference)
    assert (moved.commit, moved.identity) == (git(repo, "rev-parse", "HEAD"), pin.identity)


def test_a_commit_that_touches_the_data_starts_a_run_and_another_does_not(repo: Path) -> None:
    latest = git(repo, "rev-parse", "HEAD")
    git(repo, "checkout", "-q", "-B", "watched", "HEAD~2")
    ran: list[Order] = []
    watch = Watch("t", "t", "sha256:plan", {"data": f"dvc+{repo}@watched:reviews"})
    watcher = Watcher(watch, MemoryStore(), lambda order: ran.append(order) or "SUCCEEDED")
    assert [watcher.turn().reason for _ in range(2)] == [RAN, NOT_NEW]
    git(repo, "commit", "-q", "--allow-empty", "-m", "Touch nothing")
    assert watcher.turn().reason == NOT_NEW
    git(repo, "reset", "-q", "--hard", latest)
    assert [watcher.turn().reason, len(ran)] == [RAN, 2]
    assert latest in ran[1].parameters["data"]


def dvc(repo: Path, *args: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *args], cwd=repo, check=True, capture_output=True)


def test_a_commit_that_is_pushed_before_its_data_is_waited_for_and_runs_when_the_data_has_come(
    repo: Path, tmp_path: Path
) -> None:
    origin, brought, now = tmp_path / "origin.git", [], [0.0]
    git(repo, "clone", "-q", "--bare", str(repo), str(origin))
    branch = git(repo, "rev-parse", "--abbrev-ref", "HEAD")
    (repo / "reviews" / "train" / "new.parquet").write_bytes(b"not pushed yet")
    dvc(repo, "add", "reviews")
    git(repo, "commit", "-qam", "More")
    git(repo, "push", "-q", str(origin), f"HEAD:{branch}")

    def start(order: Order) -> str:
        brought.append(fetch(parse_pin(order.parameters["data"]), tmp_path / "brought"))
        return "SUCCEEDED"

    watch = Watch("t", "t", "sha256:plan", {"data": f"dvc+file://{origin}@{branch}:reviews"}, poll=60, quiet=30)
    watcher = Watcher(watch, MemoryStore(), start, clock=lambda: now[0])
    assert watcher.turn().reason == UNSETTLED
    now[0] += 30
    turn = watcher.turn()
    assert (turn.reason, "reviews has not been pushed" in turn.detail, brought) == ("data-missing", True, [])
    assert "dvc push" in turn.error.hint
    dvc(repo, "push")
    assert [watcher.turn().reason for _ in range(2)] == [RAN, NOT_NEW]
    assert (tmp_path / "brought" / "train" / "new.parquet").read_bytes() == b"not pushed yet"


def test_a_remote_that_cannot_be_asked_holds_up_nothing(repo: Path) -> None:
    config = repo / ".dvc" / "config"
    config.write_text(config.read_text().replace(str(repo.parent / "remote"), "s3://nobody-knows/x"))
    git(repo, "commit", "-qam", "Another remote")
    assert resolve(f"dvc+{repo}@HEAD:reviews").absent() is None


def test_pinned_bytes_come_and_are_the_same_each_time(made: Path, tmp_path: Path) -> None:
    pin = resolve(f"dvc+{made / 'repo'}@v2:reviews")
    first, second = fetch(pin, tmp_path / "a"), fetch(pin, tmp_path / "b")
    assert first == second == digest_path(made / "repo" / "reviews")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_repository_and_its_data_are_read_over_http_only(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    with web(tmp_path / "served") as url:
        repo = make(tmp_path / "served", 60, 20, url)
        pin = resolve(f"dvc+{url}/repo/.git@v1:reviews")
        assert pin.commit == git(repo, "rev-parse", "v1")
        shutil.rmtree(repo / ".dvc" / "cache")
        assert fetch(pin, tmp_path / "here") == fetch(pin, tmp_path / "again")
    with pytest.raises(NotFound, match="there is no git repository at http"):
        fetch(pin, tmp_path / "late")


def test_the_components_split_pinned_data_and_say_where_it_is_from(made: Path, tmp_path: Path) -> None:
    pin = run_component(resolve_data, tmp_path / "r", reference=f"dvc+{made / 'repo'}@v1:reviews").outputs["Output"]
    result = run_component(pull_data, tmp_path / "p", pin=pin)
    assert result.outputs == {"Output": 60}
    metadata = result.artifacts["test"].metadata
    assert (metadata["rows"], metadata["pin"], metadata["revision"]) == (20, pin, parse_pin(pin).commit)
    assert metadata["digest"].startswith("sha256:")


def test_the_components_take_data_of_any_kind(made: Path, tmp_path: Path) -> None:
    pin = run_component(resolve_data, tmp_path / "r", reference=f"file:{made}/repo/reviews").outputs["Output"]
    result = run_component(pull_data, tmp_path / "p", pin=pin)
    assert result.artifacts["test"].metadata["source"] == f"{made}/repo/reviews"
    assert result.artifacts["test"].metadata["digest"] == digest_path(made / "repo" / "reviews").digest


def test_making_the_data_again_changes_nothing(made: Path) -> None:
    before = git(made / "repo", "rev-parse", "HEAD")
    make(made, 60, 20)
    assert git(made / "repo", "rev-parse", "HEAD") == before
    assert git(made / "repo", "status", "--porcelain") == ""


def test_a_corrupted_remote_object_is_damage_that_dvc_did_not_see(repo: Path, tmp_path: Path) -> None:
    for path in (repo.parent / "remote" / "files" / "md5").rglob("*"):
        if path.is_file() and not path.name.endswith(".dir"):
            path.chmod(0o644)
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises((Damaged, NotFound)):
        fetch(resolve(f"dvc+{repo}@v2:reviews"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_remote_object_is_said_with_what_to_type(repo: Path, tmp_path: Path) -> None:
    shutil.rmtree(repo.parent / "remote" / "files")
    with pytest.raises(NotFound, match="DVC cannot bring") as e:
        fetch(resolve(f"dvc+{repo}@v2:reviews"), tmp_path / "out")
    assert "dvc push" in e.value.hint
    assert "remote/files" in e.value.found, "DVC's own words, not its last ones"


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("dvc+{repo}@v9:reviews", NotFound),
        ("dvc+{repo}@v1:none", NotFound),
        ("dvc+/no/such/repo@v1:reviews", NotFound),
        ("{repo}@v1:reviews", UsageError),
        ("dvc+{repo}:reviews", UsageError),
        ("dvc+{repo}@v1:../../etc", UsageError),
        ("dvc+{repo}@--upload-pack=x:reviews", UsageError),
    ],
)
def test_a_reference_that_names_nothing_is_refused(made: Path, reference: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        resolve(reference.format(repo=made / "repo"))


def test_a_path_that_dvc_does_not_track_is_tracked_by_what_the_error_says_to_type(repo: Path) -> None:
    (repo / "more").write_text("rows")
    with pytest.raises(NotFound) as e:
        resolve(f"dvc+{repo}@HEAD:more")
    assert e.value.hint == "dvc add more, then git add and commit more.dvc"
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "more"], cwd=repo, check=True)
    git(repo, "add", "more.dvc")
    git(repo, "commit", "-qm", "More")
    assert resolve(f"dvc+{repo}@HEAD:more").source == "more"


def test_a_moving_reference_is_no_pin() -> None:
    with pytest.raises(UsageError, match="no pin"):
        parse_pin("dvc+x@main:reviews")
