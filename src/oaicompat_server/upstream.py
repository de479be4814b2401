"""The way to the provider: one request in, status, headers and the body's bytes out.

One rule: connections live in a free list of our own, one per origin, newest first, and the list never waits:
admission is the relay's. A connection goes back only when its reply was read to the end; in every other case,
cancellation included, it is closed before the call returns.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from types import TracebackType
from typing import Protocol
from urllib.parse import urlsplit

import anyio
import httpcore

from oaicompat.errors import UpstreamError, UpstreamProtocolError
from oaicompat_server.connection import (
    Connection,
    Head,
    Waits,
    head_of,
    origin_of,
    tls_context,
)
from oaicompat_server.http11 import Http11Connection
from oaicompat_server.httpcore_connection import NamedNetwork, own_connection
from oaicompat_server.network import AsyncioBackend
from oaicompat_server.resolver import Resolver
from oaicompat_server.secret import Secret
from oaicompat_server.settings import UpstreamSettings
from oaicompat_server.tunnel import TunnelBackend

ERROR_BODY_CAP = 64 * 1024
ERROR_BODY_SECONDS = 5.0
BODY_CAP = 128 * 1024 * 1024
_TIMER_SLACK = 0.01

NO_PROXY = Secret("")

Connector = Callable[[str], Connection]
"""Returns a new connection to an origin."""


class Request(Protocol):
    """What of the core's `UpstreamRequest` is needed here."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def body(self) -> bytes: ...


def waits_of(settings: UpstreamSettings) -> Waits:
    """Return how long these settings have a call wait."""
    return Waits(settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout)


class Response:
    """One request and its reply: entering it sends the request and waits for the head; iterate over the body.

    Its connection is given back or closed at its end.
    """

    __slots__ = (
        "_body", "_connection", "_failed", "_head", "_idle", "_left", "_until", "_waits", "headers", "status",
    )  # fmt: skip

    _connection: Connection
    _failed: bool
    status: int
    headers: Mapping[str, str]

    def __init__(
        self, idle: _FreeList, head: Head, body: bytes, waits: Waits, cap: int | None
    ) -> None:
        self._idle = idle
        self._head = head
        self._body = body
        self._waits = waits
        self._left = cap
        self._until = 0.0

    async def __aenter__(self) -> Response:
        # It may be big, and is of no use once the head of the reply is there.
        body, self._body = self._body, b""
        connection = self._idle.take()
        reused = connection is not None
        while True:
            if connection is None:
                connection = self._idle.connect()
            try:
                self.status, self.headers = await connection.exchange(self._head, body, self._waits)
                _check_head(self.status, self.headers)
                break
            except UpstreamError as error:
                stale = reused and error.status != 504 and not connection.received
                await connection.aclose()
                if not stale:
                    raise
                connection, reused = None, False
            except BaseException:
                await connection.aclose()
                raise
        self._connection = connection
        self._failed = not 200 <= self.status < 300
        if self._failed:
            self._left = ERROR_BODY_CAP
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connection = self._connection
        if error is not None:
            await connection.aclose()
            return
        try:
            again = connection.spare() or await connection.finish()
        except BaseException:
            await connection.aclose()
            raise
        if again and not self._idle.push(connection):
            await connection.aclose()

    def __aiter__(self) -> Response:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end.

        An error's body ends quietly at its cap, any other one with an error.
        """
        return self._counted(await (self._of_error() if self._failed else self._connection.read()))

    def ready(self) -> bytes | None:
        """Return what `read` would at once, None where it would wait, or that is not known."""
        data = None if self._failed else self._connection.ready()
        return self._counted(data) if data else data

    def _counted(self, chunk: bytes) -> bytes:
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                raise UpstreamProtocolError(
                    "The upstream's answer is too large.",
                    code="upstream_malformed",
                    cause="network",
                )
        return chunk

    async def _of_error(self) -> bytes:
        """Return more of an error's body: what a cap and some seconds give, since the status says enough."""
        if not self._left:
            return b""
        if self._until == 0.0:
            self._until = anyio.current_time() + ERROR_BODY_SECONDS
        chunk = b""
        with anyio.CancelScope(deadline=self._until):
            try:
                chunk = await self._connection.read()
            except UpstreamError:
                return b""
        return chunk[: self._left]


class _FreeList:
    """The connections to one place: what makes them, and the idle ones, each with its time, the newest last.

    A place is an origin and the proxy before it.
    """

    def __init__(self, connect: Callable[[], Connection], most: int, seconds: float) -> None:
        self.connect = connect
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self._most = most
        self._seconds = seconds
        self._idle: deque[tuple[float, Connection]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._idle)

    def take(self) -> Connection | None:
        """Take the newest one that is still open, closing dead ones on the way."""
        while self._idle:
            connection = self._idle.pop()[1]
            if connection.usable():
                return connection
            self._discard(connection)
        return None

    def push(self, connection: Connection) -> bool:
        """Keep a connection, and close the oldest one when there are too many; False after the end."""
        if self.closed:
            return False
        self._idle.append((self._loop.time(), connection))
        if len(self._idle) > self._most:
            self._discard(self._idle.popleft()[1])
        elif self._timer is None:
            self._look_in(self._seconds)
        return True

    def _discard(self, connection: Connection) -> None:
        """Close a connection that is of no use any more."""
        task = self._loop.create_task(connection.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _look_in(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        """Close what has been idle for too long, and look again when the next one will have been."""
        self._timer = None
        late = self._loop.time() - self._seconds + _TIMER_SLACK
        while self._idle and self._idle[0][0] <= late:
            self._discard(self._idle.popleft()[1])
        if self._idle:
            self._look_in(self._idle[0][0] + self._seconds - self._loop.time())

    async def aclose(self) -> None:
        """Close them all, and those in use once they are given back."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._idle:
            await self._idle.pop()[1].aclose()
        for task in tuple(self._closing):
            await task


class Upstream:
    """Opens requests to any origin.

    `connect` replaces the connection class (tests, other stacks), `context` the TLS settings.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        connect: Connector | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.waits = waits_of(settings)
        self._settings = settings
        self._context = context
        self._connect = connect
        resolver = Resolver()
        fast = settings.http == "fast"
        self._network: httpcore.AsyncNetworkBackend
        self._network = AsyncioBackend(resolver) if fast else NamedNetwork(resolver)
        self._lists: dict[tuple[str, Secret], _FreeList] = {}
        self._closed = False

    def open(
        self,
        request: Request,
        headers: Iterable[tuple[str, str]] = (),
        body_limit: int | None = BODY_CAP,
        proxy: Secret = NO_PROXY,
    ) -> Response:
        """Return what sends the request and gives its reply, once it is entered; raises `UpstreamError`.

        `proxy` is the URL of the HTTP proxy to go through, empty for none. A reused connection that turns out
        to be dead before a byte of the reply is replaced once, silently.
        """
        head = _head(request.method, request.url, tuple(headers))
        place = (head.origin, proxy)
        idle = self._lists.get(place)
        if idle is None:
            idle = self._lists[place] = self._free_list(place)
        return Response(idle, head, request.body, self.waits, body_limit)

    def idle_count(self) -> int:
        """Return how many connections wait for reuse."""
        return sum(map(len, self._lists.values()))

    def _new(self, url: str, proxy: Secret) -> Connection:
        """Return a new connection; nothing is sent yet."""
        if self._connect is not None:
            return self._connect(url)
        origin = origin_of(url)
        context = self.secure() if url.startswith("https:") else None
        network = TunnelBackend(self._network, proxy) if proxy else self._network
        if self._settings.http == "fast":
            return Http11Connection(origin, context, network)
        return own_connection(origin, context, self._settings.idle_expiry, network)

    def secure(self) -> ssl.SSLContext:
        """Return the one TLS context, made at the first call; call it early to keep that off a request."""
        if self._context is None:
            self._context = tls_context()
        return self._context

    def _free_list(self, place: tuple[str, Secret]) -> _FreeList:
        connect = partial(self._new, *place)
        idle = _FreeList(connect, self._settings.max_idle, self._settings.idle_expiry)
        idle.closed = self._closed
        return idle

    async def aclose(self) -> None:
        """Close every idle connection, and those in use once they are given back."""
        self._closed = True
        for idle in self._lists.values():
            await idle.aclose()


@lru_cache(512)
def _head(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> Head:
    """Return the head of a request; a model's and a credential's are the same in every request."""
    lines = {"host": urlsplit(url).netloc, "accept-encoding": "identity"}
    lines.update((name.lower(), value) for name, value in headers)
    lines.pop("content-length", None)
    return head_of(method, url, tuple(lines.items()))


def _check_head(status: int, headers: Mapping[str, str]) -> None:
    if 300 <= status < 400:
        raise UpstreamError(
            "The upstream answered with a redirect, which is never followed.",
            cause="network",
            upstream_status=status,
        )
    coding = headers.get("content-encoding")
    if coding and coding.strip().lower() not in ("identity", ""):
        raise UpstreamProtocolError(
            "The upstream compressed its answer although that was not asked for.",
            code="upstream_malformed",
            cause="network",
        )
