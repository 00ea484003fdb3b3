"""Transactions with the structure of real ones: customers with habits, merchants, hours, velocity, and fraud among them.

Everything is drawn from one seeded generator, so the same arguments give the same table. Each customer has a home, a
usual spend and five home merchants; legitimate transactions follow them. Each merchant has a category and a risk. 0.5 %
of the rows are fraud of three kinds: card testing (bursts of small amounts), stolen cards (large amounts, far away, at
night) and takeovers that look almost like the customer. 3 % of the frauds are unlabelled, as in life. Features that look
back (counts, sums, ratios) use the row itself and earlier rows only.

``drift`` from 0 to 1 moves behaviour by, at 1: amounts +60 %, share of online purchases +20 points, stolen cards spend 40 %
less than they would and are half as often far away, takeovers use a new device half as often.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tidegate.errors import ParameterError

MIN_ROWS, FRAUD_RATE, UNLABELLED, DAYS, HOME_MERCHANTS = 100, 0.005, 0.03, 30, 5
START = np.datetime64("2026-01-01T00:00:00", "us")
CATEGORIES = np.array(["grocery", "fuel", "restaurant", "travel", "electronics", "gaming", "clothing", "health"])
_CATEGORY_SHARE = np.array([0.3, 0.12, 0.2, 0.05, 0.06, 0.07, 0.12, 0.08])
_CATEGORY_RISK = np.array([0.3, 0.5, 0.4, 1.2, 2.5, 2.0, 0.9, 0.4])
_HOURS = np.array([1, 1, 1, 1, 1, 2, 4, 7, 9, 9, 9, 10, 11, 11, 9, 9, 9, 11, 13, 12, 9, 6, 4, 2], float)


def generate(rows: int, seed: int = 0, drift: float = 0.0) -> pl.DataFrame:
    """Return the transactions in order of time.

    Args:
        rows: how many, 100 or more.
        seed: of the generator.
        drift: how far behaviour has moved, 0 to 1.

    Raises:
        ParameterError: an argument out of its range.
    """
    if rows < MIN_ROWS or not 0 <= drift <= 1 or seed < 0:
        allowed = f"{MIN_ROWS} rows or more, a drift from 0 to 1, a seed of 0 or more."
        raise ParameterError(f"rows={rows}, drift={drift}, seed={seed}", allowed=allowed)
    rng = np.random.default_rng(seed)
    customers = max(20, rows // 40)
    kind = _kinds(rng, rows)
    customer = rng.integers(0, customers, rows)
    merchant, category = _merchants(rng, customer, kind)
    spend = rng.lognormal(3.2, 0.5, customers)[customer]
    time = _times(rng, rows, kind)
    frame = pl.DataFrame(
        {
            "time": time,
            "customer": customer,
            "merchant": merchant,
            "category": CATEGORIES[category],
            "amount": np.round(_amounts(rng, spend, category, kind, drift), 2),
            "distance_km": np.round(_distances(rng, rows, kind, drift), 1),
            "online": _online(rng, rows, category, kind, drift),
            "new_device": rng.random(rows) < np.choose(kind, [0.02, 0.6, 0.5, 0.25 * (1 - drift / 2)]),
            "age_days": rng.integers(10, 4000, customers)[customer],
            "fraud_kind": kind,
            "is_fraud": ((kind > 0) & (rng.random(rows) > UNLABELLED)).astype(np.int64),
        }
    )
    return _velocity(_bursts(rng, frame))


def _kinds(rng: np.random.Generator, rows: int) -> np.ndarray:
    """0 legitimate, 1 card testing, 2 stolen card, 3 takeover; exactly the fraud rate."""
    kind = np.zeros(rows, np.int64)
    frauds = rng.choice(rows, max(3, round(rows * FRAUD_RATE)), replace=False)
    kind[frauds] = rng.choice([1, 2, 3], len(frauds), p=[0.35, 0.4, 0.25])
    return kind


def _merchants(rng: np.random.Generator, customer: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's merchant and category: mostly one of the customer's own; for fraud, mostly one by risk."""
    rows, merchants = len(customer), max(20, len(customer) // 200)
    category = rng.choice(len(CATEGORIES), merchants, p=_CATEGORY_SHARE)
    risk = _CATEGORY_RISK[category] * rng.lognormal(0, 0.7, merchants)
    home = rng.integers(0, merchants, (customer.max() + 1, HOME_MERCHANTS))
    usual = home[customer, rng.integers(0, HOME_MERCHANTS, rows)]
    usual = np.where(rng.random(rows) < 0.15, rng.integers(0, merchants, rows), usual)
    risky = rng.choice(merchants, rows, p=risk / risk.sum())
    merchant = np.where((kind > 0) & (rng.random(rows) < 0.7), risky, usual)
    return merchant, category[merchant]


def _times(rng: np.random.Generator, rows: int, kind: np.ndarray) -> np.ndarray:
    day = rng.integers(0, DAYS, rows)
    usual = rng.choice(24, rows, p=_HOURS / _HOURS.sum())
    hour = np.where((kind == 2) & (rng.random(rows) < 0.6), rng.integers(0, 6, rows), usual)
    # to the microsecond, so that no two rows share a time and "earlier" has one meaning
    seconds = (day * 86_400 + hour * 3_600).astype("timedelta64[s]")
    return START + seconds + rng.integers(0, 3_600_000_000, rows).astype("timedelta64[us]")


def _amounts(
    rng: np.random.Generator, spend: np.ndarray, category: np.ndarray, kind: np.ndarray, drift: float
) -> np.ndarray:
    base = spend * np.array([1, 1.3, 0.9, 4, 3, 0.7, 1.5, 1.1])[category] * rng.lognormal(0, 0.6, len(spend))
    factor = np.choose(kind, [1.0, 0.05, 5.0 * (1 - 0.4 * drift), 1.6])
    return np.clip(base * factor * (1 + 0.6 * drift), 0.5, 20_000)


def _distances(rng: np.random.Generator, rows: int, kind: np.ndarray, drift: float) -> np.ndarray:
    near, far = rng.gamma(1.2, 6, rows), rng.gamma(2, 250, rows)
    away = rng.random(rows) < np.choose(kind, [0.04, 0.5, 0.75 * (1 - 0.5 * drift), 0.2])
    return np.where(away, far, near)


def _online(rng: np.random.Generator, rows: int, category: np.ndarray, kind: np.ndarray, drift: float) -> np.ndarray:
    usual = np.array([0.1, 0.0, 0.15, 0.6, 0.5, 0.9, 0.4, 0.2])[category] + 0.2 * drift
    return rng.random(rows) < np.where(kind == 1, 0.95, np.where(kind > 1, 0.6, usual))


def _bursts(rng: np.random.Generator, frame: pl.DataFrame) -> pl.DataFrame:
    """Card testing comes in bursts: some of its rows get the customer of the one before, minutes later."""
    customer, time = frame["customer"].to_numpy().copy(), frame["time"].to_numpy().copy()
    tests = np.flatnonzero(frame["fraud_kind"].to_numpy() == 1)
    for before, after in zip(tests[::3], tests[1::3], strict=False):
        customer[after] = customer[before]
        time[after] = time[before] + np.timedelta64(int(rng.integers(20, 600)), "s")
    return frame.with_columns(customer=customer, time=time).sort("time", "customer", maintain_order=True)


def _velocity(frame: pl.DataFrame) -> pl.DataFrame:
    """Features that look back over the customer's earlier rows."""
    frame = frame.sort("customer", "time", maintain_order=True)
    features = {
        "count_1h": pl.len().rolling("time", period="1h").over("customer").cast(pl.Int64),
        "count_24h": pl.len().rolling("time", period="24h").over("customer").cast(pl.Int64),
        "sum_24h": pl.col("amount").sum().rolling("time", period="24h").over("customer").round(2),
        # of the customer's amounts before this row
        "mean_before": (pl.col("amount").cum_sum() / pl.col("amount").cum_count()).shift(1).over("customer"),
        "since_last_h": (pl.col("time").diff().over("customer").dt.total_seconds() / 3600).fill_null(720.0).round(3),
    }
    frame = frame.with_columns(**features).with_columns(
        amount_ratio=(pl.col("amount") / pl.col("mean_before")).fill_null(1.0).clip(0, 100).round(4),
        hour=pl.col("time").dt.hour().cast(pl.Int64),
        weekday=pl.col("time").dt.weekday().cast(pl.Int64),
        online=pl.col("online").cast(pl.Int64),
        new_device=pl.col("new_device").cast(pl.Int64),
        date=pl.col("time").dt.date().cast(pl.String),
    )
    return frame.drop("mean_before", "fraud_kind").sort("time", "customer", maintain_order=True)
