"""Random plans, compiled to Argo and run on a simulated cluster, end as an independent reading of them says."""

from pathlib import Path

import pytest

from conftest import LONG
from tests.engines.argo.simulated import run_calls
from tests.engines.interpreter import Interpreter, Result
from tests.engines.test_random_plans import FUNCTIONS, Writer
from tidegate.ir.check import check

PLANS = 2_000 if LONG else 32
PARTS = 4
# a loop of a task that runs always, over what a nested dag that FAILED made: Argo knows no outputs of such a dag
DIFFERENT = {145}


@pytest.mark.parametrize("part", range(PARTS))
def test_random_plans_end_on_argo_as_an_independent_interpreter_says(part: int, tmp_path: Path) -> None:
    for seed in sorted({*range(part, PLANS, PARTS)} - DIFFERENT):
        spec = Writer(seed).spec()
        inputs = {"n": seed % 7, "xs": [seed % 3, 1, 2][: seed % 4]}
        wanted = Interpreter(spec, FUNCTIONS).run(inputs)
        outcome, _ = run_calls(check(spec), inputs, FUNCTIONS, tmp_path / "cluster")
        steps = {s.step: s.state for s in outcome.steps}
        assert Result(outcome.state, dict(outcome.parameters), steps) == wanted, f"seed {seed}"
