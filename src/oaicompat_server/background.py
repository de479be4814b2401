"""Responses whose client does not wait: they run here, and whoever asks follows them.

One rule: a run is in the store before its client hears of it, and its ending is there before anybody is told.
A run renews its claim while it lives, so that a gateway that died is found out; one that was ended or deleted
meanwhile, by whatever gateway, stops.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import anyio
from msgspec.structs import replace

from oaicompat.dialects.responses.broken import cancelled
from oaicompat.errors import OaicompatError
from oaicompat.events import Frame
from oaicompat.exchange import Exchange
from oaicompat.supplies import Effect, KeepResponse, Needs, Supplies
from oaicompat_server.bodies import counted
from oaicompat_server.framing import Headers
from oaicompat_server.recall import (
    LEASE_SECONDS,
    Recall,
    conversation_gone,
    stored_response,
    unavailable,
)
from oaicompat_server.relay import Incoming, Relay
from oaicompat_server.session import Session
from oaicompat_server.store import Store, StoreError
from oaicompat_server.stored import interrupted

_FLUSH_SECONDS = 0.5
_RENEW_SECONDS = LEASE_SECONDS / 4
_STOP_SECONDS = 5.0
_CANCELLED = "cancelled"
_SILENCE = Frame(b": keepalive")

logger = logging.getLogger("oaicompat")


class Background:
    """The responses that run in this gateway, by owner and id."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._runs: dict[tuple[str, str], Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, incoming: Incoming, exchange: Exchange, recall: Recall) -> Run:
        """Begin to answer; return the run once it is stored. Raises `OaicompatError` where it cannot be."""
        frames = exchange.announce()
        (begun,) = (each for each in exchange.effects() if isinstance(each, KeepResponse))
        await recall.keep([begun])
        run = Run(self._relay, incoming, exchange, recall, begun, frames)
        key = (incoming.owner, begun.id)
        self._runs[key] = run
        task = asyncio.get_running_loop().create_task(run.main())
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._forget(key, done))
        return run

    def _forget(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._runs.pop(key, None)

    def find(self, owner: str, response_id: str) -> Run | None:
        """Return a run of this gateway that has not ended."""
        return self._runs.get((owner, response_id))

    async def aclose(self) -> None:
        """Stop what runs; each ends as a failed response that says so."""
        for run in self._runs.values():
            run.stop("The gateway was shut down before the response was complete.", "interrupted")
        if self._tasks:
            with anyio.move_on_after(_STOP_SECONDS):
                await asyncio.wait(self._tasks)


class Run:
    """One response that is made in the background; satisfies `Reply` for the session that makes it.

    `body` is the Response object as its client is told of it.
    """

    def __init__(
        self,
        relay: Relay,
        incoming: Incoming,
        exchange: Exchange,
        recall: Recall,
        begun: KeepResponse,
        frames: Sequence[Frame],
    ) -> None:
        self.body = begun.body
        self.started = True
        self.ended = False
        self._store: Store = relay.store
        self._bodies = relay.bodies
        self._held = counted(len(incoming.body))
        self._bodies.keep(self._held)
        self._owner = incoming.owner
        self._id = begun.id
        self._recall = recall
        self._exchange = exchange
        self._frames = list(frames)
        self._kept = len(self._frames)
        self._renewed = time.monotonic()
        self._lock = anyio.Lock()
        self._changed = anyio.Event()
        self._scope = anyio.CancelScope()
        self._stopped: OaicompatError | None = None
        self._session = Session(relay, incoming, self, self, exchange)

    async def main(self) -> None:
        """Run to the end."""
        keeper = asyncio.get_running_loop().create_task(self._keep_up())
        try:
            with self._scope:
                await self._session.run()
            if not self.ended:
                await self._session.abort(self._stopped or interrupted())
        except Exception:
            logger.exception("background response %s failed by a fault of the gateway", self._id)
        finally:
            self._session.stop()
            self._bodies.give(self._held)
            keeper.cancel()
            self.ended = True
            self._tell()

    def stop(self, message: str, code: str) -> None:
        """End the response as failed for this reason, or as cancelled."""
        self._stopped = OaicompatError(message, status=500, type="server_error", code=code)
        self._scope.cancel()

    async def cancel(self) -> bytes:
        """End the response as cancelled; return it."""
        self.stop("The response was cancelled.", _CANCELLED)
        while not self.ended:
            await self._changed.wait()
        return self.body

    async def follow(self, after: int, idle: float) -> AsyncIterator[tuple[Frame, ...]]:
        """Yield the frames whose sequence is greater than `after`, as they come, until the end.

        After `idle` seconds of silence comes a comment.
        """
        position = 0
        while True:
            changed = self._changed
            frames = self._frames[position:]
            position += len(frames)
            wanted = tuple(each for each in frames if each.sequence < 0 or each.sequence > after)
            if wanted:
                yield wanted
            elif self.ended:
                return
            else:
                with anyio.move_on_after(idle) as silence:
                    await changed.wait()
                if silence.cancelled_caught:
                    yield (_SILENCE,)

    def open(self, streaming: bool, headers: Callable[[], Headers]) -> None:
        """Do nothing: events are kept however they are asked for later."""

    async def write(self, frames: Sequence[Frame]) -> None:
        """Take frames; those who follow get them at once, the store soon."""
        self._frames += frames
        self._tell()

    async def end(self) -> None:
        """Take the end."""
        self.ended = True
        self._tell()

    async def fail(self, error: OaicompatError, frames: Sequence[Frame]) -> None:
        """Take the frames of a failure."""
        await self.write(frames)
        await self.end()

    async def find(self, wanted: Needs) -> Supplies:
        """Return what is there of what is wanted."""
        return await self._recall.find(wanted)

    async def keep(self, effects: Iterable[Effect]) -> None:
        """Keep what the answer leaves; of the response itself what is not kept yet."""
        for effect in effects:
            if isinstance(effect, KeepResponse):
                await self._finish(effect)
            else:
                await self._recall.keep([effect])

    def release(self) -> None:
        """Let go of what was found."""
        self._recall.release()

    async def _finish(self, effect: KeepResponse) -> None:
        if self._stopped is not None and self._stopped.code == _CANCELLED:
            effect = replace(effect, body=cancelled(effect.body))
        async with self._lock:
            frames = effect.frames[self._kept :]
            now = time.time()
            conversation = "" if effect.failed else effect.conversation
            response = stored_response(effect, conversation, now)
            try:
                kept = await self._store.save(self._owner, response, frames, now)
            except StoreError as error:
                raise unavailable(error) from error
            if conversation and not kept:
                raise conversation_gone(conversation)
            self._kept = len(effect.frames)
            self.body = effect.body

    async def _keep_up(self) -> None:
        """Bring frames to the store now and then, and renew the claim."""
        while not self.ended:
            await asyncio.sleep(_FLUSH_SECONDS)
            async with self._lock:
                await self._flush()

    async def _flush(self) -> None:
        frames = self._frames[self._kept :]
        if not frames and time.monotonic() < self._renewed + _RENEW_SECONDS:
            return
        try:
            running = await self._store.append(
                self._owner, self._id, frames, time.time() + LEASE_SECONDS
            )
        except StoreError as error:
            logger.warning("background response %s: %s", self._id, error)
            return
        except Exception:
            # Without a claim that is renewed other gateways would call the response lost.
            logger.exception("background response %s is not kept up", self._id)
            return
        self._renewed = time.monotonic()
        self._kept += len(frames)
        if not running and not self.ended:
            self.stop("The response was ended elsewhere.", _CANCELLED)

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
