"""Bring pinned data."""

from kfp.dsl import Dataset, Output

import tidegate


@tidegate.component(image="train")
def pull_data(pin: str, train: Output[Dataset], test: Output[Dataset]) -> int:
    """Bring the folders ``train`` and ``test`` of pinned data, checked against the pin; return the rows for training."""
    import shutil
    from pathlib import Path

    from components.pull_data.rows import count
    from tidegate.data import ref

    pinned = ref.parse_pin(pin)
    whole = Path(train.path).with_name("pulled")
    content = ref.fetch(pin, whole)
    for artifact, part in ((train, "train"), (test, "test")):
        shutil.move(whole / part, artifact.path)
        rows = count(Path(artifact.path))
        artifact.metadata.update({"rows": rows, "source": pinned.source, "part": part, "digest": content.digest})
        artifact.metadata.update({"pin": pin, "revision": pinned.revision})
    shutil.rmtree(whole)
    return int(train.metadata["rows"])
