"""Drives one exchange for one request: admission, credential, upstream, retries, the client's leaving.

One rule: until the first frame is written everything can be tried again; afterwards nothing is, and a
failure is told in-band. One task owns the work, another watches the client; whichever ends first cancels
the other, and cancellation closes the upstream connection before the credential is used again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable
from functools import partial

import anyio

from oaicompat.errors import ModelNotFoundError, OaicompatError, UpstreamError
from oaicompat.events import Frame
from oaicompat.exchange import Call, Exchange
from oaicompat.providers.gemini.endpoints import headers as endpoint_headers
from oaicompat_server.attempts import Attempts
from oaicompat_server.cuts import shutting_down
from oaicompat_server.framing import (
    Answer,
    Headers,
    Receive,
    Reply,
    Scope,
    Send,
    common_headers,
    header_value,
    notes_header,
)
from oaicompat_server.heartbeat import Heartbeat
from oaicompat_server.leaving import listen
from oaicompat_server.pool import Lease
from oaicompat_server.recall import Recall
from oaicompat_server.relay import Incoming, Relay, internal_error
from oaicompat_server.span import Span
from oaicompat_server.upstream import BODY_CAP

_TOLD_SECONDS = 1.0
_ERROR = b'"error"'
_CALLS_AT_ONCE = 8
"""Upstream calls of one request that may run together: it was admitted as one."""

Opening = Callable[[bool, Callable[[], Headers]], Reply]
"""Begins a reply: whether it is streamed, and what gives its headers once they are needed."""

logger = logging.getLogger("oaicompat")


async def serve(
    relay: Relay, incoming: Incoming, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer one HTTP request; returns when the answer is sent, or the client has left."""
    recall = partial(relay.recall, incoming.owner)
    session = Session(relay, incoming, recall, partial(Answer, send))
    ignore = listen(scope, receive, session.leave)
    try:
        await session.run()
    finally:
        ignore()
        session.stop()


class Session:
    """The work on one request.

    `recall` gives what finds and keeps what belongs to its client, and `opening` begins the reply. An
    `exchange` that is given goes on in the background.
    """

    def __init__(
        self,
        relay: Relay,
        incoming: Incoming,
        recall: Callable[[], Recall],
        opening: Opening,
        exchange: Exchange | None = None,
    ) -> None:
        self._relay = relay
        self._config = relay.settings.config
        self._incoming = incoming
        self._make_recall = recall
        self._recalled: Recall | None = None
        self._opening = opening
        self._span = Span()
        self._account = ""
        self._exchange = exchange
        self._detached = exchange is not None
        self._handed_over = False
        self._reply = opening(False, self._headers)
        self._deadline = 0.0
        self._heart: Heartbeat | None = None

    def leave(self) -> None:
        """Stop working: nobody is there to be answered."""
        self._span.end("left")

    async def run(self) -> None:
        """Do the work and answer; nothing but cancellation comes out of here."""
        cuts = self._relay.cuts
        with self._span as span:
            cuts.add(span)
            try:
                await self._work()
            finally:
                cuts.forget(span)
        if span.ended == "cut":
            with anyio.move_on_after(_TOLD_SECONDS):
                await self._fail(shutting_down())
        elif span.ended == "late":
            late = "The request took longer than allowed."
            await self._fail(UpstreamError(late, status=504, cause="network"))

    async def _work(self) -> None:
        try:
            exchange = self._exchange or await self._begin()
            if exchange.background and not self._detached:
                await self._detach(exchange)
                return
            self._reply = self._opening(exchange.streaming, self._headers)
            owner = self._incoming.owner
            if not self._relay.admission.take(owner):
                await self._relay.admission.acquire(owner)
            try:
                await self._within_deadline(exchange)
            finally:
                self._relay.admission.release(owner)
        except OaicompatError as error:
            await self._fail(error)
            _forget_frames(error)
        except Exception:
            logger.exception(
                "request %s failed by a fault of the gateway", self._incoming.request_id
            )
            await self._fail(internal_error(self._incoming.request_id))

    async def abort(self, error: OaicompatError) -> None:
        """End an answer whose work was cancelled."""
        await self._fail(error)

    async def _begin(self) -> Exchange:
        """Decode the request, with what it wants from outside."""
        self._exchange = exchange = await self._relay.exchange(self._incoming)
        while wanted := exchange.needs():
            await self._relay.supply(exchange, await self._recall().find(wanted))
        return exchange

    def _recall(self) -> Recall:
        if self._recalled is None:
            self._recalled = self._make_recall()
        return self._recalled

    async def _detach(self, exchange: Exchange) -> None:
        """Leave the work to the background; answer with what is known, or follow it where that is wanted."""
        run = await self._relay.background.start(self._incoming, exchange, self._recall())
        if self._incoming.release is not None:
            self._incoming.release()
        self._exchange = None
        self._handed_over = True
        self._relay.cuts.follow(self._span)
        self._reply = self._opening(exchange.followed, self._headers)
        if not exchange.followed:
            await self._reply.write((Frame(run.body),))
            return
        async for frames in run.follow(-1, self._config.answer.keepalive):
            await self._reply.write(frames)
        await self._reply.end()

    async def _within_deadline(self, exchange: Exchange) -> None:
        settings = self._config.upstream
        total = settings.total_timeout_stream if exchange.streaming else settings.total_timeout
        self._deadline = time.monotonic() + total
        self._span.limit(total)
        while calls := exchange.calls():
            if len(calls) == 1:
                await self._call(exchange, calls[0])
            else:
                await self._all(exchange, calls)
        self._span.unlimit()
        await self._write(exchange.conclude())
        if not self._reply.ended:
            await self._reply.end()

    async def _all(self, exchange: Exchange, calls: Iterable[Call]) -> None:
        """Run several calls at once; the first failure cancels the others and is the answer's."""
        failures: list[Exception] = []
        places = anyio.Semaphore(_CALLS_AT_ONCE)

        async def one(call: Call) -> None:
            try:
                async with places:
                    await self._call(exchange, call)
            except Exception as failure:
                failures.append(failure)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(one, call)
        if failures:
            raise failures[0]

    async def _call(self, exchange: Exchange, call: Call) -> None:
        """Run one call to its end, over as many attempts as the rules allow.

        All of them go by the settings in force at its beginning: a key is shown only where it was set for.
        """
        settings = self._relay.settings
        base_url = settings.config.upstream.base_url
        with Attempts(
            settings.pool,
            settings.policy,
            (call.model, *call.fallbacks),
            deadline=self._deadline,
            jitter=random.random,
            sticky=self._relay.sticky(exchange, self._incoming),
            owner=self._incoming.owner,
        ) as attempts:
            while True:
                lease = attempts.lease(time.monotonic()) or await _leased(attempts)
                try:
                    await self._attempt(exchange, call, lease, base_url, attempts.sentinel)
                except (UpstreamError, ModelNotFoundError) as error:
                    attempts.failed(time.monotonic(), error)
                    if exchange.call_committed(call) or self._reply.ended:
                        raise
                    delay = attempts.delay(time.monotonic())
                    _forget_frames(error)
                    if delay:
                        await anyio.sleep(delay)
                else:
                    attempts.succeeded(time.monotonic())
                    return

    async def _attempt(
        self, exchange: Exchange, call: Call, lease: Lease, base_url: str, sentinel: bool
    ) -> None:
        credential = lease.credential
        self._account = lease.slot.account
        proof = await credential.proof()
        target = credential.target(base_url, lease.model)
        request = exchange.begin_attempt(call, target, sentinel=sentinel)
        lines = endpoint_headers(target, proof.reveal(), credential.payer)
        limit = None if exchange.streaming else BODY_CAP
        try:
            opened = self._relay.upstream.open(request, lines, limit, credential.proxy)
            async with opened as response:
                exchange.receive_head(call, response.status, response.headers)
                while data := await response.read():
                    # Who fails may repeat what it was shown; an answer is not changed.
                    if _ERROR in data:
                        data = proof.kept_out_of_bytes(data)
                    frames = exchange.feed(call, data)
                    if frames:
                        await self._write(frames)
                    if exchange.failed is not None:
                        break
            await self._write(exchange.close(call))
            failure = exchange.failure(call)
            if failure is not None:
                raise failure
        except OaicompatError as error:
            proof.keep_out_of(error)
            raise

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
        del self._reply, self._opening, self._make_recall, self._recalled

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
            headers.append((b"x-mapped-model", header_value(exchange.model)))
            if shown.notes and (notes := exchange.notes):
                headers.append((b"x-oaicompat-notes", notes_header(notes)))
        if self._account and shown.account:
            headers.append((b"x-account-email", header_value(self._account)))
        return headers


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
