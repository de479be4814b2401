"""Which dialects there are, and which one a body is written in.

The route decides who answers; the body's shape decides who reads it, because clients send Responses bodies to
the chat route (Cursor) and chat bodies to the other one. A new dialect is one line here.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from oaicompat.dialects import Decoded, Dialect, Keep, Pending, chat, responses
from oaicompat.dialects.responses import compact, input_tokens
from oaicompat.errors import InvalidRequestError
from oaicompat.notes import Notes

DIALECTS: Mapping[str, Dialect] = {
    "chat": chat,
    "responses": responses,
    "responses/compact": compact,
    "responses/input_tokens": input_tokens,
}
"""Who answers, by name."""

_ABSENT = (b"", b"null", b"[]")


class _Shape(Struct):
    """The fields that tell the shapes apart."""

    messages: Raw = Raw()
    input: Raw = Raw()
    instructions: Raw = Raw()


def find_dialect(name: str) -> Dialect:
    """Return a dialect by name; raises `ValueError` naming those there are."""
    found = DIALECTS.get(name)
    if found is None:
        raise ValueError(f"no dialect {name!r}; there are: {', '.join(DIALECTS)}")
    return found


def decode(name: str, body: bytes, notes: Notes, keep: Keep = "") -> Decoded | Pending:
    """Decode a body that came for this dialect, by its shape; raises `InvalidRequestError`.

    What is written in another shape than its answer is not kept. `notes` holds nothing yet.
    """
    try:
        return DIALECTS[name].decode(body, notes, keep)
    except InvalidRequestError:
        if _shape(body) in (None, name.partition("/")[0]):
            raise
    notes.clear()
    other: Dialect = chat if name == "responses" else responses
    return other.decode(body, notes, "")


def _shape(body: bytes) -> str | None:
    """Return the dialect whose fields a body has, and none of the other's."""
    try:
        shape = msgspec.json.decode(body, type=_Shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if bytes(shape.messages) not in _ABSENT:
        return "chat" if bytes(shape.input) in _ABSENT else None
    asked = any(bytes(field) not in _ABSENT for field in (shape.input, shape.instructions))
    return "responses" if asked else None
