"""The last pod of a run: ``python -m tidegate.engines.argo.end``."""

from __future__ import annotations

from tidegate.engines.argo.launcher import launch
from tidegate.engines.argo.outcome import Ended, outcome
from tidegate.engines.argo.pod import STATES
from tidegate.engines.argo.site import Site
from tidegate.engines.pod.step import say
from tidegate.engines.values import Values
from tidegate.errors import TidegateError
from tidegate.plan.events import FAILED
from tidegate.store.runs import OutcomeRecord


def end(site: Site) -> int:
    """Write how the run ended, unless who started it was there to do so; a run is no failure for what this cannot do."""
    try:
        _end(site)
    except TidegateError as e:
        say(e)
    return 0


def _end(site: Site) -> None:
    if site.runs.outcome(site.pod.run_id):
        return
    records = {r.path: r for r in site.runs.steps(site.pod.run_id)}
    found = outcome(site.plan, site.arguments, site.context, records, Ended(STATES.get(site.pod.phase, FAILED)))
    outputs = Values(found.parameters, found.artifacts).as_json()
    site.runs.finish(site.pod.run_id, OutcomeRecord(found.state, outputs, dict(found.error or {}) or None))
    print(f"tidegate: run {site.pod.run_id} ended {found.state}", flush=True)


if __name__ == "__main__":
    launch(end)
