"""The span of one task's work, which others may end: a client that leaves, a deadline, a shutdown.

One rule: a span is ended once, for the first reason there is, by one cancellation of its task; what the task
does about it, cleaning up included, is not cancelled again. It costs a fraction of a scope that nests, and its
deadline none of its own: one timer looks after all spans, now and then.
"""

from __future__ import annotations

import asyncio
import time
from math import inf
from types import TracebackType
from typing import Literal

Reason = Literal["left", "late", "cut"]
"""Why: the client left, the time is over, the gateway stops."""

_BETWEEN_LOOKS = 0.02
"""Seconds by which a deadline may be late, so that many of them are one wake-up."""


class Spans:
    """The spans of one event loop that have begun and not ended; whatever begins once it is `over` is cut.

    Loops may use it one after the other, not at once: a span asks its loop for the task that it is to end.
    `next_look` is when the timer looks for what is late, on the monotonic clock.
    """

    __slots__ = ("_timer", "loop", "next_look", "over", "running")

    def __init__(self) -> None:
        self.running: set[Span] = set()
        self.over = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.next_look = inf
        self._timer: asyncio.TimerHandle | None = None

    def cut(self) -> None:
        """Cut all, and whatever begins from now on."""
        self.over = True
        for span in list(self.running):
            span.end("cut")

    def moved(self) -> asyncio.Task[object]:
        """Go on in the loop that runs; return its task."""
        self.loop = asyncio.get_running_loop()
        self.next_look, self._timer = inf, None
        task = asyncio.current_task(self.loop)
        assert task is not None
        return task

    def look_at(self, due: float, now: float) -> None:
        """Have the timer look at this time, for a deadline that is before all it knows."""
        if self._timer is not None:
            self._timer.cancel()
        assert self.loop is not None
        self.next_look = due
        self._timer = self.loop.call_later(max(0.0, due - now), self._look)

    def _look(self) -> None:
        """End what is late, and look again when the next one will be."""
        self._timer, self.next_look, now = None, inf, time.monotonic()
        upcoming = inf
        for span in self.running:
            if span.due <= now:
                span.end("late")
            elif span.due < upcoming:
                upcoming = span.due
        if upcoming < inf:
            self.look_at(max(upcoming, now + _BETWEEN_LOOKS), now)


class Span:
    """A context of the task that enters it, one of `spans` meanwhile; `ended` tells for which reason.

    `due` is its deadline on the monotonic clock: `limit` sets it, `unlimit` takes it back.
    """

    __slots__ = ("_before", "_cancelled", "_spans", "_task", "due", "ended")

    def __init__(self, spans: Spans) -> None:
        self.ended: Reason | None = None
        self.due = inf
        self._spans = spans
        self._task: asyncio.Task[object] | None = None
        self._before = 0
        self._cancelled = False

    def end(self, reason: Reason) -> None:
        """End the work for this reason; the first one counts. What has not begun is ended as it begins."""
        if self.ended is None:
            self.ended = reason
            if self._task is not None:
                self._cancel_soon(self._task)

    def limit(self, due: float) -> None:
        """End the work as late at this time or a little later, unless `unlimit` comes before."""
        self.due = due
        if due < self._spans.next_look:
            self._spans.look_at(due, time.monotonic())

    def unlimit(self) -> None:
        """Take the limit back."""
        self.due = inf

    def move(self, spans: Spans) -> None:
        """Be one of these from now on, without a deadline."""
        self._spans.running.discard(self)
        self.due = inf
        self._spans = spans
        spans.running.add(self)
        if spans.over:
            self.end("cut")

    def _cancel_soon(self, task: asyncio.Task[object]) -> None:
        # Not at once: a task that is running cannot be told where it is.
        task.get_loop().call_soon(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancelled = True
            self._task.cancel()

    def __enter__(self) -> Span:
        spans = self._spans
        # To find the loop is a system call, so it is asked for the task of the one known before.
        task = None if spans.loop is None else asyncio.current_task(spans.loop)
        self._task = task = task or spans.moved()
        self._before = task.cancelling()
        spans.running.add(self)
        if self.ended is not None:
            self._cancel_soon(task)
        elif spans.over:
            self.end("cut")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        task, self._task = self._task, None
        self._spans.running.discard(self)
        if task is None or not self._cancelled:
            return False
        # Somebody else may have cancelled the task as well, and means more than this span.
        alone = task.uncancel() <= self._before
        return alone and kind is not None and issubclass(kind, asyncio.CancelledError)
