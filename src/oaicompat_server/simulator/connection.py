"""One client connection: HTTP/1.1 in through httptools, steps out as they stand.

The one rule: this module does what the steps say and judges nothing; it knows no route and no Gemini. A
leaving client is noticed at once, because reading never stops while an answer is under way.
"""

from __future__ import annotations

import asyncio
import http
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol, cast

import httptools

from .faults import (
    Body,
    Close,
    Drip,
    Finish,
    HalfClose,
    Head,
    Raw,
    Repeat,
    Reset,
    Stall,
    Step,
    Wait,
)
from .records import HttpRequest, Record

MAX_BODY = 128 << 20


class Handler(Protocol):
    """What a connection asks of the simulator."""

    def arrived(self, request: HttpRequest, connection: int) -> tuple[Record, list[Step]]:
        """Record a request and return the steps that answer it."""

    def opened(self, connection: Connection) -> int:
        """Register a connection and return its number."""

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""


class Connection(asyncio.Protocol):
    """Parses requests and performs their steps, one after the other."""

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Queue[HttpRequest] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._current: Record | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost = asyncio.Event()
        self._number = 0
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not registered as asyncio.Transport, so this cannot be checked.
        self._transport = cast(asyncio.Transport, transport)
        self._number = self._handler.opened(self)
        self._task = self._loop.create_task(self._serve())

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave("client left")
        if self._task is not None:
            self._task.cancel()
        self._writable.set()
        self._handler.closed(self)
        self.lost.set()

    def eof_received(self) -> bool:
        self._leave("client left")
        return False

    def _leave(self, how: str) -> None:
        if self._current is not None:
            self._current.end(how, self._loop.time())

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """Return the task that serves this connection."""
        return self._task

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400)

    def _refuse(self, code: int) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_head(Head(code, "text/html", framing="length", length=0)))
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if ("expect", "100-continue") in self._headers and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY:
            self._refuse(413)
            return
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        target = self._target.decode("latin-1")
        request = HttpRequest(method, target, self._headers, b"".join(self._pieces))
        self._begin()
        if self._size <= MAX_BODY:
            self._waiting.put_nowait(request)

    async def _serve(self) -> None:
        try:
            while True:
                await self._exchange(await self._waiting.get())
        except Exception:
            self.abort()
            raise

    async def _exchange(self, request: HttpRequest) -> None:
        record, steps = self._handler.arrived(request, self._number)
        self._current = record
        writer = _Writer(self, record, with_body=request.method != "HEAD")
        for step in steps:
            await writer.perform(step)
        if (request.header("connection") or "").lower() == "close":
            self.transport.close()

    @property
    def transport(self) -> asyncio.Transport:
        """Return the transport of a connection that is open."""
        assert self._transport is not None
        return self._transport

    async def send(self, data: bytes) -> None:
        """Write bytes, waiting while the client does not read."""
        self.transport.write(data)
        await self._writable.wait()

    def now(self) -> float:
        """Return the loop's time."""
        return self._loop.time()


class _Writer:
    def __init__(self, connection: Connection, record: Record, *, with_body: bool) -> None:
        self.connection = connection
        self.record = record
        self.with_body = with_body
        self.framing = "length"

    async def perform(self, step: Step) -> None:
        await _ACTIONS[type(step)](self, step)

    def end(self, how: str) -> None:
        self.record.end(how, self.connection.now())

    async def head(self, step: Head) -> None:
        self.framing = step.framing
        self.record.status = step.status
        await self.connection.send(_head(step))

    async def raw(self, step: Raw) -> None:
        await self.connection.send(step.data)

    async def body(self, step: Body) -> None:
        if step.data and self.with_body:
            await self.connection.send(_framed(step.data, self.framing))

    async def drip(self, step: Drip) -> None:
        for at in range(len(step.data)):
            await self.body(Body(step.data[at : at + 1]))
            await asyncio.sleep(step.pause)

    async def repeat(self, step: Repeat) -> None:
        while True:
            await self.body(Body(step.data))
            await asyncio.sleep(step.pause)

    async def wait(self, step: Wait) -> None:
        await asyncio.sleep(step.seconds)

    async def finish(self, step: Finish) -> None:
        self.end("complete")
        if self.framing == "chunked" and self.with_body:
            await self.connection.send(b"0\r\n\r\n")
        if self.framing == "close":
            self.connection.transport.close()

    async def close(self, step: Close) -> None:
        self.end("closed")
        self.connection.transport.close()

    async def half_close(self, step: HalfClose) -> None:
        self.connection.transport.write_eof()
        await asyncio.Event().wait()

    async def reset(self, step: Reset) -> None:
        self.end("reset")
        await asyncio.sleep(0)
        plug = self.connection.transport.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.transport.abort()

    async def stall(self, step: Stall) -> None:
        await asyncio.Event().wait()


_ACTIONS: dict[type[Any], Callable[[_Writer, Any], Any]] = {
    Head: _Writer.head,
    Raw: _Writer.raw,
    Body: _Writer.body,
    Drip: _Writer.drip,
    Repeat: _Writer.repeat,
    Wait: _Writer.wait,
    Finish: _Writer.finish,
    Close: _Writer.close,
    HalfClose: _Writer.half_close,
    Reset: _Writer.reset,
    Stall: _Writer.stall,
}


def _head(head: Head) -> bytes:
    try:
        phrase = http.HTTPStatus(head.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [
        f"HTTP/1.1 {head.status} {phrase}",
        f"Content-Type: {head.content_type}",
        "Vary: Origin",
        "Server: scaffolding on HTTPServer2",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in head.headers),
    ]
    if head.framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
    elif head.framing == "length":
        lines.append(f"Content-Length: {head.length or 0}")
    else:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _framed(data: bytes, framing: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if framing == "chunked" else data
