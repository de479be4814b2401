"""The tools of a request, read once for all requests that declare the same.

Agents send the same long list with every turn. One rule: what is remembered is what reading gives, notes
included, and it holds nothing of the request but the list itself; what is refused is read anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from msgspec import Raw, Struct

from oaicompat.dialects.tools import ToolDefinition, Tools, distinct
from oaicompat.messages import Declared, Tool
from oaicompat.notes import Note, Notes
from oaicompat.wire import decode_part, given

# Bounds what the memory can hold, at 8 MB of what clients wrote.
_REMEMBERED, _LONGEST = 64, 128 * 1024
_STRIDE = 997

Read = Callable[[Sequence[ToolDefinition], Notes], Sequence[Tool]]


class Declaration(Struct, frozen=True, gc=False):
    """The tools that a request declares; `sent` tells whether its list has any, served or not."""

    tools: tuple[Tool, ...] = ()
    sent: bool = False
    notes: tuple[Note, ...] = ()


NOTHING_DECLARED = Declaration()


class _Source:
    """A list as it came, known by its length and some of its bytes, which is faster than by all of them."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    def __hash__(self) -> int:
        return hash((len(self.text), self.text[::_STRIDE]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Source) and self.text == other.text


def declared(raw: Raw, read: Read, notes: Notes) -> Declaration:
    """Return what a list of tools declares, at most one tool of a name.

    `raw` is the field `tools` as the client sent it, `read` the dialect's reader of it. Raises
    `InvalidRequestError`.
    """
    if not given(raw):
        return NOTHING_DECLARED
    # A copy: what is read of it refers to it, and would keep the whole request.
    source = _Source(bytes(raw))
    remembered = len(source.text) <= _LONGEST
    found = _known(source, read) if remembered else _declaration(source, read, tuple)
    if found.notes:
        notes.extend(found.notes)
    return found


@lru_cache(_REMEMBERED)
def _known(source: _Source, read: Read) -> Declaration:
    return _declaration(source, read, Declared)


def _declaration(source: _Source, read: Read, form: type[tuple[Tool, ...]]) -> Declaration:
    notes = Notes()
    wire = decode_part(Raw(source.text), Tools, "tools", notes, verbatim=True)
    return Declaration(form(distinct(read(wire, notes))), bool(wire), tuple(notes))
