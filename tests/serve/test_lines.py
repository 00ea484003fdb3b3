"""The log and the prediction log: what is in them, and that neither can make a request wait or fail."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.serve import asked
from tests.serve.made import registered
from tests.serve.test_protocol import ROW, TENSORS
from tests.servers import wait_until
from tidegate.errors import ConfigError
from tidegate.serve import keep, lines
from tidegate.serve.keep import Keeper, Scored, check_folder
from tidegate.serve.lines import Lines, Sample
from tidegate.serve.load import Loaded, load_version
from tidegate.serve.setup import Logging
from tidegate.store.memory import MemoryStore


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    store = MemoryStore()
    registered(store, tmp_path_factory.mktemp("lines"))
    return load_version(store, "m@champion")


def logged(loaded: Loaded, requests: list[tuple[bytes, bytes]], logging: Logging, file: Path) -> list[dict[str, Any]]:
    with file.open("wb") as f:
        log = Lines(f.fileno())
        asyncio.run(asked.ask_all(asked.service(loaded, log, logging=logging), requests))
        log.close()
    return [json.loads(line) for line in file.read_text().splitlines()]


def infer(**fields: str) -> tuple[bytes, bytes]:
    return asked.request("POST", "/v2/models/m/infer", json.dumps({"inputs": TENSORS}).encode(), **fields)


def test_every_error_is_logged_with_its_id_and_the_version(loaded: Loaded, tmp_path: Path) -> None:
    bad = [
        asked.request("POST", "/predict", b"[", x_request_id="mine"),
        asked.request("GET", "/nothing"),
        (b"nonsense", b""),
    ]
    found = logged(loaded, [infer(), *bad], Logging(0), tmp_path / "log")
    assert [(f["why"], f["code"], f["path"]) for f in found] == [
        ("error", 400, "/predict"),
        ("error", 404, "/nothing"),
        ("error", 400, None),
    ]
    assert found[0]["id"] == "mine"
    assert found[1]["id"]
    assert all(
        (f["digest"], f["version"], f["model"], f["event"]) == (loaded.version.digest, 1, "m", "request") for f in found
    )
    assert all(f["error"] and f["time"].endswith("Z") for f in found)


def test_every_slow_request_is_logged_and_others_as_often_as_asked(loaded: Loaded, tmp_path: Path) -> None:
    assert len(logged(loaded, [infer()] * 50, Logging(0, slow=0.0), tmp_path / "slow")) == 50
    assert len(logged(loaded, [infer()] * 50, Logging(1, slow=60), tmp_path / "all")) == 50
    assert logged(loaded, [infer()] * 50, Logging(0, slow=60), tmp_path / "none") == []
    (one,) = logged(loaded, [infer(x_request_id="r-1")], Logging(1, slow=60), tmp_path / "one")
    assert (one["why"], one["id"], one["code"], one["rows"]) == ("sample", "r-1", 200, 2)


def test_a_request_id_comes_back_and_a_strange_one_is_replaced(loaded: Loaded) -> None:
    body = {"inputs": TENSORS}
    assert asked.ask(loaded, "POST", "/v2/models/m/infer", body, x_request_id="r-1").fields["x-request-id"] == "r-1"
    assert "x-request-id" not in asked.ask(loaded, "POST", "/v2/models/m/infer", body).fields
    for odd in ("x" * 129, 'a"b'):
        assert asked.ask(loaded, "GET", "/x", x_request_id=odd).fields["x-request-id"] != odd


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
def test_a_sample_is_of_the_share_that_was_asked(share: float) -> None:
    sample, n, taken = Sample(share, seed=1), 0, 0
    for size in [1, 7, 64, 3] * 3000:
        found = sample.take(size)
        assert all(0 <= i < size for i in found)
        assert found == sorted(set(found))
        n, taken = n + size, taken + len(found)
    assert abs(taken / n - share) <= 4 * (share * (1 - share) / n) ** 0.5


def test_a_log_that_nobody_reads_costs_lines_and_never_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "QUEUE", 100)
    reader, writer = os.pipe()
    log = Lines(writer)
    for _ in range(20_000):
        log.write("event", text="x" * 1000)
    assert log.dropped > 10_000
    os.close(reader)  # the thread's write fails, and it goes on
    log.close()
    os.close(writer)


def test_strangers_fill_no_disk_with_errors_and_hide_none_of_another_kind(loaded: Loaded, tmp_path: Path) -> None:
    bad = [asked.request("GET", "/nothing")] * 200 + [asked.request("POST", "/predict", b"[")]
    seconds = [1.5e9]
    with (tmp_path / "log").open("wb") as f:
        log = Lines(f.fileno(), now=lambda: seconds[0])
        app = asked.service(loaded, log)
        for _ in range(2):
            assert len(asyncio.run(asked.ask_all(app, bad))) == 201
            seconds[0] += 1
        log.close()
    found = [json.loads(line)["code"] for line in (tmp_path / "log").read_text().splitlines()]
    assert found == [*[404] * lines.ERRORS, 400] * 2
    assert log.dropped == 2 * (200 - lines.ERRORS)


def test_lines_of_several_workers_do_not_run_into_each_other() -> None:
    reader, writer = os.pipe()
    logs = [Lines(writer) for _ in range(4)]
    for i in range(400):
        for n, log in enumerate(logs):
            log.write("event", worker=n, number=i, text="x" * (i % 300))
    found: list[bytes] = []

    def read_all() -> None:
        with os.fdopen(reader, "rb") as f:
            found.extend(f.readlines())

    thread = threading.Thread(target=read_all)
    thread.start()
    for log in logs:
        log.close(20)
    os.close(writer)
    thread.join(20)
    said = [json.loads(line) for line in found]
    assert all([s["number"] for s in said if s["worker"] == n] == list(range(400)) for n in range(4))


def test_a_log_on_a_full_disk_costs_lines() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    log = Lines(fd)
    log.write("event")
    log.close()
    assert log.dropped == 1
    os.close(fd)


def scored(n: int, digest: str = "sha256:d", **more: Any) -> Scored:
    said: dict[str, Any] = {
        "time": 1.5e9,
        "request_id": "r",
        "model": "m",
        "version": 3,
        "digest": digest,
        "inputs": {"x": [0.5] * n, "kind": ["a"] * n},
    }
    return Scored(**{**said, **more}, label=["yes"] * n, probabilities={"no": [0.25] * n, "yes": [0.75] * n})


def read(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_predictions_are_kept_in_whole_files_by_version(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "kept", print, rows=5)
    for request in (scored(2), scored(3), scored(1, "sha256:e", version=4, inputs={"y": [1]}), scored(1)):
        keeper.add(request)
    keeper.close()
    assert (keeper.kept, keeper.dropped) == (7, 0)
    rows = read(tmp_path / "kept")
    assert {p.suffix for p in (tmp_path / "kept").iterdir()} == {".parquet"}
    assert [r["row"] for r in rows if r["version"] == 3] == [0, 1, 0, 1, 2, 0]
    assert rows[0]["input.x"] == 0.5
    assert (rows[0]["label"], rows[0]["probability.yes"], rows[0]["request_id"], rows[0]["digest"]) == (
        "yes",
        0.75,
        "r",
        "sha256:d",
    )
    assert rows[0]["time"].isoformat() == "2017-07-14T02:40:00+00:00"
    assert [r["input.y"] for r in rows if r["version"] == 4] == [1]


def test_a_row_does_not_wait_longer_than_said(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, print, seconds=0.01)
    keeper.add(scored(1))
    wait_until(lambda: keeper.kept == 1)
    keeper.close()


def test_a_disk_that_is_full_costs_rows_and_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    keeper = Keeper(tmp_path, said.append, rows=1)
    monkeypatch.setattr(Keeper, "_file", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for _ in range(3):
        keeper.add(scored(2))
    keeper.close()
    assert keeper.dropped == 6
    assert len(said) == 1
    assert "No space left" in said[0]


def test_a_disk_that_fails_in_the_middle_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper(tmp_path, print, rows=1)
    monkeypatch.setattr(keep.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    keeper.add(scored(1))
    keeper.close()
    assert keeper.dropped == 1
    assert list(tmp_path.iterdir()) == []


def test_a_prediction_log_that_is_slow_costs_rows_and_never_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "QUEUE", 10)
    gate = threading.Event()
    monkeypatch.setattr(Keeper, "_file", lambda *_: gate.wait(20))
    keeper = Keeper(tmp_path, print, rows=1)
    for _ in range(100):
        keeper.add(scored(1))
    assert keeper.dropped >= 80
    gate.set()
    keeper.close()


def test_a_prediction_log_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as e:
        check_folder(tmp_path / "file" / "below")
    assert e.value.code == "prediction-log"


def test_what_is_kept_is_what_was_answered(loaded: Loaded, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, print)
    app = asked.service(loaded, logging=Logging(0, kept=1.0), keeper=keeper)
    rows = [{**ROW, "x": float(i)} for i in range(3)]
    requests = [
        asked.request("POST", "/predict", json.dumps(r).encode(), x_request_id=i)
        for i, r in (("a", rows[:1]), ("b", rows[1:]))
    ]
    answers = asyncio.run(asked.ask_all(app, requests))
    keeper.close()
    found = read(tmp_path)
    assert [(r["request_id"], r["row"], r["input.x"]) for r in found] == [("a", 0, 0.0), ("b", 0, 1.0), ("b", 1, 2.0)]
    said = [row for a in answers for row in a.json]
    assert [(r["label"], r["probability.yes"]) for r in found] == [
        (s["label"], s["probabilities"]["yes"]) for s in said
    ]
