"""Iris: the beginner's pipeline. Real data, a schema, a model, out-of-fold evidence, a gate at 95 % accuracy."""

from pathlib import Path
from typing import NamedTuple, Optional

from kfp import dsl

import tidegate
from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.register.component import register
from components.train_sklearn.component import train_sklearn
from components.validate.component import validate

Outputs = NamedTuple("Outputs", [("accuracy", float), ("registered", bool), ("version", int), ("digest", str)])
POLICY = tidegate.policy(Path(__file__).with_name("policy.toml"))


@dsl.pipeline(name="iris", description="Train, evaluate, gate and register a classifier of irises.")
def iris(
    estimator: str = "logistic_regression",
    hyper_parameters: dict = {},  # noqa: B006 - kfp reads the default
    folds: int = 5,
    seed: int = 0,
    min_accuracy: Optional[float] = None,
) -> Outputs:
    """``min_accuracy`` may tighten the gate of policy.toml, never loosen it."""
    data = ingest(source="sklearn:iris")
    checked = validate(data=data.outputs["data"], schema="iris")
    trained = train_sklearn(
        data=data.outputs["data"],
        label="species",
        estimator=estimator,
        hyper_parameters=hyper_parameters,
        seed=seed,
    ).after(checked)
    measured = evaluate(
        model=trained.outputs["model"], data=data.outputs["data"], label="species", folds=folds, seed=seed
    )
    said = register(
        model=trained.outputs["model"],
        evaluation=measured.outputs["evaluation"],
        data=data.outputs["data"],
        name="iris",
        policy=POLICY,
        tighten=min_accuracy,
    ).set_caching_options(False)
    return Outputs(measured.outputs["Output"], *(said.outputs[n] for n in ("registered", "version", "digest")))
