"""The store that pods and whoever starts them share."""

from __future__ import annotations

from tidegate.errors import ConfigError
from tidegate.store.open import OBJECT_SCHEMES


def check_store(uri: str) -> str:
    """Return the address of a store that pods can reach, and refuse any other.

    Raises:
        ConfigError: it is a folder, or in memory (code ``store-not-shared``).
    """
    if not uri.startswith(tuple(f"{s}://" for s in OBJECT_SCHEMES)):
        raise ConfigError(
            f"the store {uri} is on this machine",
            allowed="A bucket that the cluster's pods can reach too: s3://, gs:// or az://.",
            hint="--store s3://BUCKET/PREFIX, or TIDEGATE_STORE, or [tool.tidegate] store",
            code="store-not-shared",
        )
    return uri
