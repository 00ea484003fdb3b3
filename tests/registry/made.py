"""Evaluations, candidates and small real models for the registry's and the server's tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidegate.registry.policy import Policy, Rule
from tidegate.registry.register import Candidate
from tidegate.store.blobs import digest_path

if TYPE_CHECKING:
    import polars as pl

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def evaluation(**changes: Any) -> dict[str, Any]:
    body = {
        "schema": "tidegate/evaluation/1",
        "model": None,
        "procedure": {"kind": "cross-validation", "folds": 5, "seed": 0},
        "data": {"digest": DIGEST, "rows": 150},
        "metrics": {"accuracy": 0.97},
        "comparison": None,
    }
    return {**body, **changes}


def comparison(champion: str, won: int, lost: int, rows: int = 1000) -> dict[str, Any]:
    table = {"both_right": rows - won - lost, "only_candidate": won, "only_champion": lost, "both_wrong": 0}
    return {"champion": {"digest": champion}, "metric": "accuracy", "rows": rows, "table": table}


def predictions(moved: list[int], rows: list[int]) -> dict[str, Any]:
    """Predictions in two bins of the champion's; the candidate's own bins are those of the champion."""
    stayed = [min(a, b) for a, b in zip(moved, rows, strict=True)]
    table = [[stayed[0], rows[0] - stayed[0]], [rows[1] - stayed[1], stayed[1]]]
    return {"edges": [0.5], "moved": moved, "table": table}


def policy(name: str = "m", above: float = 0.95, alias: str = "champion", on_refuse: str = "fail") -> Policy:
    return Policy(name, (Rule("accuracy", "above", above, "min_accuracy"),), None, on_refuse, alias)


def candidate(folder: Path, number: int = 0, accuracy: Any = 0.97, **options: Any) -> Candidate:
    """Files that ask to be registered; another number is another model."""
    root = folder / f"candidate-{number}-{accuracy}"
    if not root.exists():
        (root / "model").mkdir(parents=True)
        (root / "model" / "weights").write_text(f"model {number}")
        (root / "data").mkdir()
        (root / "data" / "part").write_text("rows")
        said = evaluation(metrics={"accuracy": accuracy}, data={"digest": digest_path(root / "data").digest, "rows": 4})
        (root / "evaluation.json").write_text(json.dumps(said))
    made = options.get("policy") or policy(**options)
    return Candidate("m", root / "model", root / "evaluation.json", root / "data", {"pin": "dvc+x"}, made.json())


def frame(rows: int = 300) -> pl.DataFrame:
    """A table with numbers and a category, nearly separable by the number."""
    import polars as pl

    return pl.DataFrame(
        {
            "x": [float(i % 20) for i in range(rows)],
            "n": [i % 3 for i in range(rows)],
            "kind": [("a", "b", "c")[i % 3] for i in range(rows)],
            "label": [("no", "yes")[(i % 20 >= 10) ^ (i % 11 == 0)] for i in range(rows)],
        }
    )


def model(folder: Path, estimator: str = "logistic_regression") -> Path:
    """A real model's folder, trained on ``frame()``."""
    from components.train_sklearn import export, fit  # here, so that registrars that are killed start quickly

    data = frame()
    export.write(fit.fit(data, "label", estimator, {}, 0), data.drop("label"), folder)
    return folder
