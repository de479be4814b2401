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
from collections import deque
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat_server.corking import cork_of
from oaicompat_server.cuts import shutting_down
from oaicompat_server.cycle import Cycle, refusal
from oaicompat_server.framing import Scope
from oaicompat_server.heads import (
    line_scope,
    longest,
    wants_continue,
    wants_websocket,
    without_upgrade,
    wrong_fields,
    wrong_line,
)
from oaicompat_server.leaving import LEAVING
from oaicompat_server.limits import Limits
from oaicompat_server.presence import Presence
from oaicompat_server.stalling import Arrival, Idleness, WriteStall


class _RefusedError(Exception):
    """Raised in a parser callback to stop the parser; the answer is in `_refusal`."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol under `limits`; `guarded()` makes a class with other limits."""

    limits: ClassVar[Limits] = Limits()
    # The parser calls no such method then: all is made ready where the message before has ended.
    on_message_begin = None  # type: ignore[assignment]
    cycle: Cycle | None  # type: ignore[assignment]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.cork = cork_of(self.loop)
        self.url = b""
        self.headers = []
        self._refusal: OaicompatError | None = None
        self._in_head = True
        self._plain_head = b""
        self._anew = False
        self._upgrading = False
        self._packet = self._head_bytes = self._head_bound = 0
        # A protocol's own: what stands on the class alone is slow to find from here.
        self._limits = self.limits
        self._most_fields = self._limits.header_count
        self._line: tuple[bytes, bytes, str] | None = None
        self._known: dict[str, Any] = {}
        self._head_timer: asyncio.TimerHandle | None = None
        self._arrival = Arrival(self.loop, self._limits.body_gap_seconds)
        self._write_stall = WriteStall(self.loop, self._limits.write_stall_seconds)
        self._chunks = self._chunk_bytes = self._trailers = self._carried = 0
        self._active: Cycle | None = None
        self._ahead: deque[tuple[Cycle, Scope]] = deque()
        self._deaf = False
        self._draining = False
        self._presence: Presence | None = None
        self._begun = time.monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idleness = Idleness(self.loop, transport, self._write_stall, self.timeout_keep_alive)
        if len(self.connections) > self._limits.connections:
            transport.abort()
            return
        self._arm_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_timers()
        self._write_stall.end()
        if self._presence is not None:
            self._presence.stop()
        self._ahead.clear()
        active, self._active, self.cycle = self._active, None, None
        if active is not None and not active.response_complete:
            active.tell()
        super().connection_lost(exc)

    def _end_timers(self) -> None:
        self._end_head_timer()
        self._arrival.end()
        self._idleness.end()

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    @property
    def _unanswered(self) -> bool:
        return self._active is not None and not self._active.response_complete

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the answer while a whole HTTP/1.1 request has none and may yet be wanted.

        An end of input after the answer has begun counts as leaving: most clients that end their side do so
        with the request, and one that closes must take its upstream call along (see `presence`).
        """
        active, last = self._active, self.cycle
        if (
            active is None
            or last is None
            or last.more_body
            or active.response_started
            or active.http_version != "1.1"
        ):
            self.close()
            return False
        last.keep_alive = False
        self.cork.pull()
        self._presence = Presence(self.loop, self.transport, self.transport.abort)
        return True

    def _ignore_the_rest(self) -> None:
        """Answer the request that is being worked on, drop all that follows it, and close."""
        self._deaf = True
        self._ahead.clear()
        if self._active is not None:
            self._active.keep_alive = False
            self.cycle = self._active
        self._end_timers()
        self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._deaf or self.parser is None or self.transport.is_closing():
            return
        self._idleness.since = 0.0
        self._packet = len(data)
        if self._in_head:
            if not self._head_bytes:
                self._begun = time.monotonic()
            self._head_bytes += self._packet
            self._head_bound += self._packet
        else:
            self._carried += self._packet
        while data:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = self._after_offer(data[upgrade.args[0] :])
            except httptools.HttpParserError:
                self.send_400_response("The bytes received are not a valid HTTP request.")
                break
        if self._head_bytes or not self._in_head:
            self._await_more()

    def _after_offer(self, rest: bytes) -> bytes:
        """Do as an offer to upgrade was answered; return what is to be parsed, anew, of what came with it."""
        head, self._plain_head = self._plain_head, b""
        if head:
            self.parser = httptools.HttpRequestParser(self)
            self._anew = True
            self.url = b""
            self.headers = []
            return head + rest
        if self._upgrading:
            self._end_timers()
            self.cork.pull()
            self.handle_websocket_upgrade()
            if rest:
                self.transport.get_protocol().data_received(rest)  # type: ignore[attr-defined]
        return b""

    def _await_more(self) -> None:
        """Give the client its time for the rest of a head, or of a body."""
        if not self._in_head:
            if self._carried > self._limits.header_bytes + 2 * self._chunk_bytes:
                self._refuse(431, "What comes around the body is too large.")
            elif not (self._upgrading or self._deaf or self.transport.is_closing()):
                self._arrival.wait(self._backed_up, self._body_late)
        elif self._head_bytes > self._limits.header_bytes:
            self._refuse(431, "The request header is too large.")
        elif self._head_timer is None:
            self._arm_head()

    def _arm_head(self) -> None:
        self._head_timer = self.loop.call_later(self._limits.header_seconds, self._head_late)

    def _head_late(self) -> None:
        self._head_timer = None
        if self._unanswered:
            self._arm_head()
        elif self._in_head and not self.transport.is_closing():
            self.transport.abort()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head and len(self.headers) < self._most_fields:
            self.headers.append((name.lower(), value))
            return
        self._trailers += 1
        if len(self.headers) + self._trailers > self._most_fields:
            self._stop(431, "The request has too many header fields.")
        if len(name) + len(value) > self._limits.header_bytes:
            self._stop(431, "The request header is too large.")

    def on_headers_complete(self) -> None:
        parser, headers = self.parser, self.headers
        cap = self._limits.header_bytes
        if self._head_bound > cap and longest(self.url, headers) > cap:
            self._stop(431, "The request header is too large.")
        line = (parser.get_method(), self.url, parser.get_http_version())
        if line != self._line:
            self._read_line(*line)
        fields = dict(headers)
        if reason := wrong_fields(line[2], headers, fields):
            self._stop(400, reason)
        offered = parser.should_upgrade()
        if offered and not wants_websocket(headers):
            if self._anew:
                self._stop(400, "The request offers what cannot be declined.")
            self._plain_head = without_upgrade(*line, headers)
            return
        self._anew = False
        scope = self._known.copy()
        scope["headers"] = headers
        scope["state"] = self.app_state.copy()
        upgrading = offered and self._begin_upgrade(scope)
        self._in_head = False
        self._head_bytes = 0
        self._end_head_timer()
        if upgrading:
            return
        self._chunks = self._chunk_bytes = self._trailers = self._carried = 0
        self._arrival.moved = True
        lasting = line[2] == "1.1" and parser.should_keep_alive()
        lasting = lasting and not (offered or self._draining)
        expecting = b"expect" in fields and line[2] == "1.1" and wants_continue(headers)
        self._begin(Cycle(self, scope, lasting, expecting), scope)

    def _read_line(self, method: bytes, target: bytes, version: str) -> None:
        """Take what the request line says into what every request with this line has in its scope."""
        if reason := wrong_line(method, target, version):
            self._stop(400, reason)
        self._known = line_scope(method, target, version, self)
        self._line = (method, target, version)

    def _begin_upgrade(self, scope: Scope) -> bool:
        """Remember an upgrade that is accepted; return whether it is."""
        accepted = self._should_upgrade()
        if accepted and self._unanswered:
            self._stop(400, "An upgrade cannot be asked for ahead of an answer.")
        self._upgrading = accepted
        self.scope = scope  # type: ignore[assignment]
        return self._upgrading

    def _begin(self, cycle: Cycle, scope: Scope) -> None:
        """Work on a request, once those before it have their answers."""
        scope[LEAVING] = self.cycle = cycle
        active = self._active
        if active is None or active.response_complete:
            self._idleness.since = 0.0
            self._active = cycle
            cycle.start(self.app, scope)
            return
        self._ahead.append((cycle, scope))
        if len(self._ahead) > self._limits.pipelined:
            self._stop(400, "Too many requests are sent ahead of their answers.")

    def on_body(self, body: bytes) -> None:
        cycle, limits = self.cycle, self._limits
        self._arrival.moved = True
        self._chunks += 1
        self._chunk_bytes += len(body)
        if self._chunks > limits.chunks_free and (
            self._chunk_bytes < self._chunks * limits.chunk_mean
        ):
            self._stop(400, "The body comes in too many tiny chunks.")
        if cycle is None or cycle.response_complete:
            return
        if self._ahead and cycle.unread + len(body) > HIGH_WATER_LIMIT:
            self._stop(413, "Too much is sent ahead of an answer.")
        cycle.feed(body)

    def on_message_complete(self) -> None:
        if self._plain_head or self._upgrading:
            return
        self._in_head = True
        self._head_bytes = 0
        self._head_bound = self._packet
        self._arrival.end()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.end_body()
        else:
            self._idleness.begin()
        # A big body paused it, and a client that leaves must be noticed.
        if self.flow.read_paused:
            self.flow.resume_reading()
        self.url = b""
        self.headers = []

    def on_response_complete(self) -> None:
        """Go on with what was sent ahead, or wait for the next request, but not for ever."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self._ahead:
            self._active, scope = self._ahead.popleft()
            self._active.start(self.app, scope)
            return
        self._idleness.begin()

    def _backed_up(self) -> bool:
        unread = 0 if self.cycle is None else self.cycle.unread
        return self.flow.read_paused or unread > HIGH_WATER_LIMIT

    def _body_late(self) -> None:
        self._refuse(408, "The request body did not arrive in time.")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_stall.begin(self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_stall.resume(self.transport)

    def close(self) -> None:
        """Close once what was written is sent; a client that does not take it is cut."""
        self._write_stall.close(self.transport)

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
        if cycle is not None and not self._in_head and cycle.response_started:
            if cycle.response_complete:
                self.close()
            else:
                self.transport.abort()
            return
        if cycle is not None and not cycle.response_complete:
            cycle.tell()
        error = self._refusal or InvalidRequestError(msg)
        self.cork.pull()
        self.transport.write(refusal(error, self.headers, self._begun))
        self.close()


def guarded(limits: Limits) -> type[GuardedProtocol]:
    """Return a protocol class, as uvicorn's `http` setting takes it, that keeps `limits`."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})
