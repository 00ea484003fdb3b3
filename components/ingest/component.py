"""Bring data in as Parquet."""

from kfp.dsl import Dataset, Output

import tidegate


@tidegate.component(image="train")
def ingest(source: str, data: Output[Dataset]) -> int:
    """Read a source into Parquet; return the rows.

    A file may change while its path stays, and the cache is keyed by ``source``: name the bytes with ``#sha256:…`` (other
    bytes are then refused), or call this with ``.set_caching_options(False)``.

    Args:
        source: ``sklearn:iris`` (or ``wine``, ``breast_cancer``), or the path of a CSV file, a Parquet file or a folder of
            Parquet files, from the project's root.
        data: one Parquet file; metadata rows, source, and the source's digest where it is a path.
    """
    from components import dataset
    from components.ingest.sources import read

    table = read(source)
    dataset.write(table.frame, data.path)
    data.metadata.update({"rows": table.frame.height, "source": source})
    if table.digest:
        data.metadata["digest"] = table.digest
    return table.frame.height
