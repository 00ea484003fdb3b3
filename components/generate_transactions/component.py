"""Card transactions from a seeded generator."""

from kfp.dsl import Dataset, Output

import tidegate


@tidegate.component(image="train")
def generate_transactions(rows: int, data: Output[Dataset], seed: int = 0, drift: float = 0.0) -> int:
    """Write card transactions, 0.5 % of them fraud, as Parquet partitioned by date; return the number labelled as fraud.

    The same arguments give the same bytes.

    Args:
        rows: how many, 100 or more.
        data: ``date=…/part-0.parquet`` over 30 days.
        seed: of the generator.
        drift: how far behaviour has moved, 0 to 1; ``transactions.py`` says what moves.
    """
    from pathlib import Path

    from components.generate_transactions.transactions import generate

    frame = generate(rows, seed, drift)
    for (date,), part in frame.group_by(["date"], maintain_order=True):
        folder = Path(data.path) / f"date={date}"
        folder.mkdir(parents=True)
        part.drop("date").write_parquet(folder / "part-0.parquet", statistics=False)
    data.metadata.update({"rows": rows, "source": f"generated:transactions?rows={rows}&seed={seed}&drift={drift}"})
    return int(frame["is_fraud"].sum())
