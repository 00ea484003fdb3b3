"""Fetch the present champion of a model."""

from kfp.dsl import Model, Output

import tidegate


@tidegate.component(image="train")
def champion(name: str, champion: Output[Model]) -> int:
    """Copy the champion's bytes, checked by digest, and return its version; 0 and an empty folder for none.

    The metadata says by which ``edges`` its predictions are counted live, if its profile is known.
    """
    from pathlib import Path

    from tidegate.data import profile
    from tidegate.registry.register import fetch_champion

    found = fetch_champion(name, Path(champion.path))
    champion.metadata.update({"version": found.version, "digest": found.digest})
    if found.profile:
        champion.metadata["edges"] = list(profile.parse(found.profile).prediction.edges)
    return found.version
