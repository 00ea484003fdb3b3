"""Hints from a MinIO server that is listened to; what it never will tell is refused, and what it does not tell is said.

MinIO's last servers take the request and send nothing (a flush that was lost), the one of the test cluster among them.
So what a server sends is played here too, as one that flushes was seen to; name such a one in TIDEGATE_TEST_MINIO_BINARY.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.servers import answering, data_bucket, free_port, minio, moto, wait_until
from tidegate.errors import ConfigError, ServerError
from tidegate.trigger import minio as module
from tidegate.trigger.hint import Hints, followed
from tidegate.trigger.minio import Listening

EVENT = b'{"Records":[{"eventVersion":"2.0","eventName":"s3:ObjectCreated:Put","s3":{}}]}\n'


@contextmanager
def played(*pieces: bytes, status: int = 200, setenv: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that sends these pieces, one chunk each, and ends; what it was asked is given to the block."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, answering(server):
        keys(setenv, f"http://127.0.0.1:{server.server_port}")
        yield asked


def keys(setenv: pytest.MonkeyPatch, endpoint: str) -> None:
    setenv.setenv("AWS_ENDPOINT_URL", endpoint)
    setenv.setenv("AWS_ACCESS_KEY_ID", "k")
    setenv.setenv("AWS_SECRET_ACCESS_KEY", "s")


def test_what_happens_is_a_hint_and_a_sign_of_life_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[None] = []
    with played(b" ", b" ", EVENT, b" ", EVENT[:20], EVENT[20:], b"", setenv=monkeypatch) as asked:
        Listening("s3://data/in%20put/é").receive(lambda: given.append(None))
    assert 3 <= len(given) <= 4, "listening began, and two happenings of which one may come in two pieces"
    assert asked == [
        "/data?prefix=in%20put%2F%C3%A9&suffix=&events=s3%3AObjectCreated%3A%2A&events=s3%3AObjectRemoved%3A%2A"
    ]


def test_signs_of_life_alone_give_the_hint_of_the_beginning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[None] = []
    with played(*[b" "] * 1000, b"", setenv=monkeypatch):
        Listening("s3://data").receive(lambda: given.append(None))
    assert given == [None]


def test_a_connection_that_breaks_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    with played(b" ", EVENT, setenv=monkeypatch), pytest.raises(ServerError) as e:
        Listening("s3://data").receive(lambda: None)
    assert e.value.code == "notify-unreachable"


@pytest.mark.parametrize(
    ("status", "code"), [(503, "notify-unreachable"), (429, "notify-unreachable"), (403, "notify-refused")]
)
def test_what_a_server_refuses_is_told_from_what_it_cannot_do_now(
    monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    with played(b"", status=status, setenv=monkeypatch), pytest.raises((ConfigError, ServerError)) as e:
        Listening("s3://data").check()
    assert e.value.code == code


def test_a_server_that_takes_the_request_and_says_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(module, "SILENT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        keys(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ServerError, match="says nothing") as e:
            Listening("s3://data").check()
    assert "--listen" in e.value.hint


def test_a_server_that_is_not_there_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    keys(monkeypatch, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ServerError, match="refused"):
        Listening("s3://data").check()


def test_without_the_address_of_a_server_or_credentials_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    ):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL is not set"):
        Listening("s3://data").check()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(ConfigError, match="no credentials"):
        Listening("s3://data").check()


def test_a_server_of_s3_that_tells_nobody_is_no_server_that_notifies(monkeypatch: pytest.MonkeyPatch) -> None:
    with moto(free_port()) as endpoint:
        bucket = data_bucket(endpoint, monkeypatch.setenv)
        with pytest.raises(ConfigError, match="something else"):
            Listening(bucket.uri()).check()


def test_a_real_server_knows_our_signature_and_refuses_a_wrong_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with minio(tmp_path, monkeypatch.setenv) as bucket:
        monkeypatch.setattr(module, "SILENT_SECONDS", 30.0)
        with pytest.raises(ConfigError, match="404"):
            Listening("s3://no-such-bucket/é ü").check()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        with pytest.raises(ConfigError, match="403"):
            Listening(bucket.uri()).check()


def tells(uri: str) -> bool:
    try:
        Listening(uri).check()
    except ServerError as e:
        return "says nothing" not in e.found
    return True


def test_a_real_server_tells_of_a_new_object_and_again_when_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, hints, said = free_port(), Hints(), []
    with minio(tmp_path, monkeypatch.setenv, port) as bucket:
        if not tells(bucket.uri()):
            pytest.skip("this MinIO sends nothing to who listens (minio/minio#21651): TIDEGATE_TEST_MINIO_BINARY=…")
        source = followed(Listening(bucket.uri("in%20put")), hints, said.append)
        source.__enter__()
        assert hints.wait(60), "listening began"
        bucket.put("in put/rows", "1")
        assert hints.wait(60)
        bucket.put("elsewhere/rows", "1")
        assert not hints.wait(2)
    wait_until(lambda: bool(said))
    with minio(tmp_path, monkeypatch.setenv, port):
        assert hints.wait(60), "what happened meanwhile was not told"
    source.__exit__(None, None, None)
