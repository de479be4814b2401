"""How many requests are worked on at once, and how many may wait for their turn.

One rule: a request is refused at once when the queue is full and after a short wait when it is not, with a
503 that asks for one more try; whoever leaves while waiting frees the place.
"""

from __future__ import annotations

from types import TracebackType

import anyio

from oaicompat.errors import OaicompatError


class Admission:
    """An async context manager that holds one slot of `slots`; at most `queue` wait up to `wait` seconds."""

    def __init__(self, slots: int, queue: int, wait: float) -> None:
        self._semaphore = anyio.Semaphore(slots, fast_acquire=True)
        self._slots = slots
        self._queue = queue
        self._wait = wait
        self.waiting = 0

    @property
    def active(self) -> int:
        """Return how many slots are taken."""
        return self._slots - self._semaphore.value

    async def __aenter__(self) -> None:
        try:
            self._semaphore.acquire_nowait()
            return
        except anyio.WouldBlock:
            if self.waiting >= self._queue:
                raise _busy() from None
        self.waiting += 1
        try:
            with anyio.move_on_after(self._wait) as scope:
                await self._semaphore.acquire()
        finally:
            self.waiting -= 1
        if scope.cancelled_caught:
            raise _busy()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._semaphore.release()


def _busy() -> OaicompatError:
    return OaicompatError(
        "The server is overloaded. Please try again in 1s.",
        status=503,
        type="service_unavailable_error",
        code="server_is_overloaded",
        retry_after=1.0,
    )
