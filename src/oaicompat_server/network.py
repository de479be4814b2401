"""TCP and TLS for upstream connections: httpcore's network interfaces, straight on asyncio's transports.

One rule: a wait costs one future. What has come is returned at once and in one piece; a read that is
cancelled loses nothing, and a connection attempt that is cancelled leaves no socket behind.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, cast

import anyio
import httpcore

from oaicompat_server.corking import cork_of
from oaicompat_server.resolver import Resolver

_HIGH_WATER = 512 * 1024
_EARLY_SECONDS = 0.001
"""What a timer of the loop may ring too early: its time is in whole milliseconds."""
_STAGGER_SECONDS = 0.25
_OPTIONS: Sequence[httpcore.SOCKET_OPTION] = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
)
_INFO = {"client_addr": "sockname", "server_addr": "peername"}


class AsyncioStream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection: the protocol of its transport, and a `Wire`.

    Its alarm stays set when a wait ends in time, and is set anew where it rings too soon for the one that goes
    on then: a wait costs no timer.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._cork = cork_of(self._loop)
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._reading_paused = False
        self._writing_paused = False
        self._ended = False
        self._lost = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._until = math.inf
        self._rings = math.inf
        self._alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _HIGH_WATER and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        reader = self._reader
        if reader is not None:
            self._reader = None
            _wake(reader)

    def eof_received(self) -> None:
        self._ended = True
        _wake(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._lost = True
        self._error = exc
        self._silence()
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        _wake(self._writer)

    def send(self, data: bytes, seconds: float | None) -> Awaitable[None] | None:
        transport = self._transport
        if transport is None or self._lost or transport.is_closing():
            raise httpcore.WriteError
        self._cork.write(self._loop, transport, data)
        return self._sent(seconds) if self._writing_paused else None

    def allow(self, seconds: float | None) -> None:
        self._until = math.inf if seconds is None else time.monotonic() + seconds

    def arrival(self) -> asyncio.Future[None]:
        reader = self._loop.create_future()
        if self._pieces or self._ended:
            reader.set_result(None)
            return reader
        self._reader = reader
        if self._until < self._rings:
            self._set_alarm()
        return reader

    def take(self) -> bytes:
        pieces = self._pieces
        if not pieces:
            if self._error is not None:
                raise httpcore.ReadError
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        if self._reading_paused and not self._ended and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    def quiet(self) -> bool:
        return not (self._ended or self._pieces)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Return what has come, at most `max_bytes`, b"" at the end; waits only when nothing is there."""
        self.allow(timeout)
        await self.arrival()
        data = self.take()
        if len(data) > max_bytes:
            data, rest = data[:max_bytes], data[max_bytes:]
            self._pieces.append(rest)
            self._size = len(rest)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send, and wait while more is under way than the transport likes."""
        unsent = self.send(buffer, timeout)
        if unsent is not None:
            await unsent

    async def _sent(self, seconds: float | None) -> None:
        """Wait while more is under way than the transport likes."""
        while self._writing_paused and not self._lost:
            self._writer = writer = self._loop.create_future()
            timer = None
            if seconds is not None:
                timer = self._loop.call_later(seconds, _expire, writer)
            try:
                await writer
            finally:
                self._writer = None
                if timer is not None:
                    timer.cancel()
        if self._lost:
            raise httpcore.WriteError

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._rings = self._until
        self._alarm = self._loop.call_later(self._rings - time.monotonic(), self._ring)

    def _ring(self) -> None:
        self._silence()
        reader = self._reader
        if reader is None or reader.done():
            return
        if time.monotonic() + _EARLY_SECONDS >= self._until:
            reader.set_exception(httpcore.ReadTimeout())
        elif self._until < self._rings:
            self._set_alarm()

    def _silence(self) -> None:
        self._rings = math.inf
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def aclose(self) -> None:
        """Cut the connection; what is still unsent is dropped."""
        self.abort()

    def abort(self) -> None:
        """Cut the connection now."""
        self._ended = True
        self._silence()
        self._pieces.clear()
        if self._transport is not None:
            self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> AsyncioStream:
        """Secure the connection and return it; on failure it is cut."""
        assert self._transport is not None
        plain = self._transport
        # What came in clear would be taken for what the other side says when it is known.
        if not self.quiet():
            plain.abort()
            raise httpcore.ConnectError
        try:
            with anyio.fail_after(timeout):
                secured = await self._loop.start_tls(
                    plain, self, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError:
            plain.abort()
            raise httpcore.ConnectTimeout from None
        except OSError:
            plain.abort()
            raise httpcore.ConnectError from None
        except BaseException:
            plain.abort()
            raise
        if secured is None:
            raise httpcore.ConnectError
        self._transport = secured
        return self

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks of a stream; `is_readable` tells of bytes, an end or an error."""
        if info == "is_readable":
            return not self.quiet()
        if self._transport is None:
            return None
        return self._transport.get_extra_info(_INFO.get(info, info))


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _expire(writer: asyncio.Future[None]) -> None:
    if not writer.done():
        writer.set_exception(httpcore.WriteTimeout())


class AsyncioBackend(httpcore.AsyncNetworkBackend):
    """Opens `AsyncioStream`s; `resolve` returns the addresses of a host and raises `OSError`."""

    def __init__(self, resolve: Callable[[str], Awaitable[Sequence[str]]] | None = None) -> None:
        self._resolve = resolve or Resolver()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncioStream:
        """Connect to the first address of `host` that answers."""
        try:
            with anyio.fail_after(timeout):
                addresses = in_turn(await self._resolve(host))
                places = [(address, port) for address in addresses]
                return await dial(places, local_address, socket_options)
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        except (OSError, UnicodeError):
            raise httpcore.ConnectError from None

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> AsyncioStream:
        """Connect to a socket in the file system."""
        loop = asyncio.get_running_loop()
        try:
            with anyio.fail_after(timeout):
                _, stream = await loop.create_unix_connection(AsyncioStream, path)
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        except OSError:
            raise httpcore.ConnectError from None
        return stream

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


async def dial(
    addresses: Sequence[tuple[str, int]],
    local: str | None = None,
    options: Iterable[httpcore.SOCKET_OPTION] | None = None,
) -> AsyncioStream:
    """Connect to the first of these (IP address, port) that answers; no name is looked up.

    Raises `OSError` where none does.
    """
    stream = await _race(addresses, local)
    plug = stream.get_extra_info("socket")
    if plug is None:
        raise OSError("cut at once")
    for option in (*_OPTIONS, *(options or ())):
        plug.setsockopt(*option)
    return stream


def in_turn(addresses: Sequence[str]) -> list[str]:
    """Return addresses with the families in turn, the resolver's first one first."""
    kinds = [":" in address for address in addresses]
    first = [address for address, kind in zip(addresses, kinds, strict=True) if kind == kinds[0]]
    other = [address for address, kind in zip(addresses, kinds, strict=True) if kind != kinds[0]]
    mixed: list[str] = []
    for index in range(max(len(first), len(other))):
        mixed += [*first[index : index + 1], *other[index : index + 1]]
    return mixed


async def _open(address: tuple[str, int], local: str | None) -> AsyncioStream:
    loop = asyncio.get_running_loop()
    own = None if local is None else (local, 0)
    _, stream = await loop.create_connection(AsyncioStream, *address, local_addr=own)
    return stream


async def _race(addresses: Sequence[tuple[str, int]], local: str | None) -> AsyncioStream:
    """Try the addresses one after the other, the next one when the last failed or is slow (RFC 8305)."""
    if len(addresses) == 1:
        return await _open(addresses[0], local)
    winners: list[AsyncioStream] = []

    async def attempt(address: tuple[str, int], failed: anyio.Event) -> None:
        try:
            winners.append(await _open(address, local))
        except OSError:
            failed.set()
        else:
            group.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                failed = anyio.Event()
                group.start_soon(attempt, address, failed)
                with anyio.move_on_after(_STAGGER_SECONDS):
                    await failed.wait()
    except BaseException:
        for stream in winners:
            stream.abort()
        raise
    for late in winners[1:]:
        late.abort()
    if not winners:
        raise OSError("no address answers")
    return winners[0]
