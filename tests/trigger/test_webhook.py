"""The receiver of webhooks on a real socket: who knows the secret gives a hint, everybody else is told no."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.servers import minio, wait_until
from tidegate.errors import ConfigError, ServerError, UsageError
from tidegate.trigger import webhook
from tidegate.trigger.hint import Hints
from tidegate.trigger.webhook import MAX_BODY, MOST_CALLS, check_secret, parse_address, receiver

SECRET = b"It's a Secret to Everybody"


class Receiving:
    """A receiver, and the hints that it gave."""

    def __init__(self, url: str, given: list[None]) -> None:
        self.url, self.given = url, given
        self.host, self.port = url.removeprefix("http://").rsplit(":", 1)

    def call(
        self, method: str = "POST", path: str = "/", body: bytes = b"{}", **headers: str
    ) -> http.client.HTTPResponse:
        with closing(http.client.HTTPConnection(self.host.strip("[]"), int(self.port), timeout=60)) as connection:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            answer.said = answer.read()  # type: ignore[attr-defined]
            return answer

    def status(self, **headers: str) -> int:
        return self.call(**headers).status  # type: ignore[arg-type]


@contextmanager
def receiving(host: str = "127.0.0.1") -> Iterator[Receiving]:
    given: list[None] = []
    with receiver(host, 0, SECRET, lambda: given.append(None)) as url:
        yield Receiving(url, given)


@pytest.fixture(scope="module")
def one() -> Iterator[Receiving]:
    with receiving() as it:
        yield it


@pytest.fixture
def hook(one: Receiving) -> Receiving:
    """A receiver that has given no hint yet."""
    one.given.clear()
    return one


def signature(body: bytes, secret: bytes = SECRET) -> str:
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


def test_a_call_that_github_signed_is_a_hint_whatever_path_it_has_and_however_its_header_is_written(
    hook: Receiving,
) -> None:
    # the example of GitHub's page on webhooks
    signed = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert hook.call("POST", "/any/path?x=1", b"Hello, World!", X_Hub_Signature_256=signed).status == 202
    assert hook.call("POST", "/", b"Hello, World!", x_hub_signature_256=signed).status == 202
    assert len(hook.given) == 2


def test_a_bearer_of_the_secret_gives_a_hint(hook: Receiving) -> None:
    assert hook.status(Authorization=f"Bearer {SECRET.decode()}") == 202
    assert hook.status(Authorization=f"bearer  {SECRET.decode()} ") == 202
    assert len(hook.given) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"X_Hub_Signature_256": ""}, {"X_Hub_Signature_256": "sha256="}, {"Authorization": ""},
        {"X_Hub_Signature_256": signature(b"{ }")}, {"X_Hub_Signature_256": signature(b"{}", b"x" * 26)},
        {"X_Hub_Signature_256": signature(b"{}").upper()}, {"X_Hub_Signature": signature(b"{}")},
        {"Authorization": "Bearer"}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {SECRET.decode()}"},
        {"Authorization": SECRET.decode()}, {"Authorization": f"Bearer {SECRET.decode()}\xff"},
    ],
)  # fmt: skip
def test_whoever_does_not_know_the_secret_is_told_401_and_gives_no_hint(
    hook: Receiving, headers: dict[str, str]
) -> None:
    answer = hook.call(**headers)  # type: ignore[arg-type]
    assert answer.status == 401
    assert "X-Hub-Signature-256" in json.loads(answer.said)["error"]  # type: ignore[attr-defined]
    assert hook.given == []


def test_a_body_beyond_the_limit_is_told_413_before_it_is_read(hook: Receiving) -> None:
    body = b"x" * (MAX_BODY + 1)
    assert hook.call(body=body, X_Hub_Signature_256=signature(body)).status == 413
    assert hook.call(body=body[1:], X_Hub_Signature_256=signature(body[1:])).status == 202
    assert len(hook.given) == 1


@pytest.mark.parametrize(
    ("said", "status"), [("9" * 5000, 413), ("4194305", 413), ("-1", 411), ("1e3", 411), ("", 411)]
)
def test_a_length_that_is_none_or_too_long_is_told_without_waiting_for_a_body(
    hook: Receiving, said: str, status: int
) -> None:
    with socket.create_connection((hook.host, int(hook.port)), timeout=60) as raw:
        raw.sendall(f"POST / HTTP/1.1\r\nContent-Length: {said}\r\n\r\n".encode())
        assert raw.recv(100).startswith(f"HTTP/1.0 {status} ".encode())


def test_a_body_of_unknown_length_is_told_411(hook: Receiving) -> None:
    with socket.create_connection((hook.host, int(hook.port)), timeout=60) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(100).startswith(b"HTTP/1.0 411 ")
    assert hook.given == []


def test_a_body_that_ends_early_is_no_hint(hook: Receiving) -> None:
    with socket.create_connection((hook.host, int(hook.port)), timeout=60) as raw:
        head = f"POST / HTTP/1.1\r\nContent-Length: 9\r\nAuthorization: Bearer {SECRET.decode()}\r\n\r\n{{}}"
        raw.sendall(head.encode())
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(100) == b""
    assert hook.given == []


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_another_method_is_told_405_and_which_one_is_right(hook: Receiving, method: str) -> None:
    answer = hook.call(method, "/", Authorization=f"Bearer {SECRET.decode()}")
    assert (answer.status, answer.headers["Allow"], hook.given) == (405, "POST", [])


def test_the_receiver_tells_that_it_is_up_and_nothing_else(hook: Receiving) -> None:
    answer = hook.call("GET", "/healthz")
    assert (answer.status, answer.said, answer.headers["Server"]) == (200, b'{"status": "ok"}', "tidegate")  # type: ignore[attr-defined]
    assert hook.call("HEAD", "/healthz").status == 200
    assert hook.call("PUT", "/healthz").status == 405
    assert hook.given == []


def test_a_call_that_is_replayed_is_one_look_like_the_first() -> None:
    hints = Hints()
    with receiver("127.0.0.1", 0, SECRET, hints.give) as url:
        hook = Receiving(url, [])
        assert {hook.status(X_Hub_Signature_256=signature(b"{}")) for _ in range(50)} == {202}
        assert [hints.wait(0), hints.wait(0)] == [True, False]


def test_callers_who_say_nothing_hold_no_more_than_their_share_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook, "CALL_SECONDS", 0.5)
    with receiving() as hook:
        silent = [socket.create_connection((hook.host, int(hook.port)), timeout=60) for _ in range(MOST_CALLS + 5)]
        assert [s.recv(1) for s in silent[MOST_CALLS:]] == [b""] * 5, "who comes when all places are taken is sent away"
        assert [s.recv(1) for s in silent] == [b""] * len(silent), "who says nothing is sent away too"
        for each in silent:
            each.close()
        wait_until(lambda: hook_answers(hook))


def test_a_receiver_ends_at_once() -> None:
    with receiver("127.0.0.1", 0, SECRET, print) as url:
        assert Receiving(url, []).call("GET", "/healthz").status == 200  # and now the loop has its half second to wait
        began = time.monotonic()
    assert time.monotonic() - began < 0.3


def hook_answers(hook: Receiving) -> bool:
    try:
        return hook.call("GET", "/healthz").status == 200
    except OSError:
        return False


def test_it_listens_on_ipv6_too() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with receiving("::1") as hook:
        assert hook.url.startswith("http://[::1]:")
        assert hook.call("GET", "/healthz").status == 200


def test_an_address_that_cannot_be_listened_on_is_said(hook: Receiving) -> None:
    with pytest.raises(ServerError) as e, receiver("127.0.0.1", int(hook.port), SECRET, print):
        pass
    assert e.value.code == "port-in-use"
    with pytest.raises(ServerError) as e, receiver("192.0.2.1", 0, SECRET, print):
        pass
    assert e.value.code == "address"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        (":8090", ("", 8090)),
        ("[::1]:0", ("::1", 0)),
        ("hook.local:1", ("hook.local", 1)),
    ],
)
def test_an_address_is_read(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "8090", "localhost", "a:b", "::1:80", "x:70000", "http://x:80", "x:80/"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as e:
        parse_address(text)
    assert e.value.code == "listen-invalid"


@pytest.mark.parametrize("secret", ["", " \n", "short", "x" * 15 + "\n"])
def test_a_secret_that_anybody_could_guess_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError) as e:
        check_secret(secret)
    assert e.value.code == "webhook-secret"
    assert not secret.strip() or secret.strip() not in str(e.value)


def test_a_secret_from_a_file_does_not_count_its_line_end() -> None:
    assert check_secret("x" * 16 + "\n") == b"x" * 16


def test_a_real_minio_server_calls_the_receiver_when_an_object_is_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints, secret = Hints(), "s" * 32
    with receiver("127.0.0.1", 0, secret.encode(), hints.give) as url:
        target = {"ENABLE": "on", "ENDPOINT": url, "AUTH_TOKEN": secret}
        settings = {f"MINIO_NOTIFY_WEBHOOK_{k}_WATCH": v for k, v in target.items()}
        with minio(tmp_path, monkeypatch.setenv, **settings) as bucket:
            queue = {"QueueArn": "arn:minio:sqs::WATCH:webhook", "Events": ["s3:ObjectCreated:*"]}
            bucket.client.put_bucket_notification_configuration(
                Bucket=bucket.name, NotificationConfiguration={"QueueConfigurations": [queue]}
            )
            assert not hints.wait(0)
            bucket.put("data/rows", "1")
            assert hints.wait(60)
