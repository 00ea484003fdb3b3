"""What is counted is what was scored: in shared memory, by the profile's bins, and as Prometheus reads it."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.made import registered
from tidegate.data.profile import Profile, number, prediction_bins, text
from tidegate.errors import StoreError
from tidegate.registry.signature import Signature, Tensor
from tidegate.serve.admin import inputs, scores
from tidegate.serve.counts import MOST_BATCHES, Counts
from tidegate.serve.crew import Counted, Target
from tidegate.serve.load import Loaded, load_version
from tidegate.serve.metrics import Collector, exposition
from tidegate.serve.profile import ruler
from tidegate.serve.ruler import CODES, LATENCY, Measured, Ruler, plain_ruler
from tidegate.serve.sheet import Sheet, new_sheet, total
from tidegate.store.blobs import Blobs
from tidegate.store.memory import MemoryStore

RULER = Ruler(
    (0.25, 0.5, 0.75), "probability", ("no", "yes"),
    (Measured("x", "number", (0.0, 10.0)), Measured("t", "text", (1.0,), ("a", "bb"))), "sha256:p",
)  # fmt: skip
RANDOM = np.random.default_rng(3)


def batch(n: int) -> tuple[dict[str, Any], Any, Any, list[float]]:
    x = RANDOM.normal(5, 10, n)
    x[RANDOM.random(n) < 0.1] = np.nan
    shares = RANDOM.random(n).astype(np.float32)
    probabilities = np.stack([1 - shares, shares], 1)
    columns = {"x": x.astype(np.float32), "t": RANDOM.choice(np.array(["a", "bb", "ccc", ""], object), n)}
    return columns, (shares > 0.5), probabilities, sorted(RANDOM.uniform(0, 3, max(n // 2, 1)).tolist())


def filled() -> tuple[Counts, dict[str, Any]]:
    """Counts of MOST_BATCHES + 1 batches, and the same by hand."""
    counts = Counts(RULER)
    all_: dict[str, Any] = {"x": [], "t": [], "p": [], "took": []}
    for _ in range(MOST_BATCHES + 1):
        columns, label, probabilities, starts = batch(int(RANDOM.integers(1, 9)))
        counts.batch(columns, label, probabilities, starts, 3.0)
        all_["x"] += columns["x"].astype(float).tolist()
        all_["t"] += columns["t"].tolist()
        all_["p"] += probabilities[:, 1].astype(float).tolist()
        all_["took"] += [3.0 - s for s in starts]
    counts.answered(404, 0.002)
    counts.answered(299)
    counts.beside(1, 2, 3)
    counts.fold()
    return counts, all_


def bins(edges: Any, values: Any) -> list[int]:
    found = [0] * (len(edges) + 1)
    for v in values:
        found[next((i for i, e in enumerate(edges) if v <= e), len(edges))] += 1
    return found


def test_counts_are_what_was_scored() -> None:
    counts, all_ = filled()
    found = counts.read()
    assert found["codes"] == [len(all_["took"]), 0, 0, 0, 1, *[0] * (len(CODES) - 5), 1]
    assert found["latency"] == bins(LATENCY, [*all_["took"], 0.002])
    assert found["seconds"][0] == pytest.approx(sum(all_["took"]) + 0.002)
    assert found["predictions"] == bins(RULER.edges, all_["p"])
    assert found["labels"] == [sum(p <= 0.5 for p in all_["p"]), sum(p > 0.5 for p in all_["p"])]
    finite = [v for v in all_["x"] if v == v]
    assert found["input0"] == pytest.approx(
        [len(all_["x"]), sum(finite), sum(v * v for v in finite), len(all_["x"]) - len(finite)]
    )
    assert found["bins0"] == bins((0.0, 10.0), finite)
    lengths = [len(v) for v in all_["t"]]
    assert found["input1"] == [len(lengths), sum(lengths), sum(n * n for n in lengths), 0]
    assert found["bins1"] == bins((1.0,), lengths)
    seen = Counter(all_["t"])
    assert found["frequent1"] == [seen["a"], seen["bb"]]


def test_another_process_reads_them_and_those_of_the_dead_stay() -> None:
    counts, all_ = filled()
    counted = Counted(Target(1, "sha256:d"), Ruler.from_json(json.loads(json.dumps(RULER.as_json()))))
    assert counted.ruler == RULER
    sheet = Sheet(os.dup(counts.fd), RULER.layout())
    counted.sheets += [sheet, Sheet(new_sheet(RULER.layout()), RULER.layout())]
    assert counted.numbers() == counts.read()
    counted.retire(sheet)
    counted.sheets.append(Sheet(counts.fd, RULER.layout()))
    assert scores(counted)["rows"] == 2 * len(all_["p"])
    assert total([]) == {}


def test_what_the_admin_port_says_is_what_a_monitor_compares() -> None:
    counts, all_ = filled()
    counted = Counted(Target(1, "sha256:d"), RULER, [Sheet(counts.fd, RULER.layout())])
    assert scores(counted) == {
        "of": "probability", "profile": "sha256:p", "edges": [0.25, 0.5, 0.75], "counts": bins(RULER.edges, all_["p"]), "rows": len(all_["p"]),
    }  # fmt: skip
    said = inputs(counted)["columns"]
    finite = [v for v in all_["x"] if v == v]
    assert (said["x"]["counts"], said["x"]["missing"]) == (bins((0.0, 10.0), finite), len(all_["x"]) - len(finite))
    assert said["t"]["frequent"]["a"] == all_["t"].count("a")
    assert said["t"]["rest"] == sum(v not in ("a", "bb") for v in all_["t"])


def test_prometheus_reads_the_same_numbers() -> None:
    counts, all_ = filled()
    counted = Counted(Target(7, "sha256:d"), RULER, [Sheet(counts.fd, RULER.layout())])
    text_ = exposition(Collector("m", [counted], [("tidegate_ready", "Ready.", 1.0, {})])).decode()
    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for f in text_string_to_metric_families(text_)
        for s in f.samples
    }
    of = [("digest", "sha256:d"), ("model", "m"), ("version", "7")]

    def value(name: str, **labels: str) -> float:
        return samples[(name, tuple(sorted([*of, *labels.items()])))]

    assert samples[("tidegate_ready", ())] == 1
    assert value("tidegate_requests_total", code="200") == len(all_["took"])
    assert (value("tidegate_requests_total", code="404"), value("tidegate_requests_total", code="other")) == (1, 1)
    assert value("tidegate_predictions_bucket", of="probability", le="0.5") == sum(p <= 0.5 for p in all_["p"])
    assert value("tidegate_predictions_count", of="probability") == len(all_["p"])
    assert value("tidegate_predictions_sum", of="probability") == pytest.approx(sum(all_["p"]))
    assert value("tidegate_request_seconds_count") == len(all_["took"]) + 1
    assert value("tidegate_labels_total", label="yes") == sum(p > 0.5 for p in all_["p"])
    assert value("tidegate_input_missing_total", input="x") == sum(v != v for v in all_["x"])
    assert value("tidegate_log_lines_lost_total") == 1
    assert [value("tidegate_prediction_log_rows_total", outcome=o) for o in ("kept", "lost")] == [2, 3]
    assert value("tidegate_input_rows_total", input="t") == len(all_["t"])


def made(profile: Profile | None, tmp_path: Path) -> tuple[MemoryStore, Loaded]:
    store = MemoryStore()
    registered(store, tmp_path)
    loaded = load_version(store, "m")
    digest = Blobs(store).add_bytes(profile.json().encode()) if profile else ""
    lineage = {k: v for k, v in loaded.version.lineage.items() if k != "profile"}
    return store, Loaded(
        replace(loaded.version, lineage={**lineage, "profile": digest} if digest else lineage), loaded.scorer
    )


def test_a_version_is_counted_by_its_own_profile(tmp_path: Path) -> None:
    p = RANDOM.random(500)
    prediction, of = prediction_bins(np.stack([1 - p, p], 1))
    profile = Profile(
        500,
        prediction,
        of,
        {"x": number(RANDOM.random(500)), "kind": text(["a"] * 400 + ["b"] * 100), "n": text(["1"])},
    )
    store, loaded = made(profile, tmp_path)
    found = ruler(store, loaded, print)
    assert (found.edges, found.of, found.profile) == (
        prediction.edges,
        "probability",
        loaded.version.lineage["profile"],
    )
    x, n, kind = found.inputs
    assert x.edges == profile.columns["x"].bins.edges  # type: ignore[union-attr]
    assert (n.kind, n.edges) == ("number", ())  # the profile says that it was text
    assert (kind.frequent, kind.edges) == (("a", "b"), profile.columns["kind"].lengths.edges)  # type: ignore[union-attr]


def test_a_version_whose_profile_is_missing_or_of_something_else_is_counted_by_equal_bins(tmp_path: Path) -> None:
    other, of = prediction_bins(RANDOM.random((50, 3)))
    store, loaded = made(Profile(50, other, of), tmp_path)
    assert ruler(store, loaded, print) == plain_ruler(loaded.scorer.signature)
    no_profile = Blobs(store).add_bytes(b"{}")
    said: list[str] = []
    for lost in ("", "sha256:" + "0" * 64, "x", no_profile):
        version = replace(loaded.version, lineage={"profile": lost})
        found = ruler(store, Loaded(version, loaded.scorer), lambda _, **more: said.append(more["error"]["code"]))
        assert found.edges == tuple(i / 20 for i in range(1, 20))
    assert said == ["not-found", "digest-invalid", "profile-invalid"]


def test_a_store_that_is_away_for_a_moment_gives_no_version_other_bins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction, of = prediction_bins(RANDOM.random((50, 2)))
    store, loaded = made(Profile(50, prediction, of), tmp_path)

    def away(*_: object) -> bytes:
        raise StoreError("503 Slow Down")

    with monkeypatch.context() as m:
        m.setattr(Blobs, "read_bytes", away)
        with pytest.raises(StoreError):
            ruler(store, loaded, print)
    assert ruler(store, loaded, print).profile


def test_a_value_in_single_precision_is_in_the_bin_of_its_edge() -> None:
    edges = (1.1, 14.02, 97.29, 1e300)
    counts = Counts(Ruler((), "label", ("a", "b"), (Measured("x", "number", edges),)))
    os.close(counts.fd)
    x = np.array([1.1, 14.02, 97.29, 97.3], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counts.batch({"x": x}, np.zeros(4), np.full((4, 2), 0.5, np.float32), [0.0], 0.1)
        counts.fold()
    assert counts.read()["bins0"] == [1, 1, 1, 1, 0]


def test_more_than_two_classes_are_counted_by_label() -> None:
    probabilities = Tensor("probabilities", "FP32", (-1, 3))
    signature = Signature(
        "classification", (Tensor("x", "FP32", (-1,)),), (Tensor("label", "INT64", (-1,)), probabilities), (5, 6, 7)
    )
    counts = Counts(plain_ruler(signature))
    os.close(counts.fd)
    shares = np.array([[0.1, 0.2, 0.7], [0.9, 0.0, 0.1], [0.1, 0.2, 0.7]], np.float32)
    counts.batch({"x": np.zeros(3, np.float32)}, np.array([7, 5, 7]), shares, [0.0], 0.1)
    counts.fold()
    found = counts.read()
    assert (counts.ruler.edges, found["predictions"], found["labels"]) == ((0.5, 1.5), [1, 0, 2], [1, 0, 2])
