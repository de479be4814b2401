"""One request and its answer, as an ASGI application receives and sends them.

One rule: the head of an answer waits for what comes in the same turn of the loop, never longer, because one
write to the socket costs as much as converting a small answer. What is sent is what uvicorn's own cycle sends;
no header can bring a line of its own into the head.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from oaicompat.dialects.chat import encode_error
from oaicompat.errors import OaicompatError
from oaicompat_server.corking import Cork
from oaicompat_server.framing import (
    BODY_FOLLOWS,
    CLOSE,
    DIRECT,
    JSON_TYPE,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    common_headers,
    request_id_of,
    retry_headers,
    send_body,
)
from oaicompat_server.leaving import Leaving

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}".encode() for status in range(100, 600)
}
_NO_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_CONTROLS = bytes({*range(0x20), 0x7F} - {ord("\t")})
_PLAIN: dict[bytes, bytes] = {}
"""How a header's line begins, by names that were seen to be names and to say nothing of the answer's frame."""

_MOST_PLAIN = 256
_BODILESS = (204, 304)
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
_END = b"\r\n\r\n"
_LAST_END = b"\r\nconnection: close\r\n\r\n"

_FAULT_HEADERS: Headers = [(b"content-type", b"text/plain; charset=utf-8"), CLOSE]

App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("uvicorn.error")


class Connection(Protocol):
    """What a cycle uses of the connection that it is on."""

    loop: asyncio.AbstractEventLoop
    cork: Cork
    transport: asyncio.Transport
    flow: FlowControl
    tasks: set[asyncio.Task[None]]

    def close(self) -> None:
        """End the connection once what was written is sent, or is not taken."""
        ...

    def on_response_complete(self) -> None:
        """Take the news that the answer is complete."""
        ...


class Cycle(Leaving):
    """A request whose head has come; it tells who listens that the client has left."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_expecting",
        "_fresh",
        "_head_only",
        "_held",
        "_left_to_send",
        "_news",
        "_pieces",
        "_received",
        "_task",
        "http_version",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
        "unread",
    )

    def __init__(
        self, connection: Connection, scope: Scope, keep_alive: bool, expecting: bool
    ) -> None:
        self.gone = False
        self._left = None
        self.http_version: str = scope["http_version"]
        self.keep_alive = keep_alive
        self.more_body = True
        self.unread = 0
        self.response_started = False
        self.response_complete = False
        self._connection = connection
        self._expecting = expecting
        self._pieces: list[bytes] = []
        self._fresh = self._received = False
        self._news: asyncio.Event | None = None
        self._head_only = scope["method"] == "HEAD"
        self._held = b""
        self._chunked: bool | None = None
        self._left_to_send = 0

    def start(self, app: App, scope: Scope) -> None:
        """Have the application answer, in a task of its own."""
        scope[DIRECT] = self
        self._task = self._connection.loop.create_task(self._run(app, scope))
        self._connection.tasks.add(self._task)

    def feed(self, body: bytes) -> None:
        """Take what has come of the body; reading pauses where much of it was not received."""
        self._pieces.append(body)
        self.unread += len(body)
        self._fresh = True
        if self._news is not None:
            self._news.set()
        if self.unread > HIGH_WATER_LIMIT:
            self._connection.flow.pause_reading()

    def end_body(self) -> None:
        """Take the news that the body is complete."""
        self.more_body = False
        self._wake()

    def tell(self) -> None:
        """Take the news that the client has left."""
        super().tell()
        self._wake()

    def _wake(self) -> None:
        self._fresh = True
        if self._news is not None:
            self._news.set()

    async def receive(self) -> Message:
        """Return what has come of the body since the last time, once there is more, or the disconnect."""
        connection = self._connection
        if self._expecting and not connection.transport.is_closing():
            self._expecting = False
            connection.cork.pull()
            connection.transport.write(_INTERIM)
        if not (self.gone or self.response_complete):
            if connection.flow.read_paused:
                connection.flow.resume_reading()
            if not self._fresh:
                await self._until_fresh()
        if self.gone or self.response_complete:
            return {"type": "http.disconnect"}
        self._fresh, self._received = False, True
        body, self._pieces, self.unread = b"".join(self._pieces), [], 0
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    def body(self) -> bytes | None:
        """Return the body where all of it has come and none was received, else None."""
        if self.more_body or self._expecting or self._received:
            return None
        if self.gone or self.response_complete:
            return None
        self._fresh, self._received = False, True
        body, self._pieces, self.unread = b"".join(self._pieces), [], 0
        return body

    async def _until_fresh(self) -> None:
        self._news = self._news or asyncio.Event()
        while not self._fresh:
            self._news.clear()
            await self._news.wait()

    async def send(self, message: Message) -> None:
        """Send the head of the answer, or some of its body; nothing where the client has left."""
        if self._connection.flow.write_paused and not self.gone:
            await self._connection.flow.drain()
        if self.gone:
            return
        kind = message["type"]
        if self.response_complete:
            raise RuntimeError(f"{kind!r} was sent after the answer was complete.")
        if kind != ("http.response.body" if self.response_started else "http.response.start"):
            raise RuntimeError(f"{kind!r} was sent out of turn.")
        if self.response_started:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._send_head(message["status"], message.get("headers", ()))
            if BODY_FOLLOWS not in message:
                self._connection.loop.call_soon(self._release)

    def _send_head(self, status: int, headers: Headers) -> None:
        self.response_started = True
        self._expecting = closing = False
        for name, value in headers:
            if name not in _PLAIN:
                closing = self._heed(name, value) or closing
        lines = [_STATUS_LINES[status], *map(b": ".join, headers)]
        if not (self.keep_alive or closing):
            lines.append(b"connection: close")
        if self._chunked is None and not self._head_only and status not in _BODILESS:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        lines += (b"", b"")
        head = b"\r\n".join(lines)
        if _controls(head) != 2 * len(lines) - 2:
            raise RuntimeError("Invalid HTTP header value.")
        self._held = head

    def _heed(self, name: bytes, value: bytes) -> bool:
        """Take from a header how the answer is framed; return whether it says that the connection closes."""
        match name.lower():
            case b"content-length":
                if self._chunked is None:
                    self._chunked = False
                    self._left_to_send = int(value)
            case b"transfer-encoding":
                if value.lower() == b"chunked":
                    self._chunked = True
                    self._left_to_send = 0
            case b"connection":
                if b"close" in map(bytes.strip, value.lower().split(b",")):
                    self.keep_alive = False
                    return True
            case _ if _NO_NAME.search(name):
                raise RuntimeError("Invalid HTTP header name.")
            case _ if len(_PLAIN) < _MOST_PLAIN:
                _PLAIN[name] = b"\r\n%b: " % name
        return False

    def _send_body(self, body: bytes, more: bool) -> None:
        if self._head_only:
            body = b""
            self._left_to_send = 0
        elif self._chunked:
            end = b"" if more else b"0\r\n\r\n"
            body = b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end
        else:
            self._left_to_send -= len(body)
            if self._left_to_send < 0:
                raise RuntimeError("Response content longer than Content-Length")
        if self._held:
            body, self._held = self._held + body, b""
        if body:
            connection = self._connection
            connection.cork.write(connection.loop, connection.transport, body)
        if more:
            return
        if self._left_to_send:
            raise RuntimeError("Response content shorter than Content-Length")
        self._complete()

    def answer(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a whole answer as its two messages would; return False, and do nothing, where it takes those."""
        connection = self._connection
        if connection.flow.write_paused or self.gone or self.response_started or self._head_only:
            return False
        if status in _BODILESS:
            return False
        pieces = [_STATUS_LINES[status]]
        try:
            for name, value in headers:
                pieces += (_PLAIN[name], value)
        except KeyError:
            return False
        if _controls(b"".join(pieces[2::2])):
            return False
        pieces.append(b"\r\ncontent-length: %d" % len(body))
        pieces.append(_END if self.keep_alive else _LAST_END)
        head = b"".join(pieces)
        self.response_started = True
        self._expecting = False
        connection.cork.write(connection.loop, connection.transport, head + body)
        self._complete()
        return True

    def _complete(self) -> None:
        self.response_complete = True
        self._wake()
        if not self.keep_alive:
            self._connection.close()
        self._connection.on_response_complete()

    def _release(self) -> None:
        if self._held:
            head, self._held = self._held, b""
            self._connection.cork.pull()
            self._connection.transport.write(head)

    async def _run(self, app: App, scope: Scope) -> None:
        try:
            await app(scope, self.receive, self.send)
            if not (self.response_complete or self.gone):
                done = "completing" if self.response_started else "starting"
                await self._fail(f"ASGI callable returned without {done} response.")
        except BaseException as fault:
            await self._fail("Exception in ASGI application\n", fault)
        finally:
            self._connection.tasks.discard(self._task)

    async def _fail(self, reason: str, fault: BaseException | None = None) -> None:
        logger.error(reason, exc_info=fault)
        if self.response_started:
            self._release()
            self._connection.close()
        else:
            await send_body(self.send, 500, _FAULT_HEADERS, b"Internal Server Error")


def _controls(head: bytes) -> int:
    """Count the control characters, of which each line of a head has the two of its end."""
    return len(head) - len(head.translate(None, _CONTROLS))


def last_answer(status: int, headers: Headers, body: bytes) -> bytes:
    """Return a whole answer in JSON, after which its connection is closed."""
    length = (b"content-length", b"%d" % len(body))
    lines = map(b": ".join, (JSON_TYPE, length, CLOSE, *headers))
    return b"\r\n".join([_STATUS_LINES[status], *lines, b"", body])


def refusal(error: OaicompatError, asked: Headers, begun: float) -> bytes:
    """Return the last answer for an error, to a request with these headers that `begun` then."""
    headers = [*common_headers(request_id_of(asked), begun), *retry_headers(error)]
    return last_answer(error.status, headers, encode_error(error))
