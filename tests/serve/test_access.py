"""Who may ask what: every route of both ports, with no token, a wrong one, a foreign Host, another method."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.errors import ConfigError
from tidegate.project import check_token
from tidegate.serve.access import ADMIN, DATA, ROUTES, Access, Policy, Route, access
from tidegate.serve.http import HttpError, read_head

TOKEN = b"0123456789abcdef-the-token"
OPEN_TO_ALL = {"/v2/health/live", "/v2/health/ready", "/v1/live", "/v1/ready"}


def ask(rules: Access, method: str, path: str, host: str = "127.0.0.1:80", **fields: str) -> Any:
    """The route that is found, or the status of the refusal."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in fields.items())]
    try:
        return rules.find(read_head("\r\n".join(lines).encode("latin-1"))).route
    except HttpError as e:
        return e.status


def path_of(route: Route) -> str:
    return route.path.replace("{model}", "m").replace("{version}", "1")


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.port}-{r.method}-{r.path}")
def test_each_route_refuses_strangers(route: Route) -> None:
    rules, path = Access(route.port, frozenset({"127.0.0.1"}), TOKEN), path_of(route)
    bearer = f"Bearer {TOKEN.decode()}"
    assert ask(rules, route.method, path, authorization=bearer) == route
    open_ = route.path in OPEN_TO_ALL
    assert (route.policy is Policy.ANYONE) == open_
    for said in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN.decode()}, {"authorization": f"Basic {TOKEN.decode()}"},
                 {"authorization": bearer[:-1]}, {"authorization": bearer + "x"}, {"x-token": TOKEN.decode()}):  # fmt: skip
        assert ask(rules, route.method, path, **said) == (route if open_ else 401)
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:80",
        "10.0.0.1",
        "[::2]",
        "localhost.evil",
        "",
        "x@127.0.0.1",
    ):
        found = ask(rules, route.method, path, host, authorization=bearer)
        assert found == (421 if host else route), host
    for method in {"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"} - {route.method}:
        assert ask(rules, method, path, authorization=bearer) == 405
        assert ask(rules, method, path) == (405 if open_ else 401)
    assert ask(rules, route.method, path, authorization=bearer, origin="http://evil.example") == 403
    for odd in ("null", "http://[", "http://[::1", "http://127.0.0.1:80@evil.example", "http://\xff"):
        assert ask(rules, route.method, path, authorization=bearer, origin=odd) == 403, odd
    assert ask(rules, route.method, path, authorization=bearer, origin="http://127.0.0.1:80") == route


@pytest.mark.parametrize("port", [DATA, ADMIN])
def test_what_is_not_in_the_table_is_told_only_to_who_may_ask(port: str) -> None:
    rules = Access(port, None, TOKEN)
    for path in ("/x", "/v1", "/v2/models", "/metrics/x", "/../metrics", "//metrics/x", "*"):
        assert ask(rules, "GET", path) == 401
        assert ask(rules, "GET", path, authorization=f"Bearer {TOKEN.decode()}") == 404


def test_no_route_of_one_port_is_there_on_the_other() -> None:
    for route in ROUTES:
        other = ADMIN if route.port == DATA else DATA
        assert ask(Access(other), route.method, path_of(route)) == 404


@pytest.mark.parametrize("port", [DATA, ADMIN])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "127.0.0.1.example.com"])
def test_a_port_that_others_reach_needs_a_token_or_certificates(port: str, host: str) -> None:
    with pytest.raises(ConfigError) as e:
        access(port, host, token=None, mutual=False)
    assert e.value.code == "serve-exposed"
    assert "TIDEGATE_SERVE_TOKEN" in e.value.hint
    assert access(port, host, token=TOKEN, mutual=False).token == TOKEN
    assert access(port, host, token=None, mutual=True).token is None


def test_open_is_about_the_data_port_only_and_keeps_no_token_there() -> None:
    assert access(DATA, "0.0.0.0", token=TOKEN, mutual=False, open_=True).token is None
    with pytest.raises(ConfigError) as e:
        access(ADMIN, "0.0.0.0", token=None, mutual=False)
    assert "--open" not in str(e.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.9"])
def test_loopback_answers_to_its_own_names_and_those_it_is_told(host: str) -> None:
    rules = access(DATA, host, token=None, mutual=False, names=["Model.Test"])
    for name in ("localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:5", "model.test:1"):
        assert ask(rules, "GET", "/v2", name) != 421
    assert ask(rules, "GET", "/v2", "other.test") == 421
    assert access(DATA, host, token=None, mutual=False, names=["*"]).hosts is None


@pytest.mark.parametrize("text", ["", "short", "with a space in the middle", "a" * 15, "é" * 20, "a" * 20 + "\x00"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as e:
        check_token(text, "the file")
    assert e.value.code == "token-invalid"
    assert check_token("a" * 16 + "\n", "the file") == b"a" * 16
