"""Responses whose making stopped before their end: what they become, told from what is kept of them.

One rule: what was whole by then stays, as in a failure that is told while it happens; an item that was open
is not part of the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from oaicompat.dialects.responses.output import Data, error_data, failure_data
from oaicompat.dialects.responses.response import END
from oaicompat.errors import OaicompatError
from oaicompat.events import Frame
from oaicompat.supplies import Item

_ITEM_DONE = "response.output_item.done"


class Broken(Struct, frozen=True):
    """The end of a response: the Response object, its items, and the frames that end its events."""

    body: bytes
    output: tuple[Item, ...]
    frames: tuple[Frame, ...]


class _Done(Struct):
    item: Raw


class _Identified(Struct):
    id: str = ""


def broken_off(body: bytes, frames: Sequence[Frame], error: OaicompatError) -> Broken:
    """Return what becomes of a response that failed by `error`; `body` and `frames` are what is kept of it."""
    output = tuple(_item(frame) for frame in frames if frame.name == _ITEM_DONE)
    response: Data = msgspec.json.decode(body, type=dict[str, Any])
    response |= {
        "status": "failed",
        "error": failure_data(error),
        "output": [Raw(item.body) for item in output],
    }
    sequence = max((frame.sequence for frame in frames), default=-1) + 1
    failed = {
        "type": "response.failed",
        "sequence_number": sequence + 1,
        "response": response,
    }
    return Broken(
        msgspec.json.encode(response),
        output,
        (
            error_frame(error, sequence),
            Frame(msgspec.json.encode(failed), "response.failed", sequence + 1),
            END,
        ),
    )


def cancelled(body: bytes) -> bytes:
    """Return the Response object of a response that was broken off because its client wanted that."""
    response: Data = msgspec.json.decode(body, type=dict[str, Any])
    return msgspec.json.encode(response | {"status": "cancelled", "error": None})


def error_frame(error: OaicompatError, sequence: int) -> Frame:
    """Return the event that tells of an error in a stream, in both of its forms (openai-wire section 5)."""
    told = error_data(error)
    flat = {key: told[key] for key in ("code", "message", "param")}
    data = {"type": "error", "sequence_number": sequence, **flat, "error": told}
    return Frame(msgspec.json.encode(data), "error", sequence)


def _item(frame: Frame) -> Item:
    raw = msgspec.json.decode(frame.data, type=_Done).item
    return Item(msgspec.json.decode(raw, type=_Identified).id, bytes(raw))
