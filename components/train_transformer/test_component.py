"""The transformer: learns, is the same for a seed, and is served as it was trained, without torch."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.train_transformer.component import train_transformer
from pipelines.sentiment.grammar import CONTRAST, reviews
from tidegate.author.testing import run_component
from tidegate.errors import ParameterError
from tidegate.serve.onnx import Scorer
from tidegate.store.blobs import digest_path

pytestmark = pytest.mark.filterwarnings("ignore")  # torch and transformers, of themselves


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviews")
    made = reviews("v1", 640, 1)
    pl.DataFrame({"text": [r.text for r in made], "label": [r.label for r in made]}).write_parquet(folder / "0.parquet")
    return folder


def train(data: Path, folder: Path, **options: Any) -> Path:
    result = run_component(train_transformer, folder, data=data, **{"epochs": 1, **options})
    path: Path = result.artifacts["model"].path
    return path


def test_a_seed_gives_the_same_bytes_and_a_folder_that_is_served_from_text(data: Path, tmp_path: Path) -> None:
    first, second = (train(data, tmp_path / n) for n in "ab")
    assert digest_path(first) == digest_path(second)
    assert {p.name for p in first.iterdir()} == {
        "model.onnx", "model.safetensors", "requirements.txt", "signature.json", "tokenizer.json",
    }  # fmt: skip
    scorer = Scorer.load(first)
    texts = ["the food was good", "a review that is much longer than any the model was trained on " * 20, ""]
    scored = scorer.predict({"text": np.array(texts, object)})
    assert scored["probabilities"].shape == (3, 2)
    assert np.isfinite(scored["probabilities"]).all()
    alone = scorer.predict({"text": np.array(texts[:1], object)})["probabilities"][0]
    assert scored["probabilities"][0] == pytest.approx(alone, abs=1e-5), "padding changes nothing"


def test_any_folder_that_from_pretrained_takes_is_fine_tuned_by_the_same_path(data: Path, tmp_path: Path) -> None:
    from components.train_transformer import training

    frame = pl.read_parquet(data / "0.parquet")
    base = training.train(frame["text"].to_list(), frame["label"].to_list(), training.Options("", 1, 64, 1e-3, 48, 0))
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    tuned = train(data, tmp_path / "tuned", base=str(tmp_path / "base"))
    assert Scorer.load(tuned).signature.classes == (0, 1)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 10_000}])
def test_options_that_train_nothing_are_refused(data: Path, tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ParameterError):
        train(data, tmp_path, **wrong)


def test_the_grammar_is_seeded_balanced_and_contrast_is_only_in_v2() -> None:
    assert reviews("v2", 50, 3) == reviews("v2", 50, 3)
    assert reviews("v2", 50, 3) != reviews("v2", 50, 4)
    first, second = reviews("v1", 2000, 1), reviews("v2", 2000, 1)
    assert not any(" , but " in r.text for r in first)
    share = sum(" , " in r.text for r in second) / 2000
    assert share == pytest.approx(CONTRAST["v2"], abs=0.08)
    assert sum(r.label for r in second) / 2000 == pytest.approx(0.5, abs=0.05)


def test_a_bag_of_words_does_not_reach_eighty_percent() -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train_rows, held_out = reviews("v2", 6000, 1), reviews("v2", 1000, 10_000, 0.0)
    bag = make_pipeline(CountVectorizer(ngram_range=(1, 2), min_df=2), LogisticRegression(max_iter=500, C=0.3))
    bag.fit([r.text for r in train_rows], [r.label for r in train_rows])
    assert bag.score([r.text for r in held_out], [r.label for r in held_out]) <= 0.80
