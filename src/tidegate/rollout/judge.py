"""The judge of a rollout: counts of live traffic go in, a verdict comes out. Pure: no clock, no I/O.

It may look as often as it likes. Each test is a wealth (``wealth.py``) made by bets (``bets.py``) against a hypothesis:
a mixture likelihood ratio, an e-process (Lindon & Malek 2022, "Anytime-valid inference for multinomial count data";
Howard, Ramdas, McAuliffe & Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"). While the
hypothesis is true, the wealth ever reaches 1/alpha with probability alpha at most (Ville).

Rules:

* A step compares the *canary* with its *control*: the baseline (a fresh process of the stable version with the canary's
  weight), or stable itself at half of the traffic and more. Errors, refusals and predictions are also compared with
  stable beside a baseline, as one arm with it: an error is an error, and a prediction does not depend on the load.
  Latency does: it is compared only where the canary has no more traffic than its control, and not where nearly all is
  its own.
* There is one alpha for a rollout: the chance that a canary as good as its control is ever rolled back by a test. It is
  split evenly over ``steps`` and the watch after them, and each share in five: one for each alarm, and one for the
  bounds. Each bound may use that one whole: they take no traffic away, and a canary beyond one margin is promoted only
  if the bound on that margin errs. A step that is begun again, and a watch after the watch, take half of what is left of
  the last share.
* *alarm*: a wealth reached its threshold. The hypotheses are: the canary's error rate is at most ``1 + error_tolerance``
  times the control's; so is its share of refusals (4xx: bad requests of clients are spread over the arms at random); the
  share of its answers slower than the control's 95th percentile at most ``1 + latency_tolerance`` times the control's,
  and its answers no slower than the control's would be by ``latency_tolerance`` of a bin, which is a quarter wide;
  its predictions are spread as the table from the gate makes of the control's predictions of this moment, each bin
  within ``prediction_tolerance`` and what the table itself may be wrong by.
* The 95th percentile is the edge of the histogram that is nearest to it in the control's first ``SETTLE`` answers; it is
  not changed in the step, and only later answers count. All answers are compared by ranks: those of the control's latest
  ``LATEST`` answers up to the look before, and only while both arms answer as many of their requests, to ``ALIKE``, up
  to it: an arm that fails what takes long is quicker for that. What counts of latency is the mean of both wealths: the
  one sees what is slow now and then, the other what is always a little slower, which where times vary much is hardly
  seen among the slowest (ADR 0011).
* At one look the logarithm of a wealth on latency or predictions grows by ``BURST`` at most: answers are slow in bursts
  when a process waits for the machine, in either arm, and rows of one request are alike. One burst is no evidence.
  Looks 0.1 s apart are assumed; errors and refusals have no such limit.
* Stable counts predictions of requests that no candidate can get (large bodies, for example). Its predictions are used
  while its rows for each of its requests are as many as the baseline's, to ``ALIKE``, up to the look before; those of
  the baseline always. What counts is the mean of both wealths.
* *alarm* too: data is missing for ``patience`` seconds. An arm has less than half of the requests that its weight gives
  it, an arm that answers (a refusal is none) counts no predictions, counts go backwards, are no counts, or are in other
  bins than the table.
* *healthy*: nothing is missing, no alarm's e-value is 10 or more (a suspicion), the canary has ``min_requests`` and
  ``min_seconds``, and all bounds hold: the upper bound of (canary's error rate - control's) is below
  ``max_error_increase``, that of (canary's share of refusals - control's) below ``REFUSED`` times that, and that of
  (canary's slow share - control's) below ``latency_tolerance`` times 5 %. All are anytime-valid and need evidence: n
  requests without error are some.
* *continue*: all else. "Cannot tell" is never healthy.
* An alarm stays. ``healthy`` is said of one look.
* Without a control (weight 0) only errors and refusals are judged, against what the control had in the steps before:
  an alarm where the canary's rate is above it by more than the margin of its bound.
* A look that is not later than the one before changes nothing, and is never healthy.

Counts belong to one step: they begin at 0 with it, in all arms, and its weights do not change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tidegate.registry.gate import CANNOT_TELL, FAIL, Finding
from tidegate.rollout import bets
from tidegate.rollout.findings import findings
from tidegate.rollout.judgement import (
    ALARM,
    BOUND,
    CONTINUE,
    HEALTHY,
    PARTS,
    RATES,
    SLOW_SHARE,
    TESTS,
    WHOLE,
    WIDE,
    Arm,
    History,
    Judgement,
    Look,
    Rules,
    Weights,
    as_counts,
    margins,
    pooled,
    rated,
    share,
    stakes,
)
from tidegate.rollout.router import LATENCY_EDGES
from tidegate.rollout.wealth import Wealth, after
from tidegate.rollout.wealth import begin as stake

SETTLE, LATEST, BURST, ALIKE = 100, 1000, 1.0, 0.02
ENOUGH = 40  # requests that an arm must have been expected to get before their absence says something


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
    part = share(rules, history.begun) / PARTS
    counts = tuple(tuple(int(n) for n in row) for row in table) if table is not None else None
    made = Judgement(rules, weights, history, dict.fromkeys(TESTS, part), counts, {})
    return replace(made, wealth=_wealth(made))


def then(judgement: Judgement) -> History:
    """Return the history with a step that is over."""
    others = pooled(judgement.seen)
    used = judgement.history
    requests, errors = used.requests + others.requests, used.errors + others.errors
    return History(used.begun + 1, requests, errors, used.refused + others.refused)


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
    made = {rate: _even(bets.ratio(all_, rules.error_tolerance), rules.horizon) for rate in RATES}
    for bound in (BOUND[rate] for rate in RATES):
        made[bound] = _even(bets.difference(all_, margins(rules)[bound], stakes(bound)))
    if weights.is_even:
        made["latency"] = _even(bets.ratio(near, rules.latency_tolerance, 1 / SLOW_SHARE), rules.horizon, BURST)
        made["latency bound"] = _even(bets.difference(near, margins(rules)["latency bound"]), cap=BURST)
    if judgement.table is not None:
        made["predictions"] = _of_predictions(judgement, near)
        if weights.stable:
            made[WIDE] = _of_predictions(judgement, all_)
    return made


def of_all_answers(judgement: Judgement, control: Sequence[int] | np.ndarray) -> dict[str, Wealth]:
    """Return the wealth of bets on all answers, which from now on go by the ranks of these answers of the control."""
    rules, weights = judgement.rules, judgement.weights
    if not weights.is_even:
        return {}
    gains = bets.slower(weights.canary / weights.control, rules.latency_tolerance, np.array(control, dtype=float))
    before = judgement.wealth.get(WHOLE)
    return {WHOLE: replace(before, gains=gains) if before else _even(gains, rules.horizon, BURST)}


def _of_predictions(judgement: Judgement, odds: float) -> Wealth:
    rules, counts = judgement.rules, judgement.table or ((1,),)
    table, rows = bets.smoothed(counts), np.array(counts, dtype=float).sum(1) + 1
    unsure = bets.uncertainty(counts, judgement.alphas["predictions"])
    tolerance = (1 + rules.prediction_tolerance) * (1 + unsure) - 1
    gains, prior = bets.shares(odds, table, rows / rows.sum() @ table, tolerance)
    return stake(gains, prior, rules.horizon, BURST)


def _without_control(judgement: Judgement) -> dict[str, Wealth]:
    rules, used, made = judgement.rules, judgement.history, {}
    for test, events in (("errors", used.errors), ("refusals", used.refused)):
        bound = BOUND[test]
        rate, spread = events / max(1, used.requests), 3 * math.sqrt(events) / max(1, used.requests)
        above = min(0.5, rate + spread + margins(rules)[bound])
        least = min(0.5, max(0.0, rate - spread) + margins(rules)[bound])
        made[test] = _even(bets.reference(above), rules.horizon)
        made[bound] = _even(bets.difference(0.0, least, stakes(bound)))
    return made


def _even(gains: np.ndarray, horizon: float = 0.0, cap: float = math.inf) -> Wealth:
    return stake(gains, np.ones(len(gains)), horizon, cap)


def _grown(judgement: Judgement, seen: Look) -> Judgement:
    """Let all bets see what came since the last look."""
    edge, usual = judgement.edge, judgement.usual
    events = {n: e for n, e in _events(judgement, seen).items() if n in judgement.wealth}
    wealth = judgement.wealth | (of_all_answers(judgement, usual) if WHOLE in events and usual.any() else {})
    wealth = {n: after(w, events[n], seen.seconds) if n in events else w for n, w in wealth.items()}
    answered = judgement.answered if edge is None else judgement.answered + _slow(judgement, seen, edge)
    if edge is None and sum(seen.control.latency) >= SETTLE:
        edge = percentile(seen.control.latency)
        wealth |= of_all_answers(judgement, seen.control.latency)
    usual = _remembered(usual, _answers(judgement, seen)[1])
    return replace(judgement, wealth=wealth, seen=seen, edge=edge, answered=answered, usual=usual)


def _remembered(usual: np.ndarray, more: np.ndarray) -> np.ndarray:
    """The control's latest answers by the time they took, ``LATEST`` or so of them."""
    return np.asarray(usual * max(0.0, 1 - more.sum() / LATEST) + more)


def _events(judgement: Judgement, seen: Look) -> dict[str, np.ndarray]:
    before, found = judgement.seen, {}
    requests = seen.canary.requests - before.canary.requests
    for test, counts in rated(seen).items():
        own, others = counts - rated(before)[test]
        found[BOUND[test]] = np.array([requests - own, own, others])
        found[test] = found[BOUND[test]][1:] if judgement.weights.control else found[BOUND[test]][:2]
    if not judgement.weights.control:
        return found
    if judgement.edge is not None:
        fast, slow, _, control = _slow(judgement, seen, judgement.edge)
        found |= {"latency": np.array([slow, control]), "latency bound": np.array([fast, slow, control])}
        if _answer_alike(before):
            found[WHOLE] = np.concatenate(_answers(judgement, seen))
    if judgement.table is not None:
        rows, columns = len(judgement.table), len(judgement.table[0])
        mine = _minus(seen.canary.predictions, before.canary.predictions, columns)
        theirs = _minus(seen.control.predictions, before.control.predictions, rows)
        found["predictions"] = np.concatenate([mine, theirs])
        if seen.stable is not None and _alike(before):
            wide = _minus(pooled(seen).predictions, pooled(before).predictions, rows)
            found[WIDE] = np.concatenate([mine, wide])
    return found


def _alike(before: Look) -> bool:
    """Whether stable had as many rows for each of its requests as the baseline, so that the requests are alike."""
    stable, baseline = before.stable or Arm(), before.control
    rows, others = sum(stable.predictions) * baseline.requests, sum(baseline.predictions) * stable.requests
    return baseline.requests >= ENOUGH and abs(rows - others) <= ALIKE * others


def _answer_alike(before: Look) -> bool:
    """Whether canary and control answered alike many of their requests, so that their answers are of alike requests."""
    canary, control = before.canary, before.control
    mine, theirs = sum(canary.latency) * control.requests, sum(control.latency) * canary.requests
    return abs(mine - theirs) <= ALIKE * canary.requests * control.requests


def _slow(judgement: Judgement, seen: Look, edge: int) -> np.ndarray:
    """Answers since the last look: the canary's fast and slow, the control's fast and slow."""
    return np.array([part.sum() for more in _answers(judgement, seen) for part in np.split(more, [edge + 1])])


def _answers(judgement: Judgement, seen: Look) -> list[np.ndarray]:
    """Answers since the last look by the time they took: the canary's, the control's."""
    pairs = ((seen.canary, judgement.seen.canary), (seen.control, judgement.seen.control))
    return [_minus(now.latency, before.latency, len(LATENCY_EDGES) + 1) for now, before in pairs]


def percentile(latency: Sequence[int]) -> int:
    """Return the edge of the histogram above which the share of answers is nearest to 5 %, as a ratio."""
    above = 1 - np.cumsum(latency)[:-1] / sum(latency)
    return int(np.argmin(np.abs(np.log(np.maximum(above, 1e-9) / SLOW_SHARE))))


def _minus(now: Sequence[int], before: Sequence[int], length: int) -> np.ndarray:
    return np.asarray(as_counts(now, length) - as_counts(before, length))


def _unusable(judgement: Judgement, seen: Look) -> str:
    """Say why the counts are none, or not of this step; empty if they are."""
    pairs = [("canary", seen.canary, judgement.seen.canary), ("control", seen.control, judgement.seen.control)]
    if seen.stable is not None:
        pairs.append(("stable", seen.stable, judgement.seen.stable or Arm()))
    for name, now, before in pairs:
        if now.latency and len(now.latency) != len(LATENCY_EDGES) + 1:
            return f"the latency of {name} is counted in {len(now.latency)} bins, not {len(LATENCY_EDGES) + 1}"
        values = (now.requests, now.errors, now.refused, *now.latency, *now.predictions)
        if any(isinstance(v, bool) or not isinstance(v, int | np.integer) or v < 0 for v in values):
            return f"the counts of {name} are no counts"
        if now.errors + now.refused > now.requests:
            return f"{name} has more errors and refusals than requests"
        if _shorter(now, before):
            return f"the counts of {name} went backwards"
    return _other_bins(judgement, seen)


def _shorter(now: Arm, before: Arm) -> bool:
    if now.requests < before.requests or now.errors < before.errors or now.refused < before.refused:
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
        answered = _answered(now) - _answered(then_)
        rows = sum(now.predictions) - sum(then_.predictions)
        if answered >= ENOUGH and rows < answered / 2:
            return f"{name} answered {answered} requests and counts {rows} predictions"
    return ""


def _answered(arm: Arm) -> int:
    return arm.requests - arm.errors - arm.refused


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
    said = findings(judgement)
    outcomes = {f.outcome for f in said}
    verdict = ALARM if FAIL in outcomes else CONTINUE if CANNOT_TELL in outcomes else HEALTHY
    seen, checked = judgement.seen, judgement.checked
    enough = seen.canary.requests - checked.canary.requests >= 2 * ENOUGH
    return replace(judgement, verdict=verdict, findings=said, checked=seen if enough else checked)
