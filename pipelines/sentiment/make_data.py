"""Make the git and DVC repository that the sentiment pipeline reads: versions v1 and v2, pushed to a DVC remote.

    python pipelines/sentiment/make_data.py [FOLDER] [--train-rows N] [--test-rows N] [--url URL]

The folder (``.tidegate/sentiment-data`` by default) holds ``repo`` with the tags v1 and v2, and ``remote``. Running it again
changes nothing. With a URL the versions say that their data is at URL/remote, for whoever cannot see this folder: serve the
folder there (``python -m http.server --directory FOLDER``) and read ``URL/repo/.git``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2]))
from pipelines.sentiment.grammar import reviews

TRAIN_SEED, TEST_SEED = 1, 10_000
_IDENTITY = (("NAME", "tidegate"), ("EMAIL", "data@tidegate.invalid"))
_WHO = {f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in _IDENTITY}
_WHEN = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
_QUIET = {"DVC_NO_ANALYTICS": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def main() -> None:
    """Parse the arguments and make the repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(".tidegate/sentiment-data"))
    parser.add_argument("--train-rows", type=int, default=12_000)
    parser.add_argument("--test-rows", type=int, default=2_000)
    parser.add_argument("--url", default="", help="where the folder is served")
    args = parser.parse_args()
    print(make(args.folder, args.train_rows, args.test_rows, args.url))


def make(folder: Path, train_rows: int, test_rows: int, url: str = "") -> Path:
    """Make the repository unless it is there; return its folder."""
    repo = folder / "repo"
    if (repo / ".git" / "refs" / "tags" / "v2").exists():
        return repo
    repo.mkdir(parents=True)
    (folder / "remote").mkdir()
    run(repo, "git", "init", "--quiet", "--initial-branch=main")
    run(repo, "dvc", "init", "--quiet")
    remote = str((folder / "remote").resolve())
    run(repo, "dvc", "remote", "add", "--quiet", "--default", "storage", f"{url}/remote" if url else remote)
    if url:
        run(repo, "dvc", "remote", "modify", "--quiet", "--local", "storage", "url", remote)
    run(repo, "dvc", "config", "--quiet", "core.analytics", "false")
    for version in ("v1", "v2"):
        write(repo / "reviews" / "train", version, train_rows, TRAIN_SEED, None)
        write(repo / "reviews" / "test", "v2", test_rows, TEST_SEED, 0.0)
        run(repo, "dvc", "add", "--quiet", "reviews")
        run(repo, "git", "add", "--all")
        run(repo, "git", "commit", "--quiet", "-m", f"Reviews {version}")
        run(repo, "dvc", "push", "--quiet")
        run(repo, "git", "tag", version)
    run(repo, "git", "update-server-info")
    return repo


def write(folder: Path, version: str, rows: int, seed: int, noise: float | None) -> None:
    """Write one part of one version as Parquet."""
    made = reviews(version, rows, seed) if noise is None else reviews(version, rows, seed, noise)
    folder.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame({"text": [r.text for r in made], "label": [r.label for r in made]})
    frame.write_parquet(folder / "part-0.parquet", statistics=False)


def run(repo: Path, *command: str) -> None:
    """Run git or dvc in the repository, with a fixed identity and nobody's configuration."""
    args = [sys.executable, "-m", "dvc", *command[1:]] if command[0] == "dvc" else list(command)
    subprocess.run(args, cwd=repo, check=True, env={**os.environ, **_WHO, **_WHEN, **_QUIET})


if __name__ == "__main__":
    main()
