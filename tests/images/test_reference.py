import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import ConfigError
from tidegate.images.reference import below, parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("python", "docker.io/library/python"),
        ("team/it:1", "docker.io/team/it:1"),
        ("localhost/it", "localhost/it"),
        ("localhost:5000/it:3.11", "localhost:5000/it:3.11"),
        (f"registry.example/a/b@{DIGEST}", f"registry.example/a/b@{DIGEST}"),
        (f"registry.example/a/b:1@{DIGEST}", f"registry.example/a/b@{DIGEST}"),
        (f"[::1]:5000/it@{DIGEST}", f"[::1]:5000/it@{DIGEST}"),
    ],
)
def test_a_name_means_what_it_means_everywhere(text: str, means: str) -> None:
    assert str(parse(text)) == means


@pytest.mark.parametrize(
    "text",
    [
        "",
        "../x",
        "a/../b",
        "A/b",
        "host.example//x",
        "x y",
        "x\ny",
        "x:",
        "x@sha256:1",
        "-x/y",
        "http://h/x",
        "x?a=b",
        "h.io/x:../y",
        "ü",
    ],
)
def test_a_hostile_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as e:
        parse(text)
    assert e.value.code == "image-name"


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_and_what_is_read_stays_in_its_path(text: str) -> None:
    try:
        found = parse(text)
    except ConfigError:
        return
    assert str(parse(str(found))) == str(found)
    assert ".." not in found.repository
    assert not set("?#%\\ \n") & set(f"{found.repository}/{found.name}")


def test_a_family_is_pushed_below_the_registry_and_its_path() -> None:
    assert str(below("localhost:5000/team/", "train")) == "localhost:5000/team/train"
    assert str(below("localhost:5000", "train")) == "localhost:5000/train"
    with pytest.raises(ConfigError, match="names no registry"):
        below("team", "train")
