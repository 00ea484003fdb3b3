"""Drift that was seen: ``drift/<model>/<n, 8 digits>.json``, one event a record, written once and never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tidegate.errors import Damaged, NotFound
from tidegate.store.base import Store


class Drifts:
    """The events of drift of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(self, model: str, event: Mapping[str, Any]) -> int:
        """Write an event down as the model's next one; return its number, from 1 on."""
        text = json.dumps(event, sort_keys=True, allow_nan=False).encode()
        number = self.last(model) + 1
        while not self.store.put_new(_key(model, number), text):
            number += 1
        return number

    def last(self, model: str) -> int:
        """Return the number of a model's newest event, 0 where there is none."""
        names = (e.key.rpartition("/")[2].partition(".")[0] for e in self.store.list(f"drift/{model}/"))
        return max((int(n) for n in names if n.isdecimal()), default=0)

    def read(self, model: str, number: int) -> bytes:
        """Return an event as it was written.

        Raises:
            NotFound: there is none of this number.
        """
        return self.store.get(_key(model, number))

    def newest(self, model: str) -> dict[str, Any] | None:
        """Return a model's newest event, None where there is none.

        Raises:
            Damaged: it cannot be read.
        """
        number = self.last(model)
        try:
            return dict(json.loads(self.read(model, number))) if number else None
        except NotFound:
            return None
        except (ValueError, TypeError) as e:
            raise Damaged(f"the record {_key(model, number)} cannot be read: {e}") from e


def _key(model: str, number: int) -> str:
    return f"drift/{model}/{number:08d}.json"
