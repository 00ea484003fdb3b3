"""Sentiment: the intermediate pipeline. Data versioned with DVC, a small transformer, registered only if it beats the champion.

The data repository is made by ``python pipelines/sentiment/make_data.py``.
"""

from pathlib import Path
from typing import NamedTuple

from kfp import dsl

import tidegate
from components.champion.component import champion
from components.evaluate.component import evaluate
from components.pull_data.component import pull_data
from components.register.component import register
from components.resolve_data.component import resolve_data
from components.train_transformer.component import train_transformer
from components.validate.component import validate

Outputs = NamedTuple("Outputs", [("accuracy", float), ("registered", bool), ("version", int), ("reason", str)])
POLICY = tidegate.policy(Path(__file__).with_name("policy.toml"))


@dsl.pipeline(name="sentiment", description="Retrain a sentiment model; register it only if it beats the champion.")
def sentiment(
    data: str = "dvc+.tidegate/sentiment-data/repo@v1:reviews",
    base: str = "",
    epochs: int = 14,
    seed: int = 0,
) -> Outputs:
    """``data`` is a dataset reference or its pin; ``base`` any ``from_pretrained`` name or folder."""
    pin = resolve_data(reference=data).set_caching_options(False)
    rows = pull_data(pin=pin.output)
    checked = validate(data=rows.outputs["train"], schema="reviews")
    present = champion(name="sentiment").set_caching_options(False)
    trained = train_transformer(data=rows.outputs["train"], base=base, epochs=epochs, seed=seed).after(checked)
    measured = evaluate(
        model=trained.outputs["model"],
        data=rows.outputs["test"],
        label="label",
        champion=present.outputs["champion"],
        seed=seed,
    )
    said = register(
        model=trained.outputs["model"],
        evaluation=measured.outputs["evaluation"],
        data=rows.outputs["train"],
        name="sentiment",
        policy=POLICY,
    ).set_caching_options(False)
    return Outputs(measured.outputs["Output"], *(said.outputs[n] for n in ("registered", "version", "reason")))
