"""One HTTP/1.1 connection to an upstream, parsed by httptools over httpcore's network interfaces.

One rule: it is our `Connection` first, called directly, and httpcore's `AsyncConnectionInterface` as well, so
that a pool can hold it and a mock network can carry it. A connection whose reply was not read to its end is
cut, never reused.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

import httpcore

from oaicompat_server.connection import (
    FAILURES,
    Head,
    Waits,
    length_of,
    our_error,
)
from oaicompat_server.network import AsyncioBackend, AsyncioStream
from oaicompat_server.reply import ReplyParser
from oaicompat_server.wire import StreamWire, Wire

_ONE_WRITE_BYTES = 64 * 1024
_UNSAFE = re.compile(rb"[\x00\r\n]")
_LENGTHS = (b"content-length", b"transfer-encoding")


class Http11Connection(httpcore.AsyncConnectionInterface):
    """A `Connection` to one origin; opened by its first request."""

    def __init__(
        self,
        origin: httpcore.Origin,
        context: ssl.SSLContext | None = None,
        backend: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._origin = origin
        self._context = context
        self._backend = backend or AsyncioBackend()
        self._stream: httpcore.AsyncNetworkStream | None = None
        self._wire: Wire | None = None
        self._parser = ReplyParser()
        self._idle_seconds: float | None = None
        self._busy = False
        self._closed = False
        self.received = False

    def exchange(
        self, head: Head, body: bytes, waits: Waits
    ) -> Coroutine[Any, Any, tuple[int, Mapping[str, str]]]:
        length = length_of(head.method, body)
        lines = (
            b"%scontent-length: %s\r\n\r\n" % (head.wire, length) if length else head.wire + b"\r\n"
        )
        return self._ask(head.method, lines, body, waits)

    async def read(self) -> bytes:
        data = self._parser.take()
        if data or self._parser.complete:
            return data
        try:
            return await self._read()
        except FAILURES as failure:
            raise our_error(failure, self.received) from None

    def ready(self) -> bytes | None:
        data = self._parser.take()
        return data if data or self._parser.complete else None

    def spare(self) -> bool:
        if self._parser.reusable() and self.usable():
            self._busy = False
            return True
        return False

    async def finish(self) -> bool:
        if self.spare():
            return True
        await self.aclose()
        return False

    def usable(self) -> bool:
        wire = self._wire
        return not self._closed and wire is not None and wire.quiet()

    async def aclose(self) -> None:
        self._closed = True
        self._busy = False
        self._parser.close()
        wire, self._wire, self._stream = self._wire, None, None
        if wire is not None:
            await wire.aclose()

    async def _ask(
        self,
        method: str,
        head: bytes,
        body: bytes,
        waits: Waits | _OptionalWaits,
        *,
        ours: bool = True,
    ) -> tuple[int, Mapping[str, str]]:
        """Send a request and read until the head of the reply is there; raises httpcore's errors, or `ours`."""
        parser = self._parser
        self.received = False
        try:
            wire = self._wire or await self._connect(waits.connect)
            self._busy = True
            self._idle_seconds = waits.idle
            parser.begin(method)
            try:
                whole = len(body) <= _ONE_WRITE_BYTES
                for piece in (head + body,) if whole else (head, body):
                    unsent = wire.send(piece, waits.write)
                    if unsent is not None:
                        await unsent
            except httpcore.WriteError:
                if self._closed:
                    raise
            wire.allow(waits.first_byte)
            while not parser.headed:
                await wire.arrival()
                self._take(wire)
        except FAILURES as failure:
            if not ours:
                raise
            raise our_error(failure, self.received) from None
        return parser.status, parser.headers

    async def _connect(self, seconds: float | None) -> Wire:
        if self._closed:
            raise httpcore.ConnectError
        began = time.monotonic()
        host = self._origin.host.decode("ascii")
        stream = await self._backend.connect_tcp(host, self._origin.port, seconds)
        self._wire = _wire_of(stream)
        if self._origin.scheme == b"https":
            if self._context is None:
                raise httpcore.UnsupportedProtocol
            left = None if seconds is None else max(0.0, seconds - (time.monotonic() - began))
            stream = await stream.start_tls(self._context, host, left)
            self._wire = _wire_of(stream)
        self._stream = stream
        return self._wire

    async def _read(self) -> bytes:
        """Wait for more of the body and return it, b"" at its end."""
        data = b""
        while not (data or self._parser.complete):
            if self._wire is None:
                raise httpcore.ReadError
            self._wire.allow(self._idle_seconds)
            await self._wire.arrival()
            self._take(self._wire)
            data = self._parser.take()
        return data

    def _take(self, wire: Wire) -> None:
        data = wire.take()
        if data:
            self.received = True
            self._parser.feed(data)
        else:
            self._parser.end()

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Serve httpcore's interface; raises httpcore's exceptions."""
        if not self.is_available():
            raise httpcore.ConnectionNotAvailable
        self._busy = True
        body = b"".join([part async for part in _parts(request)])
        waits = _OptionalWaits(request.extensions.get("timeout") or {})
        try:
            head = _head_of(request, len(body))
            await self._ask(request.method.decode("ascii"), head, body, waits, ours=False)
        except BaseException:
            await self.aclose()
            raise
        return httpcore.Response(
            self._parser.status,
            headers=[(name.lower(), value) for name, value in self._parser.lines],
            content=_ReplyBody(self),
            extensions={"http_version": b"HTTP/1.1", "network_stream": self._stream},
        )

    def info(self) -> str:
        state = "CLOSED" if self._closed else "ACTIVE" if self._busy else "IDLE"
        return f"HTTP/1.1, {state}"

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        return not self._busy and not self._closed

    def has_expired(self) -> bool:
        return self.is_idle() and not self.usable()

    def is_idle(self) -> bool:
        return not self._busy and not self._closed and self._wire is not None

    def is_closed(self) -> bool:
        return self._closed


class _OptionalWaits:
    """The waits that a request of httpcore asks for, None for ever."""

    def __init__(self, timeouts: Mapping[str, float | None]) -> None:
        self.connect = timeouts.get("connect")
        self.first_byte = self.idle = timeouts.get("read")
        self.write = timeouts.get("write")


class _ReplyBody:
    """The body of a reply as httpcore's `Response` takes it."""

    def __init__(self, connection: Http11Connection) -> None:
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while data := self._connection._parser.take() or await self._connection._read():
                yield data
        except BaseException:
            await self._connection.aclose()
            raise

    async def aclose(self) -> None:
        await self._connection.finish()


def _wire_of(stream: httpcore.AsyncNetworkStream) -> Wire:
    return stream if isinstance(stream, AsyncioStream) else StreamWire(stream)


async def _parts(request: httpcore.Request) -> AsyncIterator[bytes]:
    stream: Any = request.stream
    async for part in stream:
        yield part


def _head_of(request: httpcore.Request, length: int) -> bytes:
    """Return the head of httpcore's request; the body is sent whole, whatever its headers say."""
    lines = [(name, value) for name, value in request.headers if name.lower() not in _LENGTHS]
    if length or request.method in (b"POST", b"PUT", b"PATCH"):
        lines.append((b"content-length", b"%d" % length))
    first = (request.method, request.url.target)
    if any(_UNSAFE.search(part) for line in (first, *lines) for part in line):
        raise httpcore.LocalProtocolError
    head = [b"%s %s HTTP/1.1\r\n" % first]
    head += [b"%s: %s\r\n" % line for line in lines]
    return b"".join([*head, b"\r\n"])
