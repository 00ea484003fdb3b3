import json
import os
import stat
from pathlib import Path

import pytest

from tests.images.conftest import log_in
from tests.images.server import LOGIN, FakeRegistry, serving, sha256
from tidegate.errors import Damaged, NotFound, ServerError
from tidegate.images.registry import OCI_MANIFEST, Manifest, Registry, digest_of

DATA = b"blob" * 1000


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "lost"])
def test_an_upload_that_breaks_off_is_repeated(registry: FakeRegistry, tmp_path: Path, fault: object) -> None:
    (tmp_path / "blob").write_bytes(DATA)
    registry.faults = [("PUT", "uploads", fault), ("POST", "uploads", fault), ("PUT", "uploads", fault)]
    Registry(registry.host).upload("team/it", digest_of(DATA), tmp_path / "blob")
    assert registry.blobs["team/it", sha256(DATA)] == DATA


def test_an_upload_whose_answer_was_lost_is_not_sent_again(registry: FakeRegistry) -> None:
    registry.faults = [("PUT", "uploads", "lost")]
    Registry(registry.host).upload("it", digest_of(DATA), DATA)
    assert sum("PUT" in a for a in registry.asked) == 1


def test_an_upload_that_the_registry_forgot_begins_anew(registry: FakeRegistry) -> None:
    registry.faults = [("PUT", "uploads", 404)]
    Registry(registry.host).upload("it", digest_of(DATA), DATA)
    assert ("it", sha256(DATA)) in registry.blobs


def test_a_blob_that_is_there_is_not_sent(registry: FakeRegistry) -> None:
    registry.add("it", DATA)
    Registry(registry.host).upload("it", digest_of(DATA), DATA)
    assert [a.split()[0] for a in registry.asked] == ["HEAD"]


def test_trouble_that_stays_is_said_with_the_registrys_name(registry: FakeRegistry) -> None:
    registry.faults = [("GET", "manifests", 503)] * 10
    with pytest.raises(ServerError, match=f"{registry.host} cannot be used: 503 UNAVAILABLE") as e:
        Registry(registry.host).manifest("it", "latest")
    assert e.value.code == "registry-unreachable"
    assert e.value.exit_code == 3
    assert len(registry.asked) == 4


def test_a_registry_that_is_not_there_is_said() -> None:
    with pytest.raises(ServerError, match="localhost:1 cannot be used"):
        Registry("localhost:1").manifest("it", "latest")


def test_what_is_missing_is_not_found(registry: FakeRegistry, tmp_path: Path) -> None:
    client = Registry(registry.host)
    for ask in (lambda: client.manifest("it", "x"), lambda: client.fetch("it", digest_of(b""), tmp_path / "x")):
        with pytest.raises(NotFound) as e:
            ask()
        assert e.value.code == "image-missing"
    assert not list(tmp_path.glob("*"))


def test_bytes_of_another_digest_are_refused(registry: FakeRegistry, tmp_path: Path) -> None:
    digest = registry.add("it", DATA)
    body = registry.put("it", "latest", OCI_MANIFEST, b"{}")
    client = Registry(registry.host)
    registry.faults = [("GET", "blobs", "flip"), ("GET", "manifests", "flip")]
    with pytest.raises(Damaged) as e:
        client.read("it", digest)
    assert e.value.code == "digest-mismatch"
    with pytest.raises(Damaged):
        client.manifest("it", body)
    registry.faults = [("GET", "blobs", "flip")] * 9
    with pytest.raises(Damaged):
        client.fetch("it", digest, tmp_path / "blob")
    assert not list(tmp_path.glob("*"))


@pytest.mark.parametrize("fault", ["flip", "cut", "short", 500])
def test_a_fetch_that_breaks_off_is_repeated(registry: FakeRegistry, tmp_path: Path, fault: object) -> None:
    digest = registry.add("it", DATA)
    registry.faults = [("GET", "blobs", fault)]
    Registry(registry.host).fetch("it", digest, tmp_path / "blob")
    assert [p.read_bytes() for p in tmp_path.glob("*")] == [DATA]


@pytest.mark.parametrize("fault", ["cut", "short", 503])
def test_an_answer_that_ends_early_is_asked_for_again(registry: FakeRegistry, fault: object) -> None:
    digest = registry.add("it", DATA)
    registry.put("it", "latest", OCI_MANIFEST, b'{"a": 1}')
    registry.faults = [("GET", "manifests", fault), ("GET", "blobs", fault), ("PUT", "manifests", "lost")]
    client = Registry(registry.host)
    assert client.manifest("it", "latest").body == b'{"a": 1}'
    assert client.read("it", digest) == DATA
    client.push("it", "x", Manifest(b"{}", OCI_MANIFEST))


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://localhost/x"])
def test_a_registry_sends_us_to_no_file(registry: FakeRegistry, place: str) -> None:
    registry.location = place
    with pytest.raises(ServerError, match="sends us to"):
        Registry(registry.host).upload("it", digest_of(DATA), DATA)


def test_a_manifest_stored_under_another_digest_is_refused(registry: FakeRegistry) -> None:
    registry.faults = [("PUT", "manifests", "flip")]
    with pytest.raises(Damaged):
        Registry(registry.host).push("it", "x", Manifest(b"{}", OCI_MANIFEST))


def test_a_blob_that_changed_while_it_was_sent_is_refused(registry: FakeRegistry) -> None:
    with pytest.raises(Damaged) as e:
        Registry(registry.host).upload("it", digest_of(DATA), b"other")
    assert e.value.code == "digest-mismatch"


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_login_is_used_where_it_is_asked_for(registry: FakeRegistry, tmp_path: Path, auth: str) -> None:
    registry.auth = auth
    log_in(tmp_path / "docker", registry.host)
    client = Registry(registry.host)
    client.upload("it", digest_of(DATA), DATA)
    client.push("it", "x", Manifest(b"{}", OCI_MANIFEST))
    assert client.manifest("it", "x").body == b"{}"
    assert client.read("it", digest_of(DATA)) == DATA


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_without_a_login_the_denial_is_said(registry: FakeRegistry, auth: str) -> None:
    registry.auth = auth
    with pytest.raises(ServerError, match="denies GET") as e:
        Registry(registry.host).manifest("it", "x")
    assert e.value.code == "registry-denied"
    assert e.value.hint == f"docker login {registry.host}"


def test_a_login_helper_is_asked(registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-vault"
    helper.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"Username": "user", "Secret": "secret"}\'\n')
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "vault"}}))
    registry.auth = "basic"
    Registry(registry.host).upload("it", digest_of(DATA), DATA)
    assert LOGIN in {a for _, a in registry.seen}


def test_a_login_does_not_follow_a_redirect_to_elsewhere(registry: FakeRegistry, tmp_path: Path) -> None:
    log_in(tmp_path / "docker", registry.host)
    with serving(FakeRegistry()) as elsewhere:
        digest = registry.add("it", DATA)
        elsewhere.add("it", DATA)
        registry.auth, registry.redirect = "basic", f"http://{elsewhere.host}"
        assert Registry(registry.host).read("it", digest) == DATA
        assert [a for _, a in elsewhere.seen] == [""]


def test_plain_http_is_spoken_to_this_machine_only() -> None:
    assert Registry("localhost:5000").address == "http://localhost:5000/v2/"
    assert Registry("127.0.0.1").address.startswith("http://")
    for host in ("registry.example", "localhost.example:5000", "127.0.0.1.example", "10.0.0.1:5000"):
        assert Registry(host).address == f"https://{host}/v2/"


def test_a_layer_of_another_repository_is_taken_over_without_bytes(registry: FakeRegistry) -> None:
    digest = registry.add("python", DATA)
    assert Registry(registry.host).mount("it", digest, "python")
    registry.mounts = False
    assert not Registry(registry.host).mount("other", digest, "python")
