"""What the answer to a Responses request still has to know of it.

One rule: only what concerns state; what an answer repeats of its request is read from the body itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from oaicompat.supplies import Item


class Memo(Struct, frozen=True):
    """What becomes of the answer, and what its request continued.

    `kept` says that it is left to be kept, `stored` that this outlives the connection; `compacts` that the
    answer is a summary. `previous` and `conversation` are ids, empty where there is none; `references` are the
    items that the input only names, `past` those that come before it, where the answer repeats them.
    """

    kept: bool = False
    stored: bool = False
    background: bool = False
    compacts: bool = False
    previous: str = ""
    conversation: str = ""
    references: Mapping[str, Item] = {}
    past: tuple[Item, ...] = ()


def memo_of(memo: object) -> Memo:
    """Return the memo of a request, or that of one decoded elsewhere, of which nothing is kept."""
    return memo if isinstance(memo, Memo) else Memo()
