"""Bring data in as Parquet."""

from kfp.dsl import Dataset, Output

import tidegate


@tidegate.component(image="train")
def ingest(source: str, data: Output[Dataset]) -> int:
    """Read ``sklearn:iris``, or a CSV or Parquet file or folder, perhaps with ``#sha256:…``; return the rows."""
    from components import dataset
    from components.ingest.sources import read

    table = read(source)
    dataset.write(table.frame, data.path)
    data.metadata.update({"rows": table.frame.height, "source": source})
    if table.digest:
        data.metadata["digest"] = table.digest
    return table.frame.height
