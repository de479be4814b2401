"""The fast lane: nearly every chunk of a stream is the one before with other text and other counts.

A chunk that was decoded and held nothing but plain text is learned as a template. The next one takes the lane
if it equals the template in every byte before its text, and after it in every byte that is not a digit; then
it has the same fields and no others, so its text may be taken out as it stands. The text is still decoded
once, to be sure it can be, and whatever does not match goes the ordinary way: the lane changes cost, never
the outcome.
"""

from __future__ import annotations

import msgspec

_decode_string = msgspec.json.Decoder(str).decode
_DIGITS = b"0123456789"
_QUOTE, _BACKSLASH = b'"', 0x5C


class Lane:
    """Matches payloads against the template learned last; `last` is the latest that matched."""

    __slots__ = ("_at", "_head", "_shape", "last")

    def __init__(self) -> None:
        self._head = b""
        self._at = 0
        self._shape = b""
        self.last = b""

    def learn(self, payload: bytes, text: bytes) -> None:
        """Take a payload whose one part is this text (a JSON string) as the template."""
        at = payload.find(text) if payload.count(text) == 1 else -1
        if at < 0 or not payload[:at].rstrip().endswith(b'"text":'):
            return
        self._head = payload[: at + 1]
        self._at = at
        self._shape = payload[at + len(text) :].translate(None, _DIGITS)

    def forget(self) -> None:
        """Drop the template: what comes next has to be decoded."""
        self._head = self.last = b""

    def match(self, payload: bytes) -> bytes | None:
        """Return the text of a payload that matches, as a JSON string with its quotes.

        Raises `msgspec.DecodeError` or `UnicodeDecodeError` for a text that cannot be decoded.
        """
        if not self._head or not payload.startswith(self._head):
            return None
        at = self._at
        end = payload.find(_QUOTE, at + 1)
        while payload[end - 1] == _BACKSLASH and end > 0 and _escaped(payload, end):
            end = payload.find(_QUOTE, end + 1)
        if end < 0 or payload[end + 1 :].translate(None, _DIGITS) != self._shape:
            return None
        text = payload[at : end + 1]
        _decode_string(text)
        self.last = payload
        return text


def _escaped(payload: bytes, quote: int) -> bool:
    """Tell whether an odd number of backslashes stands before a quote."""
    before = quote - 1
    while payload[before] == _BACKSLASH:
        before -= 1
    return (quote - before) % 2 == 0
