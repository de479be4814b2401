"""Thought signatures of recent calls, for clients that drop every field they do not know.

Gemini 3 refuses a call of the current turn without its signature. A client that keeps nothing but the call's
id gets it back from here: in memory, bounded in number, size and age, by owner and call id. What is missing
is no error, the documented sentinel takes its place. Time is passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from oaicompat.messages import Signature


class KeptSignature(Struct, frozen=True):
    """The signature of one call; `owner` is a digest of the client's key, empty with auth off."""

    owner: str
    id: str
    signature: Signature


class SignatureBounds(Struct, frozen=True):
    """How many signatures are kept, of how many bytes together, each for how many seconds."""

    entries: int = 20_000
    size: int = 32 * 1024 * 1024
    lifetime: float = 7200.0

    def within(self, retention: float, max_bytes: int) -> SignatureBounds:
        """Return bounds for a store with bounds of its own: they leave most of it to responses."""
        return SignatureBounds(
            self.entries, min(self.size, max_bytes // 8), min(self.lifetime, retention)
        )


BOUNDS = SignatureBounds()


class _Kept(Struct, frozen=True):
    signature: Signature
    until: float


class SignatureStore:
    """Keeps signatures by (owner, call id), the latest used ones; none that is larger than all may be."""

    def __init__(self, bounds: SignatureBounds = BOUNDS) -> None:
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._bounds = bounds
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def remember(self, owner: str, call_id: str, signature: Signature, now: float) -> None:
        """Keep a signature from `now` (seconds of any steady clock), and let go of the oldest ones."""
        self._drop((owner, call_id))
        size = len(signature.value)
        if size > self._bounds.size:
            return
        self._kept[owner, call_id] = _Kept(signature, now + self._bounds.lifetime)
        self._size += size
        while len(self._kept) > self._bounds.entries or self._size > self._bounds.size:
            self._drop(next(iter(self._kept)))

    def get(self, owner: str, call_id: str, now: float) -> Signature | None:
        """Return the signature of a call, which is no use of it."""
        kept = self._kept.get((owner, call_id))
        if kept is None:
            return None
        if kept.until <= now:
            self._drop((owner, call_id))
            return None
        return kept.signature

    def find(self, owner: str, call_ids: Iterable[str], now: float) -> dict[str, Signature]:
        """Return the signatures that are kept for these calls of this owner, and mark them as used."""
        found: dict[str, Signature] = {}
        for call_id in call_ids:
            signature = self.get(owner, call_id, now)
            if signature is not None:
                self._kept.move_to_end((owner, call_id))
                found[call_id] = signature
        return found

    def expire(self, now: float) -> None:
        """Forget what has had its time."""
        for key in [key for key, kept in self._kept.items() if kept.until <= now]:
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= len(kept.signature.value)
