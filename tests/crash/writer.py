"""A writer that a test may kill: it says on its standard output what the store acknowledged, one line of JSON each."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from tidegate.store.blobs import Blobs
from tidegate.store.cache import Cache
from tidegate.store.local import LocalStore
from tidegate.store.runs import OutcomeRecord, RunRecord, Runs, StepRecord

KEYS = [f"{n:064x}" for n in range(3)]


def say(what: str, *values: object) -> None:
    print(json.dumps([what, *values]), flush=True)


def content(n: int) -> bytes:
    return b"%d " % n * 5000


def once(store: LocalStore, me: str, rng: random.Random) -> None:
    """Commit a key that all want, add bytes that all add, cache under a key of all, and keep a run of one's own."""
    wanted = f"wanted/{rng.randrange(100)}"
    if store.put_new(wanted, me.encode()):
        say("won", f"{wanted}={me}")
    digest = Blobs(store).add_bytes(content(rng.randrange(5)))
    say("blob", digest)
    key = rng.choice(KEYS)
    Cache(store).put(key, {"artifacts": [{"digest": digest, "kind": "file"}]}, run=me, step="s")
    say("cached", key)
    Runs(store).create(RunRecord(me, "p", "d"))
    say("run", me)
    Runs(store).step(me, StepRecord("train", "SUCCEEDED"))
    say("step", me)
    Runs(store).finish(me, OutcomeRecord("SUCCEEDED"))
    say("outcome", me)


if __name__ == "__main__":
    folder, name, iterations = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    opened = LocalStore(folder)
    for i in range(iterations):
        once(opened, f"{name}.{i}", random.Random(f"{name} {i}"))
    say("done", name)
