"""How a rollout begins: by the rules of the version's own evidence, and what cannot be read of it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidegate.errors import UsageError
from tidegate.registry.model import Entry, Registry
from tidegate.registry.policy import Policy, Rule
from tidegate.registry.rollout_policy import RolloutPolicy
from tidegate.registry.signature import DATATYPES, Signature, Tensor
from tidegate.rollout.opening import open_rollout
from tidegate.serve.codec import Codec
from tidegate.serve.http import HttpError
from tidegate.store.blobs import Blobs
from tidegate.store.memory import MemoryStore

OWN = RolloutPolicy((1000,), deadline=60.0)
POLICY = json.loads(Policy("m", (Rule("accuracy", "above", 0.5),), rollout=OWN).json())


def register(store: MemoryStore, alias: str, evidence: Any, digest: str = "") -> None:
    number = len(Registry(store).state("m").versions) + 1
    digest = digest or "sha256:" + f"{number:064d}"
    kept = str(Blobs(store).add_bytes(json.dumps(evidence).encode()))
    body = {"version": number, "digest": digest, "kind": "file", "size": 1, "evidence": kept, "alias": alias}
    body |= {"verdict": {"outcome": "pass", "model": digest}, "lineage": {}}
    Registry(store).transact("m", lambda _: Entry("version", body), actor="t")


def opened(evidence: Any) -> tuple[RolloutPolicy, list[str]]:
    """The rules of a rollout of a version with this evidence, and the notes on them."""
    store = MemoryStore()
    register(store, "champion", {"policy": POLICY})
    register(store, "challenger", evidence)
    opening = open_rollout(Registry(store), "m", "challenger")
    return opening.plan.rules, [n for n in opening.notes if "not compared" not in n]


def test_a_version_goes_by_the_rules_of_its_own_policy() -> None:
    assert opened({"policy": POLICY}) == (OWN, [])
    assert opened({"policy": {k: v for k, v in POLICY.items() if k != "rollout"}}) == (RolloutPolicy(), [])


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({**POLICY, "rollout": {"speed": 2}}, "the policy, rollout has the unknown key 'speed'"),
        ({**POLICY, "rollout": {"alpha": 7}}, "the policy, rollout: alpha is 7"),
        ({**POLICY, "schema": "tidegate/policy/2"}, "the policy has another schema"),
        (None, "the policy has another schema"),
    ],
)
def test_a_policy_that_cannot_be_read_is_said_with_what_is_wrong_and_the_defaults_apply(
    policy: Any, words: str
) -> None:
    note = f"the policy in the evidence of version 2 cannot be read ({words}): the default rules apply"
    assert opened({"policy": policy}) == (RolloutPolicy(), [note])


@pytest.mark.parametrize("evidence", [{}, []])
def test_evidence_without_a_policy_is_said_too(evidence: Any) -> None:
    rules, notes = opened(evidence)
    assert (rules, len(notes), "cannot be read" in notes[0]) == (RolloutPolicy(), 1, True)


def model(store: MemoryStore, folder: Path, **inputs: tuple[str, list[int]]) -> str:
    """The digest of a model that takes these inputs."""
    said = {
        "schema": "tidegate/model/1", "task": "classification", "classes": [0, 1],
        "inputs": [{"name": n, "datatype": t, "shape": s} for n, (t, s) in inputs.items()],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]},
                    {"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}],
    }  # fmt: skip
    folder.mkdir()
    (folder / "signature.json").write_text(json.dumps(said))
    (folder / "model.onnx").write_bytes(folder.name.encode())
    return Blobs(store).add(folder).digest


A, B, WHOLE = ("FP32", [-1]), ("BYTES", [-1]), ("INT64", [-1])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"a": A}, r"takes nothing where the champion, version 1, has 'b' \(BYTES\)"),
        ({"a": A, "b": B, "c": A}, r"takes 'c' \(FP32\) where the champion, version 1, has nothing"),
        ({"a": WHOLE, "b": B}, r"takes 'a' \(INT64\) where the champion, version 1, has 'a' \(FP32\)"),
    ],
)
def test_a_candidate_with_other_inputs_is_refused_and_one_with_the_same_is_not(
    tmp_path: Path, other: Any, words: str
) -> None:
    store = MemoryStore()
    register(store, "champion", {"policy": POLICY}, model(store, tmp_path / "old", a=A, b=B))
    register(store, "challenger", {"policy": POLICY}, model(store, tmp_path / "new", b=B, a=A))
    assert not [n for n in open_rollout(Registry(store), "m", "challenger").notes if "inputs" in n]
    register(store, "challenger", {"policy": POLICY}, model(store, tmp_path / "other", **other))
    with pytest.raises(UsageError, match=words) as refused:
        open_rollout(Registry(store), "m", "challenger")
    assert refused.value.code == "rollout-inputs"


ENDS = {
    d: [1.5, -1.5] if d in ("FP32", "FP64") else [int(np.iinfo(t).min), int(np.iinfo(t).max)]
    for d, t in DATATYPES.items()
    if d not in ("BYTES", "BOOL")
} | {"BYTES": ["x"], "BOOL": [True]}


def takes(wanted: str, datatype: str) -> bool:
    """Whether a server of a model with such an input answers requests with another one."""
    label, shares = Tensor("label", "INT64", (-1,)), Tensor("probabilities", "FP32", (-1, 2))
    codec = Codec(Signature("classification", (Tensor("x", wanted, (-1,)),), (label, shares), (0, 1)), "m", "1")
    data = ENDS[datatype]
    sent = {"name": "x", "datatype": datatype, "shape": [len(data)], "data": data}
    try:
        codec.infer(json.dumps({"inputs": [sent]}).encode())
    except HttpError:
        return False
    return True


def refusal(store: MemoryStore) -> str:
    """The code of the error that a rollout of the challenger begins with; none where it may begin."""
    try:
        open_rollout(Registry(store), "m", "challenger")
    except UsageError as e:
        return e.code
    return ""


@pytest.mark.parametrize("old", ENDS)
def test_a_candidate_may_have_the_types_that_its_server_takes_the_champions_values_for(
    tmp_path: Path, old: str
) -> None:
    store = MemoryStore()
    register(store, "champion", {"policy": POLICY}, model(store, tmp_path / "old", a=(old, [-1])))
    for new in ENDS:
        register(store, "challenger", {"policy": POLICY}, model(store, tmp_path / new, a=(new, [-1])))
        assert refusal(store) == ("" if takes(new, old) else "rollout-inputs"), f"{old} for {new}"
