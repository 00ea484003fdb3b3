"""Bring data in as Parquet."""

from kfp.dsl import Dataset, Output

import tidegate


@tidegate.component(image="train")
def ingest(source: str, data: Output[Dataset]) -> int:
    """Read a source (``sklearn:iris``, or the path of a CSV or Parquet file or folder) into Parquet; return the rows."""
    from pathlib import Path

    from components.ingest.sources import read

    frame = read(source)
    Path(data.path).mkdir(parents=True)
    frame.write_parquet(Path(data.path) / "part-0.parquet", statistics=False)
    data.metadata.update({"rows": frame.height, "source": source})
    return frame.height
