"""Requests to columns and back: the fast reader and the patient one agree, binary tensors too."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serve import asked
from tests.serve.made import registered
from tests.serve.test_protocol import TENSORS
from tidegate.registry.signature import DATATYPES, Signature, Tensor
from tidegate.serve.codec import Codec
from tidegate.serve.http import HttpError
from tidegate.serve.load import Loaded, load_version
from tidegate.serve.tensors import cast, from_binary, to_binary
from tidegate.store.memory import MemoryStore

RANGES = {f"INT{b}": (-(2 ** (b - 1)), 2 ** (b - 1) - 1) for b in (8, 16, 32, 64)} | {
    f"UINT{b}": (0, 2**b - 1) for b in (8, 16, 32, 64)
}
VALUES: dict[str, Any] = {name: st.integers(*pair) for name, pair in RANGES.items()} | {
    "BOOL": st.booleans(), "BYTES": st.text(max_size=5), "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
}  # fmt: skip
ALL = Codec(
    Signature(
        "classification",
        tuple(Tensor(f"in {d.lower()}", d, (-1,)) for d in DATATYPES),
        (Tensor("label", "BYTES", (-1,)), Tensor("probabilities", "FP32", (-1, 2))),
        ("no", "yes"),
    ),
    "m",
    "7",
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    store = MemoryStore()
    registered(store, tmp_path_factory.mktemp("codec"))
    return load_version(store, "m@champion")


def request(columns: dict[str, list[Any]], **more: Any) -> bytes:
    inputs = [{"name": f"in {d.lower()}", "shape": [len(v)], "datatype": d, "data": v} for d, v in columns.items()]
    return json.dumps({"inputs": inputs, **more}).encode()


@given(
    st.integers(1, 3).flatmap(
        lambda n: st.fixed_dictionaries({d: st.lists(v, min_size=n, max_size=n) for d, v in VALUES.items()})
    )
)
def test_the_fast_reader_and_the_patient_one_read_the_same(columns: dict[str, list[Any]]) -> None:
    columns, rows = {d: columns[d] for d in DATATYPES}, len(columns["BOOL"])
    fast = ALL.infer(request(columns))
    backwards = {d: columns[d] for d in reversed(columns)}
    patient = ALL.infer(request(backwards, parameters={"x": 1}))
    assert (fast.row is not None) == (rows == 1 and columns["UINT64"][0] < 2**63)  # msgspec's greatest bound
    assert patient.columns is not None
    for (name, found), (_, other) in zip(ALL.gather([fast]).items(), patient.columns.items(), strict=True):
        assert found.dtype == other.dtype, name
        assert found.tolist() == other.tolist() == columns[name.removeprefix("in ").upper()]


@pytest.mark.parametrize("datatype", RANGES)
def test_an_integer_out_of_range_is_refused_by_both_readers(datatype: str) -> None:
    least, most = RANGES[datatype]
    good: dict[str, list[Any]] = {d: [0] for d in RANGES} | {
        "BOOL": [True],
        "BYTES": ["a"],
        "FP32": [0.5],
        "FP64": [0.5],
    }
    good = {d: good[d] for d in DATATYPES}
    for value in (least - 1, most + 1, 2**70, 1.5, True, "1", None):
        for more in ({}, {"parameters": {"x": 1}}):
            with pytest.raises(HttpError) as e:
                ALL.infer(request({**good, datatype: [value]}, **more))
            assert e.value.status == 400
    for value in (least, most):
        assert ALL.gather([ALL.infer(request({**good, datatype: [value]}))])[f"in {datatype.lower()}"].tolist() == [
            value
        ]


@pytest.mark.parametrize("datatype", [d for d in DATATYPES if d != "BOOL"])
def test_a_truth_value_is_no_number_and_a_number_no_truth_value(datatype: str) -> None:
    values = {d: np.zeros(1, object if d == "BYTES" else DATATYPES[d]) for d in DATATYPES}
    for wanted, said in ((datatype, "BOOL"), ("BOOL", datatype)):
        with pytest.raises(HttpError, match=f"is no {wanted}"):
            cast(Tensor("x", wanted, (-1,)), values[said])
        assert cast(Tensor("x", wanted, (-1,)), values[wanted]) is values[wanted]


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_a_number_too_large_for_single_precision_is_refused_and_not_infinite(value: float) -> None:
    good = {d: [0] for d in RANGES} | {"BOOL": [True], "BYTES": ["a"], "FP64": [value]}
    for datatype in ("FP32", "FP64"):
        inputs = json.loads(request({d: {**good, "FP32": [value]}[d] for d in DATATYPES}))
        inputs["inputs"][list(DATATYPES).index("FP32")]["datatype"] = datatype
        with pytest.raises(HttpError, match="out of range"):
            ALL.infer(json.dumps(inputs).encode())


@given(
    st.sampled_from(list(VALUES)).flatmap(lambda d: st.tuples(st.just(d), st.lists(VALUES[d], min_size=1, max_size=5)))
)
def test_a_binary_tensor_is_what_it_was(pair: tuple[str, list[Any]]) -> None:
    datatype, values = pair
    data = to_binary(datatype, values)
    assert from_binary(datatype, data, len(values)).tolist() == values
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(ValueError, match="not"):
            from_binary(datatype, wrong, len(values))


def test_a_text_whose_length_lies_is_refused() -> None:
    with pytest.raises(ValueError, match="not 1 texts"):
        from_binary("BYTES", struct.pack("<I", 2**32 - 1) + b"abc", 1)
    with pytest.raises(UnicodeDecodeError):
        from_binary("BYTES", struct.pack("<I", 1) + b"\xff", 1)


def binary(sizes: dict[str, Any] | None = None, tail: bytes | None = None, **more: Any) -> tuple[bytes, int]:
    data = {
        t["name"]: to_binary(t["datatype"], [v[0] if isinstance(v, list) else v for v in t["data"]]) for t in TENSORS
    }
    inputs = [
        {
            **{k: v for k, v in t.items() if k != "data"},
            "parameters": {"binary_data_size": (sizes or {}).get(t["name"], len(data[t["name"]]))},
        }
        for t in TENSORS
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + (b"".join(data.values()) if tail is None else tail), len(head)


def ask(loaded: Loaded, body: bytes, length: Any) -> asked.Answer:
    return asked.ask(loaded, "POST", "/v2/models/m/infer", body, inference_header_content_length=str(length))


def test_binary_tensors_are_answered_as_json_or_binary_as_asked(loaded: Loaded) -> None:
    plain = asked.ask(loaded, "POST", "/v2/models/m/infer", {"inputs": TENSORS}).json
    assert ask(loaded, *binary()).json == plain
    found = ask(loaded, *binary(parameters={"binary_data_output": True}, id="a"))
    length = int(found.fields["inference-header-content-length"])
    assert found.fields["content-type"] == "application/octet-stream"
    head, tail = json.loads(found.body[:length]), found.body[length:]
    assert head["id"] == "a"
    for output, wanted in zip(head["outputs"], plain["outputs"], strict=True):
        size = output["parameters"]["binary_data_size"]
        values = from_binary(output["datatype"], tail[:size], int(np.prod(output["shape"])))
        assert (
            values.tolist() == pytest.approx(wanted["data"])
            if output["datatype"] == "FP32"
            else values.tolist() == wanted["data"]
        )
        tail = tail[size:]
    assert tail == b""
    outputs = [
        {"name": "probabilities", "parameters": {"binary_data": True}},
        {"name": "label", "parameters": {"binary_data": False}},
    ]
    mixed = ask(loaded, *binary(outputs=outputs))
    said = json.loads(mixed.body[: int(mixed.fields["inference-header-content-length"])])["outputs"]
    assert [(o["name"], "data" in o) for o in said] == [("probabilities", False), ("label", True)]


@pytest.mark.parametrize(
    "made",
    [
        binary(sizes={"x": 7}), binary(sizes={"x": 9}), binary(sizes={"kind": 10_000}), binary(sizes={"x": -1}), binary(sizes={"x": "8"}),
        binary(sizes={"x": True}), binary(tail=b""), binary(tail=b"x" * 100), (binary()[0], 10_000), (binary()[0], 3), (binary()[0], 0),
        (binary()[0], "+3"), (binary()[0], "x"), (json.dumps({"inputs": TENSORS}).encode() + b"xx", len(json.dumps({"inputs": TENSORS}))),
        (json.dumps({"inputs": [{**TENSORS[0], "parameters": {"binary_data_size": 8}}, *TENSORS[1:]]}).encode(), 10),
        binary(outputs=[{"name": "none"}]), binary(outputs=[{"name": "label", "parameters": {"classification": 1}}]),
    ],
)  # fmt: skip
def test_binary_tensors_that_do_not_add_up_are_a_400_that_says_why(loaded: Loaded, made: tuple[bytes, Any]) -> None:
    answer = ask(loaded, *made)
    assert answer.status == 400
    assert answer.json["error"]


def test_what_is_not_spoken_here_is_said(loaded: Loaded) -> None:
    shared = {"inputs": [{**TENSORS[0], "parameters": {"shared_memory_region": "r"}}, *TENSORS[1:]]}
    assert "shared memory" in asked.ask(loaded, "POST", "/v2/models/m/infer", shared).json["error"]
    packed = asked.ask(loaded, "POST", "/v2/models/m/infer", {"inputs": TENSORS}, content_encoding="gzip")
    assert packed.status == 415


def test_a_request_with_data_and_a_size_is_refused(loaded: Loaded) -> None:
    both = {"inputs": [{**TENSORS[0], "parameters": {"binary_data_size": 8}}, *TENSORS[1:]]}
    assert asked.ask(loaded, "POST", "/v2/models/m/infer", both).status == 400


def test_columns_with_any_name_are_rows_too(tmp_path: Path) -> None:
    codec = Codec(
        Signature("classification", (Tensor("a b", "FP32", (-1,)), Tensor("class", "BYTES", (-1,)), Tensor("é\"", "INT64", (-1,))),
                  (Tensor("label", "INT64", (-1,)), Tensor("probabilities", "FP32", (-1, 2))), (0, 1)), "m", "1",
    )  # fmt: skip
    row = {"a b": 1.5, "class": "x", 'é"': 3}
    assert codec.predict(json.dumps([row]).encode()).row == (1.5, "x", 3)
    for odd in ({**row, "c0": 1}, {"a b": 1.5, "class": "x"}, {**row, 'é"': "3"}):
        with pytest.raises(HttpError):
            codec.predict(json.dumps([odd]).encode())
    said = codec.write(codec.predict(json.dumps([row, row]).encode()), [0, 1], [[0.75, 0.25], [0.25, 0.75]])[0]
    assert json.loads(said) == [
        {"label": 0, "probabilities": {"0": 0.75, "1": 0.25}}, {"label": 1, "probabilities": {"0": 0.25, "1": 0.75}},
    ]  # fmt: skip
