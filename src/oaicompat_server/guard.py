"""The server protocol with the deadlines and caps that uvicorn's own lacks.

One rule: nothing a client does or leaves undone holds a connection for ever. Headers, body and reading of the
answer each have a deadline (one timer at a time, re-armed lazily), and headers, connections and tiny chunks a
cap; what httptools lets through but no honest client sends is answered with 400 (reliability 4.4 and 4.5).
Reading never pauses for a request that waits behind another one, so that a client that leaves is noticed: a
little is kept, and a client that sends more has its first answer and then a closed connection.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
from msgspec import Struct
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from oaicompat.dialects.chat import encode_error
from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat_server.cuts import shutting_down
from oaicompat_server.framing import common_headers, request_id_of, retry_headers
from oaicompat_server.joining import Joining
from oaicompat_server.leaving import promise, told
from oaicompat_server.presence import Presence
from oaicompat_server.stalling import WriteStall


class Limits(Struct, frozen=True):
    """Deadlines in seconds, sizes in bytes, and counts."""

    header_seconds: float = 10.0
    header_bytes: int = 64 * 1024
    header_count: int = 100
    body_gap_seconds: float = 30.0
    write_stall_seconds: float = 30.0
    connections: int = 4096
    chunks_free: int = 1000
    chunk_mean: int = 64
    pipelined: int = 16
    message_bytes: int = 110 * 1024 * 1024


class _RefusedError(Exception):
    """Raised in a parser callback to stop the parser; the answer is in `_refusal`."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol under `limits`; `guarded()` makes a class with other limits."""

    limits: ClassVar[Limits] = Limits()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._refusal: OaicompatError | None = None
        self._in_head = True
        self._plain_head = b""
        self._upgrading = False
        self._head_bytes = 0
        self._head_count = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._write_stall = WriteStall(self.loop, self.limits.write_stall_seconds)
        self._body_moved = 0.0
        self._chunks = 0
        self._chunk_bytes = 0
        self._active: RequestResponseCycle | None = None
        self._deaf = False
        self._draining = False
        self._presence: Presence | None = None
        self._begun = time.monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._joining = Joining(transport, self.loop)
        self._arm_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        self._write_stall.end()
        if self._presence is not None:
            self._presence.stop()
        self.pipeline.clear()
        if self._unanswered and self._active is not None:
            self._active.disconnected = True
            self._active.message_event.set()
            told(self._active.scope)
        super().connection_lost(exc)

    @property
    def _unanswered(self) -> bool:
        return self._active is not None and not self._active.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.transport = self._joining  # type: ignore[assignment]
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the answer while a whole HTTP/1.1 request has none and may yet be wanted.

        An end of input after the answer has begun counts as leaving: most clients that end their side do so
        with the request, and one that closes must take its upstream call along (see `presence`).
        """
        active = self._active
        if active is None or self.parser is None or not self._unanswered:
            return False
        whole = not self.cycle.more_body and active.scope["http_version"] == "1.1"
        if not whole or active.response_started:
            return False
        self.cycle.keep_alive = False
        self._presence = Presence(self.loop, self.transport, self.transport.abort)
        return True

    def _ignore_the_rest(self) -> None:
        """Answer the request that is being worked on, drop all that follows it, and close."""
        self._deaf = True
        self.pipeline.clear()
        if self._active is not None:
            self._active.keep_alive = False
            self.cycle = self._active
        for timer in (self._head_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = None
        self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self._deaf or self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        self._feed(data)
        if self._in_head:
            if self._head_bytes > self.limits.header_bytes:
                self._refuse(431, "The request header is too large.")
            elif self._head_bytes and self._head_timer is None:
                self._arm_head()
        elif self._body_timer is None and not self._upgrading:
            self._arm_body()

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            head, self._plain_head = self._plain_head, b""
            if head:
                self.parser = httptools.HttpRequestParser(self)
                self._feed(head + data[upgrade.args[0] :])
            elif self._upgrading:
                self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("The bytes received are not a valid HTTP request.")

    def _upgrade(self, early: bytes) -> None:
        """Hand the connection over, with what the client sent before it was answered."""
        self.handle_websocket_upgrade()
        if early:
            self.transport.get_protocol().data_received(early)  # type: ignore[attr-defined]

    def _arm_head(self) -> None:
        self._head_timer = self.loop.call_later(self.limits.header_seconds, self._head_late)

    def _arm_body(self) -> None:
        if not (self._deaf or self.transport.is_closing()):
            self._body_timer = self.loop.call_later(self.limits.body_gap_seconds, self._body_late)

    def _head_late(self) -> None:
        self._head_timer = None
        if self._unanswered:
            self._arm_head()
        elif self._in_head and not self.transport.is_closing():
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_count = 0
        self._begun = time.monotonic()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.header_bytes:
            self._stop(431, "The request header is too large.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_count += 1
        if self._head_count > self.limits.header_count:
            self._stop(431, "The request has too many header fields.")
        if len(name) + len(value) > self.limits.header_bytes:
            self._stop(431, "The request header is too large.")
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        reason = self._wrong_head()
        if reason:
            self._stop(400, reason)
        if self.parser.should_upgrade() and not self._wants_websocket():
            self._plain_head = self._without_upgrade()
            return
        self._upgrading = bool(self.parser.should_upgrade()) and self._should_upgrade()
        if self._upgrading and self._unanswered:
            self._stop(400, "An upgrade cannot be asked for ahead of an answer.")
        self._in_head = False
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        promise(self.scope)
        super().on_headers_complete()
        if self._upgrading:
            return
        if self.pipeline:
            self.flow.resume_reading()
            if len(self.pipeline) > self.limits.pipelined:
                self._stop(400, "Too many requests are sent ahead of their answers.")
        if self.parser.should_upgrade() or self._draining:
            self.cycle.keep_alive = False
        self._chunks = self._chunk_bytes = 0
        self._body_moved = self.loop.time()

    def _wants_websocket(self) -> bool:
        return any(
            name == b"upgrade" and b"websocket" in value.lower() for name, value in self.headers
        )

    def _without_upgrade(self) -> bytes:
        """Return the request's head without the offer to upgrade.

        The parser takes the body of such a request for another protocol, yet Java's HTTP client offers `h2c`
        with every first request; a server that declines has to read it as plain HTTP/1.1.
        """
        kept = [
            name + b": " + (_without_offer(value) if name == b"connection" else value)
            for name, value in self.headers
            if name not in (b"upgrade", b"http2-settings")
        ]
        version = self.parser.get_http_version().encode("ascii")
        line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)
        return b"\r\n".join([line, *kept, b"", b""])

    def _wrong_head(self) -> str | None:
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            return "Only HTTP/1.1 is served."
        if not (self.url.startswith(b"/") or self.url == b"*"):
            return "The request target must be a path."
        names = [name for name, _ in self.headers]
        if names.count(b"host") != 1:
            return "Exactly one Host header is needed."
        if b"transfer-encoding" not in names:
            return None
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if [coding.strip().lower() for coding in codings] != [b"chunked"]:
            return "The only transfer coding understood is chunked."
        return None

    def on_body(self, body: bytes) -> None:
        self._chunks += 1
        self._chunk_bytes += len(body)
        self._body_moved = self.loop.time()
        limits = self.limits
        if self._chunks > limits.chunks_free and (
            self._chunk_bytes < self._chunks * limits.chunk_mean
        ):
            self._stop(400, "The body comes in too many tiny chunks.")
        if self.pipeline and len(self.cycle.body) + len(body) > HIGH_WATER_LIMIT:
            self._stop(413, "Too much is sent ahead of an answer.")
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._plain_head or self._upgrading:
            return
        self._in_head = True
        self._head_bytes = 0
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        super().on_message_complete()
        # A big body paused it, and a client that leaves must be noticed.
        self.flow.resume_reading()
        self.headers = []

    def _body_late(self) -> None:
        self._body_timer = None
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self.flow.read_paused or len(self.cycle.body) > HIGH_WATER_LIMIT:
            self._body_moved = now
        wait = self._body_moved + self.limits.body_gap_seconds - now
        if wait > 0.001:
            self._body_timer = self.loop.call_later(wait, self._body_late)
        else:
            self._refuse(408, "The request body did not arrive in time.")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_stall.begin(self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_stall.end()

    def shutdown(self) -> None:
        """Close after the answer that is under way; what comes until the connection is closed gets a last one.

        A connection without a request stays open meanwhile, so that the next one is told why it is refused.
        """
        self._draining = True
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def cut(self) -> None:
        """Refuse a request whose body is still coming, which nobody has begun to work on."""
        cycle = self._active
        if cycle is not None and cycle.more_body and not cycle.response_started:
            self._refusal = shutting_down()
            self.send_400_response(self._refusal.message)

    def _stop(self, status: int, message: str) -> None:
        self._refusal = InvalidRequestError(message, status=status)
        raise _RefusedError(message)

    def _refuse(self, status: int, message: str) -> None:
        self._refusal = InvalidRequestError(message, status=status)
        self.send_400_response(message)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not a request, or break a limit, and close.

        A fault in what was sent ahead of an answer ends with that answer. One that has begun cannot be followed
        by another one, so that connection is cut.
        """
        if self.transport.is_closing():
            return
        if self._unanswered and (self._in_head or self.cycle is not self._active):
            self._ignore_the_rest()
            return
        cycle = self.cycle
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            self.transport.abort()
            return
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        error = self._refusal or InvalidRequestError(msg)
        body = encode_error(error)
        common = common_headers(request_id_of(self.headers or []), self._begun)
        lines = b"".join(b"%s: %s\r\n" % line for line in (*common, *retry_headers(error)))
        reason = HTTPStatus(error.status).phrase.encode("ascii")
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n%s\r\n%s" % (error.status, reason, len(body), lines, body)
        )
        self.transport.close()


def _without_offer(connection: bytes) -> bytes:
    options = (option.strip() for option in connection.split(b","))
    return b", ".join(
        option for option in options if option.lower() not in (b"upgrade", b"http2-settings")
    )


def guarded(limits: Limits) -> type[GuardedProtocol]:
    """Return a protocol class, as uvicorn's `http` setting takes it, that keeps `limits`."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})
