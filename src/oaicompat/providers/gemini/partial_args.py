"""JSON text that grows as Vertex streams the arguments of a call, piece by piece, addressed by path.

A piece names where it belongs (`$.a.b[0].c`) and holds a whole number, boolean or null, or part of a string.
Pieces come in document order, so text once written never changes: a container is closed when a piece lies
outside it. A piece that goes back into a closed one cannot be written down and is an error.
"""

from __future__ import annotations

import re

import msgspec

from oaicompat.errors import UpstreamProtocolError
from oaicompat.providers.gemini.answer_schema import PartialArg

_SEGMENT = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9})\]|\[(['\"])((?:(?!\3)[^\\]|\\.)*)\3\]")

DEPTH = 128
"""How deep arguments may be nested; nobody downstream takes more (reliability D8)."""

Path = tuple[str | int, ...]


def parse_path(path: str) -> Path:
    """Split a JSON path into names and indexes; raises `UpstreamProtocolError` for anything else."""
    at = 1 if path.startswith("$") else 0
    segments: list[str | int] = []
    while at < len(path):
        match = _SEGMENT.match(path, at)
        if match is None:
            raise _malformed("a path that cannot be read")
        name, index, _, quoted = match.groups()
        segments.append(int(index) if index is not None else name if name is not None else quoted)
        at = match.end()
        if len(segments) > DEPTH:
            raise _malformed("a path that is too deep")
    return tuple(segments)


def _malformed(what: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        f"The upstream streamed function arguments with {what}.",
        code="upstream_malformed",
        cause="malformed",
        retryable=True,
    )


class GrowingArguments:
    """The argument object of one streamed call."""

    def __init__(self) -> None:
        self._path: Path = ()
        self._in_string = False
        self._written: set[Path] = set()

    def add(self, piece: PartialArg) -> str:
        """Return the JSON text that this piece adds; raises `UpstreamProtocolError` where it does not fit."""
        path = parse_path(piece.json_path)
        if not path or not isinstance(path[0], str):
            raise _malformed("a value that is not inside an object")
        if piece.string_value is not None:
            return self._string(path, piece.string_value, bool(piece.will_continue))
        return self._close_string() + self._move(path) + _scalar(piece)

    def _string(self, path: Path, text: str, more: bool) -> str:
        if path == self._path and not self._in_string and not text:
            return ""
        grown = ""
        if not (path == self._path and self._in_string):
            grown = self._close_string() + self._move(path) + '"'
            self._in_string = True
        grown += msgspec.json.encode(text)[1:-1].decode()
        return grown if more else grown + self._close_string()

    def _close_string(self) -> str:
        if not self._in_string:
            return ""
        self._in_string = False
        return '"'

    def _move(self, path: Path) -> str:
        """Close and open containers so that a value at `path` can be written."""
        shared = 0
        while shared < min(len(path), len(self._path)) and path[shared] == self._path[shared]:
            shared += 1
        if shared in (len(path), len(self._path)) and self._path:
            raise _malformed("two values at one place")
        closing = "".join(_closing(step) for step in reversed(self._path[shared + 1 :]))
        opening = "," if self._path else "{"
        for depth in range(shared, len(path)):
            if depth > shared:
                opening += "{" if isinstance(path[depth], str) else "["
            opening += self._label(path[: depth + 1])
        self._path = path
        return closing + opening

    def _label(self, path: Path) -> str:
        if path in self._written:
            raise _malformed("a piece of a value that was complete")
        self._written.add(path)
        step = path[-1]
        if isinstance(step, int):
            if step and (*path[:-1], step - 1) not in self._written:
                raise _malformed("a gap in a list")
            return ""
        return msgspec.json.encode(step).decode() + ":"

    def close(self) -> str:
        """Return the JSON text that ends the object."""
        if not self._path:
            return "{}"
        return self._close_string() + "".join(_closing(step) for step in reversed(self._path))


def _closing(step: str | int) -> str:
    return "}" if isinstance(step, str) else "]"


def _scalar(piece: PartialArg) -> str:
    if piece.bool_value is not None:
        return "true" if piece.bool_value else "false"
    number = bytes(piece.number_value)
    return number.decode() if number else "null"
