"""Server-sent events on bytes: an incremental decoder, and the frames we write.

One rule: how the bytes were cut changes nothing. The decoder follows the WHATWG algorithm, on bytes, with
linear cost, and accepts what Gemini does beside it (gemini-wire section 5): an error object written into the
stream without `data:`, and a body that is a JSON array or a single object instead of a stream.
"""

from __future__ import annotations

import re

from .errors import UpstreamProtocolError

MAX_EVENT = 64 * 1024 * 1024
"""Bytes one line, one event or one unframed object may hold: a generated image comes as one event."""

MAX_NESTING = 512
"""How deep an unframed object may be nested; what the service writes stays below ten."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What stands between the elements of a JSON array; no SSE field has a name that begins with any of these.
_BETWEEN_ELEMENTS = re.compile(rb"[ \t,\[\]]*")
_STRUCTURE = re.compile(rb'["{}\[\]]')
_NESTING = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}


def encode(data: bytes, event: str | None = None) -> bytes:
    """Frame one event with LF line ends; `data` is one line, as encoded JSON is."""
    if event is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


def comment(text: str) -> bytes:
    """Frame a comment, which every client skips: a heartbeat."""
    return b": " + text.replace("\r", " ").replace("\n", " ").encode() + b"\n\n"


DONE = encode(b"[DONE]")
"""The frame that ends a stream of the OpenAI API."""


class _Unframed:
    """A JSON object met where a line should begin, collected until its braces balance."""

    __slots__ = ("_depth", "_escaped", "_in_string", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.size = 0

    def take(self, data: bytes, start: int) -> tuple[int, bool]:
        """Take bytes from `start`; return where they end and whether the object is complete.

        Stops behind the bracket that opens too deep a level: what follows would be counted for nothing.
        """
        position = start
        complete = False
        while position < len(data) and not (complete or self.too_deep):
            if self._in_string:
                position = self._skip_string(data, position)
                continue
            found = _STRUCTURE.search(data, position)
            if found is None:
                position = len(data)
                break
            position = found.end()
            self._in_string = found[0] == b'"'
            self._depth += _NESTING.get(found[0], 0)
            complete = self._depth == 0
        self._pieces.append(data[start:position])
        self.size += position - start
        return position, complete

    @property
    def too_deep(self) -> bool:
        return self._depth > MAX_NESTING

    def _skip_string(self, data: bytes, position: int) -> int:
        if self._escaped:
            position += 1
            self._escaped = False
        quote = data.find(b'"', position)
        end = len(data) if quote < 0 else quote
        content = data[position:end]
        escaped = (len(content) - len(content.rstrip(b"\\"))) % 2 == 1
        if quote < 0:
            self._escaped = escaped
            return end
        self._in_string = escaped
        return quote + 1

    def text(self) -> bytes:
        return b"".join(self._pieces)


class Decoder:
    """Turns the bytes of an upstream body into the payloads of its events.

    A failure comes after the events that stood before it, whatever the cut: `feed` returns those first and
    raises on the next call. Raises `UpstreamProtocolError` when a line, an event or an unframed object is
    longer than `max_event` bytes or an unframed object is nested deeper than `MAX_NESTING`, and nothing else.
    `between` tells whether the bytes so far end exactly where an event ends.
    """

    __slots__ = (
        "_after_return",
        "_data",
        "_data_size",
        "_failure",
        "_line",
        "_line_size",
        "_max_event",
        "_opening",
        "_punctuated",
        "_unframed",
        "between",
    )

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._opening: bytes | None = b""
        self.between = False
        self._after_return = False
        self._line: list[bytes] = []
        self._line_size = 0
        self._punctuated = False
        self._data: list[bytes] = []
        self._data_size = 0
        self._unframed: _Unframed | None = None
        self._failure: UpstreamProtocolError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the payload of every event they complete."""
        if not self.between:
            return self._guard(data, 0, [], final=False)
        events: list[bytes] = []
        position = self._read_frames(data, 0, events)
        if position == len(data):
            return events
        return self._guard(data, position, events, final=False)

    def close(self) -> list[bytes]:
        """Take the end of the body; return the payload of a last event that lacks its blank line."""
        return self._guard(b"", 0, [], final=True)

    def _guard(self, data: bytes, start: int, events: list[bytes], *, final: bool) -> list[bytes]:
        if self._failure is not None:
            raise self._failure
        try:
            if self._opening is not None:
                data = self._skip_mark(data, final=final)
            self._read(data, start, events)
            if final:
                self._finish(events)
        except UpstreamProtocolError as failure:
            self._failure = failure
            self.between = False
            if not events:
                raise
        return events

    def _skip_mark(self, data: bytes, *, final: bool) -> bytes:
        opening = (self._opening or b"") + data
        if not final and len(opening) < 3 and _BYTE_ORDER_MARK.startswith(opening):
            self._opening = opening
            return b""
        self._opening = None
        return opening.removeprefix(_BYTE_ORDER_MARK)

    def _read(self, data: bytes, position: int, events: list[bytes]) -> None:
        size = len(data)
        if position == size:
            return
        if self._after_return:
            self._after_return = False
            position += data.startswith(b"\n")
        feed = carriage = -1
        while position < size:
            position = self._seek(data, position, events)
            if self._unframed is not None:
                continue
            if feed < position:
                feed = _find(data, b"\n", position)
            if carriage < position:
                carriage = _find(data, b"\r", position)
            end = min(feed, carriage)
            if end == size:
                self._hold(data[position:])
                break
            self._end_line(data[position:end], events)
            position = end + (2 if data.startswith(b"\r\n", end) else 1)
            self._after_return = end == carriage == size - 1
        self.between = self._unframed is None and not (
            self._line or self._data or self._punctuated or self._after_return
        )

    def _seek(self, data: bytes, position: int, events: list[bytes]) -> int:
        """Go on to where a line has content, over unframed objects and whole one-line events."""
        if self._unframed is not None:
            position = self._read_unframed(self._unframed, data, position, events)
        if self._unframed is not None or self._line:
            return position
        if not (self._data or self._punctuated):
            position = self._read_frames(data, position, events)
        return self._open_line(data, position, events)

    def _read_frames(self, data: bytes, position: int, events: list[bytes]) -> int:
        """Take whole one-line events, which is all that an upstream read nearly always holds."""
        find = data.find
        starts_with = data.startswith
        while starts_with(b"data: ", position):
            feed = find(b"\n", position)
            if feed < 0 or feed - position > self._max_event:
                break
            carriage = find(b"\r", position, feed)
            if carriage < 0:
                carriage = feed
                after = feed + 2
                if not starts_with(b"\n", feed + 1):
                    break
            else:
                after = feed + 3
                if carriage != feed - 1 or not starts_with(b"\r\n", feed + 1):
                    break
            events.append(data[position + 6 : carriage])
            position = after
        return position

    def _read_unframed(
        self, unframed: _Unframed, data: bytes, position: int, events: list[bytes]
    ) -> int:
        position, complete = unframed.take(data, position)
        self._limit(unframed.size)
        if unframed.too_deep:
            raise _malformed(f"an object nested more than {MAX_NESTING} levels deep")
        if complete:
            self._unframed = None
            events.append(unframed.text())
        return position

    def _open_line(self, data: bytes, position: int, events: list[bytes]) -> int:
        """Skip what separates array elements, and begin an unframed object if one follows."""
        found = _BETWEEN_ELEMENTS.match(data, position)
        start = position if found is None else found.end()
        if start > position:
            self._punctuated = True
        if data[start : start + 1] == b"{":
            self._punctuated = False
            self._dispatch(events)
            self._unframed = _Unframed()
        return start

    def _hold(self, part: bytes) -> None:
        if part:
            self._line_size += len(part)
            self._limit(self._line_size)
            self._line.append(part)

    def _end_line(self, part: bytes, events: list[bytes]) -> None:
        self._hold(part)
        line = b"".join(self._line)
        ignored = self._punctuated
        self._line.clear()
        self._line_size = 0
        self._punctuated = False
        if ignored:
            return
        if not line:
            self._dispatch(events)
        elif line.startswith(b"data:"):
            self._add(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            self._add(b"")

    def _add(self, value: bytes) -> None:
        self._data_size += len(value) + 1
        self._limit(self._data_size - 1)
        self._data.append(value)

    def _dispatch(self, events: list[bytes]) -> None:
        if self._data:
            events.append(b"\n".join(self._data))
            self._data.clear()
            self._data_size = 0

    def _finish(self, events: list[bytes]) -> None:
        if self._unframed is not None:
            events.append(self._unframed.text())
            self._unframed = None
            return
        if self._line:
            self._end_line(b"", events)
        self._dispatch(events)

    def _limit(self, size: int) -> None:
        if size > self._max_event:
            raise _malformed(f"an event larger than {self._max_event} bytes")


def _malformed(what: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        f"The upstream sent {what}.", code="upstream_malformed", cause="network"
    )


def _find(data: bytes, byte: bytes, position: int) -> int:
    found = data.find(byte, position)
    return len(data) if found < 0 else found
