"""The fast lane: nearly every chunk of a stream is the one before with other text and other counts.

A chunk that was decoded and held nothing but plain text is learned as a template. The next one takes the lane
if it is a whole event, framed as the service frames, and equals the template in every byte before its text,
and after it but for digits from its counts on; then it has the same fields and no others, so its text may be
taken out as it stands. The text is still decoded once, to be sure it can be, and whatever does not match goes
the ordinary way: the lane changes cost, never the outcome.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from oaicompat.events import Delta, Event

_decode_string = msgspec.json.Decoder(str).decode
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError)
_QUOTE, _BACKSLASH = b'"', 0x5C
_EMPTY = b'""'
_COUNTS = b'"usageMetadata"'
EVENT_END = b"\r\n\r\n"
_FIELD = b"data: "


class Lane(Struct, gc=False):
    """Matches events in the bytes of a stream against the template learned last."""

    _head: bytes = b""
    _tail: bytes = b""
    _fixed: bytes = b""
    _shape: bytes = b""
    _last: bytes = b""
    _choice: int = 0
    _pieces: list[bytes] = []

    def learn(self, payload: bytes, text: bytes, choice: int, pieces: list[bytes]) -> None:
        """Take a payload whose one part is this text (a JSON string) as the template.

        What matches is more of this choice's open text, whose `pieces` so far these are.
        """
        at = payload.find(text) if payload.count(text) == 1 else -1
        if at < 0 or not payload[:at].rstrip().endswith(b'"text":'):
            return
        self._head = _FIELD + payload[: at + 1]
        self._tail = payload[at + len(text) :] + EVENT_END
        self._fixed = self._tail.partition(_COUNTS)[0]
        self._shape = self._tail.translate(_DIGITS)
        self._choice, self._pieces = choice, pieces

    def leave(self) -> bytes:
        """Drop the template; return the last payload that matched, whose counts are not taken yet."""
        last = self._last
        self._head = self._last = b""
        return last

    def take(self, data: bytes, begin: int, events: list[Event]) -> int:
        """Take what matches from `begin` on, whole events only; return where that ends."""
        head, tail, fixed = self._head, self._tail, self._fixed
        ahead, behind = len(head), len(tail) + 1
        position = start = begin
        while head and data[position : position + ahead] == head:
            opening = position + ahead - 1
            end = data.find(_QUOTE, opening + 1)
            if data[end - 1] == _BACKSLASH:
                end = _closing_quote(data, end)
            after = end + behind
            rest = data[end + 1 : after]
            if rest != tail and (
                rest[: len(fixed)] != fixed or rest.translate(_DIGITS) != self._shape
            ):
                break
            text = data[opening : end + 1]
            if text != _EMPTY:
                try:
                    _decode_string(text)
                except _UNDECODABLE:
                    break
                self._pieces.append(text)
                events.append(Delta(self._choice, "", text))
            start, position = position, after
        if position > begin:
            self._last = data[start + len(_FIELD) : position - len(EVENT_END)]
        return position


def _closing_quote(data: bytes, end: int) -> int:
    """Return where a string closes if not by this quote; -1 where it does not."""
    while end > 0 and data[end - 1] == _BACKSLASH and _escaped(data, end):
        end = data.find(_QUOTE, end + 1)
    return end


def _escaped(data: bytes, quote: int) -> bool:
    """Tell whether an odd number of backslashes stands before a quote."""
    before = quote - 1
    while data[before] == _BACKSLASH:
        before -= 1
    return (quote - before) % 2 == 0
