"""Envoy's bootstrap, the keys of its runtime, and its files of servers, as data. Pure.

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
  Times are a reading behind the counters, for Envoy merges those of its workers after it was asked; so what took longer
  than the last edge has a bin of its own, and is never what counters and times differ by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tidegate.rollout.front.configuration import CONNECT_MS, Settings
from tidegate.rollout.front.weights import Weights
from tidegate.rollout.router import ARMS, BASELINE, CANARY, LATENCY_EDGES, STABLE

TOOK = (*LATENCY_EDGES, 10**12)  # microseconds: the edges of the bins, the last for what took longer than LATENCY_EDGES
_API = "type.googleapis.com/envoy."
_MANY = {
    "thresholds": [dict.fromkeys(["max_connections", "max_pending_requests", "max_requests", "max_retries"], 1 << 20)]
}


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


def bootstrap(settings: Settings, weights: Weights, epoch: str) -> dict[str, Any]:
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
            "histogram_bucket_settings": [{"match": {"prefix": "tidegate"}, "buckets": [float(e) for e in TOOK]}]
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
    watched = {"path": str(servers_path(settings.folder, arm)), "watched_directory": {"path": str(folder)}}
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


def fraction(share: int) -> str:
    """A share, in parts of ``WHOLE``, as the runtime reads it."""
    return f"{{numerator: {share}, denominator: TEN_THOUSAND}}"


def runtime(weights: Weights) -> dict[str, str]:
    """The keys of Envoy's runtime that hold the weights: where canary's share ends, where baseline's does, generation."""
    canary, baseline = weights.shares.get(CANARY, 0), weights.shares.get(BASELINE, 0)
    return {
        "tidegate.canary": fraction(canary),
        "tidegate.baseline": fraction(canary + baseline),
        "tidegate.whole": f"{canary} {canary + baseline} {weights.generation} of",
    }


def servers_path(folder: Path, arm: str) -> Path:
    """Where the servers of an arm stand."""
    return folder / "envoy" / f"{arm}.json"
