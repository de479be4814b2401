"""Signatures in memory, with the store behind it, so that they outlive a process and are shared.

One rule: no request waits for what is kept, nor fails for a store that does: memory has it at once, the store
in batches soon after, and is asked only for what memory does not have. Of a signature nothing is logged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice

from oaicompat.messages import Signature
from oaicompat_server.beside import beside
from oaicompat_server.store import KeptSignature, SignatureStore, Store, StoreError
from oaicompat_server.store.memory import MemoryStore

BEHIND_SECONDS = 0.1
"""How long after it was remembered a signature is in the store."""

_TOGETHER = 256
_MOST_WAITING = 20_000
_MOST_ASKED = 1000
_ASKING_SECONDS = 1.0
_ENDING_SECONDS = 1.0
_RESTING_SECONDS = 5.0

logger = logging.getLogger("oaicompat")


class _Way:
    """One way to the store: it rests after a failure, which is told once until it works again."""

    def __init__(self, done: str) -> None:
        self._done = done
        self._failing = False
        self._rests_until = 0.0

    def rest(self) -> float:
        """Return for how many seconds it still rests."""
        return max(0.0, self._rests_until - time.monotonic())

    def works(self) -> None:
        """Note that it does."""
        self._failing = False

    def failed(self, error: Exception) -> None:
        """Note that it does not."""
        self._rests_until = time.monotonic() + _RESTING_SECONDS
        told, self._failing = self._failing, True
        if told:
            return
        match error:
            case StoreError():
                logger.warning("signatures are not %s in the store: %s", self._done, error)
            case TimeoutError():
                logger.warning("signatures are not %s in the store in time", self._done)
            case _:
                why = "signatures are not %s in the store by a fault of the gateway"
                logger.error(why, self._done, exc_info=error)


class Signatures:
    """Remembers signatures of calls; kept in a store as long as `kept_in` lasts."""

    def __init__(self, memory: SignatureStore | None = None) -> None:
        self._memory = SignatureStore() if memory is None else memory
        self._store: Store | None = None
        # Names alone: what memory has let go of meanwhile is not kept, so that its bounds are these, too.
        self._waiting: dict[tuple[str, str], None] = {}
        self._news = asyncio.Event()
        self._keeping = _Way("kept")
        self._finding = _Way("found")

    def remember(self, owner: str, call_id: str, signature: Signature) -> None:
        """Keep the signature of a call."""
        self._memory.remember(owner, call_id, signature, time.monotonic())
        if self._store is not None:
            self._wait(owner, call_id)

    async def find(self, owner: str, call_ids: Sequence[str]) -> dict[str, Signature]:
        """Return the signatures that are kept for these calls of this owner."""
        found = self._memory.find(owner, call_ids, time.monotonic())
        if self._store is None or len(found) == len(call_ids):
            return found
        missing = [each for each in dict.fromkeys(call_ids) if each not in found]
        # The latest are those that the upstream insists on.
        there = await self._stored(self._store, owner, missing[-_MOST_ASKED:])
        for call_id, signature in there.items():
            # What was remembered meanwhile is newer.
            if self._memory.get(owner, call_id, time.monotonic()) is None:
                self._memory.remember(owner, call_id, signature, time.monotonic())
        return found | there

    @asynccontextmanager
    async def kept_in(self, store: Store, every: float = BEHIND_SECONDS) -> AsyncIterator[None]:
        """Keep in `store`, too, what is remembered; what is not in it by the end is written then.

        A store in this process's memory would keep it twice, and is left alone.
        """
        if isinstance(store, MemoryStore):
            yield
            return
        self._store = store
        try:
            async with beside(self._follow(store, every)):
                yield
        finally:
            self._store = None
            try:
                async with asyncio.timeout(_ENDING_SECONDS):
                    await self._flush(store)
            except Exception as error:
                self._keeping.failed(error)

    def _wait(self, owner: str, call_id: str) -> None:
        self._waiting[owner, call_id] = None
        if len(self._waiting) > _MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._news.set()

    async def _stored(self, store: Store, owner: str, ids: Sequence[str]) -> dict[str, Signature]:
        if not ids or self._finding.rest():
            return {}
        try:
            async with asyncio.timeout(_ASKING_SECONDS):
                found = await store.find_signatures(owner, ids, time.time())
        except Exception as error:
            self._finding.failed(error)
            return {}
        self._finding.works()
        return found

    async def _follow(self, store: Store, every: float) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(max(every, self._keeping.rest()))
            self._news.clear()
            try:
                await self._flush(store)
            except Exception as error:
                self._keeping.failed(error)

    async def _flush(self, store: Store) -> None:
        """Write what waits; what is not written waits on."""
        while self._waiting:
            names = list(islice(self._waiting, _TOGETHER))
            rows = self._rows(names)
            for name in names:
                del self._waiting[name]
            try:
                await store.keep_signatures(rows, time.time())
            except BaseException:
                for name in names:
                    self._wait(*name)
                raise
            self._keeping.works()

    def _rows(self, names: Sequence[tuple[str, str]]) -> list[KeptSignature]:
        now = time.monotonic()
        return [
            KeptSignature(owner, call_id, signature)
            for owner, call_id in names
            if (signature := self._memory.get(owner, call_id, now)) is not None
        ]
