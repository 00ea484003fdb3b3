"""Fraud: the advanced pipeline. Generated transactions, gradient boosting on raw columns, a split in time, a served graph."""

from pathlib import Path
from typing import NamedTuple, Optional

from kfp import dsl

import tidegate
from components.champion.component import champion
from components.evaluate.component import evaluate
from components.generate_transactions.component import generate_transactions
from components.register.component import register
from components.split.component import split
from components.train_sklearn.component import train_sklearn
from components.validate.component import validate

Outputs = NamedTuple("Outputs", [("accuracy", float), ("registered", bool), ("version", int), ("digest", str)])
POLICY = tidegate.policy(Path(__file__).with_name("policy.toml"))
KEYS = ["time", "customer", "merchant", "date"]


@dsl.pipeline(name="fraud", description="Train, evaluate, gate and register a model of card fraud.")
def fraud(
    rows: int = 200_000,
    seed: int = 0,
    drift: float = 0.0,
    estimator: str = "hist_gradient_boosting",
    hyper_parameters: dict = {  # noqa: B006 - kfp reads the default
        "max_iter": 100,
        "learning_rate": 0.05,
        "max_leaf_nodes": 8,
        "min_samples_leaf": 40,
        "l2_regularization": 5.0,
    },
    min_pr_auc: Optional[float] = None,
) -> Outputs:
    """Train on the earlier 70 % of the days, evaluate on the later ones; ``min_pr_auc`` may tighten the gate."""
    data = generate_transactions(rows=rows, seed=seed, drift=drift)
    checked = validate(data=data.outputs["data"], schema="transactions")
    parts = split(data=data.outputs["data"], by="date", fraction=0.7).after(checked)
    trained = train_sklearn(
        data=parts.outputs["train"],
        label="is_fraud",
        estimator=estimator,
        hyper_parameters=hyper_parameters,
        ignore=KEYS,
        seed=seed,
    )
    present = champion(name="fraud").set_caching_options(False)
    measured = evaluate(
        model=trained.outputs["model"],
        data=parts.outputs["test"],
        label="is_fraud",
        champion=present.outputs["champion"],
        ignore=KEYS,
        seed=seed,
    )
    said = register(
        model=trained.outputs["model"],
        evaluation=measured.outputs["evaluation"],
        data=data.outputs["data"],
        name="fraud",
        policy=POLICY,
        tighten=min_pr_auc,
    ).set_caching_options(False)
    return Outputs(measured.outputs["Output"], *(said.outputs[n] for n in ("registered", "version", "digest")))
