import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from components import dataset
from components.generate_transactions.transactions import generate
from components.ingest.sources import read
from components.train_sklearn import export, table
from components.train_sklearn.component import train_sklearn
from components.train_sklearn.fit import ESTIMATORS, fit
from tidegate.author.testing import Result, run_component
from tidegate.errors import ParameterError
from tidegate.serve.onnx import Scorer
from tidegate.store.blobs import digest_path

ROOT = Path(__file__).parents[2]
IRIS = read("sklearn:iris").frame
KEYS = ["time", "customer", "merchant", "date"]
SMALL = {"logistic_regression": {}, "random_forest": {"n_estimators": 20}, "hist_gradient_boosting": {"max_iter": 30}}


def train(tmp_path: Path, frame: pl.DataFrame, **inputs: Any) -> Result:
    dataset.write(frame, tmp_path / "data")
    return run_component(train_sklearn, tmp_path / "out", data=tmp_path / "data", **inputs)


def test_a_model_folder_holds_graph_skops_signature_and_versions(tmp_path: Path) -> None:
    model = train(tmp_path, IRIS, label="species").artifacts["model"]
    assert sorted(p.name for p in model.path.iterdir()) == [
        "model.onnx",
        "model.skops",
        "requirements.txt",
        "signature.json",
    ]
    assert model.metadata == {"framework": "scikit-learn", "estimator": "logistic_regression", "rows": 150}
    signature = json.loads((model.path / "signature.json").read_text())
    assert signature["inputs"][0] == {"name": "sepal_length", "datatype": "FP32", "shape": [-1]}
    assert signature["classes"] == ["setosa", "versicolor", "virginica"]
    assert "scikit-learn==" in (model.path / "requirements.txt").read_text()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_graph_gives_what_scikit_learn_gives_on_ten_thousand_raw_rows(tmp_path: Path, estimator: str) -> None:
    frame = generate(14_000, seed=1).drop(KEYS)
    pipeline = fit(frame.head(4000), "is_fraud", estimator, SMALL[estimator], 0)
    export.write(pipeline, frame.drop("is_fraud"), tmp_path / "model")
    rows = frame.tail(10_000).drop("is_fraud")
    served = Scorer.load(tmp_path / "model").predict({c.name: c.to_numpy() for c in rows})
    own = pipeline.predict_proba(table.features(rows))
    assert np.abs(served["probabilities"] - own).max() <= 1e-5
    clear = np.abs(own[:, 1] - 0.5) > 1e-5
    assert (served["label"] == pipeline.predict(table.features(rows)))[clear].all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_category_never_seen_in_training_is_answered_alike(tmp_path: Path, estimator: str) -> None:
    frame = generate(2000, seed=1).drop(KEYS)
    pipeline = fit(frame, "is_fraud", estimator, SMALL[estimator], 0)
    export.write(pipeline, frame.drop("is_fraud"), tmp_path / "model")
    rows = frame.head(50).drop("is_fraud").with_columns(category=pl.lit("casino"))
    served = Scorer.load(tmp_path / "model").predict({c.name: c.to_numpy() for c in rows})
    assert np.abs(served["probabilities"] - pipeline.predict_proba(table.features(rows))).max() <= 1e-5


def test_a_missing_number_is_answered_alike_by_gradient_boosting(tmp_path: Path) -> None:
    frame = IRIS.with_columns(petal_width=pl.when(pl.int_range(150) % 3 > 0).then("petal_width"))
    pipeline = fit(frame, "species", "hist_gradient_boosting", {"max_iter": 20, "min_samples_leaf": 5}, 0)
    export.write(pipeline, frame.drop("species"), tmp_path / "model")
    rows = frame.drop("species")
    served = Scorer.load(tmp_path / "model").predict({c.name: c.to_numpy() for c in rows})
    assert np.abs(served["probabilities"] - pipeline.predict_proba(table.features(rows))).max() <= 1e-5


_TRAIN = """
import json
import sys
from pathlib import Path
from components.generate_transactions.transactions import generate
from components.ingest.sources import read
from components.train_sklearn import export, fit
from tidegate.store.blobs import digest_path
fraud = generate(2000).drop("time", "customer", "merchant", "date")
for frame, label in ((read("sklearn:iris").frame, "species"), (fraud, "is_fraud")):
    for name in fit.ESTIMATORS:
        made = fit.fit(frame, label, name, json.loads(sys.argv[2])[name], 3)
        folder = Path(sys.argv[1]) / label / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        export.write(made, frame.drop(label), folder)
        print(label, name, digest_path(folder).digest)
assert "torch" not in sys.modules, "it takes as long to import as all the rest"
"""


def test_the_same_data_and_parameters_give_the_same_digest_in_any_process_with_any_threads(tmp_path: Path) -> None:
    said = set()
    for threads in ("1", "2"):
        env = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", _TRAIN, str(tmp_path / threads), json.dumps(SMALL)]
        said.add(subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout)
    assert len(said) == 1
    assert said.pop().count("sha256:") == 2 * len(ESTIMATORS)


def test_another_seed_gives_another_forest(tmp_path: Path) -> None:
    digests = set()
    for seed in (0, 1):
        result = train(tmp_path / str(seed), IRIS, label="species", estimator="random_forest", seed=seed)
        digests.add(digest_path(result.artifacts["model"].path).digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"label": "kind"}, "no column 'kind'"),
        ({"estimator": "gradient_bosting"}, "One of logistic_regression, random_forest, hist_gradient_boosting"),
        ({"hyper_parameters": {"c": 1}}, "no hyper-parameter 'c'\nIts own: C, class_weight"),
        ({"hyper_parameters": {"C": -1.0}}, "cannot be fitted: The 'C' parameter"),
        ({"hyper_parameters": {"random_state": 4}}, "the parameter `seed`"),
        ({"ignore": ["sepal_lenght"]}, "no column 'sepal_lenght'"),
        ({"ignore": IRIS.columns[:4]}, "no column beside 'species'"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(tmp_path: Path, inputs: dict, said: str) -> None:
    with pytest.raises(ParameterError) as refused:
        train(tmp_path, IRIS, **{"label": "species", **inputs})
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (IRIS.with_columns(when=pl.date(2026, 1, 1)), "the column 'when' is Date"),
        (IRIS.with_columns(n=pl.when(pl.int_range(150) > 0).then(1)), "the column 'n' has gaps"),
        (IRIS.with_columns(t=pl.when(pl.int_range(150) > 0).then(pl.lit("a"))), "the column 't' has gaps"),
        (IRIS.with_columns(species=pl.lit(0.5)), "the label 'species' is Float64"),
        (IRIS.with_columns(species=pl.lit("rose")), "cannot be fitted"),
        (
            IRIS.with_columns(petal_width=pl.when(pl.int_range(150) > 0).then("petal_width")),
            "cannot be fitted: Input X contains",
        ),
    ],
)
def test_data_that_a_served_model_could_not_be_asked_about_is_refused(
    tmp_path: Path, frame: pl.DataFrame, said: str
) -> None:
    with pytest.raises(ParameterError) as refused:
        train(tmp_path, frame, label="species")
    assert said in str(refused.value)
