"""A `Connection` over any httpcore connection: the library's own, or one a user puts in its place.

One rule: a connection that was not read to its end is closed, never reused, and cancellation in the middle of
a TLS handshake leaves no socket behind.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import anyio
import httpcore

from oaicompat_server.connection import (
    FAILURES,
    Head,
    Waits,
    header_map,
    length_of,
    our_error,
)
from oaicompat_server.network import in_turn
from oaicompat_server.reply import HEAD_BYTES

_CLOSE_SECONDS = 1.0


class _Stream(httpcore.AsyncNetworkStream):
    """A network stream that tells its backend about bytes received."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, backend: _Backend) -> None:
        self._stream = stream
        self._backend = backend

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        wait = self._backend.heading(timeout)
        data = await self._stream.read(max_bytes, wait)
        if data:
            self._backend.received = True
            self._backend.size += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        secured = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _Stream(secured, self._backend)

    def get_extra_info(self, info: str) -> Any:
        try:
            return self._stream.get_extra_info(info)
        except Exception:
            # anyio asks the socket for all that it knows, which fails when the socket has gone.
            return True if info == "is_readable" else None


class _Backend(httpcore.AsyncNetworkBackend):
    """Remembers the socket of its connection over `inner`, whether a byte came on it, and bounds heads.

    httpcore's own limits of a head are one for each of its reads and one for each part of it, so that hints, or
    a head that drips, could go on for ever.
    """

    def __init__(self, inner: httpcore.AsyncNetworkBackend | None) -> None:
        self._inner = inner or httpcore.AnyIOBackend()
        self.stream: httpcore.AsyncNetworkStream | None = None
        self.received = False
        self.size = 0
        self._until: float | None = None
        self._headed = False

    def begin(self) -> None:
        """Expect the head of a reply."""
        self.received = self._headed = False
        self.size = 0
        self._until = None

    def headed(self) -> None:
        """Leave the rest of the reply to others."""
        self._headed = True

    def heading(self, seconds: float | None) -> float | None:
        """Return how long the next read may wait, where `seconds` are for all of the head."""
        if self._headed or seconds is None:
            return seconds
        if self.size > HEAD_BYTES:
            raise httpcore.RemoteProtocolError
        now = time.monotonic()
        if self._until is None:
            self._until = now + seconds
        if now >= self._until:
            raise httpcore.ReadTimeout
        return self._until - now

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        plain = await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        self.stream = plain
        return _Stream(plain, self)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class HttpcoreConnection:
    """A `Connection` over an httpcore one.

    Without `backend` nobody knows whether a byte came, so that a failed request is never repeated.
    """

    def __init__(
        self, connection: httpcore.AsyncConnectionInterface, backend: _Backend | None = None
    ) -> None:
        self._connection = connection
        self._backend = backend
        self._timeouts: dict[str, float] = {}
        self._response: httpcore.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    @property
    def received(self) -> bool:
        return self._backend is None or self._backend.received

    async def exchange(
        self, head: Head, body: bytes, waits: Waits
    ) -> tuple[int, Mapping[str, str]]:
        if self._backend is not None:
            self._backend.begin()
        length = length_of(head.method, body)
        lines = [("content-length", length.decode("ascii"))] if length else []
        self._timeouts = {
            "connect": waits.connect,
            "read": waits.first_byte,
            "write": waits.write,
        }
        try:
            self._response = await self._connection.handle_async_request(
                httpcore.Request(
                    head.method,
                    head.url,
                    headers=[*head.headers, *lines],
                    content=body,
                    extensions={"timeout": self._timeouts},
                )
            )
        except FAILURES as failure:
            raise our_error(failure, self.received) from None
        if self._backend is not None:
            self._backend.headed()
        self._timeouts["read"] = waits.idle
        self._chunks = self._response.aiter_stream()
        return self._response.status, header_map(self._response.headers)

    async def read(self) -> bytes:
        if self._chunks is None:
            return b""
        try:
            return await anext(self._chunks, b"")
        except FAILURES as failure:
            raise our_error(failure, self.received) from None

    def ready(self) -> bytes | None:
        return None

    def spare(self) -> bool:
        return False

    async def finish(self) -> bool:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            try:
                if self._response is not None:
                    await self._response.aclose()
            except Exception:
                await self.aclose()
                return False
            if self._connection.is_available():
                self._response = self._chunks = None
                return True
        await self.aclose()
        return False

    def usable(self) -> bool:
        return self._connection.is_available() and not self._connection.has_expired()

    async def aclose(self) -> None:
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            try:
                await self._connection.aclose()
            except Exception:
                return
            finally:
                if self._backend is not None and self._backend.stream is not None:
                    await self._backend.stream.aclose()


def own_connection(
    origin: httpcore.Origin,
    context: ssl.SSLContext | None,
    expiry: float,
    network: httpcore.AsyncNetworkBackend | None = None,
) -> HttpcoreConnection:
    """Return a connection that runs on httpcore's own HTTP/1.1, over this network or httpcore's own."""
    backend = _Backend(network)
    connection = httpcore.AsyncHTTPConnection(
        origin, ssl_context=context, keepalive_expiry=expiry, network_backend=backend
    )
    return HttpcoreConnection(connection, backend)


class NamedNetwork(httpcore.AsyncNetworkBackend):
    """httpcore's own network, with names looked up by `resolve`."""

    def __init__(self, resolve: Callable[[str], Awaitable[Sequence[str]]]) -> None:
        self._inner = httpcore.AnyIOBackend()
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of `host` that answers, each with its share of the time."""
        failure: Exception = httpcore.ConnectError()
        until = None if timeout is None else time.monotonic() + timeout
        try:
            with anyio.fail_after(timeout):
                addresses = in_turn(await self._resolve(host))
                for number, address in enumerate(addresses):
                    left = None if until is None else max(0.0, until - time.monotonic())
                    share = None if left is None else left / (len(addresses) - number)
                    try:
                        return await self._inner.connect_tcp(
                            address, port, share, local_address, socket_options
                        )
                    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                        failure = error
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        except (OSError, UnicodeError, AttributeError):
            # anyio sets options on the socket of a transport, which has none when it was cut at once.
            raise httpcore.ConnectError from None
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)
