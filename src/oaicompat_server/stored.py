"""Stored responses as they are seen by those who ask later: ended, running, or lost.

One rule: a response that runs in this gateway is asked itself, any other one the store; one whose claim has
run out is given up, and stored as failed, so that everybody sees the same from then on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from oaicompat.dialects.responses.broken import broken_off, cancelled, error_frame
from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat.events import Frame
from oaicompat_server.store import Store, StoredResponse

_FIRST_WAIT = 0.05
_LONGEST_WAIT = 1.0
_SILENCE = Frame(b": keepalive")


class Run(Protocol):
    """A response that is made in this gateway."""

    @property
    def body(self) -> bytes:
        """Return the Response object, as its client was told of it last."""
        ...

    def follow(self, after: int, idle: float) -> AsyncIterator[tuple[Frame, ...]]:
        """Yield its frames whose sequence is greater than `after`; a comment after `idle` silent seconds."""
        ...

    async def cancel(self) -> bytes:
        """End it as cancelled; return the Response object."""
        ...


class Runs(Protocol):
    """The responses that are made in this gateway."""

    def find(self, owner: str, response_id: str) -> Run | None:
        """Return one that has not ended."""
        ...


class _Told(Struct):
    background: bool | None = None


def in_background(response: StoredResponse) -> bool:
    """Tell whether the client of a response did not wait for it."""
    return bool(msgspec.json.decode(response.body, type=_Told).background)


class Stored:
    """The stored responses of one owner. Methods raise `StoreError` as the store does."""

    def __init__(self, store: Store, runs: Runs, owner: str) -> None:
        self._store = store
        self._runs = runs
        self._owner = owner

    async def find(self, response_id: str) -> StoredResponse | None:
        """Return a response; a lost one as failed."""
        response = await self._store.find(self._owner, response_id)
        if response is None or not self._is_lost(response):
            return response
        return await self._break_off(response, interrupted())

    async def cancel(self, response: StoredResponse) -> bytes | None:
        """End a response as cancelled and return the Response object; one that has ended stays as it is.

        One that runs in another gateway ends there as soon as that one notices. None where it was deleted.
        """
        if not response.running_until:
            return response.body
        run = self._runs.find(self._owner, response.id)
        if run is not None:
            return await run.cancel()
        error = OaicompatError("The response was cancelled.", status=500, code="cancelled")
        ended = await self._break_off(response, error, wanted=True)
        return None if ended is None else ended.body

    def follow(
        self, response: StoredResponse, after: int, idle: float
    ) -> AsyncIterator[tuple[Frame, ...]]:
        """Yield the frames of a response whose sequence is greater than `after`, until its end.

        After `idle` seconds of silence comes a comment. Nothing is yielded of a response without frames.
        """
        run = self._runs.find(self._owner, response.id) if response.running_until else None
        return self._poll(response, after, idle) if run is None else run.follow(after, idle)

    async def _poll(
        self, response: StoredResponse, after: int, idle: float
    ) -> AsyncIterator[tuple[Frame, ...]]:
        watched: StoredResponse | None = response
        wait, moved = _FIRST_WAIT, time.monotonic()
        while True:
            frames = await self._store.frames(self._owner, response.id, after)
            if frames:
                yield frames
                after = max(after, *(frame.sequence for frame in frames))
                wait, moved = _FIRST_WAIT, time.monotonic()
            if watched is None:
                yield (error_frame(not_found(response.id), after + 1),)
                return
            if (frames and frames[-1].sequence < 0) or not watched.running_until:
                return
            if time.monotonic() >= moved + idle:
                yield (_SILENCE,)
                moved = time.monotonic()
            await asyncio.sleep(min(wait, idle))
            wait = min(wait * 1.5, _LONGEST_WAIT)
            # What has ended by now has all its frames when they are read next.
            watched = await self.find(response.id)

    def _is_lost(self, response: StoredResponse) -> bool:
        return (
            0 < response.running_until < time.time()
            and self._runs.find(self._owner, response.id) is None
        )

    async def _break_off(
        self, response: StoredResponse, error: OaicompatError, *, wanted: bool = False
    ) -> StoredResponse | None:
        """End a response in the store, and return it as it is there then."""
        frames = await self._store.frames(self._owner, response.id, -1)
        broken = broken_off(response.body, frames, error)
        ended = replace(
            response,
            body=cancelled(broken.body) if wanted else broken.body,
            output=broken.output,
            conversation="",
            running_until=0.0,
        )
        if await self._store.save(self._owner, ended, broken.frames, time.time()):
            return ended
        return await self._store.find(self._owner, response.id)


def interrupted() -> OaicompatError:
    """Return the error of a response whose making stopped, nobody knows why."""
    return OaicompatError("The response was interrupted.", status=500, code="interrupted")


def not_found(response_id: str) -> OaicompatError:
    """Return the error for a response that is not there."""
    return InvalidRequestError(f"Response with id '{response_id}' not found.", status=404)
