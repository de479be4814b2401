"""What a request finds of earlier ones, and what it leaves for later ones.

One rule: an exchange names what it wants and what is to be kept as data; where that lies is decided here, and
no session asks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from oaicompat.supplies import Effect, Needs, RememberSignature, Supplies
from oaicompat_server.store import SignatureStore


class Recall(Protocol):
    """Finds and keeps for one client."""

    async def find(self, wanted: Needs) -> Supplies:
        """Return what is there of what is wanted; raises `OaicompatError` where the store is of no use."""
        ...

    async def keep(self, effects: Iterable[Effect]) -> None:
        """Keep what an answer leaves; raises as `find`."""
        ...


class StoredRecall:
    """Finds and keeps in what requests share; `owner` is whose it is (see `auth.OWNER`)."""

    def __init__(self, signatures: SignatureStore, owner: str) -> None:
        self._signatures = signatures
        self._owner = owner

    async def find(self, wanted: Needs) -> Supplies:
        """Return what is there of what is wanted."""
        found = self._signatures.find(self._owner, wanted.signatures, time.monotonic())
        return Supplies(signatures=found)

    async def keep(self, effects: Iterable[Effect]) -> None:
        """Keep what an answer leaves."""
        for effect in effects:
            if isinstance(effect, RememberSignature):
                self._signatures.remember(
                    self._owner, effect.call_id, effect.signature, time.monotonic()
                )
