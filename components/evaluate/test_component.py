import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from components import dataset
from components.evaluate import holdout, measures, report
from components.evaluate.component import evaluate
from components.evaluate.trusted import load_pipeline
from components.generate_transactions.transactions import generate
from components.ingest.sources import read
from components.train_sklearn import export, fit, table
from tidegate.author.testing import Artifact, Result, run_component
from tidegate.data import profile
from tidegate.errors import ModelRefused, ParameterError
from tidegate.registry import evaluation
from tidegate.serve.onnx import Scorer
from tidegate.store.blobs import digest_path

IRIS = read("sklearn:iris").frame
FRAUD = generate(6000, seed=2).drop("time", "customer", "merchant", "date")


def model(folder: Path, frame: pl.DataFrame, label: str, estimator: str = "logistic_regression", **more: Any) -> Path:
    export.write(fit.fit(frame, label, estimator, more, 0), frame.drop(label), folder)
    return folder


def judged(tmp_path: Path, frame: pl.DataFrame, **inputs: Any) -> tuple[evaluation.Evaluation, Result]:
    if not (tmp_path / "data").exists():
        dataset.write(frame, tmp_path / "data")
    result = run_component(evaluate, tmp_path / "out", data=tmp_path / "data", **inputs)
    return evaluation.read(result.artifacts["evaluation"].path), result


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("iris") / "model", IRIS, "species")


@pytest.fixture(scope="module")
def fraud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fraud") / "model"
    return model(folder, FRAUD.head(4000), "is_fraud", "hist_gradient_boosting", max_iter=20)


def test_cross_validation_is_evidence_on_the_procedure_not_on_this_artifact(tmp_path: Path, iris: Path) -> None:
    said, result = judged(tmp_path, IRIS, model=iris, label="species", folds=5, seed=1)
    assert said.model == ""
    assert said.procedure == {"kind": "cross-validation", "folds": 5, "seed": 1, "stratified": True}
    assert said.data == digest_path(tmp_path / "data").digest
    assert result.outputs["Output"] == said.metrics["accuracy"] > 0.9
    assert result.artifacts["metrics"].metadata == dict(said.metrics)


def test_out_of_fold_accuracy_is_that_of_models_that_never_saw_the_row(tmp_path: Path, iris: Path) -> None:
    said, result = judged(tmp_path, IRIS, model=iris, label="species", folds=3, seed=4)
    features, truth = IRIS.drop("species"), IRIS["species"].to_numpy()
    right = 0
    for train, test in StratifiedKFold(3, shuffle=True, random_state=4).split(features, truth):
        made = fit.fit(IRIS[train], "species", "logistic_regression", {}, 0)
        right += (made.predict(table.features(features[test])) == truth[test]).sum()
    assert said.metrics["accuracy"] == right / 150
    rows = result.artifacts["confusion"].metadata["confusionMatrix"]["rows"]
    assert sum(r["row"][i] for i, r in enumerate(rows)) == right


def test_a_holdout_is_evidence_on_this_artifact_with_its_digest(tmp_path: Path, fraud: Path) -> None:
    held_out = FRAUD.tail(2000)
    said, _ = judged(tmp_path, held_out, model=fraud, label="is_fraud")
    assert said.model == digest_path(fraud).digest
    assert said.procedure == {"kind": "holdout"}
    assert said.rows == 2000
    assert {"pr_auc", "recall_at_fpr_1pct", "brier", "ece", "roc_auc"} <= said.metrics.keys()
    assert said.metrics["onnx_max_abs_diff"] <= 1e-5
    assert said.metrics["onnx_pr_auc_diff"] <= 1e-6


def test_what_is_measured_is_what_is_served(tmp_path: Path, fraud: Path) -> None:
    held_out = FRAUD.tail(2000)
    said, _ = judged(tmp_path, held_out, model=fraud, label="is_fraud")
    columns = {c.name: c.to_numpy() for c in held_out.drop("is_fraud")}
    served = Scorer.load(fraud).predict(columns)["label"] == held_out["is_fraud"].to_numpy()
    assert said.metrics["accuracy"] == served.mean()


def test_a_graph_that_differs_from_what_was_trained_is_caught(tmp_path: Path, fraud: Path) -> None:
    other = model(tmp_path / "other", FRAUD.head(3000), "is_fraud", "hist_gradient_boosting", max_iter=20)
    shutil.copy(fraud / "model.onnx", other / "model.onnx")
    said, _ = judged(tmp_path, FRAUD.tail(2000), model=other, label="is_fraud")
    assert said.metrics["onnx_max_abs_diff"] > 1e-5


def test_the_champion_is_compared_on_the_same_rows(tmp_path: Path, iris: Path) -> None:
    weak = model(tmp_path / "weak", IRIS.drop("petal_length", "petal_width"), "species")
    champion = Artifact(weak, {"version": 4})
    said, result = judged(tmp_path, IRIS, model=iris, label="species", champion=champion)
    compared = said.comparison
    assert compared is not None
    assert (compared.champion, compared.rows, compared.metric) == (digest_path(weak).digest, 150, "accuracy")
    assert (compared.both_right + compared.only_candidate) / 150 == said.metrics["accuracy"]
    assert compared.only_candidate > compared.only_champion
    body = json.loads(result.artifacts["evaluation"].path.read_text())
    assert body["comparison"]["champion"]["version"] == 4


def test_what_rows_and_predictions_looked_like_is_in_the_evidence(tmp_path: Path, fraud: Path) -> None:
    held_out = FRAUD.tail(2000)
    said, _ = judged(tmp_path, held_out, model=fraud, label="is_fraud")
    found = profile.parse(said.profile.encode())
    assert (found.rows, found.of, sum(found.prediction.counts)) == (2000, profile.PROBABILITY, 2000)
    assert set(found.columns) == set(held_out.columns) - {"is_fraud"}
    assert {type(found.columns[c]) for c in ("amount", "category")} == {profile.Number, profile.Text}
    assert found.columns["amount"].mean == pytest.approx(held_out["amount"].mean())
    assert sum(found.columns["category"].frequent.values()) == 2000


def test_the_predictions_of_more_than_two_classes_are_counted_by_class(tmp_path: Path, iris: Path) -> None:
    said, _ = judged(tmp_path, IRIS, model=iris, label="species", folds=3)
    found = profile.parse(said.profile.encode())
    assert (found.of, found.prediction.edges) == (profile.LABEL, (0.5, 1.5))
    assert sum(found.prediction.counts) == 150


def test_where_predictions_went_is_counted_by_the_champions_edges_and_the_candidates_own(
    tmp_path: Path, fraud: Path
) -> None:
    rows, held_out = FRAUD.head(3000), FRAUD.tail(2000)
    other = model(tmp_path / "other", rows, "is_fraud", "hist_gradient_boosting", max_iter=5)
    edges = [0.001, 0.004, 0.2]
    champion = Artifact(fraud, {"version": 1, "edges": edges})
    said, _ = judged(tmp_path, held_out, model=other, label="is_fraud", champion=champion)
    assert said.comparison is not None
    found = said.comparison.predictions
    columns = {c.name: c.to_numpy() for c in held_out.drop("is_fraud")}
    before, after = (Scorer.load(m).predict(columns)["probabilities"][:, 1] for m in (fraud, other))
    assert found.edges == tuple(edges)
    assert found.moved == tuple(np.histogram(after, [-1, *edges, 2])[0].tolist())
    assert [sum(r) for r in found.table] == np.histogram(before, [-1, *edges, 2])[0].tolist()
    own = profile.parse(said.profile.encode()).prediction
    assert tuple(map(sum, zip(*found.table, strict=True))) == own.counts
    among = (before > 0.001) & (before <= 0.004) & (after <= own.edges[0])
    assert found.table[1][0] == among.sum()


def test_a_champion_whose_edges_are_unknown_is_compared_without_them(tmp_path: Path, fraud: Path) -> None:
    said, _ = judged(
        tmp_path, FRAUD.tail(2000), model=fraud, label="is_fraud", champion=Artifact(fraud, {"version": 1})
    )
    assert said.comparison is not None
    assert said.comparison.predictions is None


def test_an_empty_champion_is_none(tmp_path: Path, iris: Path) -> None:
    (tmp_path / "nobody").mkdir()
    said, _ = judged(tmp_path, IRIS, model=iris, label="species", champion=tmp_path / "nobody")
    assert said.comparison is None


def test_a_metric_that_cannot_be_measured_is_said_to_be_nan(tmp_path: Path, fraud: Path) -> None:
    genuine = FRAUD.filter(pl.col("is_fraud") == 0).head(500)
    said, result = judged(tmp_path, genuine, model=fraud, label="is_fraud")
    assert np.isnan(said.metrics["pr_auc"])
    assert np.isnan(said.metrics["recall_at_fpr_1pct"])
    assert result.artifacts["metrics"].metadata["pr_auc"] == "NaN"


@pytest.mark.parametrize(
    ("frame", "inputs", "said"),
    [
        (IRIS, {"label": "kind"}, "no column 'kind'"),
        (IRIS, {"label": "kind", "folds": 3}, "no column 'kind'"),
        (IRIS, {"folds": 1}, "2 to 50"),
        (IRIS, {"folds": 51}, "2 to 50"),
        (IRIS.drop("petal_width"), {}, "no column 'petal_width'"),
        (IRIS.with_columns(species=pl.lit("rose")), {}, "the data has the class 'rose'"),
        (IRIS, {"ignore": ["id"]}, "no column 'id'"),
    ],
)
def test_data_and_parameters_that_do_not_fit_are_named(
    tmp_path: Path, iris: Path, frame: pl.DataFrame, inputs: dict, said: str
) -> None:
    with pytest.raises(ParameterError) as refused:
        judged(tmp_path, frame, model=iris, **{"label": "species", **inputs})
    assert said in str(refused.value)


@pytest.mark.parametrize("estimator", fit.ESTIMATORS)
def test_our_own_models_load_by_our_own_list(tmp_path: Path, estimator: str) -> None:
    folder = model(tmp_path / "model", IRIS, "species", estimator)
    assert load_pipeline(folder).classes_.tolist() == ["setosa", "versicolor", "virginica"]


def test_a_model_that_asks_for_another_type_is_refused_before_it_is_loaded(tmp_path: Path, iris: Path) -> None:
    copy = shutil.copytree(iris, tmp_path / "model")
    out = io.BytesIO()
    with zipfile.ZipFile(iris / "model.skops") as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "schema.json":
                data = data.replace(b'"LogisticRegression"', b'"Popen"').replace(
                    b'"sklearn.linear_model._logistic"', b'"subprocess"'
                )
            new.writestr(name, data)
    (copy / "model.skops").write_bytes(out.getvalue())
    with pytest.raises(ModelRefused, match=r"subprocess\.Popen"):
        load_pipeline(copy)


@pytest.mark.parametrize("damage", [b"", b"no zip", "cut"])
def test_a_damaged_skops_file_is_refused(tmp_path: Path, iris: Path, damage: Any) -> None:
    copy = shutil.copytree(iris, tmp_path / "model")
    whole = (copy / "model.skops").read_bytes()
    (copy / "model.skops").write_bytes(whole[: len(whole) // 2] if damage == "cut" else damage)
    with pytest.raises(ModelRefused, match="cannot be read"):
        load_pipeline(copy)


def test_cross_validation_without_skops_says_what_to_do(tmp_path: Path, iris: Path) -> None:
    copy = shutil.copytree(iris, tmp_path / "model")
    (copy / "model.skops").unlink()
    with pytest.raises(ModelRefused, match="use folds=0"):
        judged(tmp_path, IRIS, model=copy, label="species", folds=3)
    said, _ = judged(tmp_path, IRIS, model=copy, label="species")
    assert "onnx_max_abs_diff" not in said.metrics


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=2, max_size=80))
def test_recall_at_one_percent_is_the_best_threshold_within_the_bound(rows: list[tuple[bool, int]]) -> None:
    truth, score = np.array([t for t, _ in rows]), np.array([s / 10 for _, s in rows])
    found = measures.binary(truth, score)["recall_at_fpr_1pct"]
    if truth.all() or not truth.any():
        assert np.isnan(found)
        return
    thresholds = [*score, 2.0]
    allowed = [t for t in thresholds if (score[~truth] >= t).mean() <= 0.01]
    assert found == max((score[truth] >= t).mean() for t in allowed)


def test_calibration_error_is_nought_where_scores_are_rates_and_their_distance_elsewhere() -> None:
    truth = np.array([True] * 20 + [False] * 80)
    assert measures.calibration_error(truth, np.full(100, 0.2), bins=1) == pytest.approx(0)
    assert measures.calibration_error(truth, np.full(100, 0.5), bins=1) == pytest.approx(0.3)
    assert measures.calibration_error(truth, truth.astype(float)) == 0


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=50))
def test_a_comparison_counts_every_row_once(rows: list[tuple[int, int, int]]) -> None:
    truth, mine, theirs = (np.array(c) for c in zip(*rows, strict=True))
    empty = np.empty((0, 3))
    predictions = [measures.Predictions(truth, label, empty, [0, 1, 2]) for label in (mine, theirs)]
    counts = holdout.compare(*predictions, {})["table"]
    assert sum(counts.values()) == len(rows)
    assert counts["only_candidate"] == sum(m == t != c for t, m, c in rows)
    assert counts["only_champion"] == sum(c == t != m for t, m, c in rows)


def test_numbers_that_json_cannot_say_are_text() -> None:
    said = report.numbers({"a": float("nan"), "b": float("inf"), "c": float("-inf"), "d": 0.5})
    assert said == {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 0.5}
