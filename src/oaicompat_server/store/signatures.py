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


class _Kept(Struct, frozen=True):
    signature: Signature
    until: float


class SignatureStore:
    """Keeps signatures by (owner, call id), the latest used ones.

    `owner` is a digest of the client's key, empty with auth off; `lifetime` is seconds, `entries` and `size`
    (bytes of signatures) bound what is kept.
    """

    def __init__(
        self, *, entries: int = 20_000, size: int = 32 * 1024 * 1024, lifetime: float = 7200.0
    ) -> None:
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._entries = entries
        self._limit = size
        self._lifetime = lifetime
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def remember(self, owner: str, call_id: str, signature: Signature, now: float) -> None:
        """Keep a signature from `now` (seconds of any steady clock), and let go of the oldest ones."""
        self._drop((owner, call_id))
        self._kept[owner, call_id] = _Kept(signature, now + self._lifetime)
        self._size += len(signature.value)
        while self._kept and (len(self._kept) > self._entries or self._size > self._limit):
            self._drop(next(iter(self._kept)))

    def find(self, owner: str, call_ids: Iterable[str], now: float) -> dict[str, Signature]:
        """Return the signatures that are kept for these calls of this owner."""
        found: dict[str, Signature] = {}
        for call_id in call_ids:
            kept = self._kept.get((owner, call_id))
            if kept is None:
                continue
            if kept.until <= now:
                self._drop((owner, call_id))
                continue
            self._kept.move_to_end((owner, call_id))
            found[call_id] = kept.signature
        return found

    def _drop(self, key: tuple[str, str]) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._size -= len(kept.signature.value)
