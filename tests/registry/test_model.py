"""Ledger and registry: versions come from passed gates, the chain shows every change, nothing acknowledged is lost."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conftest import LONG
from tests.registry.made import candidate, comparison, evaluation, policy, predictions
from tidegate.errors import Damaged, GateRefused, ModelRefused, NotFound, StoreError, UsageError
from tidegate.registry.evaluation import transition
from tidegate.registry.ledger import Head, Ledger
from tidegate.registry.model import CHECKPOINT_EVERY, Entry, Registry, may_serve, split_reference
from tidegate.registry.policy import Better, Policy
from tidegate.registry.register import Champion, fetch_champion, register
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs, digest_path
from tidegate.store.local import LocalStore
from tidegate.store.memory import MemoryStore
from tidegate.store.runs import RunRecord, Runs


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_a_model_that_passes_is_a_version_with_its_alias_and_evidence(store: Store, tmp_path: Path) -> None:
    said = register(candidate(tmp_path), store)
    assert (said.registered, said.version) == (True, 1)
    state, version = Registry(store).version("m", "champion")
    assert version.digest == digest_path(tmp_path / "candidate-0-0.97" / "model").digest
    evidence = json.loads(Blobs(store).read_bytes(version.evidence))
    assert evidence["pin"] == "dvc+x"
    assert evidence["verdict"]["outcome"] == "pass"
    assert evidence["data_digest"] == version.lineage["data_digest"]
    assert state.head.seq == 0, "version and alias are one record"
    may_serve(state, version)


def test_the_same_bytes_again_are_the_same_version(store: Store, tmp_path: Path) -> None:
    register(candidate(tmp_path), store)
    again = register(candidate(tmp_path), store)
    assert (again.registered, again.version) == (True, 1)
    assert "already" in again.reason
    assert Registry(store).state("m").head.seq == 0


def test_a_step_of_a_run_makes_one_version_however_often_it_is_done(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Runs(store).create(RunRecord("r", "p", "sha256:p"))
    monkeypatch.setenv("TIDEGATE_RUN_ID", "r")
    monkeypatch.setenv("TIDEGATE_STEP", "register")
    first = register(candidate(tmp_path, 1), store)
    again = register(candidate(tmp_path, 2), store)
    assert (again.registered, again.version, again.digest) == (True, 1, first.digest)
    assert "this step of this run" in again.reason
    monkeypatch.setenv("TIDEGATE_STEP", "for-loop-1[1]/register")
    assert register(candidate(tmp_path, 2), store).version == 2
    monkeypatch.setenv("TIDEGATE_RUN_ID", "")
    assert register(candidate(tmp_path, 3), store).version == 3


def test_a_refused_model_registers_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match=r"accuracy 0.9 is not above 0.95"):
        register(candidate(tmp_path, accuracy=0.9), store)
    with pytest.raises(GateRefused, match="accuracy is nan"):
        register(candidate(tmp_path, accuracy="NaN"), store)
    kept = register(candidate(tmp_path, accuracy=0.9, on_refuse="keep"), store)
    assert (kept.registered, kept.version) == (False, 0)
    assert "not above" in kept.reason
    assert Registry(store).models() == []


def test_a_policy_for_another_model_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match="policy is for"):
        register(candidate(tmp_path, name="other"), store)


def test_a_candidate_must_beat_the_champion_of_this_moment(store: Store, tmp_path: Path) -> None:
    better = Policy("m", policy().require, Better("accuracy", 0.95), "keep", "champion")
    register(candidate(tmp_path, 1, policy=better), store)
    champion = Registry(store).version("m")[1].digest
    challenger = candidate(tmp_path, 2, policy=better)
    assert not register(challenger, store).registered, "no comparison with the champion"
    said = evaluation(metrics={"accuracy": 0.99}, comparison=comparison(champion, 60, 10))
    challenger.evaluation.write_text(json.dumps(said))
    assert register(challenger, store).version == 2
    third = candidate(tmp_path, 3, policy=better)
    third.evaluation.write_text(json.dumps(said))
    assert not register(third, store).registered, "a comparison with yesterday's champion"


def test_the_first_version_is_the_champion_and_the_next_challenges_it(store: Store, tmp_path: Path) -> None:
    waits = Policy("m", policy().require, None, "fail", "challenger", "champion")
    for number in (1, 2, 3):
        said = register(candidate(tmp_path, number, policy=waits), store)
        assert f"m@{'champion' if number == 1 else 'challenger'} is version {number} now" in said.reason
    assert Registry(store).state("m").aliases == {"champion": 1, "challenger": 3}


def test_a_version_has_its_profile_and_its_evidence_says_how_predictions_moved(store: Store, tmp_path: Path) -> None:
    register(candidate(tmp_path, 1), store)
    champion = Registry(store).version("m")[1]
    assert "profile" not in champion.lineage, "an evaluation may be without"
    asks, profile = candidate(tmp_path, 2), {"schema": "tidegate/profile/1", "rows": 3}
    compared = {**comparison(champion.digest, 0, 0), "predictions": predictions([400, 600], [500, 500])}
    asks.evaluation.write_text(json.dumps(evaluation(profile=profile, comparison=compared)))
    register(asks, store)
    version, blobs = Registry(store).version("m")[1], Blobs(store)
    assert json.loads(blobs.read_bytes(version.lineage["profile"])) == profile
    evidence = json.loads(blobs.read_bytes(version.evidence))
    assert evidence["profile"] == version.lineage["profile"]
    assert evidence["predictions"] == {"champion": champion.digest, **compared["predictions"]}
    assert transition(evidence["predictions"]).shift == 0.1
    assert fetch_champion("m", tmp_path / "got", store).profile == blobs.read_bytes(version.lineage["profile"])


def test_the_champions_bytes_are_fetched_checked(store: Store, tmp_path: Path) -> None:
    assert fetch_champion("m", tmp_path / "none", store) == Champion()
    assert list((tmp_path / "none").iterdir()) == []
    register(candidate(tmp_path), store)
    found = fetch_champion("m", tmp_path / "got", store)
    assert (found.version, found.digest, found.profile) == (1, digest_path(tmp_path / "got").digest, b"")


def test_an_alias_moves_only_by_a_record(store: Store, tmp_path: Path) -> None:
    for number in (1, 2):
        register(candidate(tmp_path, number), store)
    registry = Registry(store)
    state, moved = registry.promote("m", 1, "champion", actor="me")
    assert (moved, state.aliases, state.head.seq) == (True, {"champion": 1}, 2)
    assert registry.promote("m", "champion", "champion", actor="me")[1] is False
    record = list(registry.ledger.records("m"))[-1]
    assert (record.kind, record.actor, record.body) == ("alias", "me", {"alias": "champion", "version": 1})


@pytest.mark.parametrize("ref", ["champion", "7", "nobody"])
def test_what_is_not_registered_is_said_with_what_is(store: Store, tmp_path: Path, ref: str) -> None:
    registry = Registry(store)
    with pytest.raises(NotFound, match="no version"):
        registry.version("m", ref)
    register(candidate(tmp_path, alias="challenger"), store)
    with pytest.raises(NotFound, match="m has no") as e:
        registry.version("m", ref)
    shown = split_reference(e.value.hint.removeprefix("tidegate model show "))
    assert registry.version(*shown)[1].version == 1, "what it says to type is answered"
    with pytest.raises(UsageError):
        registry.state("../../etc")


@pytest.mark.parametrize(("text", "expected"), [("m", ("m", "champion")), ("m@x", ("m", "x")), ("m:3", ("m", "3"))])
def test_references_are_read(text: str, expected: tuple[str, str]) -> None:
    assert split_reference(text) == expected
    for bad in ("", "@x", "m:0", "m:x", "m@", "m@a:1"):
        with pytest.raises(NotFound):
            split_reference(bad)


def records(store: Store, tmp_path: Path, count: int = 4) -> list[str]:
    for number in range(count):
        register(candidate(tmp_path, number), store)
    return [e.key for e in store.list("ledger/m")]


Tamper = Callable[[Store, list[str]], Any]
TAMPERING: dict[str, Tamper] = {
    "changed": lambda s, k: s.put(k[1], s.get(k[1]).replace(b'"version":2', b'"version":9')),
    "swapped": lambda s, k: [s.put(key, text) for key, text in [(k[1], s.get(k[2])), (k[2], s.get(k[1]))]],
    "replayed": lambda s, k: s.put(k[2], s.get(k[1])),
    "forged prev": lambda s, k: s.put(k[2], json.dumps({**json.loads(s.get(k[2])), "prev": "0" * 64}).encode()),
    "unreadable": lambda s, k: s.put(k[1], b"{"),
    "empty": lambda s, k: s.put(k[1], b""),
    "rewritten": lambda s, k: s.put(k[1], json.dumps(json.loads(s.get(k[1])), indent=1).encode()),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_a_chain_that_was_tampered_with_is_damaged_and_nothing_is_served_from_it(
    store: MemoryStore, tmp_path: Path, how: str
) -> None:
    keys = records(store, tmp_path)
    TAMPERING[how](store, keys)
    with pytest.raises(Damaged):
        Registry(store).state("m")
    with pytest.raises(Damaged):
        register(candidate(tmp_path, 9), store)


def test_every_flipped_bit_of_a_record_that_has_a_successor_is_seen(store: MemoryStore, tmp_path: Path) -> None:
    import random

    rng, keys = random.Random(0), records(store, tmp_path, 2)
    good = store.get(keys[0])
    for _ in range(3000 if LONG else 300):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        store.put(keys[0], bytes(bad))
        with pytest.raises(Damaged):
            Registry(store).verify("m")


@pytest.mark.parametrize("gone", [[0], [1], [2], [0, 1], [1, 2]])
def test_a_deleted_record_with_others_behind_it_is_damage(store: MemoryStore, tmp_path: Path, gone: list[int]) -> None:
    keys = records(store, tmp_path)
    for n in gone:
        store.delete(keys[n])
    with pytest.raises(Damaged, match=f"m/{gone[0]} is missing"):
        Registry(store).verify("m")
    if len(gone) == 1:
        with pytest.raises(Damaged, match=f"m/{gone[0]} is missing"):
            Registry(store).state("m")
        with pytest.raises(Damaged):
            register(candidate(tmp_path, 9), store)


def test_a_record_written_between_two_looks_is_no_damage(store: MemoryStore, tmp_path: Path) -> None:
    keys = records(store, tmp_path, 3)
    late = {k: store.get(k) for k in keys[1:]}
    for key in late:
        store.delete(key)

    class Late(Ledger):
        def _get(self, model: str, seq: int) -> bytes | None:
            found = super()._get(model, seq)
            if found is None and late:
                for key in list(late):
                    self.store.put_new(key, late.pop(key))
            return found

    assert [r.seq for r in Late(store).records("m")] == [0, 1, 2]


def test_a_truncated_tail_is_seen_by_whoever_kept_the_head(store: MemoryStore, tmp_path: Path) -> None:
    keys = records(store, tmp_path)
    anchor = Registry(store).state("m").head
    store.delete(keys[-1])
    assert Registry(store).state("m").head.seq == 2, "nothing inside the chain can show it"
    assert not Ledger(store).holds("m", anchor)


def test_a_version_record_without_a_passing_verdict_on_its_bytes_is_damage(store: MemoryStore, tmp_path: Path) -> None:
    records(store, tmp_path, 1)
    registry = Registry(store)
    state, version = registry.version("m")
    body = {"version": 2, "digest": "sha256:" + "e" * 64, "kind": "file", "size": 1, "evidence": "", "lineage": {}}
    verdict = {"outcome": "pass", "model": version.digest}
    registry.ledger.append("m", state.head, "version", {**body, "verdict": verdict}, actor="x", run="", time="")
    with pytest.raises(Damaged, match="no passing verdict"):
        registry.state("m")
    with pytest.raises(ModelRefused):
        may_serve(state, type(version)(**{**version.__dict__, "digest": "sha256:" + "f" * 64}))


def test_a_checkpoint_shortens_reading_and_a_false_one_is_not_believed(store: MemoryStore, tmp_path: Path) -> None:
    register(candidate(tmp_path), store)
    registry = Registry(store)
    for i in range(CHECKPOINT_EVERY + 5):
        alias = f"a{i % 7}"
        registry.transact("m", lambda _, a=alias: Entry("alias", {"alias": a, "version": 1}), actor="x")  # type: ignore[misc]
    whole = registry.verify("m")
    key = "checkpoints/m.json"
    assert Registry(store).state("m") == whole
    assert store.find(key)
    reads = 0

    class Counting(Ledger):
        def _get(self, model: str, seq: int) -> bytes | None:
            nonlocal reads
            reads += 1
            return super()._get(model, seq)

    cold = Registry(store)
    cold.ledger = Counting(store)
    assert cold.state("m") == whole
    assert reads < 20
    good = store.get(key)
    false = json.loads(good.partition(b"\n")[2])
    store.put(key, checkpoint({**false, "aliases": {"champion": 99}}))
    with pytest.raises(Damaged, match="checkpoint"):
        Registry(store).verify("m")
    flipped = good.replace(b'"champion": 1', b'"champion": 3')
    for bad in (b"", b"{}", flipped, checkpoint({**false, "head": {"seq": 3, "hash": "0" * 64}}), checkpoint([])):
        store.put(key, bad)
        assert Registry(store).state("m") == whole


def checkpoint(state: Any) -> bytes:
    text = json.dumps(state).encode()
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def test_a_reader_who_may_not_write_reads_on(tmp_path: Path) -> None:
    class ReadOnly(MemoryStore):
        closed = False

        def put(self, key: str, data: bytes) -> None:
            if self.closed:
                raise StoreError("read only")
            super().put(key, data)

    store = ReadOnly()
    register(candidate(tmp_path), store)
    registry = Registry(store)
    store.closed = True
    for i in range(CHECKPOINT_EVERY + 1):
        body = {"alias": f"a{i % 7}", "version": 1}
        registry.transact("m", lambda _, b=body: Entry("alias", b), actor="x")  # type: ignore[misc]
    assert registry.state("m") == registry.verify("m")
    assert not store.find("checkpoints/m.json")


BAD_RECORDS: list[tuple[str, Any]] = [
    ("alias", {}),
    ("alias", {"alias": "x"}),
    ("alias", {"alias": "x", "version": 7}),
    ("alias", {"alias": "x", "version": [1]}),
    ("alias", []),
    ("version", {}),
    ("version", {"version": 2}),
    ("surprise", {}),
]


@pytest.mark.parametrize(("kind", "body"), BAD_RECORDS)
def test_a_record_that_breaks_a_rule_of_the_fold_is_damage(
    store: MemoryStore, tmp_path: Path, kind: str, body: Any
) -> None:
    records(store, tmp_path, 1)
    registry = Registry(store)
    registry.ledger.append("m", registry.state("m").head, kind, body, actor="x", run="", time="")
    with pytest.raises(Damaged, match="m/1"):
        registry.state("m")


@pytest.mark.parametrize("alias", ["", "7", "latest", "v1", "a.b", "A", "../x"])
def test_an_alias_is_never_a_number_nor_one_of_mlflows_own(store: MemoryStore, tmp_path: Path, alias: str) -> None:
    register(candidate(tmp_path), store)
    with pytest.raises(UsageError) as e:
        Registry(store).promote("m", 1, alias, actor="me")
    assert e.value.code == "alias-invalid"


def test_of_two_writers_on_one_head_one_wins(store: MemoryStore) -> None:
    ledger = Ledger(store)
    first = ledger.append("m", Head(), "alias", {}, actor="a", run="", time="")
    assert first
    assert ledger.append("m", Head(), "alias", {}, actor="b", run="", time="") is None


def test_concurrent_threads_get_consecutive_versions_and_lose_none(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "s")
    candidates = [candidate(tmp_path, n) for n in range(8)]
    start = threading.Barrier(8)

    def go(c: Any) -> int:
        start.wait()
        return register(c, store).version

    with ThreadPoolExecutor(8) as pool:
        versions = sorted(pool.map(go, candidates))
    assert versions == list(range(1, 9))
    assert len(Registry(store).verify("m").versions) == 8


REGISTRAR = """
import sys, pathlib
from tests.registry.made import candidate
from tidegate.registry.register import register
from tidegate.store.local import LocalStore
folder = pathlib.Path(sys.argv[1])
store = LocalStore(folder / "s")
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[2]), int(sys.argv[3])):
    print(n, register(candidate(folder, n), store).version, flush=True)
"""


def registrar(folder: Path, first: int, last: int = 10**6) -> subprocess.Popen[str]:
    """A process that registers models ``first`` to ``last`` once it is told to, and says each version."""
    command = [sys.executable, "-c", REGISTRAR, str(folder), str(first), str(last)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)


def test_concurrent_processes_get_consecutive_versions_and_lose_none(tmp_path: Path) -> None:
    processes = [registrar(tmp_path, n * 100, n * 100 + 6) for n in range(4)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [line.split() for process in processes for line in process.communicate()[0].splitlines()]
    assert sorted(int(version) for _, version in said) == list(range(1, 25))
    state = Registry(LocalStore(tmp_path / "s")).verify("m")
    for number, version in said:
        folder = tmp_path / f"candidate-{number}-0.97" / "model"
        assert state.versions[int(version)].digest == digest_path(folder).digest


def test_a_killed_registrar_leaves_versions_whole_or_absent(tmp_path: Path) -> None:
    acknowledged: dict[int, int] = {}
    for i in range(200 if LONG else 20):
        victim = registrar(tmp_path, i * 1000)
        assert victim.stdin
        assert victim.stdout
        victim.stdin.write("go\n")
        victim.stdin.flush()
        lines = [victim.stdout.readline() for _ in range(1 + i % 7)]
        victim.send_signal(signal.SIGKILL)
        lines += victim.communicate()[0].splitlines()
        pairs = [line.split() for line in lines if line[:1].isdigit()]
        acknowledged |= {int(p[0]): int(p[1]) for p in pairs if len(p) == 2}
    store = LocalStore(tmp_path / "s")
    state = Registry(store).verify("m")
    for number, version in acknowledged.items():
        assert state.versions[version].digest == digest_path(tmp_path / f"candidate-{number}-0.97" / "model").digest
    for found in state.versions.values():
        Blobs(store).check(found.digest, found.kind)
        Blobs(store).check(found.evidence)
    assert state.aliases == {"champion": len(state.versions)}
    assert len(acknowledged) >= 6


def test_an_unknown_model_is_said_with_the_store_that_was_asked(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as e:
        Registry(LocalStore(tmp_path / "stroe")).version("fraud")
    assert e.value.allowed == f"Models in {tmp_path / 'stroe'}: none."
    assert "--store" in e.value.hint
