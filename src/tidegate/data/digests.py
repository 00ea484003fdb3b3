"""The digests of pins: ``pins/<sha256 of the pin>.json``, written when the bytes were first brought, never changed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from tidegate.errors import Damaged, NotFound
from tidegate.store.base import Store
from tidegate.store.blobs import Content


class Digests:
    """What a store knows of pins."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def find(self, pin: str) -> Content | None:
        """Return what is behind a pin, None where nobody brought it yet; raise ``Damaged``."""
        try:
            body = json.loads(self.store.get(_key(pin)))
            return Content(**body["content"])
        except NotFound:
            return None
        except (ValueError, KeyError, TypeError) as e:
            raise Damaged(f"the digest of {pin} cannot be read: {e}") from e

    def remember(self, pin: str, content: Content) -> None:
        """Keep what was brought for a pin; raise ``Damaged`` where it was something else before."""
        text = json.dumps({"pin": pin, "content": asdict(content)}, sort_keys=True).encode()
        if not self.store.put_new(_key(pin), text) and (known := self.find(pin)) != content:
            raise Damaged(
                f"{pin} brought {content.digest}, and {known.digest if known else '?'} before",
                allowed="The same bytes whenever they are brought.",
                hint="Find out who changed them; a pin's bytes never change.",
                code="data-damaged",
            )


def _key(pin: str) -> str:
    return f"pins/{hashlib.sha256(pin.encode()).hexdigest()}.json"
