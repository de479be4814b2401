"""The span of one task's work, which others may end: a client that leaves, a deadline, a shutdown.

One rule: a span is ended once, for the first reason there is, by one cancellation of its task; what the task
does about it, cleaning up included, is not cancelled again. It costs a fraction of a scope that nests.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Literal

Reason = Literal["left", "late", "cut"]
"""Why: the client left, the time is over, the gateway stops."""


class Span:
    """A context of the task that enters it; `ended` tells afterwards, and during it, for which reason."""

    __slots__ = ("_before", "_cancelled", "_loop", "_task", "_timer", "ended")

    def __init__(self) -> None:
        self.ended: Reason | None = None
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._before = 0
        self._cancelled = False

    def end(self, reason: Reason) -> None:
        """End the work for this reason; the first one counts. What has not begun is ended as it begins."""
        if self.ended is None:
            self.ended = reason
            if self._task is not None:
                # Not at once: a task that is running cannot be told where it is.
                self._loop.call_soon(self._cancel)

    def limit(self, seconds: float) -> None:
        """End the work as late after so many seconds, unless `unlimit` comes before."""
        self._timer = self._loop.call_later(seconds, self.end, "late")

    def unlimit(self) -> None:
        """Take the limit back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()

    def __enter__(self) -> Span:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._loop = task.get_loop()
        self._before = task.cancelling()
        if self.ended is not None:
            self._loop.call_soon(self._cancel)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        task, self._task = self._task, None
        self.unlimit()
        if task is None or not self._cancelled:
            return False
        # Somebody else may have cancelled the task as well, and means more than this span.
        alone = task.uncancel() <= self._before
        return alone and kind is not None and issubclass(kind, asyncio.CancelledError)
