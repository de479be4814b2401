"""Reading a request's body: content type, coding, size and time are checked before and while it comes.

One rule: a body is refused as soon as it is known to be wrong, from its headers if they say so, and never
held beyond the cap; a slow sender is timed by what it has sent so far. All bodies together have a budget, from
which each takes what it says it will be, or what has come of it, until its request is answered.
"""

from __future__ import annotations

import time

from msgspec import Struct

from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat_server.admission import overloaded
from oaicompat_server.framing import Direct, Fields, Message, Receive
from oaicompat_server.limits import LENGTH_DIGITS

FREE_SECONDS = 60.0
"""How long any body may take; a longer one has more, at 100 kB/s."""

_SLOWEST = 100_000.0
_FREE_BYTES = 64 * 1024
"""Bodies up to this are not counted: the server's own buffer of a connection holds as much."""

_UNPARSABLE = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
    "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)


def counted(size: int) -> int:
    """Return how many bytes of a body count: all, or none where it is small."""
    return size if size > _FREE_BYTES else 0


class BodyBudget:
    """How many bytes of bodies may be in memory at once; `used` says how many are."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        """Take bytes, which have to be given back; raises a 503 where there are not as many."""
        if self.used + size > self._limit:
            raise overloaded()
        self.used += size

    def keep(self, size: int) -> None:
        """Take bytes over from somebody who holds them, and gives them back next."""
        self.used += size

    def give(self, size: int) -> None:
        """Give bytes back."""
        self.used -= size


class Reading(Struct):
    """A request's `receive` that knows whether the body has ended, and what it holds of the budget.

    Up to `covered` bytes of the body are held, or free.
    """

    receive: Receive
    budget: BodyBudget
    complete: bool = False
    covered: int = _FREE_BYTES

    def cover(self, size: int) -> None:
        """Hold at least as many bytes of the budget; raises a 503 where they are not there."""
        if size > self.covered:
            self.budget.take(size - counted(self.covered))
            self.covered = size

    def release(self) -> None:
        """Give back what is held."""
        if self.covered > _FREE_BYTES:
            self.budget.give(self.covered)
            self.covered = _FREE_BYTES

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            self.complete = True
        return message


class ClientLeft(Exception):
    """The client closed the connection before its body was complete; there is nobody to answer."""


def has_body(fields: Fields) -> bool:
    """Tell whether the headers announce a body."""
    length = fields.get(b"content-length")
    return fields.get(b"transfer-encoding") is not None or (
        length is not None and length.strip(b"0 ") != b""
    )


def check_headers(fields: Fields, limit: int) -> int:
    """Raise the 400, 413 or 415 that the headers of a JSON request earn; return the length they tell."""
    coding = fields.get(b"content-encoding")
    if coding is not None and coding.strip().lower() not in (b"", b"identity"):
        raise InvalidRequestError("Compressed request bodies are not accepted.", status=415)
    kind = fields.get(b"content-type")
    if kind != b"application/json" and not _is_json(kind or b""):
        raise InvalidRequestError("Content-Type must be application/json.", status=415)
    told = fields.get(b"content-length")
    if told is not None and len(told) > LENGTH_DIGITS:
        raise InvalidRequestError("The Content-Length has too many digits.")
    length = int(told) if told is not None and told.isdigit() else 0
    if length > limit:
        raise _too_large(limit)
    return length


def _is_json(content_type: bytes) -> bool:
    kind = content_type.partition(b";")[0].strip().lower()
    return kind == b"application/json" or (
        kind.startswith(b"application/") and kind.endswith(b"+json")
    )


async def read_body(fields: Fields, reading: Reading, limit: int) -> bytes:
    """Return the whole body of a JSON request, at most `limit` bytes.

    Raises `InvalidRequestError` (400, 408, 413, 415), a 503 where all bodies together are too big, and
    `ClientLeft`.
    """
    _announced(fields, reading, limit)
    message = await reading.receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return _whole(message.get("body", b""), reading, limit)
    return _whole(await _collected(message, reading, limit), reading, limit)


def body_at_once(fields: Fields, reading: Reading, direct: Direct, limit: int) -> bytes | None:
    """Return what `read_body` does, where all has come; None, and nothing is read, where some has not."""
    _announced(fields, reading, limit)
    body = direct.body()
    return None if body is None else _whole(body, reading, limit)


def _announced(fields: Fields, reading: Reading, limit: int) -> None:
    """Refuse what the headers tell is wrong, and hold what they say will come; twice is as once."""
    length = check_headers(fields, limit)
    if length > reading.covered:
        reading.cover(length)


def _whole(body: bytes, reading: Reading, limit: int) -> bytes:
    """Take the end of a body; raises what it earns as a whole."""
    reading.complete = True
    if len(body) > reading.covered:
        reading.cover(len(body))
    if len(body) > limit:
        raise _too_large(limit)
    if not body or body.isspace():
        raise InvalidRequestError(_UNPARSABLE)
    return body


async def _collected(message: Message, reading: Reading, limit: int) -> bytes:
    pieces: list[bytes] = []
    try:
        await _read_on(pieces, message, reading, limit)
    except OaicompatError:
        # The error keeps this frame alive until its client has been told.
        pieces.clear()
        raise
    return b"".join(pieces)


async def _read_on(pieces: list[bytes], message: Message, reading: Reading, limit: int) -> None:
    started = time.monotonic()
    size = 0
    while True:
        if message["type"] != "http.request":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        reading.cover(size)
        if not message.get("more_body"):
            return
        if time.monotonic() - started > FREE_SECONDS + size / _SLOWEST:
            raise InvalidRequestError("The request body did not arrive in time.", status=408)
        message = await reading()


def _too_large(limit: int) -> OaicompatError:
    return InvalidRequestError(
        f"The request body is larger than the limit of {limit} bytes.",
        status=413,
        code="request_too_large",
    )
