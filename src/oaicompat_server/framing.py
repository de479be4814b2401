"""Replies as ASGI messages: whole bodies, SSE streams, errors, and headers that are safe to send.

One rule: a frame is never split across writes, and all frames of one upstream read go out in one write.
Header values are percent-encoded and capped here, so that no model name or label can break a reply.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from types import MethodType
from typing import Any, Protocol

import anyio

from oaicompat.dialects.chat import encode_error
from oaicompat.errors import OaicompatError
from oaicompat.events import Frame
from oaicompat.mapper import sse_bytes
from oaicompat.notes import Note
from oaicompat_server.entropy import token

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Fields = Mapping[bytes, bytes]
"""The first value of each header, by its name in lower case."""

FIELDS = "oaicompat.fields"
"""Where the gate leaves in the scope the `Fields` of a request."""

BODY_FOLLOWS = "oaicompat.body_follows"
"""Stands in the message of a head whose body is sent at once, so that nobody need look after the head alone."""

DIRECT = "oaicompat.direct"
"""Where a server of ours leaves in the scope its `Direct`."""

JSON_TYPE = (b"content-type", b"application/json")
CLOSE = (b"connection", b"close")
_VERSION = (b"openai-version", b"2020-10-01")
STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
OWN_HEADERS = (
    b"x-request-id, openai-processing-ms, openai-version, x-mapped-model, x-account-email, "
    b"x-oaicompat-notes, retry-after, x-should-retry"
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")
_SESSION_HEADERS = (b"x-session-id", b"session_id", b"session-id", b"conversation_id")
HEADER_CAP = 256
_NOTES_CAP = 1024
_LINGER_BYTES = 256 * 1024
_LINGER_SECONDS = 0.5
_CHECKPOINT_EVERY = 16


def find_header(headers: Headers, name: bytes) -> bytes | None:
    """Return the first value of a header (lower-case name), or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def fields_of(headers: Headers) -> Fields:
    """Return the first value of each header."""
    fields = dict(headers)
    return fields if len(fields) == len(headers) else dict(reversed(headers))


def session_of(fields: Fields) -> str:
    """Return what the headers say of the conversation, "" where they do not."""
    if fields.keys().isdisjoint(_SESSION_HEADERS):
        return ""
    for name in _SESSION_HEADERS:
        value = fields.get(name)
        if value:
            return value.decode("latin-1")[:HEADER_CAP]
    return ""


def request_id_of(headers: Headers) -> str:
    """Return the client's own X-Request-Id when it is a sane token, else a new one."""
    return request_id_in(fields_of(headers))


def request_id_in(fields: Fields) -> str:
    """Return what `request_id_of` does, of headers that have been read."""
    sent = fields.get(b"x-request-id")
    if sent is not None and _REQUEST_ID.match(sent):
        return sent.decode("ascii")
    return f"req_{token()}"


def common_headers(request_id: str, started: float) -> Headers:
    """Return the headers that every reply carries; `started` is on the monotonic clock."""
    return [
        (b"x-request-id", request_id.encode()),
        (b"openai-processing-ms", b"%d" % ((time.monotonic() - started) * 1000)),
        _VERSION,
    ]


def header_value(text: str, cap: int = HEADER_CAP) -> bytes:
    """Return `text` with all but 0x21-0x7E percent-encoded, cut between characters at `cap` bytes."""
    return _encoded(text[:cap], cap)


@lru_cache(512)
def _encoded(text: str, cap: int) -> bytes:
    pieces: list[str] = []
    length = 0
    for character in text:
        if "\x21" <= character <= "\x7e" and character != "%":
            piece = character
        else:
            piece = "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
        length += len(piece)
        if length > cap:
            break
        pieces.append(piece)
    return "".join(pieces).encode("ascii")


def notes_header(notes: Iterable[Note]) -> bytes:
    """Return the notes on one request as `path=action; path=action`, whole entries only, at most 1 KiB."""
    entries: list[bytes] = []
    length = 0
    for note in notes:
        entry = header_value(note.path.replace(";", "%3B")) + b"=" + note.action.encode("ascii")
        length += len(entry) + 2
        if length > _NOTES_CAP:
            break
        entries.append(entry)
    return b"; ".join(dict.fromkeys(entries))


def retry_headers(error: OaicompatError) -> Headers:
    """Return `Retry-After` (whole seconds, rounded up) and `x-should-retry` as the error asks."""
    headers: Headers = []
    if error.retry_after is not None and math.isfinite(error.retry_after):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    return headers


class Direct(Protocol):
    """What a server of ours does at once, beside the `receive` and the `send` of a request."""

    def body(self) -> bytes | None:
        """Return the body where all of it has come and none was received, else None."""
        ...

    def answer(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole answer, whose length is no header yet; False, and nothing, where `send` has to."""
        ...


def direct_of(scope: Scope, way: Receive | Send) -> Direct | None:
    """Return the `Direct` of our server where nothing stands between it and this `receive` or `send`."""
    direct: Direct | None = scope.get(DIRECT)
    # What stands for a method of the server's may tell of its attributes, too.
    return direct if type(way) is MethodType and way.__self__ is direct else None


async def send_body(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send one whole reply."""
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    start = {"type": "http.response.start", "status": status, "headers": headers}
    start[BODY_FOLLOWS] = True
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse(
    receive: Receive, send: Send, error: OaicompatError, headers: Headers | None = None
) -> None:
    """Answer with an error although the request's body was not read, and close the connection.

    The reply goes out whole first; then at most 256 KiB or half a second of the body are read and dropped,
    because a close with unread bytes would reset the connection and lose the reply.
    """
    body = encode_error(error)
    head = [JSON_TYPE, CLOSE, *retry_headers(error), *(headers or ())]
    head.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": error.status, "headers": head})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with anyio.move_on_after(_LINGER_SECONDS):
        dropped = 0
        while dropped < _LINGER_BYTES:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body"):
                break
            dropped += len(message.get("body", b""))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def refuse_upgrade(
    receive: Receive, send: Send, error: OaicompatError, headers: Headers
) -> None:
    """Answer an offer to change to WebSocket with a plain reply that says why not."""
    await receive()
    body = encode_error(error)
    head = [JSON_TYPE, CLOSE, *retry_headers(error), *headers]
    head.append((b"content-length", b"%d" % len(body)))
    start = {"type": "websocket.http.response.start", "status": error.status, "headers": head}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


class Reply(Protocol):
    """Where the frames of one answer go; `started` once something was sent, `ended` when all was."""

    @property
    def started(self) -> bool: ...

    @property
    def ended(self) -> bool: ...

    def open(self, streaming: bool, headers: Callable[[], Headers]) -> None:
        """Take how the answer is sent and what gives its headers; the last call before it starts counts."""
        ...

    async def write(self, frames: Sequence[Frame]) -> None:
        """Send frames; of an answer that is not streamed, the one frame is the whole body."""
        ...

    async def end(self) -> None:
        """End what was streamed. Raises `RuntimeError` where no frame was written."""
        ...

    async def fail(self, error: OaicompatError, frames: Sequence[Frame]) -> None:
        """Send an error: `frames` say it in-band where something was sent before."""
        ...


class Answer:
    """Writes the reply to one request: holds the headers back until the first frame, then frames as asked.

    Several calls may write at once. Their frames go out in the order in which they came: whoever finds
    another writing leaves its frames to that one, and waits until they are out.
    """

    def __init__(
        self,
        send: Send,
        streaming: bool = False,
        headers: Callable[[], Headers] = list,
        direct: Direct | None = None,
    ) -> None:
        self._send = send
        self._direct = direct
        self._streaming = streaming
        self._headers = headers
        self._writes = 0
        self._outbox: list[bytes] = []
        self._writing = False
        self._written: anyio.Event | None = None
        self.started = False
        self.ended = False

    def open(self, streaming: bool, headers: Callable[[], Headers]) -> None:
        """Take how the answer is to be sent, and what gives its headers once they are needed."""
        self._streaming = streaming
        self._headers = headers

    async def write(self, frames: Sequence[Frame]) -> None:
        """Send frames in one write; of an answer that is not streamed, the one frame is the whole body."""
        if not self._streaming:
            for frame in frames:
                headers = [JSON_TYPE, *self._headers()]
                self.started = self.ended = True
                if self._direct is None or not self._direct.answer(200, headers, frame.data):
                    await send_body(self._send, 200, headers, frame.data)
            return
        data = sse_bytes(frames)
        if not data:
            return
        self._outbox.append(data)
        if self._writing:
            await self._others()
            return
        self._writing = True
        try:
            await self._empty()
        finally:
            self._writing = False
            if self._written is not None:
                self._written.set()
                self._written = None

    async def _others(self) -> None:
        """Wait until what others write is out."""
        if self._written is None:
            self._written = anyio.Event()
        await self._written.wait()

    async def _empty(self) -> None:
        if not self.started:
            headers = STREAM_HEADERS + self._headers()
            self.started = True
            start = {"type": "http.response.start", "status": 200, "headers": headers}
            start[BODY_FOLLOWS] = True
            await self._send(start)
        while self._outbox:
            data = b"".join(self._outbox)
            self._outbox.clear()
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            self._writes += 1
            if self._writes % _CHECKPOINT_EVERY == 0:
                await anyio.lowlevel.checkpoint()

    async def end(self) -> None:
        """End a streamed reply; a whole one has ended with its body. Raises `RuntimeError` without a frame."""
        if not self.started:
            raise RuntimeError("the exchange is over and gave no frame")
        if not self.ended:
            self.ended = True
            if self._writing:
                await self._others()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: OaicompatError, frames: Sequence[Frame]) -> None:
        """Send an error: as an HTTP reply before the headers are out, in-band after that."""
        if self.started:
            await self.write(frames)
            await self.end()
            return
        body = b"".join(frame.data for frame in frames) or encode_error(error)
        headers = [JSON_TYPE, *retry_headers(error), *self._headers()]
        self.started = self.ended = True
        await send_body(self._send, error.status, headers, body)
