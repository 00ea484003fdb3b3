"""The judge of a rollout: counts of live traffic go in, a verdict comes out. Pure: no clock, no I/O.

It may look as often as it likes. Each test is a wealth (``wealth.py``) made by bets (``bets.py``) against a hypothesis:
a mixture likelihood ratio, an e-process (Lindon & Malek 2022, "Anytime-valid inference for multinomial count data";
Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"). While the
hypothesis is true, the wealth ever reaches 1/alpha with probability alpha at most (Ville).

Rules:

* A step compares the *canary* with its *control*: the baseline (a fresh process of the stable version with the canary's
  weight), or stable itself at half of the traffic and more. Errors and predictions are also compared with stable beside
  a baseline, as one arm with it: an error is an error, and a prediction does not depend on the load. Latency does: it is
  compared only where the canary has no more traffic than its control, and not where nearly all is its own.
* There is one alpha for a rollout: the chance that a canary as good as its control is ever rolled back by a test. It is
  split evenly over ``steps`` and the watch after them, and each share over five tests: three alarms and two bounds. A
  step that is begun again, and a watch after the watch, take half of what is left of the last share.
* *alarm*: a wealth reached its threshold. The hypotheses are: the canary's error rate is at most ``1 + error_tolerance``
  times the control's; the share of its answers slower than the control's 95th percentile at most ``1 +
  latency_tolerance`` times the control's; its predictions are spread as the table from the gate makes of the control's
  predictions of this moment, each bin within ``prediction_tolerance`` and what the table itself may be wrong by.
* The 95th percentile is the edge of the histogram that is nearest to it in the control's first ``SETTLE`` answers; it is
  not changed in the step, and only later answers count.
* At one look the logarithm of a wealth on latency or predictions grows by ``BURST`` at most: answers are slow in bursts
  when a process waits for the machine, in either arm, and rows of one request are alike. One burst is no evidence.
  Looks 0.1 s apart are assumed; errors have no such limit.
* Stable counts predictions of requests that no candidate can get (large bodies, for example). Its predictions are used
  while its rows for each of its requests are as many as the baseline's, to ``ALIKE``, up to the look before; those of
  the baseline always. What counts is the mean of both wealths.
* *alarm* too: data is missing for ``patience`` seconds. An arm has less than half of the requests that its weight gives
  it, an arm that answers counts no predictions, counts go backwards, are no counts, or are in other bins than the table.
* *healthy*: nothing is missing, no alarm's e-value is 10 or more (a suspicion), the canary has ``min_requests`` and
  ``min_seconds``, and both bounds hold: the upper bound of (canary's error rate - control's) is below
  ``max_error_increase``, that of (canary's slow share - control's) below ``latency_tolerance`` times 5 %. Both are
  anytime-valid and need evidence: n requests without error are some.
* *continue*: all else. "Cannot tell" is never healthy.
* An alarm stays. ``healthy`` is said of one look.
* Without a control (weight 0) only errors are judged, against what the control had in the steps before:
  an alarm where the canary's rate is above it by more than ``max_error_increase``.
* A look that is not later than the one before changes nothing, and is never healthy.

Counts belong to one step: they begin at 0 with it, in all arms, and its weights do not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tidegate.registry.gate import CANNOT_TELL, FAIL, PASS, Finding
from tidegate.rollout import bets
from tidegate.rollout.router import LATENCY_EDGES
from tidegate.rollout.wealth import Wealth, after
from tidegate.rollout.wealth import begin as stake

CONTINUE, ALARM, HEALTHY = "continue", "alarm", "healthy"
TESTS = ("errors", "latency", "predictions", "error bound", "latency bound")
SETTLE, SLOW_SHARE, BURST, ALIKE = 100, 0.05, 1.0, 0.02
SUSPECT = math.log(10)
WIDE = "predictions with stable"
NOT_COMPARED = "not compared"
ENOUGH = 40  # requests that an arm must have been expected to get before their absence says something


@dataclass(frozen=True)
class Rules:
    """What a rollout promises; tolerances are relative, ``max_error_increase`` is absolute.

    Attributes:
        alpha: the chance of a false alarm in a whole rollout.
        steps: how many steps the plan has.
        horizon: seconds that a step is given (its deadline): within them a late fault is found as soon as any.
        min_requests: of the canary, before a step can be healthy.
        min_seconds: of a step, before it can be healthy.
        patience: seconds for which data may be missing.
    """

    alpha: float = 0.01
    steps: int = 4
    horizon: float = 3600.0
    error_tolerance: float = 0.25
    max_error_increase: float = 0.005
    latency_tolerance: float = 0.25
    prediction_tolerance: float = 0.25
    min_requests: int = 500
    min_seconds: float = 10.0
    patience: float = 5.0


@dataclass(frozen=True)
class Weights:
    """The shares of traffic of a step, in any unit.

    Attributes:
        canary: of the candidate.
        control: of the baseline, or of stable where there is none; 0 where the canary has all traffic.
        stable: of stable where the control is a baseline; else 0.
    """

    canary: float
    control: float
    stable: float = 0.0

    @property
    def is_even(self) -> bool:
        """Whether the canary is no busier than its control, so that their latency can be compared."""
        return self.canary <= self.control


@dataclass(frozen=True)
class Arm:
    """Counts of one arm since the step began; ``latency`` by ``router.LATENCY_EDGES``, ``predictions`` by its profile."""

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = ()
    predictions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Look:
    """What is seen at one moment; ``stable`` only where the control is a baseline."""

    seconds: float
    canary: Arm
    control: Arm
    stable: Arm | None = None


@dataclass(frozen=True)
class History:
    """What a rollout has used so far.

    Attributes:
        begun: how often a step was begun.
        requests: of the controls.
        errors: among them.
    """

    begun: int = 0
    requests: int = 0
    errors: int = 0


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is known of a step; ``verdict`` and ``findings`` are for the controller, the rest for the next look."""

    rules: Rules
    weights: Weights
    history: History
    alphas: dict[str, float]
    table: tuple[tuple[int, ...], ...] | None
    wealth: dict[str, Wealth]
    verdict: str = CONTINUE
    findings: tuple[Finding, ...] = ()
    seen: Look = field(default_factory=lambda: Look(0.0, Arm(), Arm(), Arm()))
    checked: Look = field(default_factory=lambda: Look(0.0, Arm(), Arm(), Arm()))
    missing_since: float | None = None
    edge: int | None = None
    answered: np.ndarray = field(default_factory=lambda: np.zeros(4))


def share(rules: Rules, begun: int) -> float:
    """Return what part of alpha the step may use before which ``begun`` were begun."""
    whole = rules.alpha / (rules.steps + 1)
    return whole if begun < rules.steps else whole / 2 ** (begun - rules.steps + 1)


def begin(
    rules: Rules,
    weights: Weights,
    table: Sequence[Sequence[int]] | None = None,
    history: History = History(),
) -> Judgement:
    """Begin to judge a step.

    Args:
        rules: of the rollout.
        weights: of this step.
        table: rows of the evaluation by the champion's bin (first) and the candidate's; None where there is none: then
            predictions are not judged.
        history: of the rollout.
    """
    part = share(rules, history.begun) / len(TESTS)
    counts = tuple(tuple(int(n) for n in row) for row in table) if table is not None else None
    made = Judgement(rules, weights, history, dict.fromkeys(TESTS, part), counts, {})
    return replace(made, wealth=_wealth(made))


def then(judgement: Judgement) -> History:
    """Return the history with a step that is over."""
    pool = _pool(judgement.seen)
    used = judgement.history
    return History(used.begun + 1, used.requests + pool.requests, used.errors + pool.errors)


def look(judgement: Judgement, seen: Look) -> Judgement:
    """Judge what is seen now."""
    if judgement.verdict == ALARM:
        return judgement
    if not seen.seconds > judgement.seen.seconds:  # late, twice, or NaN
        return replace(judgement, verdict=CONTINUE)
    if why := _unusable(judgement, seen):
        return _missing(judgement, seen.seconds, why)
    grown = _grown(judgement, seen)
    if why := _absent(grown, seen):
        return _missing(grown, seen.seconds, why)
    return _decided(replace(grown, missing_since=None))


def _wealth(judgement: Judgement) -> dict[str, Wealth]:
    rules, weights = judgement.rules, judgement.weights
    if not weights.control:
        return _without_control(judgement)
    near, all_ = weights.canary / weights.control, weights.canary / (weights.control + weights.stable)
    made = {
        "errors": _even(bets.ratio(all_, rules.error_tolerance), rules.horizon),
        "error bound": _even(bets.difference(all_, rules.max_error_increase)),
    }
    if weights.is_even:
        made["latency"] = _even(bets.ratio(near, rules.latency_tolerance, 1 / SLOW_SHARE), rules.horizon, BURST)
        made["latency bound"] = _even(bets.difference(near, SLOW_SHARE * rules.latency_tolerance), cap=BURST)
    if judgement.table is not None:
        made["predictions"] = _of_predictions(judgement, near)
        if weights.stable:
            made[WIDE] = _of_predictions(judgement, all_)
    return made


def _of_predictions(judgement: Judgement, odds: float) -> Wealth:
    rules, counts = judgement.rules, judgement.table or ((1,),)
    table, rows = bets.smoothed(counts), np.array(counts, dtype=float).sum(1) + 1
    unsure = bets.uncertainty(counts, judgement.alphas["predictions"])
    tolerance = (1 + rules.prediction_tolerance) * (1 + unsure) - 1
    gains, prior = bets.shares(odds, table, rows / rows.sum() @ table, tolerance)
    return stake(gains, prior, rules.horizon, BURST)


def _without_control(judgement: Judgement) -> dict[str, Wealth]:
    rules, used = judgement.rules, judgement.history
    rate, spread = used.errors / max(1, used.requests), 3 * math.sqrt(used.errors) / max(1, used.requests)
    above = min(0.5, rate + spread + rules.max_error_increase)
    least = min(0.5, max(0.0, rate - spread) + rules.max_error_increase)
    return {
        "errors": _even(bets.reference(above), rules.horizon),
        "error bound": _even(bets.difference(0.0, least)),
    }


def _even(gains: np.ndarray, horizon: float = 0.0, cap: float = math.inf) -> Wealth:
    return stake(gains, np.ones(len(gains)), horizon, cap)


def _grown(judgement: Judgement, seen: Look) -> Judgement:
    """Let all bets see what came since the last look."""
    edge = judgement.edge
    events = {n: e for n, e in _events(judgement, seen).items() if n in judgement.wealth}
    wealth = {n: after(w, events[n], seen.seconds) if n in events else w for n, w in judgement.wealth.items()}
    answered = judgement.answered if edge is None else judgement.answered + _slow(judgement, seen, edge)
    if edge is None and sum(seen.control.latency) >= SETTLE:
        edge = percentile(seen.control.latency)
    return replace(judgement, wealth=wealth, seen=seen, edge=edge, answered=answered)


def _events(judgement: Judgement, seen: Look) -> dict[str, np.ndarray]:
    before = judgement.seen
    requests = seen.canary.requests - before.canary.requests
    failed = seen.canary.errors - before.canary.errors
    others = _pool(seen).errors - _pool(before).errors
    found = {"error bound": np.array([requests - failed, failed, others])}
    found["errors"] = np.array([failed, others])
    if not judgement.weights.control:
        return {"errors": found["error bound"][:2], "error bound": found["error bound"]}
    if judgement.edge is not None:
        fast, slow, _, control = _slow(judgement, seen, judgement.edge)
        found |= {"latency": np.array([slow, control]), "latency bound": np.array([fast, slow, control])}
    if judgement.table is not None:
        rows, columns = len(judgement.table), len(judgement.table[0])
        mine = _minus(seen.canary.predictions, before.canary.predictions, columns)
        theirs = _minus(seen.control.predictions, before.control.predictions, rows)
        found["predictions"] = np.concatenate([mine, theirs])
        if seen.stable is not None and _alike(before):
            pooled = _minus(_pool(seen).predictions, _pool(before).predictions, rows)
            found[WIDE] = np.concatenate([mine, pooled])
    return found


def _alike(before: Look) -> bool:
    """Whether stable had as many rows for each of its requests as the baseline, so that the requests are alike."""
    stable, baseline = before.stable or Arm(), before.control
    rows, others = sum(stable.predictions) * baseline.requests, sum(baseline.predictions) * stable.requests
    return baseline.requests >= ENOUGH and abs(rows - others) <= ALIKE * others


def _slow(judgement: Judgement, seen: Look, edge: int) -> np.ndarray:
    """Answers since the last look: the canary's fast and slow, the control's fast and slow."""
    found = []
    for now, before in ((seen.canary, judgement.seen.canary), (seen.control, judgement.seen.control)):
        more = _minus(now.latency, before.latency, len(LATENCY_EDGES) + 1)
        found += [more[: edge + 1].sum(), more[edge + 1 :].sum()]
    return np.array(found)


def percentile(latency: Sequence[int]) -> int:
    """Return the edge of the histogram above which the share of answers is nearest to 5 %, as a ratio."""
    above = 1 - np.cumsum(latency)[:-1] / sum(latency)
    return int(np.argmin(np.abs(np.log(np.maximum(above, 1e-9) / SLOW_SHARE))))


def _pool(seen: Look) -> Arm:
    """The control and stable beside it as one arm, without latency."""
    if seen.stable is None:
        return seen.control
    a, b = seen.control, seen.stable
    length = max(len(a.predictions), len(b.predictions))
    predictions = _counts(a.predictions, length) + _counts(b.predictions, length)
    return Arm(a.requests + b.requests, a.errors + b.errors, (), tuple(int(n) for n in predictions))


def _minus(now: Sequence[int], before: Sequence[int], length: int) -> np.ndarray:
    return np.asarray(_counts(now, length) - _counts(before, length))


def _counts(counts: Sequence[int], length: int) -> np.ndarray:
    """Counts as numbers; none are zeros."""
    return np.array(counts, dtype=float) if len(counts) else np.zeros(length)


def _unusable(judgement: Judgement, seen: Look) -> str:
    """Say why the counts are none, or not of this step; empty if they are."""
    pairs = [("canary", seen.canary, judgement.seen.canary), ("control", seen.control, judgement.seen.control)]
    if seen.stable is not None:
        pairs.append(("stable", seen.stable, judgement.seen.stable or Arm()))
    for name, now, before in pairs:
        if now.latency and len(now.latency) != len(LATENCY_EDGES) + 1:
            return f"the latency of {name} is counted in {len(now.latency)} bins, not {len(LATENCY_EDGES) + 1}"
        values = (now.requests, now.errors, *now.latency, *now.predictions)
        if any(isinstance(v, bool) or not isinstance(v, int | np.integer) or v < 0 for v in values):
            return f"the counts of {name} are no counts"
        if now.errors > now.requests:
            return f"{name} has more errors than requests"
        if _shorter(now, before):
            return f"the counts of {name} went backwards"
    return _other_bins(judgement, seen)


def _shorter(now: Arm, before: Arm) -> bool:
    if now.requests < before.requests or now.errors < before.errors:
        return True
    lists = ((now.latency, before.latency), (now.predictions, before.predictions))
    return any(b and (len(a) != len(b) or any(x < y for x, y in zip(a, b, strict=True))) for a, b in lists)


def _other_bins(judgement: Judgement, seen: Look) -> str:
    if judgement.table is None:
        return ""
    wanted = {"canary": len(judgement.table[0]), "control": len(judgement.table), "stable": len(judgement.table)}
    for name, arm in (("canary", seen.canary), ("control", seen.control), ("stable", seen.stable)):
        if arm and arm.predictions and len(arm.predictions) != wanted[name]:
            return f"the predictions of {name} are counted in {len(arm.predictions)} bins, not {wanted[name]}"
    return ""


def _absent(judgement: Judgement, seen: Look) -> str:
    """Say what should be there since it was last checked, and is not; empty if all is there."""
    weights, before = judgement.weights, judgement.checked
    mine, other = (seen.canary.requests - before.canary.requests, seen.control.requests - before.control.requests)
    if weights.control:
        odds = weights.canary / weights.control
        for name, found, wanted in (("canary", mine, other * odds), ("control", other, mine / odds)):
            if wanted >= ENOUGH and found < wanted / 2:
                return f"{name} has {found} requests where its weight gives it about {wanted:.0f}"
    if judgement.table is None or not weights.control:
        return ""
    for name, now, then_ in (("canary", seen.canary, before.canary), ("control", seen.control, before.control)):
        answered = (now.requests - now.errors) - (then_.requests - then_.errors)
        rows = sum(now.predictions) - sum(then_.predictions)
        if answered >= ENOUGH and rows < answered / 2:
            return f"{name} answered {answered} requests and counts {rows} predictions"
    return ""


def _missing(judgement: Judgement, seconds: float, why: str) -> Judgement:
    """Data is missing: wait for it, then take it for a fault."""
    since = judgement.missing_since if judgement.missing_since is not None else seconds
    waited = seconds - since
    over = waited >= judgement.rules.patience
    text = f"{why}, for {waited:.1f} s now (allowed: {judgement.rules.patience:g} s)"
    finding = Finding(FAIL if over else CANNOT_TELL, text, (("seconds", waited), ("allowed", judgement.rules.patience)))
    tested = _decided(judgement)
    verdict = ALARM if over or tested.verdict == ALARM else CONTINUE
    return replace(judgement, missing_since=since, verdict=verdict, findings=(finding, *tested.findings))


def _decided(judgement: Judgement) -> Judgement:
    """Say what all tests say together; remember that all data was there when enough of it was."""
    now = {test: float(log) for test, log in logs(judgement).items()}
    findings = (*_alarms(judgement, now), *_bounds(judgement, now), _exposure(judgement))
    outcomes = {f.outcome for f in findings}
    verdict = ALARM if FAIL in outcomes else CONTINUE if CANNOT_TELL in outcomes else HEALTHY
    seen, checked = judgement.seen, judgement.checked
    enough = seen.canary.requests - checked.canary.requests >= 2 * ENOUGH
    return replace(judgement, verdict=verdict, findings=findings, checked=seen if enough else checked)


def _alarms(judgement: Judgement, now: Mapping[str, float]) -> list[Finding]:
    """Say of each alarm what it compares, and how far its wealth is from its threshold."""
    texts = {t: text for t, text in _compared(judgement).items() if t in now}
    found = [_alarm(t, text, now[t], judgement.alphas[t]) for t, text in texts.items()]
    weights = judgement.weights
    if not weights.control:
        found.append(Finding(PASS, f"latency and predictions are {NOT_COMPARED}: there is no control at this weight"))
        return found
    if not weights.is_even:
        times = f"{weights.canary / weights.control:.3g} times its control's traffic"
        found.append(Finding(PASS, f"latency is {NOT_COMPARED}: the canary has {times}, and is slower for that alone"))
    if judgement.table is None:
        found.append(Finding(PASS, f"predictions are {NOT_COMPARED}: the evidence has no table of them"))
    return found


def _compared(judgement: Judgement) -> dict[str, str]:
    rules, pool, seen = judgement.rules, _pool(judgement.seen), judgement.seen
    fast, slow, control_fast, control_slow = judgement.answered
    errors = f"{_rate(seen.canary.errors, seen.canary.requests)}, the control's {_rate(pool.errors, pool.requests)}"
    late = f"the canary's {_rate(slow, fast + slow)}, the control's {_rate(control_slow, control_fast + control_slow)}"
    rows = f"{sum(seen.canary.predictions)} predictions of the canary, {sum(seen.control.predictions)} of the control"
    return {
        "errors": f"the canary's error rate is {errors} (tolerance {rules.error_tolerance:.0%})",
        "latency": f"slow answers: {late} (tolerance {rules.latency_tolerance:.0%})",
        "predictions": f"{rows} (tolerance {rules.prediction_tolerance:.0%})",
    }


def _alarm(test: str, text: str, log: float, alpha: float) -> Finding:
    threshold = -math.log(alpha)
    said = f"{test}: {text}: e-value {_e(log)}, alarm at {_e(threshold)}"
    numbers = (("e_value", _exp(log)), ("threshold", _exp(threshold)))
    outcome = FAIL if log >= threshold else CANNOT_TELL if log >= SUSPECT else PASS
    return Finding(outcome, said, numbers)


def logs(judgement: Judgement) -> dict[str, np.ndarray]:
    """Return the logarithm of each test's wealth; that of predictions is the mean of two beside a baseline."""
    found = {test: wealth.log for test, wealth in judgement.wealth.items()}
    wide = found.pop(WIDE, None)
    if wide is not None:
        found["predictions"] = np.logaddexp(found["predictions"], wide) - math.log(2)
    return found


def _bounds(judgement: Judgement, now: Mapping[str, float]) -> list[Finding]:
    rules, canary = judgement.rules, judgement.seen.canary
    errors = np.array([canary.requests - canary.errors, canary.errors, _pool(judgement.seen).errors])
    found = [_bound(judgement, now["error bound"], "error bound", errors, rules.max_error_increase)]
    if judgement.weights.is_even:
        fast, slow, _, control = judgement.answered
        margin = SLOW_SHARE * rules.latency_tolerance
        found.append(_bound(judgement, now["latency bound"], "latency bound", np.array([fast, slow, control]), margin))
    return found


def _bound(judgement: Judgement, log: float, test: str, counts: np.ndarray, margin: float) -> Finding:
    weights, pooled = judgement.weights, test == "error bound"
    others = weights.control + (weights.stable if pooled else 0.0)
    threshold = -math.log(judgement.alphas[test])
    bound = upper_bound(weights.canary / others if others else 0.0, counts, threshold)
    outcome = PASS if log >= threshold else CANNOT_TELL
    text = f"{test}: the canary's rate is at most {bound:.3%} above the control's (margin {margin:.3%})"
    numbers = (("bound", bound), ("margin", margin), ("e_value", _exp(log)), ("threshold", _exp(threshold)))
    return Finding(outcome, text, numbers)


def upper_bound(odds: float, counts: np.ndarray, threshold: float) -> float:
    """Return the anytime-valid upper bound of (canary's rate - control's), to 1 % of it.

    Args:
        odds: the canary's weight by the control's.
        counts: canary's requests without the event and with it, the control's with it.
        threshold: of the logarithm of the wealth.
    """
    low, high = 1e-5, 1.0
    for _ in range(2):
        margins = np.geomspace(low, high, 40)
        passed = log_wealth(odds, margins, counts) >= threshold
        if not passed.any():
            return 1.0
        at = int(np.argmax(passed))
        low, high = float(margins[max(at - 1, 0)]), float(margins[at])
    return high


def log_wealth(odds: float, margins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the logarithm of the wealth of bets that the canary's rate is less than each margin above the control's.

    Args:
        odds: see ``upper_bound``.
        margins: ``[k]``.
        counts: see ``upper_bound``.

    Returns:
        ``[k]``.
    """
    gains = np.maximum(bets.difference(odds, margins), -1e9)  # a stake that one event takes whole stays a number
    sums = gains @ counts
    top = sums.max(1)
    return np.asarray(top + np.log(np.exp(sums - top[:, None]).mean(1)))


def _exposure(judgement: Judgement) -> Finding:
    rules, seen = judgement.rules, judgement.seen
    enough = seen.canary.requests >= rules.min_requests and seen.seconds >= rules.min_seconds
    text = (
        f"exposure: {seen.canary.requests} requests in {seen.seconds:.1f} s "
        f"(at least {rules.min_requests} and {rules.min_seconds:g} s)"
    )
    numbers = (("requests", float(seen.canary.requests)), ("seconds", seen.seconds))
    return Finding(PASS if enough else CANNOT_TELL, text, numbers)


def _rate(events: float, of: float) -> str:
    return f"{events / of:.3%} of {of:.0f}" if of else "unknown"


def _exp(log: float) -> float:
    return math.exp(log) if log < 700 else math.inf


def _e(log: float) -> str:
    return f"{math.exp(log):.3g}" if log < 50 else f"1e{log / math.log(10):.0f}"
