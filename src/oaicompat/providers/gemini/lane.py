"""The fast lane: nearly every chunk of a stream is the one before with other text and other counts.

A chunk that was decoded and held nothing but plain text is learned as a template. The next one takes the lane
if it is a whole event, framed as the service frames, and equals the template in every byte before its text,
and after it in every byte that is not a digit; then it has the same fields and no others, so its text may be
taken out as it stands. The text is still decoded once, to be sure it can be, and whatever does not match goes
the ordinary way: the lane changes cost, never the outcome.
"""

from __future__ import annotations

import msgspec

_decode_string = msgspec.json.Decoder(str).decode
_DIGITS = b"0123456789"
_QUOTE, _BACKSLASH = b'"', 0x5C
_FIELD, _END = b"data: ", b"\r\n\r\n"


class Lane:
    """Matches events in the bytes of a stream against the template learned last."""

    __slots__ = ("_at", "_head", "_last", "_shape")

    def __init__(self) -> None:
        self._head = b""
        self._at = 0
        self._shape = b""
        self._last = b""

    def learn(self, payload: bytes, text: bytes) -> None:
        """Take a payload whose one part is this text (a JSON string) as the template."""
        at = payload.find(text) if payload.count(text) == 1 else -1
        if at < 0 or not payload[:at].rstrip().endswith(b'"text":'):
            return
        self._head = _FIELD + payload[: at + 1]
        self._at = len(_FIELD) + at
        self._shape = payload[at + len(text) :].translate(None, _DIGITS)

    def leave(self) -> bytes:
        """Drop the template; return the last payload that matched, whose counts are not taken yet."""
        last = self._last
        self._head = self._last = b""
        return last

    def take(self, data: bytes, texts: list[bytes]) -> int:
        """Take the events at the start of `data` that match, whole ones only; return where they end.

        Adds their texts, JSON strings with their quotes, to `texts`. Raises `msgspec.DecodeError` or
        `UnicodeDecodeError` for one that cannot be decoded.
        """
        head, at, shape = self._head, self._at, self._shape
        position = start = 0
        while head and data.startswith(head, position):
            opening = position + at
            end = _closing_quote(data, opening)
            stop = data.find(_END, end)
            if stop < 0 or data[end + 1 : stop].translate(None, _DIGITS) != shape:
                break
            text = data[opening : end + 1]
            _decode_string(text)
            texts.append(text)
            start, position = position, stop + len(_END)
        if position:
            self._last = data[start + len(_FIELD) : position - len(_END)]
        return position


def _closing_quote(data: bytes, opening: int) -> int:
    """Return where the string that opens here closes; -1 where it does not."""
    end = data.find(_QUOTE, opening + 1)
    while end > 0 and data[end - 1] == _BACKSLASH and _escaped(data, end):
        end = data.find(_QUOTE, end + 1)
    return end


def _escaped(data: bytes, quote: int) -> bool:
    """Tell whether an odd number of backslashes stands before a quote."""
    before = quote - 1
    while data[before] == _BACKSLASH:
        before -= 1
    return (quote - before) % 2 == 0
