"""What of a DVC dataset is neither in its remote nor in a cache here: ``python -m tidegate.data.pushed REPO COMMIT PATH``.

A process of its own, since DVC is heavy and keeps threads. It prints the files as a list of JSON, having asked for each
of them and read none; it fails where that cannot be told (DVC is not installed, the remote does not let us).
"""

from __future__ import annotations

import json
import sys
from typing import Any


def unpushed(repo: str, commit: str, path: str) -> list[str]:
    """Return the files at a path that cannot be brought; a folder whose list cannot be is one of them."""
    from dvc.repo import Repo

    with Repo.open(url=repo, rev=commit, subrepos=True, uninitialized=True) as there:
        index = there.index.data["repo"]
        entries = _entries(index, tuple(path.split("/")))
        found = index.storage_map.bulk_remote_exists(entries, refresh=True)
        lost = [e for e in entries if not found[e]]
        kept = index.storage_map.bulk_cache_exists(lost)
        return sorted("/".join(e.key) for e in lost if not kept.get(e))


def _entries(index: Any, key: tuple[str, ...]) -> list[Any]:
    """What a path holds; of a folder whose list is not there only the folder itself, which its storage is asked for."""
    index.onerror = lambda *_: None
    return [entry for _, entry in index.iteritems(prefix=key) if entry.hash_info]


if __name__ == "__main__":
    print(json.dumps(unpushed(*sys.argv[1:])))
