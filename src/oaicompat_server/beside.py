"""Work that goes on beside something else, and no longer than that; works that go on together.

One rule: who leaves the context waits until the work has ended, so that nothing it used is closed under it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` in a task as long as the context lasts, then cancel it; raises what it failed with."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def finished(work: Awaitable[T]) -> T:
    """Return what `work` gives, and never leave before it has ended: a thread goes on for who is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise


async def together(works: Iterable[Callable[[], Awaitable[None]]], most: int) -> None:
    """Do works at once, at most so many at a time; raises what failed first, once the others were cancelled.

    Nothing of them outlives the call: a task group that is cancelled keeps its tasks in a cycle, and with them
    whole requests until the garbage collector comes by.
    """
    places = anyio.Semaphore(most)

    async def one(work: Callable[[], Awaitable[None]]) -> None:
        async with places:
            await work()

    tasks = [asyncio.get_running_loop().create_task(one(work)) for work in works]
    failure: BaseException | None = None
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            failure = next(filter(None, map(_failure, tasks)), None)
    finally:
        await _ended(tasks)
        tasks.clear()
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their ends; what they failed with was told, or is of no interest any more."""
    for task in tasks:
        task.cancel()
    if any(not task.done() for task in tasks):
        with anyio.CancelScope(shield=True):
            await asyncio.wait(tasks)
    for task in tasks:
        _failure(task)
