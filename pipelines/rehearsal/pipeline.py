"""Rehearsal: the champion of fraud with a fault that no gate can see, registered to be rolled back."""

from pathlib import Path
from typing import NamedTuple

from kfp import dsl

import tidegate
from components.champion.component import champion
from components.evaluate.component import evaluate
from components.generate_transactions.component import generate_transactions
from components.plant_fault.component import plant_fault
from components.register.component import register
from components.split.component import split

Outputs = NamedTuple("Outputs", [("registered", bool), ("version", int), ("digest", str)])
POLICY = tidegate.policy(Path(__file__).parents[1] / "fraud" / "policy.toml")
KEYS = ["time", "customer", "merchant", "date"]


@dsl.pipeline(name="rehearsal", description="Register the champion with a fault that only live traffic shows.")
def rehearsal(rows: int = 200_000, seed: int = 0, fault: str = "fails", above: float = 100_000.0) -> Outputs:
    """Evaluate and register as ``fraud`` does; live, rows with an ``amount`` above ``above`` fail, or every row is slow."""
    data = generate_transactions(rows=rows, seed=seed)
    parts = split(data=data.outputs["data"], by="date", fraction=0.7)
    present = champion(name="fraud").set_caching_options(False)
    faulty = plant_fault(model=present.outputs["champion"], column="amount", fault=fault, above=above)
    measured = evaluate(
        model=faulty.outputs["planted"],
        data=parts.outputs["test"],
        label="is_fraud",
        champion=present.outputs["champion"],
        ignore=KEYS,
        seed=seed,
    )
    said = register(
        model=faulty.outputs["planted"],
        evaluation=measured.outputs["evaluation"],
        data=data.outputs["data"],
        name="fraud",
        policy=POLICY,
    ).set_caching_options(False)
    return Outputs(*(said.outputs[n] for n in ("registered", "version", "digest")))
