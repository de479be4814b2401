"""Drives one exchange for one request: admission, credential, upstream, retries, the client's leaving.

One rule: until the first frame is written everything can be tried again; afterwards nothing is, and a
failure is told in-band. One task does the work; a client that leaves, a deadline or a shutdown cancels it,
once, and cancellation closes the upstream connection before the credential is used again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache, partial

import anyio

from oaicompat.errors import ModelNotFoundError, OaicompatError, UpstreamError
from oaicompat.events import Frame
from oaicompat.exchange import Call, Exchange
from oaicompat.providers.gemini import endpoints
from oaicompat.supplies import NOTHING
from oaicompat_server.attempts import Attempts, Failure
from oaicompat_server.beside import together
from oaicompat_server.cuts import shutting_down
from oaicompat_server.framing import (
    HEADER_CAP,
    Answer,
    Headers,
    Receive,
    Reply,
    Scope,
    Send,
    common_headers,
    direct_of,
    header_value,
    notes_header,
)
from oaicompat_server.heartbeat import Heartbeat
from oaicompat_server.leaving import listen
from oaicompat_server.pool import Lease
from oaicompat_server.recall import Recall
from oaicompat_server.relay import PARSE_IN_THREAD, Incoming, Relay, internal_error
from oaicompat_server.secret import Secret
from oaicompat_server.span import Reason, Span
from oaicompat_server.upstream import BODY_CAP, Response

endpoint_headers = lru_cache(512)(endpoints.headers)

_TOLD_SECONDS = 1.0
_ERROR = b'"error"'
_CALLS_AT_ONCE = 8
"""Upstream calls of one request that may run together: it was admitted as one."""

logger = logging.getLogger("oaicompat")


def serve(
    relay: Relay, incoming: Incoming, scope: Scope, receive: Receive, send: Send
) -> Awaitable[None]:
    """Answer one HTTP request; what is returned ends when the answer is sent, or the client has left."""
    session = Session(relay, incoming, Answer(send, False, list, direct_of(scope, send)))
    return session.run(listen(scope, receive, session.leave))


class Session:
    """The work on one request.

    `recall` is what finds and keeps what belongs to its client, the relay's where none is given. An `exchange`
    that is given goes on in the background.
    """

    def __init__(
        self,
        relay: Relay,
        incoming: Incoming,
        reply: Reply,
        recall: Recall | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self._relay = relay
        self._config = relay.config
        self._incoming = incoming
        self._reply = reply
        self._recalled = recall
        self._exchange = exchange
        self._detached = exchange is not None
        self._handed_over = False
        self._span = Span(relay.cuts.work)
        self._account = ""
        self._deadline = 0.0
        self._heart: Heartbeat | None = None
        reply.open(False, self._headers)

    def leave(self) -> None:
        """Stop working: nobody is there to be answered."""
        self._span.end("left")

    async def run(self, ignore: Callable[[], None] | None = None) -> None:
        """Do the work and answer; nothing but cancellation comes out of here.

        With `ignore`, which ends the listening for the client's leaving, the session is stopped at the end.
        """
        try:
            with self._span as span:
                try:
                    exchange = self._exchange or self._begin() or await self._supplied()
                    if exchange.background and not self._detached:
                        await self._detach(exchange)
                    else:
                        await self._work(exchange)
                except OaicompatError as error:
                    await self._fail(error)
                    _forget_frames(error)
                except Exception:
                    request_id = self._incoming.request_id
                    logger.exception("request %s failed by a fault of the gateway", request_id)
                    await self._fail(internal_error(request_id))
            if span.ended is not None:
                await self._tell_of_end(span.ended)
        finally:
            if ignore is not None:
                ignore()
                self.stop()

    async def _tell_of_end(self, reason: Reason) -> None:
        """Tell the client why its answer was not made, where it is still there."""
        if reason == "cut":
            with anyio.move_on_after(_TOLD_SECONDS):
                await self._fail(shutting_down())
        elif reason == "late":
            late = "The request took longer than allowed."
            await self._fail(UpstreamError(late, status=504, cause="network"))

    async def abort(self, error: OaicompatError) -> None:
        """End an answer whose work was cancelled."""
        await self._fail(error)

    def _begin(self) -> Exchange | None:
        """Decode a small request; None where it is big, or wants something from outside."""
        if len(self._incoming.body) >= PARSE_IN_THREAD:
            return None
        exchange = self._exchange = self._relay.exchange(self._incoming)
        return exchange if exchange.needs() is NOTHING else None

    async def _supplied(self) -> Exchange:
        """Decode a big request, and find what the one that is decoded wants from outside."""
        relay, exchange = self._relay, self._exchange
        if exchange is None:
            exchange = self._exchange = await relay.exchange_beside(self._incoming)
        while (wanted := exchange.needs()) is not NOTHING and wanted:
            await relay.supply(exchange, await self._recall().find(wanted))
        return exchange

    def _recall(self) -> Recall:
        if self._recalled is None:
            self._recalled = self._relay.recall(self._incoming.owner)
        return self._recalled

    async def _detach(self, exchange: Exchange) -> None:
        """Leave the work to the background; answer with what is known, or follow it where that is wanted."""
        run = await self._relay.background.start(self._incoming, exchange, self._recall())
        if self._incoming.release is not None:
            self._incoming.release()
        self._exchange = None
        self._handed_over = True
        self._span.move(self._relay.cuts.following)
        self._reply.open(exchange.followed, self._headers)
        if not exchange.followed:
            await self._reply.write((Frame(run.body),))
            return
        async for frames in run.follow(-1, self._config.answer.keepalive):
            await self._reply.write(frames)
        await self._reply.end()

    async def _work(self, exchange: Exchange) -> None:
        """Run what calls the answer takes and end it, once it is this request's turn."""
        relay, reply, span, owner = self._relay, self._reply, self._span, self._incoming.owner
        settings = self._config.upstream
        if exchange.streaming:
            reply.open(True, self._headers)
        if not relay.admission.take(owner):
            await relay.admission.acquire(owner)
        try:
            total = settings.total_timeout_stream if exchange.streaming else settings.total_timeout
            self._deadline = time.monotonic() + total
            span.limit(self._deadline)
            while not reply.ended and (calls := exchange.calls()):
                if len(calls) == 1:
                    await self._call(exchange, calls[0])
                else:
                    await self._all(exchange, calls)
            if not reply.ended:
                span.unlimit()
                await self._write(exchange.conclude())
            if not reply.ended:
                await reply.end()
        finally:
            relay.admission.release(owner)

    async def _all(self, exchange: Exchange, calls: Iterable[Call]) -> None:
        """Run several calls at once; the first failure cancels the others and is the answer's."""
        await together([partial(self._call, exchange, call) for call in calls], _CALLS_AT_ONCE)

    async def _call(self, exchange: Exchange, call: Call) -> None:
        """Run one call to its end, over as many attempts as the rules allow.

        All of them go by the settings in force at its beginning: a key is shown only where it was set for. The
        reply is waited for here and no deeper, since a wait keeps every frame around it in memory.
        """
        base_url = self._relay.settings.config.upstream.base_url
        attempts = self._attempts(exchange, call)
        try:
            while True:
                lease = attempts.lease(time.monotonic()) or await _leased(attempts)
                credential = lease.credential
                self._account = lease.slot.account
                try:
                    proof = credential.secret
                    if credential.source is not None:
                        proof = await credential.proof()
                    try:
                        sentinel = attempts.sentinel
                        opened = self._open(exchange, call, lease, proof, base_url, sentinel)
                        async with opened as response:
                            await self._pass_on(exchange, call, response, proof)
                        await self._write(exchange.close(call))
                        failure = exchange.failure(call)
                        if failure is not None:
                            raise failure
                    except OaicompatError as error:
                        proof.keep_out_of(error)
                        raise
                except (UpstreamError, ModelNotFoundError) as error:
                    if delay := self._delay(exchange, call, attempts, error):
                        await anyio.sleep(delay)
                else:
                    attempts.succeeded()
                    return
        finally:
            attempts.close()

    def _attempts(self, exchange: Exchange, call: Call) -> Attempts:
        settings, incoming = self._relay.settings, self._incoming
        several = len(settings.pool.credentials) > 1
        return Attempts(
            settings.pool,
            settings.policy,
            (call.model, *call.fallbacks),
            self._deadline,
            exchange.affinity(incoming.session) if several else "",
            incoming.owner,
        )

    def _open(
        self,
        exchange: Exchange,
        call: Call,
        lease: Lease,
        proof: Secret,
        base_url: str,
        sentinel: bool,
    ) -> Response:
        """Begin an attempt; return what sends its request, once it is entered."""
        credential = lease.credential
        target = credential.target(base_url, lease.model)
        request = exchange.begin_attempt(call, target, sentinel=sentinel)
        lines = endpoint_headers(target, proof.reveal(), credential.payer)
        limit = None if exchange.streaming else BODY_CAP
        return self._relay.upstream.open(request, lines, limit, credential.proxy)

    def _delay(self, exchange: Exchange, call: Call, attempts: Attempts, error: Failure) -> float:
        """Return the seconds until the next attempt; raises what ends the call where there is none."""
        attempts.failed(time.monotonic(), error)
        if exchange.call_committed(call) or self._reply.ended:
            raise error
        delay = attempts.delay(time.monotonic())
        _forget_frames(error)
        return delay

    async def _pass_on(
        self, exchange: Exchange, call: Call, response: Response, proof: Secret
    ) -> None:
        """Give the exchange the reply as it comes, and the client what that becomes."""
        exchange.receive_head(call, response.status, response.headers)
        while True:
            data = response.ready()
            if data is None:
                data = await response.read()
            if not data:
                return
            # Who fails may repeat what it was shown; an answer is not changed. `in` would cost twice as much.
            if data.find(_ERROR) >= 0:
                data = proof.kept_out_of_bytes(data)
            frames = exchange.feed(call, data)
            if frames:
                await self._write(frames)
            if exchange.failed is not None:
                return

    async def _write(self, frames: tuple[Frame, ...]) -> None:
        effects = self._exchange.effects() if self._exchange is not None else ()
        if effects:
            await self._recall().keep(effects)
        if not frames:
            return
        await self._reply.write(frames)
        if self._heart is not None:
            self._heart.moved = time.monotonic()
        elif self._reply.started and not self._reply.ended and not self._detached:
            self._heart = Heartbeat(self._interval(), self._keep_alive)

    def stop(self) -> None:
        """Stop what runs beside the work, which has ended, and let go of what it held.

        What refers to itself would keep the request and its answer until the garbage collector comes by.
        """
        heart, self._heart = self._heart, None
        if heart is not None:
            heart.stop()
        if self._recalled is not None and not self._handed_over:
            self._recalled.release()
        self._exchange = None
        del self._reply, self._recalled

    def _interval(self) -> float:
        answer = self._config.answer
        chat = self._incoming.dialect == "chat"
        return answer.keepalive if chat else answer.keepalive_responses

    async def _keep_alive(self) -> None:
        """Send the dialect's heartbeat."""
        if self._reply.ended or self._exchange is None:
            return
        try:
            await self._reply.write(self._exchange.keepalive())
        except Exception:
            logger.exception("request %s: no heartbeat", self._incoming.request_id)
            self.leave()

    async def _fail(self, error: OaicompatError) -> None:
        untold = self._exchange is None and self._reply.started
        if self._reply.ended or untold:
            return
        frames: tuple[Frame, ...] = ()
        if self._exchange is not None:
            try:
                frames = self._exchange.fail(error)
            except Exception:
                logger.exception("request %s: its error has no frames", self._incoming.request_id)
            await self._keep_failed(self._exchange)
        await self._reply.fail(error, frames)

    async def _keep_failed(self, exchange: Exchange) -> None:
        """Keep what a failed answer leaves, which its client is told of in any case."""
        effects = exchange.effects()
        try:
            if effects:
                await self._recall().keep(effects)
        except OaicompatError as error:
            logger.warning("a failed response is not kept: %s", error.message)

    def _headers(self) -> Headers:
        headers = common_headers(self._incoming.request_id, self._incoming.started)
        shown = self._config.headers
        exchange = self._exchange
        if exchange is not None and exchange.model:
            headers.append(_header(b"x-mapped-model", exchange.model[:HEADER_CAP]))
            if shown.notes and (notes := exchange.notes):
                headers.append((b"x-oaicompat-notes", notes_header(notes)))
        if self._account and shown.account:
            headers.append(_header(b"x-account-email", self._account[:HEADER_CAP]))
        return headers


@lru_cache(512)
def _header(name: bytes, text: str) -> tuple[bytes, bytes]:
    return name, header_value(text)


def _forget_frames(error: BaseException) -> None:
    """Have an error that was told of hold no frames: they hold the request, and the answer holds the error."""
    told: BaseException | None = error
    while told is not None and told.__traceback__ is not None:
        told.__traceback__ = None
        told = told.__cause__ or told.__context__


async def _leased(attempts: Attempts) -> Lease:
    """Return the lease of the next attempt, once its credential is back or the wait for it was too long."""
    wait = attempts.wait(time.monotonic())
    while wait:
        await anyio.sleep(wait)
        wait = attempts.wait(time.monotonic())
    return attempts.next(time.monotonic())
