import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from components import dataset
from components.generate_transactions.component import generate_transactions
from components.generate_transactions.transactions import generate
from components.validate.checks import check
from tidegate.author.testing import run_component
from tidegate.errors import ParameterError
from tidegate.store.blobs import digest_path

ROOT = Path(__file__).parents[2]


def test_transactions_are_partitioned_by_date_and_meet_their_schema(tmp_path: Path) -> None:
    data = run_component(generate_transactions, tmp_path, rows=3000).artifacts["data"]
    dates = sorted(p.name for p in data.path.iterdir())
    assert dates[0] == "date=2026-01-01"
    assert len(dates) >= 30
    frame = dataset.read(data.path)
    assert check(frame, "transactions").lines == ()
    assert frame.select(generate(3000).columns).equals(generate(3000))


def test_the_same_arguments_give_the_same_bytes_in_any_process_with_any_threads(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from tidegate.author.testing import run_component as run;"
        "from components.generate_transactions.component import generate_transactions as made;"
        "from tidegate.store.blobs import digest_path;"
        "print(digest_path(run(made, Path({!r}), rows=2000, seed=7).artifacts['data'].path).digest)"
    )
    said = set()
    for threads in ("1", "2"):
        command = [sys.executable, "-c", code.format(str(tmp_path / threads))]
        env = {**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": threads}
        said.add(
            subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout.split()[-1]
        )
    assert len(said) == 1
    other = run_component(generate_transactions, tmp_path / "other", rows=2000, seed=8).artifacts["data"]
    assert digest_path(other.path).digest not in said


def test_half_a_percent_is_fraud_and_some_of_it_has_no_label() -> None:
    frauds = generate(40_000, seed=3)["is_fraud"].sum()
    assert 180 <= frauds < 200  # of 200, 3 % unlabelled


def test_features_look_back_only() -> None:
    # written anew, row by row, from the definition: what was there before, and the row itself
    frame = generate(1500, seed=5)
    columns = ["time", "amount", "count_1h", "count_24h", "sum_24h", "since_last_h", "amount_ratio"]
    for rows in frame.partition_by("customer"):
        seen: list[tuple] = []
        for time, amount, hour, day, spent, since, ratio in rows.select(columns).iter_rows():
            seen.append((time, amount))
            within = [[(t, a) for t, a in seen if (time - t).total_seconds() < h * 3600] for h in (1, 24)]
            assert (hour, day) == (len(within[0]), len(within[1]))
            assert spent == pytest.approx(sum(a for _, a in within[1]), abs=0.006)
            before = [a for _, a in seen[:-1]]
            gap = (time - seen[-2][0]).total_seconds() / 3600 if before else 720.0
            assert since == pytest.approx(gap, abs=0.001)
            mean = min(amount / (sum(before) / len(before)), 100) if before else 1.0
            assert ratio == pytest.approx(mean, abs=1e-4)


def test_no_two_transactions_share_a_time() -> None:
    assert generate(50_000, seed=1)["time"].is_unique().all()


def test_fraud_differs_from_the_rest_but_overlaps_with_it() -> None:
    frame = generate(40_000, seed=2)
    for column in ("online", "new_device", "amount_ratio", "distance_km"):
        genuine, fraud = (frame.filter(pl.col("is_fraud") == kind)[column] for kind in (0, 1))
        assert fraud.mean() > 1.5 * genuine.mean()
        assert fraud.min() < genuine.max()


def test_drift_moves_spending_and_online_purchases_as_stated() -> None:
    still, moved = (generate(40_000, seed=4, drift=d).filter(pl.col("is_fraud") == 0) for d in (0.0, 1.0))
    assert moved["amount"].mean() / still["amount"].mean() == pytest.approx(1.6, abs=0.02)
    assert moved["online"].mean() - still["online"].mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("wrong", [{"rows": 99}, {"rows": 1000, "drift": 1.5}, {"rows": 1000, "drift": float("nan")}])
def test_arguments_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ParameterError, match="rows="):
        generate(**wrong)
