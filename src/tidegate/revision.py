"""Which code a run was made from: the git commit, and a digest of what differs from it."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Revision:
    """A 40-hex commit (empty outside git), and ``sha256:…`` of the uncommitted difference (empty when clean)."""

    commit: str = ""
    dirty: str = ""


def revision(root: Path) -> Revision:
    """Ask git what the files under ``root`` are a version of; untracked files count by name and size."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return Revision()
    changes = (_git(root, "status", "--porcelain", "--", ".") or b"") + (_git(root, "diff", "HEAD", "--", ".") or b"")
    return Revision(commit.decode().strip(), "sha256:" + hashlib.sha256(changes).hexdigest() if changes else "")


def _git(root: Path, *args: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", str(root), *args], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
