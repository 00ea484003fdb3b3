"""The object store when answers are lost: never a false acknowledgement, never a lost one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.servers import KEYS, create_bucket, free_port, moto
from tests.store.fault_proxy import FAULTS, Proxy, proxy
from tidegate.errors import ConfigError, NotFound, StoreError
from tidegate.store.object import ObjectStore
from tidegate.store.patient import PatientStore


class Faulty(NamedTuple):
    store: ObjectStore
    direct: ObjectStore
    proxy: Proxy


@pytest.fixture(scope="module")
def faulty() -> Iterator[Faulty]:
    with moto(free_port()) as endpoint, proxy(endpoint) as between:
        create_bucket(endpoint, "faulty")
        through = f"http://127.0.0.1:{between.server_port}"
        store = ObjectStore("s3://faulty/x", aws_endpoint=through, pause=lambda _: None, **KEYS)
        direct = ObjectStore("s3://faulty/x", aws_endpoint=endpoint, **KEYS)
        assert store.put_new("warm-up", b"")
        yield Faulty(store, direct, between)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("times", [1, 4])
def test_a_put_whose_answer_was_lost_is_ours(faulty: Faulty, fault: str, times: int) -> None:
    key = f"{fault}/{times}"
    faulty.proxy.play(fault, times)
    try:
        assert faulty.store.put_new(key, b"mine")
    finally:
        faulty.proxy.play("", 0)
    assert faulty.direct.get(key) == b"mine"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_key_of_somebody_else_is_never_ours_whatever_the_answer(faulty: Faulty, fault: str) -> None:
    key = f"theirs/{fault}"
    assert faulty.direct.put_new(key, b"theirs")
    faulty.proxy.play(fault, 2)
    try:
        assert not faulty.store.put_new(key, b"mine")
    finally:
        faulty.proxy.play("", 0)
    assert faulty.direct.get(key) == b"theirs"


def test_a_put_that_never_lands_says_that_the_outcome_is_unknown(faulty: Faulty) -> None:
    faulty.proxy.play("lost-500", 1000)
    try:
        with pytest.raises(StoreError) as e:
            faulty.store.put_new("never", b"mine")
    finally:
        faulty.proxy.play("", 0)
    assert e.value.code == "store-outcome-unknown"
    assert not faulty.direct.find("never")


def test_a_bucket_that_says_created_twice_is_refused(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    from tidegate.store import object as module

    store = ObjectStore(
        "s3://faulty/unconditional", aws_endpoint=f"http://127.0.0.1:{faulty.proxy.server_port}", **KEYS
    )
    monkeypatch.setattr(module.obstore, "put", _Unconditional(obstore.put))
    with pytest.raises(StoreError) as e:
        store.put_new("k", b"x")
    assert e.value.code == "store-unconditional"


class _Unconditional:
    """obstore's put against a server that ignores the condition."""

    def __init__(self, real: object) -> None:
        self._real = real

    def __call__(self, store: object, key: str, data: bytes, mode: str | None = None) -> None:
        self._real(store, key, data)  # type: ignore[operator]


def test_an_unreachable_bucket_is_trouble_with_advice() -> None:
    store = ObjectStore("s3://faulty/x", aws_endpoint=f"http://127.0.0.1:{free_port()}", **KEYS)
    with pytest.raises(StoreError) as e:
        store.get("k")
    assert "tidegate doctor" in e.value.hint
    assert e.value.exit_code == 3


def test_a_bucket_that_is_not_there_is_said_at_once_by_its_name_and_not_waited_for(faulty: Faulty) -> None:
    pauses: list[float] = []
    options = {"aws_endpoint": f"http://127.0.0.1:{faulty.proxy.server_port}", "pause": pauses.append, **KEYS}
    store = PatientStore(ObjectStore("s3://absent/x", **options), pause=pauses.append)
    for verb in (
        lambda: store.get("k"),
        lambda: store.put("k", b"x"),
        lambda: store.put_new("k", b"x"),
        lambda: [*store.chunks("k")],
        lambda: [*store.list("")],
        lambda: [*store.list("", recursive=False)],
        lambda: store.move("k", "j"),
        lambda: store.delete("k"),
    ):
        with pytest.raises(ConfigError, match="no bucket 'absent'") as e:
            verb()
        assert (e.value.code, "aws s3 mb s3://absent" in e.value.hint) == ("store-no-bucket", True)
    assert pauses == []


def test_a_key_that_is_not_there_is_no_bucket_that_is_not_there(faulty: Faulty) -> None:
    with pytest.raises(NotFound):
        faulty.direct.get("NoSuchBucket")
