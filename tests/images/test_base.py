import json

import pytest

from tests.images.project import base_image, layer
from tests.images.server import FakeRegistry
from tidegate.errors import ConfigError, DefinitionError, TidegateError
from tidegate.images.base import contents, resolve
from tidegate.images.registry import OCI_INDEX, OCI_MANIFEST

AMD64 = "linux/amd64"


def quiet(_: str) -> None:
    raise AssertionError("nothing is to be said")


def test_a_tag_is_resolved_and_what_it_is_now_is_said(registry: FakeRegistry) -> None:
    pinned = base_image(registry)
    said: list[str] = []
    assert str(resolve(f"{registry.host}/python:3.11", AMD64, said.append).reference) == pinned
    assert pinned in said[0]
    assert str(resolve(pinned, AMD64, quiet).reference) == pinned


def test_of_an_index_the_platforms_own_image_is_taken(registry: FakeRegistry) -> None:
    ours = base_image(registry).partition("@")[2]
    others = base_image(registry, arch="arm64").partition("@")[2]
    listed = [
        {"digest": d, "platform": {"os": "linux", "architecture": a}} for d, a in ((others, "arm64"), (ours, "amd64"))
    ]
    index = registry.put("python", "all", OCI_INDEX, json.dumps({"manifests": listed}).encode())
    base = resolve(f"{registry.host}/python@{index}", AMD64, quiet)
    assert (base.manifest, base.reference.digest) == (ours, index)
    with pytest.raises(ConfigError, match="is made for linux/arm64"):
        resolve(f"{registry.host}/python@{others}", AMD64, quiet)
    registry.put("python", "none", OCI_INDEX, b'{"manifests": []}')
    with pytest.raises(ConfigError, match="is not made for"):
        resolve(f"{registry.host}/python:none", AMD64, lambda _: None)


def test_python_is_found_through_links_of_folders_and_files(registry: FakeRegistry) -> None:
    made = layer({"opt/py/bin/real": ""}, {"bin": "usr/bin", "usr/bin/python3.11": "../../opt/py/bin/real"})
    base = resolve(base_image(registry, made, path="/none:/bin"), AMD64, quiet)
    assert contents(base, "3.11").python == "/opt/py/bin/real"


@pytest.mark.parametrize("gone", ["usr/bin/.wh.python3.11", "usr/.wh.bin", "usr/bin/.wh..wh..opq"])
def test_a_python_that_a_later_layer_takes_away_is_not_there(registry: FakeRegistry, gone: str) -> None:
    base = resolve(base_image(registry, layer({"usr/bin/python3.11": ""}), layer({gone: None})), AMD64, quiet)
    with pytest.raises(DefinitionError) as e:
        contents(base, "3.11")
    assert e.value.code == "base-python"


def test_links_in_a_ring_end(registry: FakeRegistry) -> None:
    base = resolve(base_image(registry, layer({}, {"usr/bin/python3.11": "python3.11"})), AMD64, quiet)
    with pytest.raises(DefinitionError):
        contents(base, "3.11")


def test_system_packages_that_are_installed_are_known(registry: FakeRegistry) -> None:
    assert contents(resolve(base_image(registry), AMD64, quiet), "3.11").packages == (("libc6", "2.36-9", "amd64"),)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"config": 1}', b'{"config": {"digest": "sha256:x"}, "layers": []}']
)
def test_a_manifest_that_is_none_is_refused_with_a_code(registry: FakeRegistry, body: bytes) -> None:
    registry.put("python", "bad", OCI_MANIFEST, body)
    with pytest.raises(TidegateError):
        resolve(f"{registry.host}/python:bad", AMD64, lambda _: None)


def test_a_layer_that_is_no_tar_is_refused(registry: FakeRegistry) -> None:
    base = resolve(base_image(registry, (b"(\xb5/\xfd zstd", "sha256:x")), AMD64, quiet)
    with pytest.raises(DefinitionError) as e:
        contents(base, "3.11")
    assert e.value.code == "base-unreadable"
