"""Keeping a silent stream alive.

One rule: a stream that moves costs nothing here but a time that is noted; the timer looks at it when it is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Heartbeat:
    """Awaits `beat` whenever nothing has `moved` for `interval` seconds, until `stop`.

    `moved` is a time on the monotonic clock, kept up by whoever writes.
    """

    def __init__(self, interval: float, beat: Callable[[], Awaitable[None]]) -> None:
        self.moved = time.monotonic()
        self._interval = interval
        self._beat = beat
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(interval, self._look)

    def stop(self) -> None:
        """Stop, in the middle of a beat too."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _look(self) -> None:
        wait = self.moved + self._interval - time.monotonic()
        if wait > 0:
            self._timer = self._loop.call_later(wait, self._look)
        else:
            self._task = self._loop.create_task(self._once())

    async def _once(self) -> None:
        await self._beat()
        self._task = None
        self.moved = time.monotonic()
        self._timer = self._loop.call_later(self._interval, self._look)
