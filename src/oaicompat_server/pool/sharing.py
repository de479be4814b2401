"""Cooldowns that outlive a process, and those that several processes share.

One rule: only what every process would find out for itself by hammering a limit is shared, that is limits and
overloads; a denial or an invalid key is found out anew, since a restart is how it is put right. Rows name
their subject by a digest, and hold no secret.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from oaicompat.errors import UpstreamError
from oaicompat_server.beside import beside
from oaicompat_server.pool.cells import LONGEST, Cell, CellKind
from oaicompat_server.store import StoreError
from oaicompat_server.store.cooldowns import Cooldown, CooldownStore

SHARE_SECONDS = 0.5
"""News takes up to two of these: one until it is told, one until it is heard."""

_SAME_SECONDS = 0.5
_FORMER_POOLS = 4

logger = logging.getLogger("oaicompat")


def cooldown_of(key: tuple[str, CellKind, str], cell: Cell, now: float) -> Cooldown | None:
    """Return the row of a cell that rests and is to be shared, else None."""
    subject, kind, model = key
    error = cell.reason
    if kind == "denial" or cell.until <= now or error is None:
        return None
    return Cooldown(
        subject,
        kind,
        model,
        cell.until - now,
        cell.failures,
        error.cause,
        error.status,
        error.type,
        error.code or "",
        error.message,
    )


def cell_of(row: Cooldown, now: float, number: int) -> Cell:
    """Return the cell that a row describes, as if it had failed at event `number`."""
    cell = Cell()
    cell.until = now + min(row.rest, LONGEST)
    cell.failures = row.failures
    cell.failed = number
    cell.reason = UpstreamError(
        row.message,
        status=row.status,
        type=row.type,
        code=row.code or None,
        retryable=True,
        cause=row.cause,
        should_retry=False if row.cause == "quota" else None,
        upstream_status=row.status,
    )
    return cell


class Sharing:
    """Keeps a pool and a store of cooldowns alike."""

    def __init__(self, pool: Exporting, store: CooldownStore) -> None:
        self.pool = pool
        self._former: deque[Exporting] = deque(maxlen=_FORMER_POOLS)
        self._store = store
        self._known: dict[tuple[str, str, str], float] = {}

    def replace(self, pool: Exporting) -> None:
        """Go on with another pool; what calls that still run find out about the former one is its, too."""
        self._former.append(self.pool)
        self.pool = pool

    async def exchange(self, now: float, wall: float) -> None:
        """Publish what is new here and take over what is new there; raises `StoreError`.

        `now` is the pool's time, `wall` Unix seconds. A row that was seen before is not taken again: what
        ended it here, a success or a reset, is later news.
        """
        self._known = {name: until for name, until in self._known.items() if until > wall}
        rows = [row for pool in (self.pool, *self._former) for row in pool.export(now)]
        if news := self._new(rows, wall):
            self.pool.adopt(news, now)
            await self._store.put(news, wall)
        self.pool.adopt(self._new(await self._store.all(wall), wall), now)

    async def reset(self, account: str = "", model: str = "") -> None:
        """Reset the pool, and what is shared where all of it is meant; raises `StoreError`."""
        self.forget(account, model)
        if not account and not model:
            await self._store.clear()

    def forget(self, account: str = "", model: str = "") -> None:
        """Reset the pool alone; somebody else has seen to what is shared."""
        for pool in (self.pool, *self._former):
            pool.reset(account, model)

    def _new(self, rows: Sequence[Cooldown], wall: float) -> list[Cooldown]:
        news = [row for row in rows if wall + row.rest > self._seen(row) + _SAME_SECONDS]
        self._known |= {row.name: wall + row.rest for row in news}
        return news

    def _seen(self, row: Cooldown) -> float:
        return self._known.get(row.name, 0.0)


class Exporting(Protocol):
    """The part of a pool that is shared."""

    def export(self, now: float) -> tuple[Cooldown, ...]:
        """Return the cooldowns to share."""
        ...

    def adopt(self, rows: Sequence[Cooldown], now: float) -> None:
        """Take over cooldowns."""
        ...

    def reset(self, account: str = "", model: str = "") -> None:
        """Forget cooldowns."""
        ...


@asynccontextmanager
async def shared(
    sharing: Sharing,
    *,
    every: float = SHARE_SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> AsyncIterator[None]:
    """Exchange cooldowns at once, `every` so many seconds, and at the end; a store that fails is no failure."""
    failing = False

    async def exchange() -> None:
        nonlocal failing
        try:
            await sharing.exchange(monotonic(), wall())
        except StoreError as error:
            if not failing:
                logger.warning("cooldowns are not shared: %s", error)
            failing = True
        else:
            failing = False

    async def repeat() -> None:
        while True:
            await asyncio.sleep(every)
            await exchange()

    await exchange()
    try:
        async with beside(repeat()):
            yield
    finally:
        await exchange()
