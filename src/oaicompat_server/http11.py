"""One HTTP/1.1 connection to an upstream, over httpcore's public connection class.

One rule: this is the only module that knows httpcore; `upstream` sees the `Connection` protocol and our own
errors, so that another implementation can take its place. No message of ours quotes a header, a key or an
address, and a connection that was not read to its end is closed, never reused.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

import anyio
import httpcore
from msgspec import Struct

from oaicompat.errors import UpstreamError

_CLOSE_SECONDS = 1.0
_SENDABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")


class Outgoing(Struct, frozen=True):
    """A request ready for the wire: header names lower-case, no body for GET."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""


class Waits(Struct, frozen=True):
    """How long to wait, in seconds: for the connection, for the head of the reply, between its reads."""

    connect: float
    first_byte: float
    idle: float
    write: float = 30.0


class Connection(Protocol):
    """What the free list needs of a connection; one request at a time."""

    received: bool
    """Whether a byte of the reply to the current request has come."""

    async def exchange(self, request: Outgoing, waits: Waits) -> tuple[int, Mapping[str, str]]:
        """Send the request and return status and headers of the reply; raises `UpstreamError`."""
        ...

    async def read(self) -> bytes:
        """Return the next bytes of the body as they come, b"" at its end; raises `UpstreamError`."""
        ...

    async def finish(self) -> bool:
        """End the request; tell whether the connection can serve another one, else it is closed."""
        ...

    def usable(self) -> bool:
        """Tell whether an idle connection is still open and within its life."""
        ...

    async def aclose(self) -> None:
        """Close at once, whatever goes on."""
        ...


class _Stream(httpcore.AsyncNetworkStream):
    """A network stream that tells its connection about bytes received."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, owner: HttpcoreConnection) -> None:
        self._stream = stream
        self._owner = owner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        data = await self._stream.read(max_bytes, timeout)
        if data:
            self._owner.received = True
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
        return _Stream(secured, self._owner)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.AsyncNetworkBackend):
    """Remembers the socket of its connection, so that a cancelled TLS handshake leaves none behind."""

    def __init__(self, owner: HttpcoreConnection) -> None:
        self._owner = owner
        self._inner = httpcore.AnyIOBackend()
        self.stream: httpcore.AsyncNetworkStream | None = None

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
        return _Stream(plain, self._owner)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class HttpcoreConnection:
    """A `Connection` over `httpcore.AsyncHTTPConnection`."""

    def __init__(
        self, origin: httpcore.Origin, context: ssl.SSLContext | None, expiry: float
    ) -> None:
        self._backend = _Backend(self)
        self._connection = httpcore.AsyncHTTPConnection(
            origin, ssl_context=context, keepalive_expiry=expiry, network_backend=self._backend
        )
        self._timeouts: dict[str, float] = {}
        self._response: httpcore.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self.received = False

    async def exchange(self, request: Outgoing, waits: Waits) -> tuple[int, Mapping[str, str]]:
        self.received = False
        if not all(map(_SENDABLE.fullmatch, (value for _, value in request.headers))):
            raise _unsendable()
        self._timeouts = {
            "connect": waits.connect,
            "read": waits.first_byte,
            "write": waits.write,
        }
        with _Mapped(self):
            self._response = await self._connection.handle_async_request(
                httpcore.Request(
                    request.method,
                    request.url,
                    headers=list(request.headers),
                    content=request.body,
                    extensions={"timeout": self._timeouts},
                )
            )
        response = self._response
        self._timeouts["read"] = waits.idle
        self._chunks = response.aiter_stream()
        return response.status, {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.headers
        }

    async def read(self) -> bytes:
        if self._chunks is None:
            return b""
        with _Mapped(self):
            return await anext(self._chunks, b"")

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
                if self._backend.stream is not None:
                    await self._backend.stream.aclose()


_TIMEOUTS = {
    httpcore.ConnectTimeout: "Connecting to the upstream timed out.",
    httpcore.ReadTimeout: "The upstream did not answer in time.",
    httpcore.WriteTimeout: "The upstream did not take the request in time.",
}


class _Mapped:
    """Turns httpcore's exceptions into ours, without their text and without a chain."""

    def __init__(self, connection: HttpcoreConnection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, httpcore.TimeoutException):
            stalled = self._connection.received and isinstance(error, httpcore.ReadTimeout)
            message = "The upstream stopped sending." if stalled else _TIMEOUTS[type(error)]
            raise network_error(message, 504) from None
        if isinstance(error, httpcore.ConnectError):
            raise network_error("The upstream cannot be reached.") from None
        if isinstance(error, (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol)):
            raise _unsendable() from None
        if isinstance(error, (httpcore.NetworkError, httpcore.ProtocolError)):
            message = "The upstream closed the connection before its answer was complete."
            raise network_error(message) from None


def _unsendable() -> UpstreamError:
    """Return the error for a header that must not reach httpcore, whose debug log would quote it."""
    return UpstreamError("The upstream request could not be sent.", status=502, cause="network")


def network_error(message: str, status: int = 502) -> UpstreamError:
    """Return the error for a connection that failed: worth another attempt, since nothing was decided."""
    return UpstreamError(message, status=status, cause="network", retryable=True)


def origin_of(url: str) -> httpcore.Origin:
    """Return scheme, host and port of an absolute URL."""
    return httpcore.URL(url).origin


def tls_context() -> ssl.SSLContext:
    """Build the TLS context (verification always on); costs tens of milliseconds, so it is shared."""
    return httpcore.default_ssl_context()
