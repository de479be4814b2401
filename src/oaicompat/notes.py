"""What a conversion did not carry over exactly: the fourth law says nothing vanishes.

Every converter is handed a `Notes` collector and reports there; nothing is logged. A note is data: the
exchange returns it, the gateway puts a summary into a header, strict mode turns it into a 400.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

Action = Literal["dropped", "clamped", "rewritten", "approximated"]


class Note(Struct, frozen=True, gc=False):
    """One deviation: where (a JSON path in the client's terms), what happened, and why.

    `inert` marks a field without effect on the answer (metadata, user, cache keys); `side` tells notes on the
    request from notes on the answer, which never change the status.
    """

    path: str
    action: Action
    reason: str
    inert: bool = False
    side: Literal["request", "answer"] = "request"

    @property
    def refusable(self) -> bool:
        """Tell whether strict mode refuses a request with this note."""
        return (
            self.side == "request" and not self.inert and self.action in ("dropped", "approximated")
        )


class Notes(Struct, eq=False, gc=False):
    """Collects notes in order, each once; `found` has them as its keys."""

    side: Literal["request", "answer"] = "request"
    found: dict[Note, None] = {}

    def dropped(self, path: str, reason: str, *, inert: bool = False) -> None:
        """Note that a field was left out; `inert` where that changes nothing in the answer."""
        self._add(path, "dropped", reason, inert)

    def clamped(self, path: str, reason: str) -> None:
        """Note that a value was moved into the range that is possible."""
        self._add(path, "clamped", reason)

    def rewritten(self, path: str, reason: str, *, inert: bool = False) -> None:
        """Note that something is said in another way that means the same."""
        self._add(path, "rewritten", reason, inert)

    def approximated(self, path: str, reason: str) -> None:
        """Note that something is said as nearly as it can be, and not quite means the same."""
        self._add(path, "approximated", reason)

    def extend(self, notes: Iterable[Note]) -> None:
        """Take over notes of another collector."""
        self.found |= dict.fromkeys(notes)

    def clear(self) -> None:
        """Forget all notes."""
        self.found.clear()

    def _add(self, path: str, action: Action, reason: str, inert: bool = False) -> None:
        self.found[Note(path, action, reason, inert, self.side)] = None

    def __iter__(self) -> Iterator[Note]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)
