"""A registered model as data: an alias is resolved to a version and its bytes, which come checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.registry.made import candidate
from tidegate.data import ref
from tidegate.errors import Damaged, ModelRefused, NotFound, UsageError
from tidegate.registry.model import Registry
from tidegate.registry.register import register
from tidegate.store.blobs import digest_path
from tidegate.store.memory import MemoryStore


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """Two versions of the model m, the first of them promoted."""
    made = MemoryStore()
    for number in (1, 2):
        register(candidate(tmp_path, number, alias="challenger"), made)
    Registry(made).promote("m", 1, "champion", actor="me")
    return made


def test_an_alias_is_resolved_to_a_version_whose_bytes_come_checked(store: MemoryStore, tmp_path: Path) -> None:
    pin = ref.resolve("model:m@champion", store)
    assert ref.parse_pin(str(pin), store) == pin == ref.resolve(str(pin), store)
    assert (pin.source, pin.revision, pin.complete) == ("model:m", "1", True)
    content = ref.fetch(str(pin), tmp_path / "out", store)
    assert content == digest_path(tmp_path / "out")
    assert content.digest == pin.identity
    assert (tmp_path / "out" / "weights").read_text() == "model 1"


def test_a_promotion_makes_the_alias_other_data_and_the_pin_stays_what_it_was(
    store: MemoryStore, tmp_path: Path
) -> None:
    before = ref.resolve("model:m", store)
    Registry(store).promote("m", 2, "champion", actor="me")
    after = ref.resolve("model:m", store)
    assert (after.revision, after == ref.resolve("model:m@challenger", store)) == ("2", True)
    assert before.identity != after.identity
    ref.fetch(str(before), tmp_path / "out", store)
    assert (tmp_path / "out" / "weights").read_text() == "model 1"


def test_the_projects_own_store_is_asked_where_none_is_named(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.data.model.open_store", lambda: store)
    pin = str(ref.resolve("model:m@champion"))
    assert ref.fetch(pin, tmp_path / "out").digest == pin.partition("#digest=")[2]


@pytest.mark.parametrize("reference", ["model:none", "model:m@none", "model:m:3"])
def test_what_is_not_registered_is_not_found(store: MemoryStore, reference: str) -> None:
    with pytest.raises(NotFound):
        ref.resolve(reference, store)


def test_a_version_that_may_not_be_served_is_neither_resolved_nor_brought(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = str(ref.resolve("model:m", store))

    def refuse(*_: object) -> None:
        raise ModelRefused("it was revoked")

    monkeypatch.setattr("tidegate.data.model.may_serve", refuse)
    with pytest.raises(ModelRefused):
        ref.resolve("model:m", store)
    with pytest.raises(ModelRefused):
        ref.fetch(pin, tmp_path / "out", store)
    assert not (tmp_path / "out").exists()


def test_a_pin_with_other_bytes_than_the_version_has_brings_nothing(store: MemoryStore, tmp_path: Path) -> None:
    other = ref.resolve("model:m:2", store).identity
    with pytest.raises(Damaged, match="was pinned"):
        ref.fetch(f"model:m:1#digest={other}", tmp_path / "out", store)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    ["model:", "model:M", "model:m@", "model:m:0", "model:m@a:1", "model:m:" + "9" * 5000, "model:a/b", "model:m x"],
)
def test_what_is_no_model_is_refused_before_anything_is_looked_at(text: str) -> None:
    with pytest.raises(UsageError) as e:
        ref.parse(text)
    assert e.value.code == "reference-invalid"


@pytest.mark.parametrize(
    "text", ["model:m", "model:m:1", "model:m@champion#digest=sha256:" + "a" * 64, "model:m:1#digest=1"]
)
def test_an_alias_and_a_version_without_its_digest_are_no_pins(text: str) -> None:
    with pytest.raises(UsageError) as e:
        ref.parse_pin(text)
    assert e.value.code == "pin-invalid"
