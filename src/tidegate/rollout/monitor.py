"""Watch live rows and predictions for drift: read the servers' counts, hold each window against the version's profile.

One event is written when something begins to drift, or something else does; a window in which nothing has drifted ends
it. What the newest event says is not said again by a monitor that starts. A window is as many seconds as asked for, and
longer until it has enough rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tidegate.data.profile import Profile, parse
from tidegate.errors import ConfigError, NotFound, ServerError
from tidegate.registry.gate import CANNOT_TELL, FAIL, PASS, Finding
from tidegate.registry.model import ModelState, Version
from tidegate.rollout.drift import Column, Rules, Window, drifted, look
from tidegate.rollout.servers import get
from tidegate.store.base import Store
from tidegate.store.blobs import Blobs
from tidegate.store.drift import Drifts
from tidegate.store.runs import iso

SECONDS = 10.0


@dataclass(frozen=True)
class Sample:
    """What a server has counted since its ``epoch`` began."""

    digest: str
    epoch: str
    window: Window


class Source(Protocol):
    """A server whose counts are read."""

    def read(self) -> Sample:
        """Return what it counted until now.

        Raises:
            ServerError: it cannot be reached, or says something else.
        """


@dataclass(frozen=True)
class Server:
    """A server of ours by the address of its admin port; a ``Source``."""

    url: str
    token: str = ""

    def read(self) -> Sample:
        """See ``Source``."""
        scores, inputs = (get(self.url, path, self.token, SECONDS) for path in ("/v1/scores", "/v1/inputs"))
        try:
            columns = {str(n): _column(c) for n, c in inputs["columns"].items()}
            window = Window(int(scores["rows"]), tuple(map(int, scores["counts"])), columns)
            return Sample(str(scores["digest"]), str(scores["epoch"]), window)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise ServerError(
                f"{self.url} says something else than a tidegate server's counts", code="server-odd"
            ) from e


def _column(body: Mapping[str, Any]) -> Column:
    frequent = {str(v): int(n) for v, n in (body.get("frequent") or {}).items()}
    return Column(tuple(map(int, body["counts"])), int(body["missing"]), frequent)


def profile_of(store: Store, state: ModelState, digest: str) -> tuple[Version, Profile]:
    """Return the version whose bytes a server says it serves, and its profile.

    Raises:
        NotFound: no version of the model has these bytes.
        ConfigError: the version was registered without a profile (code ``profile-missing``).
    """
    version = state.by_digest(digest)
    if version is None:
        raise NotFound(f"no version of {state.name} has the bytes {digest[:19]}… that the server says it serves")
    kept = version.lineage.get("profile")
    if not kept:
        raise ConfigError(
            f"{state.name} version {version.version} has no profile to compare live rows with",
            allowed="A version whose evaluation wrote one (components/evaluate does).",
            hint="Run its pipeline again, and serve the version that comes of it.",
            code="profile-missing",
        )
    return version, parse(Blobs(store).read_bytes(kept))


def since(before: Sample | None, now: Sample) -> Window:
    """Return what was counted between two samples of a server; all of it where the server began anew in between."""
    if before is None or (before.epoch, before.digest) != (now.epoch, now.digest):
        return now.window
    columns = {n: _less(c, before.window.columns.get(n)) for n, c in now.window.columns.items()}
    predictions = _minus(now.window.predictions, before.window.predictions)
    return Window(max(now.window.rows - before.window.rows, 0), predictions, columns)


def together(windows: Sequence[Window]) -> Window:
    """Add up the windows of servers of one version."""
    whole = windows[0]
    for more in windows[1:]:
        columns = {n: _plus(c, more.columns[n]) for n, c in whole.columns.items() if n in more.columns}
        whole = Window(whole.rows + more.rows, _add(whole.predictions, more.predictions), columns)
    return whole


def _less(now: Column, before: Column | None) -> Column:
    if before is None:
        return now
    frequent = {v: max(n - before.frequent.get(v, 0), 0) for v, n in now.frequent.items()}
    return Column(_minus(now.counts, before.counts), max(now.missing - before.missing, 0), frequent)


def _plus(one: Column, other: Column) -> Column:
    frequent = {v: one.frequent.get(v, 0) + other.frequent.get(v, 0) for v in {**one.frequent, **other.frequent}}
    return Column(_add(one.counts, other.counts), one.missing + other.missing, frequent)


def _minus(now: Sequence[int], before: Sequence[int]) -> tuple[int, ...]:
    return tuple(max(a - b, 0) for a, b in zip(now, before, strict=True)) if len(now) == len(before) else tuple(now)


def _add(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True)) if len(one) == len(other) else ()


@dataclass(frozen=True)
class Seen:
    """One window: the version, its rows, what was found, and the number of the event that was written, if one was."""

    version: Version
    rows: int
    findings: Mapping[str, Finding]
    event: int = 0

    @property
    def drifted(self) -> list[str]:
        """What has drifted."""
        return drifted(self.findings)

    @property
    def outcome(self) -> str:
        """``fail`` where something has drifted; ``cannot-tell`` where nothing at all could be held against the profile."""
        told = {f.outcome for f in self.findings.values()} - {CANNOT_TELL}
        return FAIL if FAIL in told else PASS if told else CANNOT_TELL


class Monitor:
    """Watches the servers of one version.

    Args:
        store: where profiles are, and where events go.
        state: returns what the registry says of the model now.
        sources: returns its servers of this moment by name.
        rules: from when on a difference is drift.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        state: Callable[[], ModelState],
        sources: Callable[[], Mapping[str, Source]],
        rules: Rules = Rules(),
        now: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.state, self.sources, self.rules, self.now = store, state, sources, rules, now
        self._before: dict[tuple[str, str], Sample] = {}  # by server and version: it may serve one again
        self._known: tuple[str, Profile, Version] | None = None
        self._told: tuple[str, tuple[str, ...]] | None = None

    def turn(self) -> Seen | None:
        """Look once; return what was seen, None where there are too few rows yet, which then count at the next turn.

        Raises:
            ServerError: a server cannot be read, or two serve different versions (code ``versions-differ``); nothing is
                lost, the next turn's window is longer.
            NotFound: no version of the model has the bytes that a server says it serves.
            UsageError: the version has no profile, or one that cannot be read; or an address is none.
        """
        samples = {name: source.read() for name, source in self.sources().items()}
        if not samples:
            raise ServerError("no server is ready", allowed="One that has answered requests.", code="servers-none")
        version, profile = self._profile([*samples.values()])
        now = {(name, sample.digest): sample for name, sample in samples.items()}
        window = together([since(self._before.get(key), sample) for key, sample in now.items()])
        if window.rows < self.rules.rows:
            return None
        self._before |= now
        findings = look(profile, window, self.rules)
        return Seen(version, window.rows, findings, self._event(version, window, findings))

    def _profile(self, samples: Sequence[Sample]) -> tuple[Version, Profile]:
        digests = sorted({s.digest for s in samples})
        if len(digests) > 1:
            raise ServerError(  # as for a moment while a version takes over: trouble that passes
                f"the servers serve different bytes: {', '.join(d[:19] + '…' for d in digests)}",
                allowed="Servers of one version; a canary is the rollout's to watch.",
                code="versions-differ",
            )
        if not self._known or self._known[0] != digests[0]:
            version, profile = profile_of(self.store, self.state(), digests[0])
            self._known = digests[0], profile, version
        return self._known[2], self._known[1]

    def _event(self, version: Version, window: Window, findings: Mapping[str, Finding]) -> int:
        moved = (version.digest, tuple(drifted(findings)))
        told = self._told or self._newest(version.model)
        if moved == told or not moved[1]:
            self._told = moved
            return 0
        body = {
            "schema": "tidegate/drift/1",
            "model": version.model,
            "version": version.version,
            "digest": version.digest,
            "time": iso(self.now()),
            "rows": window.rows,
            "drifted": list(moved[1]),
            "findings": {n: f.as_json() for n, f in findings.items()},
        }
        number = Drifts(self.store).add(version.model, body)
        self._told = moved
        return number

    def _newest(self, model: str) -> tuple[str, tuple[str, ...]]:
        event = Drifts(self.store).newest(model) or {}
        return str(event.get("digest", "")), tuple(event.get("drifted", ()))
