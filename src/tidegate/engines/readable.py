"""Kubernetes settings are plain JSON with no schema at hand: what has another shape is refused, not a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tidegate.errors import DefinitionError


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Refuse settings that the code inside cannot read.

    Raises:
        DefinitionError: they have another shape (code ``kubernetes-settings``).
    """
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise DefinitionError(
            f"the Kubernetes settings of a task cannot be read: {type(e).__name__}: {e}",
            allowed="What the functions of kfp.kubernetes write.",
            code="kubernetes-settings",
        ) from e
