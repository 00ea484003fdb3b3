"""Datasets versioned with git and DVC: ``dvc+<git repository>@<revision>:<path>``.

A moving revision (branch, tag) is resolved once to a commit and to the md5 that DVC recorded there: the *pin*
``dvc+<repository>@<40 hex>:<path>#md5=<md5>``. Resolving reads no data and needs git only. DVC itself does not check hashes
when it reads, so what it brings is checked against the pin here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import yaml

from tidegate.errors import Damaged, NotFound, Trouble, UsageError
from tidegate.project import find_root, user_name
from tidegate.store.blobs import Content, digest_path

_REFERENCE = re.compile(r"dvc\+(?P<repo>.+)@(?P<rev>[^@:]+):(?P<path>[^#]+?)(?:#md5=(?P<md5>[0-9a-f]{32}(?:\.dir)?))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Pin:
    """Bytes that never change: a repository, a commit, a path in it, and DVC's md5 of what is there."""

    repo: str
    commit: str
    path: str
    md5: str

    def __str__(self) -> str:
        """The pin as text, which ``parse_pin`` reads back."""
        return f"dvc+{self.repo}@{self.commit}:{self.path}#md5={self.md5}"

    @property
    def identity(self) -> str:
        """DVC's hash: a commit that does not touch the path changes nothing."""
        return f"md5:{self.md5}"

    @property
    def source(self) -> str:
        """The path in its repository."""
        return self.path

    @property
    def revision(self) -> str:
        """The commit."""
        return self.commit

    @property
    def complete(self) -> bool:
        """Always: a commit is whole."""
        return True

    def absent(self) -> NotFound | None:
        """See ``tidegate.data.base.Pin``: a commit may be pushed before its bytes are."""
        return absent(self)

    def fetch(self, target: Path) -> Content:
        """See ``tidegate.data.base.Pin``."""
        return fetch(self, target)


def check(reference: str) -> None:
    """Refuse text that is no DVC reference, without looking at what it names; raise ``UsageError``."""
    found = _match(reference)
    path = str(PurePosixPath(found["path"]))
    if path.startswith(("/", "..")) or "/../" in path or found["rev"].startswith("-"):
        raise UsageError(f"{reference!r} leaves its repository", allowed="A path inside it.", code="pin-invalid")


def parse_pin(text: str) -> Pin:
    """Read a pin.

    Raises:
        UsageError: it is none, or still a moving reference.
    """
    found = _match(text)
    if not _COMMIT.fullmatch(found["rev"]) or not found["md5"]:
        raise UsageError(f"{text!r} is no pin", allowed="dvc+REPO@COMMIT:PATH#md5=MD5.", code="pin-invalid")
    return Pin(found["repo"], found["rev"], found["path"], found["md5"])


def resolve(reference: str) -> Pin:
    """Resolve a reference to a pin; relative repositories start at the project's root.

    Raises:
        UsageError: it is no DVC reference.
        NotFound: no such repository, revision, or path tracked by DVC there.
    """
    check(reference)
    found = _match(reference)
    path = str(PurePosixPath(found["path"]))
    if commit := _advertised(found["repo"], found["rev"]):
        return _pin(found["repo"], commit, path)
    with _git_folder(found["repo"]) as folder:
        said = _git(folder, "rev-parse", "--verify", "--quiet", f"{found['rev']}^{{commit}}")
        if said is None:
            raise NotFound(f"{found['repo']} has no revision {found['rev']!r}", allowed="A commit, tag or branch.")
        return _pin_in(folder, found["repo"], said.strip(), path)


def _advertised(repo: str, revision: str) -> str:
    """The commit of a branch or tag of a repository elsewhere, which it tells without being cloned; else empty."""
    local = _local(repo)
    if Path(local).exists():
        return ""
    branch_or_tag = (f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}", f"refs/heads/{revision}")
    names = ("HEAD",) if revision == "HEAD" else branch_or_tag
    lines = (_git(".", "ls-remote", "--", local, *names) or "").splitlines()
    told = {name: commit for commit, _, name in (line.partition("\t") for line in lines)}
    return next((told[n] for n in names if n in told), "")


@lru_cache(maxsize=256)
def _pin(repo: str, commit: str, path: str) -> Pin:
    with _git_folder(repo) as folder:
        return _pin_in(folder, repo, commit, path)


def _pin_in(folder: str, repo: str, commit: str, path: str) -> Pin:
    tracked = _git(folder, "show", f"{commit}:{path}.dvc")
    if tracked is None:
        raise NotFound(
            f"DVC tracks no {path!r} in {repo} at {commit[:10]}",
            allowed="A path with a .dvc file.",
            hint=f"dvc add {path}, then git add and commit {path}.dvc",
        )
    return Pin(repo, commit, path, _md5(tracked, f"{path} at {commit[:10]}"))


def fetch(pin: Pin, target: Path) -> Content:
    """Bring the pinned bytes to ``target``, checked; return their digest.

    Raises:
        NotFound: the DVC remote does not have them.
        Damaged: they are not what the pin says.
        Trouble: DVC is not installed, or fails otherwise.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tidegate-dvc-", dir=target.parent) as private:
        got = Path(private, "data")
        with _git_folder(pin.repo) as repo:  # git's own transports and credentials, of which DVC knows some
            _dvc_get(pin, repo, got)
        found = f"{_directory_md5(got)}.dir" if got.is_dir() else _file_md5(got)
        if found != pin.md5:
            raise Damaged(
                f"{pin.path} at {pin.commit[:10]} has the md5 {found}, the pin says {pin.md5}", code="data-damaged"
            )
        got.rename(target)
    return digest_path(target)


def absent(pin: Pin) -> NotFound | None:
    """Why pinned bytes cannot all be brought yet; None where they can, or where DVC or its remote does not say."""
    with _git_folder(pin.repo) as repo, tempfile.TemporaryDirectory(prefix="tidegate-dvc-") as private:
        done = _python(["tidegate.data.pushed", repo, pin.commit, pin.path], Path(private, "site"))
    missing = json.loads(done.stdout) if done.returncode == 0 else []
    if not missing:
        return None
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return _unpushed(pin, f"{', '.join(missing[:3])}{more} has not been pushed to its remote")


def _match(reference: str) -> re.Match[str]:
    found = _REFERENCE.fullmatch(reference)
    if not found:
        raise UsageError(
            f"{reference!r} is no DVC reference", allowed="dvc+REPO@REVISION:PATH.", code="reference-invalid"
        )
    return found


def _local(repo: str) -> str:
    if "://" in repo or re.match(r"[^/]+@[^/]+:", repo):
        return repo
    return str((find_root(Path.cwd()) / repo).resolve())


@contextmanager
def _git_folder(repo: str) -> Iterator[str]:
    """A folder that git can read the repository's history in: itself, or a bare clone that is removed again."""
    local = _local(repo)
    if Path(local).exists():
        yield local
        return
    private = tempfile.mkdtemp(prefix="tidegate-git-")
    try:
        if _git(private, "clone", "--quiet", "--bare", "--", local, private) is None:
            raise NotFound(f"there is no git repository at {repo}", allowed="A folder or a URL that git can clone.")
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _git(folder: str, *args: str) -> str | None:
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", folder, *args], capture_output=True, text=True, env=env, check=False
        )
    except FileNotFoundError:
        raise Trouble("git is not installed", hint="Install git.", code="git-missing") from None
    return done.stdout if done.returncode == 0 else None


def _md5(dvc_file: str, reference: str) -> str:
    try:
        md5 = yaml.safe_load(dvc_file)["outs"][0]["md5"]
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as e:
        raise UsageError(f"the .dvc file of {reference} cannot be read: {e}", code="reference-invalid") from e
    return str(md5)


def _dvc_get(pin: Pin, repo: str, target: Path) -> None:
    get = ["dvc", "get", "--rev", pin.commit, "-o", str(target), "--", repo, pin.path]
    done = _python(get, target.with_name("site"))
    if done.returncode == 0:
        return
    lines = done.stderr.strip().splitlines()
    said = (
        [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:] or ["no message"]
    )
    if "No module named dvc" in done.stderr:
        raise Trouble("DVC is not installed", hint="pip install 'tidegate[dvc]'", code="dvc-missing")
    raise _unpushed(pin, said[0])


def _python(command: list[str], site: Path) -> subprocess.CompletedProcess[str]:
    """Run a module of DVC, or one that loads it, with a place for what it would keep for the whole machine."""
    own = {
        "DVC_NO_ANALYTICS": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LOGNAME": user_name(),  # for the history of its clone: a user of a container need not have a name
        "DVC_SITE_CACHE_DIR": str(site),  # not the machine's, which need not be writable
    }
    whole = [sys.executable, "-m", *command]
    return subprocess.run(whole, capture_output=True, text=True, env={**os.environ, **own}, check=False)


def _unpushed(pin: Pin, why: str) -> NotFound:
    return NotFound(
        f"DVC cannot bring {pin.path} at {pin.commit[:10]}: {why[:300]}",
        allowed="A revision whose data was pushed to the repository's DVC remote.",
        hint="dvc push --all-tags in that repository",
        code="data-missing",
    )


def _file_md5(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _directory_md5(folder: Path) -> str:
    """DVC's hash of a directory: md5 of the JSON list of its files, sorted by relative path."""
    files = sorted((p.relative_to(folder).parts, p) for p in folder.rglob("*") if p.is_file())
    entries = [{"md5": _file_md5(p), "relpath": "/".join(parts)} for parts, p in files]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
