"""HAProxy's configuration as text. Pure: settings in, haproxy.cfg and its map of latencies out.

How a request goes (HAProxy 2.6 or later):

1. It draws a number below 10,000, at random or from a header (``sticky``). Only requests that any arm can answer alike
   and that can be sent twice take part in the draw: POST, a body up to ``body`` bytes, headers up to 5 KiB, no version
   in their path. All others get 9,999, the number that goes to stable as long as stable gets anything.
2. One variable of the process, ``proc.weights``, holds the arms' shares and the generation in one integer
   (``weights.pack``), so that a change is atomic. Below canary's share: canary; below canary's and baseline's: baseline.
3. A candidate's backend asks a server of its arm first (``use-server``: all of them have weight 0), and sends the
   request again to a *shield* if that one answers 5xx, answers no HTTP, breaks off, or takes too long: the only servers
   with a weight are sockets that lead to stable. There are two, because HAProxy waits before a second try where it sees
   one server only. ``option http-buffer-request`` and a buffer as large as the body keep the request at hand.
4. Stable's requests are sent again only where no connection was made: more would copy each of them.
5. Every answer counts in the table of its arm: under 0 to 48 by its time, under ``FAILED`` if the shield gave it or it
   is 5xx or 429, under ``REFUSED`` if it is another 4xx. What HAProxy itself answers in stable's place is counted in
   ``proc.stable_failed``.

A candidate that hangs costs ``timeout`` at most: its accept queue fills up, the system drops what comes then, and only
the timeout for connecting (``CONNECT_MS``) ends that. After ``error-limit`` failures in a row it is left alone until its
health check passes; that counts as failing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import ConfigError
from tidegate.rollout.router import ARMS, BASELINE, CANARY, LATENCY_EDGES, STABLE

SLOW = len(LATENCY_EDGES)  # the key of what took longer than the last edge
FAILED, REFUSED = 99, 98
CONNECT_MS = 50  # on loopback a connection takes microseconds, or the process hangs
HEADERS = 8_192  # bytes of a buffer besides the body
SLOTS = 16  # servers of an arm; stable has twice as many, to change versions without a gap
_HEADER = re.compile(r"[A-Za-z0-9!#$&'*+.^_`|~-]{1,64}")
_HOST = re.compile(r"[A-Za-z0-9*]([A-Za-z0-9.-]{0,252})")


@dataclass(frozen=True)
class Settings:
    """What a front is told.

    Attributes:
        folder: where its sockets and its map are; HAProxy's own sockets need a path of less than 90 bytes.
        port: where clients ask.
        host: the address to listen on.
        body: bytes of the largest request that a candidate may get; larger ones go to stable. HAProxy copies a whole
            buffer, however little is in it, for each request that it may send again: a large one makes all of them dear.
        timeout_ms: how long a candidate may take before the request goes to stable.
        stable_timeout_ms: how long stable may take.
        sticky: the header whose value decides the arm, so that one client always meets the same; "" draws at random.
        threads: HAProxy's threads; one carries tens of thousands of requests a second.
        ready: the path that says whether a server is ready.
    """

    folder: Path
    port: int
    host: str = "127.0.0.1"
    body: int = 24_576
    timeout_ms: int = 500
    stable_timeout_ms: int = 30_000
    sticky: str = ""
    threads: int = 1
    ready: str = "/v2/health/ready"

    def __post_init__(self) -> None:
        if self.sticky and not _HEADER.fullmatch(self.sticky):
            raise ConfigError(f"{self.sticky[:80]!r} is no header's name", allowed="Such as x-account.", code="header")
        if not _HOST.fullmatch(self.host) and not _is_address(self.host):
            raise ConfigError(f"{self.host[:80]!r} is no address", allowed="Such as 127.0.0.1.", code="address")
        if len(str(self.admin_socket)) > 88:
            raise ConfigError(
                f"the path of HAProxy's socket is too long: {self.admin_socket}",
                allowed="88 bytes.",
                hint="XDG_STATE_HOME=/var/lib",
                code="socket-path",
            )

    @property
    def admin_socket(self) -> Path:
        """HAProxy's admin socket, for the owner of the folder only."""
        return self.folder / "haproxy.sock"

    @property
    def shield_socket(self) -> Path:
        """Where a candidate's failed requests go on to stable."""
        return self.folder / "shield.sock"

    @property
    def latency_map(self) -> Path:
        """The file of ``latency_map``."""
        return self.folder / "latency.map"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def slots(arm: str) -> list[str]:
    """The names of an arm's servers in HAProxy."""
    return [f"{arm}{n}" for n in range(1, 1 + (2 * SLOTS if arm == STABLE else SLOTS))]


def configuration(settings: Settings, packed: int, epoch: str) -> str:
    """Return haproxy.cfg.

    Args:
        settings: what the front is told.
        packed: weights and generation to begin with (``weights.pack``).
        epoch: a text that no other start has.
    """
    parts = [_global(settings, packed, epoch), _defaults(), _frontend(settings), _shield(settings), _stable(settings)]
    parts += [_candidate(settings, arm) for arm in (CANARY, BASELINE)]
    parts += [f"backend tally_{arm}\n    stick-table type integer size 1k nopurge store gpc0\n" for arm in ARMS]
    return "\n".join(parts)


def _global(settings: Settings, packed: int, epoch: str) -> str:
    return f"""\
global
    stats socket {settings.admin_socket} mode 600 level admin
    log stdout format raw local0 notice
    nbthread {settings.threads}
    fd-hard-limit 65536
    noreuseport
    hard-stop-after 10s
    tune.bufsize {settings.body + HEADERS}
    set-var proc.weights int({packed})
    set-var proc.canary_servers int(1)
    set-var proc.baseline_servers int(1)
    set-var proc.stable_failed int(0)
    set-var-fmt proc.epoch "{epoch}"
"""


def _defaults() -> str:
    return """\
defaults
    mode http
    log global
    option dontlog-normal
    option http-buffer-request
    option redispatch 1
    retries 1
    balance roundrobin
    http-reuse always
    timeout client 60s
    timeout http-request 10s
    timeout http-keep-alive 60s
    timeout check 1s
    default-server inter 500ms fastinter 200ms fall 3 rise 1
"""


def _frontend(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    draw = "rand(10000)"
    sticky = ""
    if settings.sticky:
        hashed = f"req.hdr({settings.sticky}),xxh32,mod(10000)"
        sticky = f"    http-request set-var(txn.drawn) {hashed} if drawn {{ req.hdr({settings.sticky}) -m found }}\n"
        draw += f" if drawn !{{ req.hdr({settings.sticky}) -m found }}"
    else:
        draw += " if drawn"
    return f"""\
frontend front
    bind {host}:{settings.port}
    acl short req.body_len le {settings.body}
    acl whole req.hdrs,length le {HEADERS * 5 // 8}
    acl drawn var(txn.draw) -m found
    http-request set-var(txn.draw) int(1) if METH_POST short whole !{{ path_sub /versions/ }}
{sticky}    http-request set-var(txn.drawn) {draw}
    http-request set-var(txn.number) int(9999)
    http-request set-var(txn.number) var(txn.drawn) if drawn
    http-request set-var(txn.begin) date(0,us)
    use_backend canary if {{ var(proc.weights),and(16383),sub(txn.number) gt 0 }}
    use_backend baseline if {{ var(proc.weights),div(16384),and(16383),sub(txn.number) gt 0 }}
    default_backend stable
"""


def _shield(settings: Settings) -> str:
    return f"""\
frontend shield
    bind unix@{settings.shield_socket} mode 600
    default_backend stable
"""


def _stable(settings: Settings) -> str:
    return f"""\
backend stable
    timeout connect 1s
    timeout server {settings.stable_timeout_ms}ms
    retry-on conn-failure
    option httpchk
    http-check send meth GET uri {settings.ready} ver HTTP/1.1 hdr host 127.0.0.1
    http-check expect status 200
    acl drawn var(txn.drawn) -m found
{_count(settings, STABLE, "drawn ")}\
    http-after-response set-var(proc.stable_failed) var(proc.stable_failed),add(1) if drawn !{{ sc1_tracked }}
    server-template stable 1-{len(slots(STABLE))} 127.0.0.1:1 check disabled
"""


def _candidate(settings: Settings, arm: str) -> str:
    others = "".join(f"    use-server {slot} if TRUE\n" for slot in slots(arm))
    return f"""\
backend {arm}
    timeout connect {CONNECT_MS}ms
    timeout server {settings.timeout_ms}ms
    retry-on conn-failure empty-response response-timeout junk-response 500 501 502 503 504
    option httpchk
    http-check send meth GET uri {settings.ready} ver HTTP/1.1 hdr host 127.0.0.1
    http-check expect status 200
    http-request set-var(txn.server) rand(1048576),mod(proc.{arm}_servers),add(1)
    use-server {arm}%[var(txn.server)] if TRUE
{others}\
    acl failed srv_name -m beg shield
{_count(settings, arm, "")}\
    default-server weight 0 check observe layer7 error-limit 10 on-error mark-down disabled
    server-template {arm} 1-{len(slots(arm))} 127.0.0.1:1
    server shield1 unix@{settings.shield_socket} weight 1 no-check enabled
    server shield2 unix@{settings.shield_socket} weight 1 no-check enabled
"""


def _count(settings: Settings, arm: str, drawn: str) -> str:
    taken = f"date(0,us),sub(txn.begin),map_ip_int({settings.latency_map},{SLOW})"
    always = f" if {drawn.strip()}" if drawn else ""
    return f"""\
    acl failed status ge 500
    acl failed status 429
    acl refused status 400:499
    http-response track-sc1 int({FAILED}) table tally_{arm} if {drawn}failed
    http-response track-sc1 int({REFUSED}) table tally_{arm} if {drawn}refused
    http-response track-sc1 {taken} table tally_{arm}{always}
    http-response sc-inc-gpc0(1)
"""


def latency_map() -> str:
    """Return the map from microseconds to the number of their edge.

    HAProxy has a tree for ranges of IPv4 addresses only. It takes an integer for an address, so each range between two
    edges is written as the networks it consists of: one look in a tree a request, in the place of 48 comparisons.
    """
    lines, low = [], 0
    for number, edge in enumerate(LATENCY_EDGES):
        lines += [f"{network} {number}" for network in _networks(low, edge)]
        low = edge + 1
    return "\n".join(lines) + "\n"


def _networks(low: int, high: int) -> Iterator[ipaddress.IPv4Network]:
    return ipaddress.summarize_address_range(ipaddress.IPv4Address(low), ipaddress.IPv4Address(high))
