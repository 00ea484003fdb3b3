"""A project folder with pipelines, run by the local engine on a store of its own."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate.engines.base import Arguments
from tidegate.engines.local.engine import LocalEngine
from tidegate.engines.local.host import read_host
from tidegate.ir.check import check
from tidegate.ir.load import Definition, load, of_pipeline
from tidegate.plan.build import build
from tidegate.plan.events import Notice, Outcome, StepFinished
from tidegate.project import read_project
from tidegate.store.local import LocalStore
from tidegate.store.runs import Runs, StepRecord, new_run_id


class Project:
    """Writes files, runs pipelines, remembers the last run's events."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "pyproject.toml").touch()
        self.store = LocalStore(root / ".tidegate")
        self.events: list[Any] = []

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, pipeline: Path, /, jobs: int = 2, cache: bool = True, **parameters: Any) -> Outcome:
        """Run a pipeline file as a new process would import it."""
        for module in [m for m, v in sys.modules.items() if str(getattr(v, "__file__", "")).startswith(str(self.root))]:
            del sys.modules[module]
        sys.path[:] = [p for p in sys.path if "pytest-" not in p]
        return self.run_definition(load(str(pipeline)), parameters, jobs, cache)

    def run_traced(self, pipeline: Any, /, **parameters: Any) -> Outcome:
        """Run what @dsl.pipeline made in the test itself."""
        return self.run_definition(of_pipeline(pipeline, ""), parameters)

    def run_definition(
        self, definition: Definition, parameters: Mapping[str, Any], jobs: int = 2, cache: bool = True
    ) -> Outcome:
        check(definition.spec, definition.platforms)
        self.events.clear()
        plan = build(definition.spec, definition.platforms)
        engine = LocalEngine(self.store, read_host(read_project(self.root)), new_run_id(), jobs, cache)
        return engine.run(plan, Arguments(parameters), self.events.append)

    def cached(self) -> dict[str, bool]:
        return {e.step: e.cached for e in self.events if isinstance(e, StepFinished)}

    def states(self) -> dict[str, str]:
        return {e.step: e.state for e in self.events if isinstance(e, StepFinished)}

    def notices(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, Notice)]

    def records(self, outcome: Outcome) -> dict[str, StepRecord]:
        return {s.path: s for s in Runs(self.store).steps(outcome.run_id)}
