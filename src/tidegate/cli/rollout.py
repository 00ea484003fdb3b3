"""``tidegate rollout`` and ``tidegate rollback``: live traffic for a candidate, step by step, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click

from tidegate.cli.interrupt import listen_for_the_end
from tidegate.cli.rollout_text import lines, plan_json, plan_lines, summary
from tidegate.errors import Conflict, PolicyError, UsageError
from tidegate.project import user_name
from tidegate.registry import rollout_policy
from tidegate.registry.rollouts import PROMOTED
from tidegate.rollout.controller import Controller
from tidegate.rollout.exposure import Need
from tidegate.rollout.opening import Opening, split
from tidegate.rollout.session import (
    NOBODY,
    Place,
    check_front,
    check_open,
    history,
    in_charge,
    look,
    opened_here,
    prepare,
    run,
    steered,
    take_back,
    unfinished,
    view,
)
from tidegate.rollout.state import ENDED, Order, State
from tidegate.rollout.trial import Trial

SHOWN_SECONDS = 0.5
_NO_SCREENS = ("dumb", "unknown")
_STORE = click.option("--store", metavar="URI", help="Where the registry lives.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One line of JSON on stdout.")


@click.group("rollout")
def command() -> None:
    """Give a version live traffic step by step, judged while it flows; see how it goes; take it back."""


@command.command("start")
@click.argument("model", metavar="NAME[:VERSION|@ALIAS]")
@click.option("--step", "steps", metavar="PERCENT,…", help="Shares, such as 5,25,50,100; 100 alone is blue/green.")
@click.option("--deadline", metavar="TIME", help="Of each step, such as 15m; the policy's by default.")
@click.option("--rollback-window", metavar="TIME",
              help="How long the version before stays warm and is judged against; the policy's by default.")  # fmt: skip
@click.option("--max-error-increase", type=float, metavar="SHARE",
              help="How much higher than the control's its error rate may be, and its share of 4xx by twice that; "
                   "the policy's by default.")  # fmt: skip
@click.option("--latency-tolerance", type=float, metavar="SHARE",
              help="How many more slow answers it may give, such as 0.25; all of them together may be slower by that part "
                   "of 25 %. The policy's by default.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(1e-6), metavar="N", help="Requests a second to expect; else measured.")
@click.option("--again", is_flag=True, help="Also a version that was taken back the last time.")
@click.option("--dry-run", is_flag=True, help="Show the plan, and end.")
@click.option("--detach", is_flag=True, help="Leave a controller behind, and end.")
@_STORE
@_JSON
def start(
    model: str, steps: str | None, deadline: str | None, rollback_window: str | None,
    max_error_increase: float | None, latency_tolerance: float | None, rate: float | None, again: bool,
    dry_run: bool, detach: bool, store: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Begin a rollout, or go on with the one that is open; NAME alone means its challenger.

    Ends with 0 when the candidate stays, with 1 when it was taken back. Ctrl-C leaves the weights as they are.
    """
    name, ref = split(model)
    place = Place(name, store)
    check_front(place)
    changes = _changes(
        steps=steps, deadline=deadline, rollback_window=rollback_window,
        max_error_increase=max_error_increase, latency_tolerance=latency_tolerance,
    )  # fmt: skip
    if dry_run and (open_ := opened_here(place)):
        check_open(place, open_.plan, model, changes)
        return _show(look(place), as_json)
    if dry_run:
        opening, needs, _ = _prepared(place, ref, changes, again, rate)
        if as_json:
            click.echo(json.dumps(plan_json(opening, needs)))
        return 0
    if detach:
        return _detach(place, [a for a in sys.argv[1:] if a != "--detach"], as_json)
    with in_charge(place):
        if begun := unfinished(place):
            check_open(place, begun[0].plan, model, changes)
            _say(f"goes on with {begun[0].plan.id}: {begun[0].phase}")
        else:
            *_, begun = _prepared(place, ref, changes, again, rate)
        return _run(place, begun, as_json)


def _prepared(
    place: Place, ref: str, changes: Mapping[str, Any], again: bool, rate: float | None
) -> tuple[Opening, tuple[Need, ...], tuple[State, Trial]]:
    opening, needs, begun = prepare(place, ref, changes, again=again, rate=rate)
    _say("\n".join(plan_lines(opening, needs)))
    return opening, needs, begun


def _say(text: str) -> None:
    with suppress(OSError):  # a full disk and a closed pipe leave nobody without a judge
        click.echo(text, err=True)


def _percentages(text: str) -> Any:
    """The numbers in a text; what is none is refused by its name."""
    try:
        return [float(p) for p in text.replace("%", "").split(",")]
    except ValueError:
        return text


def _changes(**table: Any) -> dict[str, Any]:
    """The rules that were said, each by the same check as a policy's."""
    return {name: _change(name, value) for name, value in table.items() if value is not None}


def _change(name: str, value: Any) -> Any:
    try:
        table = {name: _percentages(value) if name == "steps" else value}
        return getattr(rollout_policy.read(table, "rollout start"), name)
    except PolicyError as e:  # in the words of a policy.toml
        option = "--step" if name == "steps" else f"--{name.replace('_', '-')}"
        allowed = e.allowed.replace("[5, 25, 50, 100]", "5,25,50,100").replace('"', "")
        raise UsageError(f"{option} is {value!r}", allowed=allowed) from e


def _run(place: Place, begun: tuple[State, Trial], as_json: bool) -> int:
    listen_for_the_end()
    try:
        with _shown(as_json) as report:
            done = run(place, begun, report)
    except KeyboardInterrupt:
        name = place.name
        _say(
            f"interrupted: the front goes on with the weights that it has, nobody judges them\n"
            f"  → tidegate rollout start {name} goes on; tidegate rollout abort {name} gives all traffic to stable"
        )
        return 130
    return _end(done.state, True, as_json)


def _end(state: State, is_written: bool, as_json: bool) -> int:
    if state.is_lost:
        raise Conflict(
            f"another controller is in charge of {state.plan.id}: {state.reason}",
            allowed="One controller at a time; this one has touched nothing since.",
            hint=f"tidegate rollout status {state.plan.model}",
            code="rollout-fenced",
        )
    said = {"id": state.plan.id, "outcome": state.outcome, "reason": state.reason, "recorded": is_written}
    with suppress(OSError):  # the exit code says how it ended, whoever reads the words
        click.echo(json.dumps(said) if as_json else summary(state, is_written))
    return 0 if state.outcome == PROMOTED else 1


class _shown:  # noqa: N801 - a context manager, used like a function
    """Shows a rollout while it goes on: live on a terminal, a line a change elsewhere."""

    def __init__(self, as_json: bool) -> None:
        self._last: tuple[Any, ...] = ()
        self._at = 0.0
        self._screen = None if as_json else _screen(sys.stderr)

    def __enter__(self) -> Callable[[Controller], None]:
        return self._report

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            if self._screen:
                self._screen.stop()

    def _report(self, controller: Controller) -> None:
        with suppress(OSError):  # see ``_say``
            self._show(controller)

    def _show(self, controller: Controller) -> None:
        state = controller.state
        now = (state.phase, state.step, state.pending["event"] if state.pending else "", controller.trouble)
        if self._screen and time.monotonic() - self._at >= SHOWN_SECONDS:
            self._at = time.monotonic()
            self._screen.show(view(state, controller.trial, controller.seen.router, controller.trouble))
        elif not self._screen and now != self._last:
            waits = f", waits for the ledger to hold {now[2]!r}" if now[2] else ""
            shares = ", ".join(f"{a} {w / 100:g} %" for a, w in state.weights.items())
            trouble = f"; {'; '.join(controller.trouble)}" if controller.trouble else ""
            step = f" step {state.step + 1}" if state.step >= 0 else ""
            click.echo(f"{state.phase}{step}: {shares}{waits}{trouble}", err=True)
        self._last = now


def _screen(stream: TextIO | None) -> Any:
    """The terminal that a stream is; None where what is shown there cannot be taken back."""
    if stream is None or not stream.isatty() or os.environ.get("TERM", "").lower() in _NO_SCREENS:
        return None
    from tidegate.cli.rollout_screen import Screen

    return Screen(stream)


def _detach(place: Place, arguments: list[str], as_json: bool) -> int:
    """Leave a controller behind in a session of its own; wait until the journal is its own, or it has said why not."""
    log = place.folder / "rollout.log"
    with log.open("ab") as out:
        begins = out.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "tidegate", *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    while child.poll() is None and not (state := steered(place, child.pid)):
        time.sleep(0.05)
    if (code := child.poll()) is not None:
        return _ended(_since(log, begins), code, as_json)
    said = {"id": state.plan.id if state else "", "pid": child.pid, "log": str(log)}
    text = f"the process {child.pid} is in charge; its log: {log}\n  → tidegate rollout watch {place.name}"
    click.echo(json.dumps(said) if as_json else text)
    return 0


def _ended(said: str, code: int, as_json: bool) -> int:
    """What a controller said that is over already; the last line of a JSON speaker is for stdout."""
    lines = said.splitlines()
    last = lines.pop() if as_json and lines else ""
    click.echo("\n".join(lines), err=True)
    if last:
        click.echo(last)
    return code


def _since(log: Path, begins: int) -> str:
    with log.open("rb") as f:
        f.seek(begins)
        return f.read().decode(errors="replace")


@command.command("status")
@click.argument("name", metavar="NAME")
@_STORE
@_JSON
def status(name: str, store: str | None, as_json: bool) -> None:
    """Show weights, counts, tests against their thresholds, and what is decided."""
    _show(look(Place(name, store)), as_json)


def _show(found: dict[str, Any], as_json: bool) -> int:
    click.echo(json.dumps(found) if as_json else "\n".join(lines(found)))
    return 0


@command.command("watch")
@click.argument("name", metavar="NAME")
@_STORE
def watch(name: str, store: str | None) -> int:
    """Show a rollout until it is over, without being in charge of it; ends as it ends, with 3 where nobody is."""
    place = Place(name, store)
    try:
        shown = _screen(sys.stdout)
        found = _watched(place, shown) if shown else _followed(place)
    except KeyboardInterrupt:
        return 130
    if found["phase"] != ENDED:
        return 3
    return 0 if found["outcome"] == PROMOTED else 1


def _is_last(found: dict[str, Any]) -> bool:
    return found["phase"] == ENDED or NOBODY in found["trouble"]


def _watched(place: Place, shown: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        while True:
            found = look(place)
            shown.show(found)
            if _is_last(found):
                return found
            time.sleep(SHOWN_SECONDS)
    finally:
        shown.stop()
        if found:
            click.echo("\n".join(lines(found)))  # all of it, and to stay


def _followed(place: Place) -> dict[str, Any]:
    last: Any = None
    while True:
        found = look(place)
        now = [found["phase"], found["step"], found["trouble"]]
        if now != last:
            click.echo("\n".join(lines(found)))
        if _is_last(found):
            return found
        last = now
        time.sleep(SHOWN_SECONDS)


@command.command("abort")
@click.argument("name", metavar="NAME")
@click.option("--reason", default="", help="Kept in the ledger.")
@_STORE
@_JSON
def abort(name: str, reason: str, store: str | None, as_json: bool) -> int:
    """Give all traffic to stable at once and end the rollout, whoever is in charge of it."""
    return tell_to_stable(name, Order("abort", user_name(), reason), store, as_json)


@command.command("history")
@click.argument("name", metavar="NAME")
@_STORE
@_JSON
def show_history(name: str, store: str | None, as_json: bool) -> None:
    """List what the ledger holds of a model's rollouts: who, when, how much traffic, and why."""
    place = Place(name, store)
    place.registry.version(name, 1)  # an unknown model is said
    found = history(place)
    if as_json:
        return click.echo(json.dumps(found))
    for r in found:
        share = f"{r['share'] / 100:g} %"
        click.echo(f"{r['seq']:>5} {r['time']} {r['id']:<24} {r['event']:<12} {share:>6}  {r['actor']}: {r['reason']}")
    if not found:
        click.echo(f"no rollout of {name} was ever started", err=True)
    return None


def tell_to_stable(name: str, order: Order, store: str | None, as_json: bool) -> int:
    """Give all traffic to stable, and say what came of it."""
    told = partial(_say, f"all traffic of {name} goes to stable; the ledger is told why")
    state, is_written = take_back(Place(name, store), order, told)
    _end(state, is_written, as_json)
    return 0
