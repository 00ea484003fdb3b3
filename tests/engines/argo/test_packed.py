"""A packed definition comes back as it was, and what is none is refused."""

import base64
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.engines.argo.packed import Packed, pack, unpack
from tidegate.errors import DefinitionError

JSON = st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers() | st.lists(st.booleans()), max_size=4)


def packed(text: bytes) -> str:
    return base64.b64encode(lzma.compress(text)).decode()


@given(JSON, JSON, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), st.booleans())
def test_what_was_packed_comes_back(spec: dict, platforms: dict, origin: dict, use_cache: bool) -> None:  # type: ignore[type-arg]
    made = Packed(spec, platforms, origin, use_cache)
    assert unpack(pack(made)) == made
    assert pack(made).isascii()
    assert not set('{}"\\\n ') & set(pack(made))


def test_the_same_definition_is_packed_alike_whatever_the_order_of_its_keys() -> None:
    assert pack(Packed({"a": 1, "b": 2}, {})) == pack(Packed({"b": 2, "a": 1}, {}))


@pytest.mark.parametrize(
    "text", ["", "no base64 at all", "AAAA", base64.b64encode(b"not compressed").decode(), "\u2028"]
)
def test_what_is_no_packed_definition_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        unpack(text)
    assert refused.value.code == "argo-plan-unreadable"


INSIDE = {
    "no json": b"no json", "a list": b"[]", "empty": b"{}", "text": b'"text"', "no utf-8": b"\xff",
    "more": b'{"spec": {}, "platforms": {}, "more": 1}', "deep": b"[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("what", INSIDE)
def test_what_is_packed_but_no_definition_is_refused(what: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        unpack(packed(INSIDE[what]))
    assert refused.value.code == "argo-plan-unreadable"


def test_a_packed_definition_without_its_end_or_of_more_than_64_mib_is_refused() -> None:
    whole = b'{"spec": {}, "platforms": {}}'
    for text in (packed(whole)[:-8], packed(b" " * (65 << 20) + whole)):
        with pytest.raises(DefinitionError) as refused:
            unpack(text)
        assert refused.value.code == "argo-plan-unreadable"


def test_a_definition_that_a_workflow_cannot_carry_is_refused() -> None:
    noise = "".join(chr(33 + (i * i * 7919 + i * 104729) % 94) for i in range(90_000))
    with pytest.raises(DefinitionError) as refused:
        pack(Packed({str(i): hash((i, noise)) for i in range(40_000)}, {}))
    assert refused.value.code == "argo-too-large"
