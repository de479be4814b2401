"""The values of a query string, and the pages of lists that they ask for.

One rule: a value that means nothing is the client's 400 with its name; names nobody knows are ignored, as the
API does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from msgspec import Raw

from oaicompat.errors import InvalidRequestError
from oaicompat.supplies import Item
from oaicompat.wire_errors import clipped, listed

LARGEST = 2**53 - 1
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_MOST, _DEFAULT = 100, 20


class Query:
    """A query string; of a name that is repeated, the last value counts."""

    def __init__(self, query: bytes) -> None:
        values = parse_qs(query.decode("latin-1"), keep_blank_values=True)
        self._values = {name: found[-1] for name, found in values.items()}

    def text(self, name: str) -> str:
        """Return a value, or an empty text."""
        return self._values.get(name, "")

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """Return an integer from `least` to `most`; raises `InvalidRequestError`, as the other methods."""
        sent = self.text(name)
        if not sent:
            return default
        if not _INTEGER.fullmatch(sent):
            raise _mistyped(name, "an integer")
        value = int(sent)
        if value < least:
            raise _refused(name, f"below minimum value. Expected a value >= {least}", sent, "min")
        if value > most:
            raise _refused(name, f"above maximum value. Expected a value <= {most}", sent, "max")
        return value

    def truth(self, name: str) -> bool:
        """Return a truth value, false where there is none."""
        sent = self.text(name)
        if not sent:
            return False
        if sent.lower() not in _TRUTH:
            raise _mistyped(name, "a boolean")
        return _TRUTH[sent.lower()]

    def choice(self, name: str, values: tuple[str, ...]) -> str:
        """Return one of `values`, the first where there is none."""
        sent = self.text(name)
        if sent and sent not in values:
            known = listed(tuple(sorted(values)))
            message = f"Invalid value: '{clipped(sent)}'. Supported values are: {known}."
            raise InvalidRequestError(message, param=name, code="invalid_value")
        return sent or values[0]


class Page:
    """Which part of a list is wanted: `limit`, `order`, `after`; raises `InvalidRequestError`."""

    def __init__(self, query: Query) -> None:
        self._limit = query.integer("limit", _DEFAULT, 1, _MOST)
        self._newest_first = query.choice("order", ("desc", "asc")) == "desc"
        self._after = query.text("after")

    def of(self, items: Sequence[Item]) -> dict[str, Any]:
        """Return the list object for the wanted part of `items`, which are oldest first.

        An id that occurs again is one item, as it came last: a cursor would have no place otherwise.
        """
        ordered = list({item.id: item for item in items}.values())
        if self._newest_first:
            ordered.reverse()
        if self._after:
            ordered = ordered[self._start(ordered) :]
        return item_list(ordered[: self._limit], more=len(ordered) > self._limit)

    def _start(self, items: Sequence[Item]) -> int:
        for position, item in enumerate(items):
            if item.id == self._after:
                return position + 1
        raise InvalidRequestError(
            f"Invalid 'after': there is no item with id '{clipped(self._after)}'.",
            param="after",
            code="invalid_value",
        )


def item_list(items: Sequence[Item], *, more: bool = False) -> dict[str, Any]:
    """Return a list object; the ids of an empty one are empty, since the API's schema knows no null there."""
    return {
        "object": "list",
        "data": [Raw(item.body) for item in items],
        "first_id": items[0].id if items else "",
        "last_id": items[-1].id if items else "",
        "has_more": more,
    }


def _mistyped(name: str, expected: str) -> InvalidRequestError:
    message = f"Invalid type for '{name}': expected {expected}, but got a string instead."
    return InvalidRequestError(message, param=name, code="invalid_type")


def _refused(name: str, what: str, sent: str, side: str) -> InvalidRequestError:
    side = {"min": "below_min", "max": "above_max"}[side]
    message = f"Invalid '{name}': integer {what}, but got {sent} instead."
    return InvalidRequestError(message, param=name, code=f"integer_{side}_value")
