"""HAProxy as a ``Router``: weights, counts and servers over its admin socket, without a reload.

The weights in force, with their generation, are one variable of HAProxy itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import ServerError, UsageError
from tidegate.rollout.front import fence
from tidegate.rollout.front.admin import ask
from tidegate.rollout.front.configuration import FAILED, REFUSED, SLOW, slots
from tidegate.rollout.front.weights import Weights, pack, unpack
from tidegate.rollout.router import ARMS, STABLE, Observation, Tally

_VARIABLE = re.compile(r"^proc\.(\w+): type=\w+ value=<(.*)>$", re.MULTILINE)
_TABLE = re.compile(r"^# table: tally_(\w+),")
_ENTRY = re.compile(r": key=(\d+) .*gpc0=(\d+)")
_SERVERS = "# be_id be_name "


@dataclass(frozen=True)
class HaproxyRouter:
    """The front whose files are in ``folder``; see ``Router``."""

    folder: Path

    def set_weights(self, weights: Mapping[str, int], generation: int) -> None:
        """See ``Router`` and ``fence.change``."""
        fence.change(self.folder, self, Weights(weights, generation))

    def observe(self) -> Observation:
        """See ``Router``."""
        variables = [f"get var proc.{name}" for name in ("weights", "epoch", "stable_failed")]
        answer = self._ask(*variables, *[f"show table tally_{arm}" for arm in ARMS])
        weights, counts = self._weights(answer), _counts(answer)
        try:
            epoch, more = _variables(answer)["epoch"], int(_variables(answer)["stable_failed"])
            arms = {arm: _tally(counts[arm], more if arm == STABLE else 0) for arm in ARMS}
        except (KeyError, ValueError) as e:
            raise _unclear(answer) from e
        return Observation(epoch, weights.generation, weights.shares, arms)

    def weights(self) -> Weights:
        """The weights in force.

        Raises:
            ServerError: see ``admin.ask``.
        """
        return self._weights(self._ask("get var proc.weights"))

    def force(self, weights: Weights) -> None:
        """Put weights in force, whatever they were; nothing is kept.

        Raises:
            ServerError: they are not in force, or it is unknown.
        """
        self._set(weights=pack(weights))
        if (now := self.weights()) != weights:
            raise ServerError(f"HAProxy has {dict(now.shares)}, not {dict(weights.shares)}", code="front-unreachable")

    def restore(self, arms: Collection[str]) -> None:
        """See ``fence.restore``."""
        fence.restore(self.folder, self, arms)

    def servers(self, arm: str) -> dict[str, int]:
        """The servers of an arm that take requests: the port by the name they have in HAProxy."""
        return {name: port for name, (port, open_) in self._slots(arm).items() if open_}

    def serve(self, arm: str, ports: Sequence[int]) -> None:
        """Let an arm's requests go to exactly these ports of this machine; requests under way end where they are.

        Raises:
            ServerError: HAProxy cannot be reached, or does not do it.
        """
        there = self._slots(arm)
        chosen = _assign(arm, ports, {name: port for name, (port, open_) in there.items() if open_})
        opened = [n for n, port in chosen.items() if there[n] != (port, True)]
        closed = [n for n, (_, open_) in there.items() if open_ and n not in chosen]
        commands = [f"set server {arm}/{n} state maint" for n in opened if there[n][1]]
        for name in opened:
            commands.append(f"set server {arm}/{name} addr 127.0.0.1 port {chosen[name]}")
            commands.append(f"set server {arm}/{name} state ready")
        if commands:
            self._ask(*commands)
        if arm != STABLE and chosen:
            self._set(**{f"{arm}_servers": len(chosen)})
        if closed:
            self._ask(*[f"set server {arm}/{n} state maint" for n in closed])
        if self.servers(arm) != chosen:
            raise ServerError(f"HAProxy did not take the servers of {arm}", code="front-unreachable")

    def busy(self, arm: str) -> dict[int, int]:
        """Requests under way, by the port of their server."""
        lines = self._ask(f"show servers conn {arm}").splitlines()
        names = next((line.lstrip("# ").split() for line in lines if line.startswith("# bkname")), [])
        rows = [dict(zip(names, line.split(), strict=False)) for line in lines if line.startswith(f"{arm}/")]
        return {int(row["port"]): int(row["used_cur"]) for row in rows if row.get("port", "-").isdecimal()}

    def _slots(self, arm: str) -> dict[str, tuple[int, bool]]:
        """The port of each of an arm's servers, and whether it is in use."""
        lines = self._ask(f"show servers state {arm}").splitlines()
        names = next((line[2:].split() for line in lines if line.startswith(_SERVERS)), [])
        rows = [dict(zip(names, line.split(), strict=False)) for line in lines if f" {arm} " in line]
        ours = set(slots(arm))
        # bit 0 of the administrative state: in maintenance by an order over the socket, or since the start
        return {
            r["srv_name"]: (int(r["srv_port"]), not int(r["srv_admin_state"]) & 1)
            for r in rows
            if r["srv_name"] in ours
        }

    def _set(self, **variables: int) -> None:
        # HAProxy calls it experimental since 2.4; without it weights would be a map, changed one arm after the other
        self._ask("experimental-mode on", *[f"set var proc.{name} int({value})" for name, value in variables.items()])

    def _weights(self, answer: str) -> Weights:
        try:
            return unpack(int(_variables(answer)["weights"]))
        except (KeyError, ValueError, UsageError) as e:
            raise _unclear(answer) from e

    def _ask(self, *commands: str) -> str:
        return ask(self.folder / "haproxy.sock", *commands)


def _unclear(answer: str) -> ServerError:
    return ServerError(f"HAProxy's answer is not whole: {answer[:80]!r}", code="front-unreachable")


def _assign(arm: str, ports: Sequence[int], there: Mapping[str, int]) -> dict[str, int]:
    """Name a server for each port. A candidate's are the first ones; stable's stay where they are, the new go elsewhere."""
    names = slots(arm)
    if len(ports) > len(names):
        raise ServerError(f"{arm} has {len(ports)} servers", allowed=f"{len(names)} at most.", code="front-servers")
    if arm != STABLE:
        return dict(zip(names, ports, strict=False))
    kept = {name: port for name, port in there.items() if port in ports}
    free = [n for n in names if n not in there] + [n for n in there if n not in kept]
    return kept | dict(zip(free, [p for p in ports if p not in kept.values()], strict=False))


def _variables(answer: str) -> dict[str, str]:
    return dict(_VARIABLE.findall(answer))


def _counts(answer: str) -> dict[str, dict[int, int]]:
    counts: dict[str, dict[int, int]] = {}
    arm: dict[int, int] = {}
    for line in answer.splitlines():
        if begins := _TABLE.match(line):
            arm = counts.setdefault(begins[1], {})
        elif entry := _ENTRY.search(line):
            arm[int(entry[1])] = int(entry[2])
    return counts


def _tally(counts: Mapping[int, int], more: int) -> Tally:
    failed, refused = counts.get(FAILED, 0) + more, counts.get(REFUSED, 0)
    latency = tuple(counts.get(number, 0) for number in range(SLOW + 1))
    return Tally(failed + refused + sum(latency), failed, latency, refused)
