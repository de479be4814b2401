"""A thread that does one kind of work, job by job, for coroutines that wait.

One rule: a job that was begun is finished, whether its caller still waits or not; one that was not begun is
left out when its caller goes away. What waits is handed over together.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from oaicompat_server.store import StoreError

On = TypeVar("On")
T = TypeVar("T")

_TOGETHER = 64


class Job(Generic[On]):
    """Something to do on `On`, and the future of its result."""

    def __init__(self, call: Callable[[On], Any]) -> None:
        self.call = call
        self.future: Future[Any] = Future()


class Worker(Generic[On]):
    """Runs jobs in a thread of its own; `run` does those that wait, and settles their futures."""

    def __init__(
        self, name: str, run: Callable[[Sequence[Job[On]]], None], end: Callable[[], None]
    ) -> None:
        self._run = run
        self._end = end
        self._queue: SimpleQueue[Job[On] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        # A daemon: a process that ends without closing the store must not wait for it.
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    async def do(self, call: Callable[[On], T]) -> T:
        """Run a job and return its result; raises what it raises, and `StoreError` once closed."""
        job = Job(call)
        with self._lock:
            if self._closed:
                raise StoreError("it is closed")
            self._queue.put(job)
        result: T = await asyncio.wrap_future(job.future)
        return result

    def close(self) -> None:
        """Finish what waits, and wait for that."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _main(self) -> None:
        ending = False
        while not ending:
            jobs, ending = self._waiting()
            begun = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            try:
                if begun:
                    self._run(begun)
            except BaseException as error:
                for job in begun:
                    if not job.future.done():
                        job.future.set_exception(error)
        self._end()

    def _waiting(self) -> tuple[list[Job[On]], bool]:
        """Return the jobs that wait, at least one, or that there will be no more."""
        jobs: list[Job[On]] = []
        try:
            job = self._queue.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) == _TOGETHER:
                    return jobs, False
                job = self._queue.get_nowait()
        except Empty:
            return jobs, False
        return jobs, True
