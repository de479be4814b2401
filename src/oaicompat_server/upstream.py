"""The way to the provider: one request in, status, headers and the body's bytes out.

One rule: connections live in a free list of our own, one per origin, newest first, and the list never waits:
admission is the relay's. A connection goes back only when its reply was read to the end; in every other case,
cancellation included, it is closed before the call returns.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Protocol
from urllib.parse import urlsplit

from oaicompat.errors import UpstreamError, UpstreamProtocolError
from oaicompat_server.config import UpstreamSettings
from oaicompat_server.http11 import (
    Connection,
    HttpcoreConnection,
    Outgoing,
    Waits,
    network_error,
    origin_of,
    tls_context,
)

ERROR_BODY_CAP = 64 * 1024
BODY_CAP = 128 * 1024 * 1024

Connector = Callable[[str], Connection]


class Request(Protocol):
    """What of the core's `UpstreamRequest` is needed here."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def body(self) -> bytes: ...


class Response:
    """A reply whose head has come; iterate over it for the body."""

    def __init__(
        self, connection: Connection, status: int, headers: Mapping[str, str], cap: int | None
    ) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._failed = not 200 <= status < 300
        self._left = ERROR_BODY_CAP if self._failed else cap

    def __aiter__(self) -> Response:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes; an error's body ends quietly at its cap, any other one with an error."""
        spent = self._failed and self._left == 0
        chunk = b"" if spent else await self._connection.read()
        if not chunk:
            raise StopAsyncIteration
        if self._left is not None:
            if self._failed:
                chunk = chunk[: self._left]
            elif len(chunk) > self._left:
                raise UpstreamProtocolError(
                    "The upstream's answer is too large.",
                    code="upstream_malformed",
                    cause="network",
                )
            self._left -= len(chunk)
        return chunk


class _Open:
    """The span of one request; the connection is given back or closed at its end."""

    def __init__(self, upstream: Upstream, request: Outgoing, cap: int | None) -> None:
        self._upstream = upstream
        self._request = request
        self._cap = cap
        self._connection: Connection | None = None
        self._origin = ""

    async def __aenter__(self) -> Response:
        self._origin = _origin_text(self._request.url)
        connection = await self._upstream.take(self._origin)
        reused = connection is not None
        while True:
            self._connection = connection or self._upstream.connect(self._origin)
            try:
                status, headers = await self._connection.exchange(
                    self._request, self._upstream.waits
                )
                _check_head(status, headers)
                return Response(self._connection, status, headers, self._cap)
            except UpstreamError as error:
                stale = reused and error.status != 504 and not self._connection.received
                await self._connection.aclose()
                if not stale:
                    raise
                connection, reused = None, False
            except BaseException:
                await self._connection.aclose()
                raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is None:
            return
        if error is not None:
            await self._connection.aclose()
        elif await self._connection.finish():
            await self._upstream.give_back(self._origin, self._connection)


class Upstream:
    """Opens requests to any origin; `connect` replaces the connection class (tests, other stacks)."""

    def __init__(self, settings: UpstreamSettings, connect: Connector | None = None) -> None:
        self.waits = Waits(
            settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout
        )
        self._settings = settings
        self._context: ssl.SSLContext | None = None
        self._connect = connect
        self._idle: dict[str, deque[Connection]] = {}

    def open(
        self,
        request: Request,
        headers: Iterable[tuple[str, str]] = (),
        body_limit: int | None = BODY_CAP,
    ) -> _Open:
        """Return a context manager that sends the request and gives a `Response`; raises `UpstreamError`.

        A reused connection that turns out to be dead before a byte of the reply is replaced once, silently.
        """
        lines = {"host": urlsplit(request.url).netloc, "accept-encoding": "identity"}
        lines.update((name.lower(), value) for name, value in headers)
        if request.body or request.method == "POST":
            lines["content-length"] = str(len(request.body))
        outgoing = Outgoing(request.method, request.url, tuple(lines.items()), request.body)
        return _Open(self, outgoing, body_limit)

    def idle_count(self) -> int:
        """Return how many connections wait for reuse."""
        return sum(map(len, self._idle.values()))

    def connect(self, origin: str) -> Connection:
        """Return a new connection; nothing is sent yet."""
        if self._connect is not None:
            return self._connect(origin)
        context = self.secure() if origin.startswith("https:") else None
        return HttpcoreConnection(origin_of(origin), context, self._settings.idle_expiry)

    def secure(self) -> ssl.SSLContext:
        """Return the one TLS context, made at the first call; call it early to keep that off a request."""
        if self._context is None:
            self._context = tls_context()
        return self._context

    async def take(self, origin: str) -> Connection | None:
        """Take the newest idle connection that is still open, closing dead ones on the way."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
            await connection.aclose()
        return None

    async def give_back(self, origin: str, connection: Connection) -> None:
        """Keep a connection for reuse; close what is dead or over the cap."""
        idle = self._idle.setdefault(origin, deque())
        idle.append(connection)
        surplus: list[Connection] = []
        while idle and (len(idle) > self._settings.max_idle or not idle[0].usable()):
            surplus.append(idle.popleft())
        for old in surplus:
            await old.aclose()

    async def aclose(self) -> None:
        """Close every idle connection."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                await connection.aclose()


def _origin_text(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _check_head(status: int, headers: Mapping[str, str]) -> None:
    if 300 <= status < 400:
        raise UpstreamError(
            "The upstream answered with a redirect, which is never followed.",
            cause="network",
            upstream_status=status,
        )
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise UpstreamProtocolError(
            "The upstream compressed its answer although that was not asked for.",
            code="upstream_malformed",
            cause="network",
        )


__all__ = ["BODY_CAP", "Connector", "Request", "Response", "Upstream", "network_error"]
