"""Wine: a Metaflow flow trains, and its model passes the same gate as any other."""

from pathlib import Path
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Model

import tidegate
from components.evaluate.component import evaluate
from components.register.component import register
from tidegate.contrib.metaflow import flow_component

Outputs = NamedTuple("Outputs", [("strength", float), ("accuracy", float), ("registered", bool), ("version", int)])
POLICY = tidegate.policy(Path(__file__).with_name("policy.toml"))

wine_flow = flow_component(
    Path(__file__).with_name("flow.py"),
    artifacts={"model": Model, "train": Dataset, "test": Dataset, "tried": Artifact, "strength": float},
    metrics=["accuracy"],
)


@dsl.pipeline(name="wine", description="Let a Metaflow flow choose a classifier of wines; gate and register it.")
def wine(strengths: list = [0.01, 0.1, 1.0], seed: int = 0) -> Outputs:  # noqa: B006 - kfp reads the default
    """``strengths`` are the flow's; the gate measures on the rows that the flow held out."""
    chosen = wine_flow(strengths=strengths, seed=seed)
    measured = evaluate(model=chosen.outputs["model"], data=chosen.outputs["test"], label="cultivar")
    said = register(
        model=chosen.outputs["model"],
        evaluation=measured.outputs["evaluation"],
        data=chosen.outputs["train"],
        name="wine",
        policy=POLICY,
    ).set_caching_options(False)
    return Outputs(
        chosen.outputs["strength"], measured.outputs["Output"], said.outputs["registered"], said.outputs["version"]
    )
