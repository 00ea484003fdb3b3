"""Who may ask what: one table of all routes, each with a policy, and the rules that hold a request against it.

``ANYONE``: probes. ``CALLER``: requests of the data port. ``OPERATOR``: the admin port. On loopback, without a token, both
are whoever is on this machine; elsewhere they have the bearer token, or a certificate of ours, or the port is refused
before it is opened. Whatever is not in the table is asked for a caller's credentials before it is told that there is
nothing.

On loopback a request must name this machine in Host, so that a page in a browser whose name was bound to 127.0.0.1
reaches nothing; a page of another origin that posts here is refused by its Origin.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from tidegate.errors import ConfigError
from tidegate.serve.http import Head, HttpError

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class Policy(Enum):
    """Who may ask for a route."""

    ANYONE = "anyone"
    CALLER = "caller"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Route:
    """One thing that can be asked for; ``{…}`` in its path stands for one segment."""

    port: str
    method: str
    path: str
    name: str
    policy: Policy


DATA, ADMIN = "data", "admin"
_CALLER, _OPERATOR, _ANYONE = Policy.CALLER, Policy.OPERATOR, Policy.ANYONE
_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"
ROUTES = (
    Route(DATA, "GET", "/", "welcome", _CALLER),
    Route(DATA, "GET", "/docs", "page", _CALLER),
    Route(DATA, "GET", "/openapi.json", "openapi", _CALLER),
    Route(DATA, "GET", "/v2", "server", _CALLER),
    Route(DATA, "GET", "/v2/health/live", "live", _ANYONE),
    Route(DATA, "GET", "/v2/health/ready", "ready", _ANYONE),
    Route(DATA, "GET", _MODEL, "model", _CALLER),
    Route(DATA, "GET", f"{_MODEL}/ready", "model-ready", _CALLER),
    Route(DATA, "GET", _VERSION, "model", _CALLER),
    Route(DATA, "GET", f"{_VERSION}/ready", "model-ready", _CALLER),
    Route(DATA, "POST", f"{_MODEL}/infer", "infer", _CALLER),
    Route(DATA, "POST", f"{_VERSION}/infer", "infer", _CALLER),
    Route(DATA, "POST", "/predict", "predict", _CALLER),
    Route(ADMIN, "GET", "/v1/live", "live", _ANYONE),
    Route(ADMIN, "GET", "/v1/ready", "ready", _ANYONE),
    Route(ADMIN, "GET", "/v1/status", "status", _OPERATOR),
    Route(ADMIN, "GET", "/v1/scores", "scores", _OPERATOR),
    Route(ADMIN, "GET", "/v1/inputs", "inputs", _OPERATOR),
    Route(ADMIN, "GET", "/metrics", "metrics", _OPERATOR),
    Route(ADMIN, "POST", "/v1/drain", "drain", _OPERATOR),
    Route(ADMIN, "POST", "/v1/reload", "reload", _OPERATOR),
)


@dataclass(frozen=True)
class Found:
    """A route that a request asks for, with what stands in the place of ``{…}``."""

    route: Route
    model: str = ""
    version: str = ""


@dataclass(frozen=True)
class Access:
    """The rules of one port.

    Attributes:
        port: ``data`` or ``admin``.
        hosts: the names that Host may say; None for any.
        token: what callers and operators must have; None for nothing.
    """

    port: str
    hosts: frozenset[str] | None = None
    token: bytes | None = field(default=None, repr=False)

    def find(self, head: Head) -> Found:
        """Return the route that a head asks for.

        Raises:
            HttpError: a foreign Host (421) or Origin (403), no or a wrong token (401), nothing there (404), another
                method (405).
        """
        self._check_host(head)
        here = [(r, v) for r in ROUTES if r.port == self.port and (v := _match(r.path, head.path)) is not None]
        route = next((r for r, _ in here if r.method == head.method), here[0][0] if here else None)
        if (route.policy if route else Policy.CALLER) is not Policy.ANYONE:
            self._check_token(head)
        if route is None:
            raise HttpError(404, f"there is nothing at {head.path[:100]}")
        if route.method != head.method:
            allowed = sorted({r.method for r, _ in here})
            what = f"{head.method[:20]} is not allowed here; {' or '.join(allowed)} is"
            raise HttpError(405, what, b"allow: %b\r\n" % ", ".join(allowed).encode())
        return Found(route, **next(v for r, v in here if r is route))

    def _check_host(self, head: Head) -> None:
        if self.hosts is not None and head.host and _name(head.host) not in self.hosts:
            raise HttpError(421, f"this server is not called {head.host[:100]}")
        origin = head.fields.get(b"origin")
        if origin is not None and origin.decode("latin-1").partition("://")[2] != head.host:
            raise HttpError(403, "a page of another origin asks")

    def _check_token(self, head: Head) -> None:
        if self.token is None:
            return
        kind, _, said = head.fields.get(b"authorization", b"").partition(b" ")
        right = hmac.compare_digest(said.strip(), self.token)
        if not right or kind.lower() != b"bearer":
            raise HttpError(401, "a bearer token is needed", b"www-authenticate: Bearer\r\n")


def _match(pattern: str, path: str) -> dict[str, str] | None:
    wanted, said = pattern.strip("/").split("/"), path.strip("/").split("/")
    if len(wanted) != len(said):
        return None
    found = {}
    for w, s in zip(wanted, said, strict=True):
        if w.startswith("{") and s:
            found[w[1:-1]] = s
        elif w != s:
            return None
    return found


def _name(host: str) -> str:
    """The name in ``name``, ``name:port``, ``[::1]:port``."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own and nobody else's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def access(
    port: str, host: str, *, token: bytes | None, mutual: bool, open_: bool = False, names: Sequence[str] = ()
) -> Access:
    """Decide on the rules of a port that will listen on an address.

    Args:
        port: ``data`` or ``admin``.
        host: the address.
        token: the bearer token, if there is one.
        mutual: whether clients show certificates (mTLS).
        open_: whether everybody who reaches the address may ask; of the data port only.
        names: more names that Host may say, ``*`` for any; of the data port only, or a page could order the admin port.

    Raises:
        ConfigError: others could reach it and nothing would keep them out (code ``serve-exposed``).
    """
    local = is_loopback(host)
    if not (local or token or mutual or open_):
        more = " --open lets everybody ask the data port." if port == DATA else ""
        raise ConfigError(
            f"the {port} port on {host} could be asked by everybody who reaches this machine",
            allowed=f"A loopback address, or a bearer token, or certificates of clients (mTLS).{more}",
            hint="export TIDEGATE_SERVE_TOKEN=$(openssl rand -hex 32), or --tls-cert, --tls-key and --tls-client-ca",
            code="serve-exposed",
        )
    known = None if not local or "*" in names else frozenset({*LOCAL_NAMES, host.lower(), *(n.lower() for n in names)})
    return Access(port, known, None if open_ else token)
