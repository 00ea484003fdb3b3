"""The Open Inference Protocol: each route with good and bad requests; the answers are the model's."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.registry.made import frame, model
from tests.serve import asked
from tests.serve.made import registered, table_model
from tidegate.errors import ModelRefused, UsageError
from tidegate.serve.codec import MAX_ROWS
from tidegate.serve.find import find_version
from tidegate.serve.load import Loaded, load_version
from tidegate.serve.onnx import Scorer
from tidegate.store.blobs import Blobs, digest_path
from tidegate.store.memory import MemoryStore


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    store = MemoryStore()
    registered(store, tmp_path_factory.mktemp("serve"))
    return load_version(store, "m@champion")


def ask(loaded: Loaded, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    answer = asked.ask(loaded, method, path, body)
    return answer.status, answer.json


ROW = {"x": 19.0, "n": 1, "kind": "a"}
TENSORS = [
    {"name": "x", "shape": [2], "datatype": "FP32", "data": [19.0, 1.0]},
    {"name": "n", "shape": [2, 1], "datatype": "INT64", "data": [[1], [2]]},
    {"name": "kind", "shape": [2], "datatype": "BYTES", "data": ["a", "never seen"]},
]


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/m", "/v2/models/m/ready",
        "/v2/models/m/versions/1", "/v2/models/m/versions/1/ready", "/v2/?x=1",
    ],
)  # fmt: skip
def test_every_get_route_answers_and_takes_no_post(loaded: Loaded, path: str) -> None:
    assert ask(loaded, "GET", path)[0] == 200
    assert ask(loaded, "POST", path, {})[0] == 405


@pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v2/models/m/versions/1/infer", "/predict"])
def test_every_post_route_takes_no_get(loaded: Loaded, path: str) -> None:
    assert ask(loaded, "GET", path)[0] == 405


@pytest.mark.parametrize(
    "path",
    ["/x", "/v2/models", "/v2/models/other", "/v2/models/m/versions/2", "/v2/models/m/x", "/v2/models/m/versions"],
)
def test_anything_else_is_not_found(loaded: Loaded, path: str) -> None:
    assert ask(loaded, "GET", path)[0] == 404


def test_metadata_says_what_the_model_takes_and_which_bytes_it_is(loaded: Loaded) -> None:
    _, said = ask(loaded, "GET", "/v2/models/m")
    assert said["versions"] == ["1"]
    assert [(t["name"], t["datatype"]) for t in said["inputs"]] == [("x", "FP32"), ("n", "INT64"), ("kind", "BYTES")]
    assert said["parameters"]["digest"] == loaded.version.digest


def test_inference_answers_what_the_model_says(loaded: Loaded) -> None:
    status, said = ask(loaded, "POST", "/v2/models/m/infer", {"id": "7", "inputs": TENSORS})
    assert (status, said["id"], said["model_version"]) == (200, "7", "1")
    outputs = {o["name"]: o for o in said["outputs"]}
    assert outputs["label"]["data"] == ["yes", "no"]
    assert outputs["probabilities"]["shape"] == [2, 2]
    own = loaded.scorer.predict({"x": [19.0, 1.0], "n": [1, 2], "kind": ["a", "never seen"]})
    assert outputs["probabilities"]["data"] == own["probabilities"].reshape(-1).tolist()
    only = {"inputs": TENSORS, "outputs": [{"name": "label"}]}
    assert [o["name"] for o in ask(loaded, "POST", "/v2/models/m/infer", only)[1]["outputs"]] == ["label"]


def test_rows_are_answered_with_label_and_probabilities(loaded: Loaded) -> None:
    status, said = ask(loaded, "POST", "/predict", [ROW, {**ROW, "x": 0}])
    assert status == 200
    assert [s["label"] for s in said] == ["yes", "no"]
    assert sum(said[0]["probabilities"].values()) == pytest.approx(1, abs=1e-6)


def changed(index: int, **changes: Any) -> dict[str, Any]:
    return {"inputs": [{**t, **changes} if i == index else t for i, t in enumerate(TENSORS)]}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"inputs": NaN}', b'{"inputs": [{"name": 1}]}',
        {"inputs": []}, {"inputs": TENSORS[:2]}, {"inputs": [*TENSORS, TENSORS[0]]},
        {"inputs": [*TENSORS, {**TENSORS[0], "name": "y"}]}, {"inputs": TENSORS, "outputs": [{"name": "none"}]},
        changed(0, shape=[3]), changed(0, shape=[-2]), changed(0, shape=[]), changed(0, shape=[1, 2]),
        changed(0, shape=[1, 1, 2]), changed(0, shape=[MAX_ROWS + 1]), changed(0, datatype="FP128"),
        changed(0, data=["a", "b"]), changed(0, data=[None, 1]), changed(0, data=[True, False]),
        changed(0, data=[[1, 2], [3, 4]]), changed(0, data=[1], shape=[1]), changed(1, data=[1.5, 2], datatype="FP32"),
        changed(1, data=[2**70, 1]), changed(2, data=[1, 2]), changed(2, datatype="INT64", data=[1, 2]),
    ],
)  # fmt: skip
def test_a_bad_inference_request_is_a_4xx_that_says_why(loaded: Loaded, body: Any) -> None:
    status, said = ask(loaded, "POST", "/v2/models/m/infer", body)
    assert status == 400, said
    assert said["error"]


@pytest.mark.parametrize(
    "body", [b"", {}, [], [{}], [{**ROW, "y": 1}], [{"x": 1}], [{**ROW, "x": "a"}], [{**ROW, "kind": 3}], [1]]
)
def test_bad_rows_are_a_4xx_that_says_why(loaded: Loaded, body: Any) -> None:
    assert ask(loaded, "POST", "/predict", body)[0] == 400


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.long)])
def test_thousands_of_malformed_requests_never_fail_the_server(loaded: Loaded, count: int) -> None:
    rng = random.Random(count)
    good = json.dumps({"inputs": TENSORS}).encode()
    bodies = []
    for _ in range(count):
        body = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(body))
            body[at : at + rng.randint(0, 3)] = bytes(rng.randrange(256) for _ in range(rng.randint(0, 3)))
        bodies.append(bytes(body))
    requests = [asked.request("POST", "/v2/models/m/infer", body) for body in [*bodies, good]]
    answers = asyncio.run(asked.ask_all(asked.service(loaded), requests))
    assert {a.status for a in answers} <= {200, 400}
    assert answers[-1].status == 200


def test_the_scorer_refuses_what_the_signature_does_not_say(loaded: Loaded) -> None:
    for columns in (
        {},
        {"x": [1.0]},
        {"x": [1.0], "n": [1, 2], "kind": ["a"]},
        {"x": [], "n": [], "kind": []},
    ):
        with pytest.raises(UsageError):
            loaded.scorer.predict(columns)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # skl2onnx hands numpy booleans to protobuf as integers
@pytest.mark.parametrize("estimator", ["logistic_regression", "random_forest", "hist_gradient_boosting"])
def test_the_served_graph_gives_scikit_learns_probabilities(tmp_path: Path, estimator: str) -> None:
    from components.evaluate.trusted import load_pipeline
    from components.train_sklearn import table

    folder, features = model(tmp_path / "m", estimator), frame().drop("label")
    own = load_pipeline(folder).predict_proba(table.features(features))
    served = Scorer.load(folder).predict({n: features[n].to_numpy() for n in features.columns})["probabilities"]
    assert np.abs(own - served).max() < 1e-5


@pytest.mark.parametrize("file", ["model.onnx", "signature.json", "requirements.txt"])
def test_a_model_whose_bytes_changed_after_registration_is_not_served(tmp_path: Path, file: str) -> None:
    store = MemoryStore()
    folder = registered(store, tmp_path)
    digest = digest_path(folder / file).digest
    key = Blobs(store).uri(digest).partition("/")[2]
    store.put(key, store.get(key).replace(b"a", b"b", 1))
    with pytest.raises(ModelRefused) as e:
        load_version(store, "m")
    assert e.value.code == "model-digest-mismatch"


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_model_with_one_bit_changed_anywhere_is_not_served(tmp_path: Path, count: int) -> None:
    store, rng = MemoryStore(), random.Random(count)
    folder = registered(store, tmp_path)
    digests = [find_version(store, "m").digest, *(digest_path(f).digest for f in folder.iterdir())]
    keys = [Blobs(store).uri(d).partition("/")[2] for d in digests]
    for _ in range(count):
        key = rng.choice(keys)
        good = store.get(key)
        bad, at = bytearray(good), rng.randrange(8 * len(good))
        bad[at // 8] ^= 1 << at % 8
        store.put(key, bytes(bad))
        with pytest.raises(ModelRefused) as e:
            load_version(store, "m")
        assert e.value.code == "model-digest-mismatch"
        store.put(key, good)
    assert load_version(store, "m").version.version == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("model.onnx", b"\x80\x04cos\nsystem\n."), ("model.onnx", b""), ("signature.json", b"{}"), ("signature.json", b"["),
        ("signature.json", b'{"schema": "tidegate/model/1", "task": "x", "inputs": [], "outputs": [], "classes": []}'),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused_and_never_run(tmp_path: Path, file: str, text: bytes) -> None:
    folder = table_model(tmp_path / "m")
    (folder / file).write_bytes(text)
    with pytest.raises(ModelRefused) as e:
        Scorer.load(folder)
    assert e.value.code == "model-invalid"


def test_a_graph_that_is_not_what_its_signature_says_is_refused(tmp_path: Path) -> None:
    folder = table_model(tmp_path / "m")
    said = json.loads((folder / "signature.json").read_text())
    said["inputs"][0]["name"] = "other"
    (folder / "signature.json").write_text(json.dumps(said))
    with pytest.raises(ModelRefused, match="graph takes"):
        Scorer.load(folder)
    (folder / "model.onnx").rename(tmp_path / "real")
    (folder / "model.onnx").symlink_to(tmp_path / "real")
    with pytest.raises(ModelRefused, match="link"):
        Scorer.load(folder)
