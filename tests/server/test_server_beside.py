"""Work that goes on beside something else, and work that is waited for to its end."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import suppress
from functools import partial

import anyio
import pytest

from oaicompat_server.beside import beside, finished, together


def test_work_has_ended_when_the_context_is_left() -> None:
    said: list[str] = []

    async def work() -> None:
        try:
            said.append("begun")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            said.append("ended")

    async def run() -> None:
        async with beside(work()):
            await asyncio.sleep(0)
            assert said == ["begun"]
        assert said == ["begun", "ended"]

    asyncio.run(run())


def test_a_failure_of_the_work_is_raised_at_the_end() -> None:
    async def work() -> None:
        raise RuntimeError("broken")

    async def run() -> None:
        async with beside(work()):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(run())


def test_what_work_gives_is_returned_and_what_it_raises_comes_out() -> None:
    async def failing() -> None:
        raise KeyError

    async def work() -> None:
        assert await finished(asyncio.sleep(0, "done")) == "done"
        with pytest.raises(KeyError):
            await finished(failing())

    asyncio.run(work())


@pytest.mark.parametrize("fails", [False, True])
def test_a_thread_is_waited_for_by_who_is_cancelled(fails: bool) -> None:
    async def work() -> list[str]:
        done: list[str] = []
        begun, go_on = threading.Event(), threading.Event()

        def slow() -> None:
            begun.set()
            go_on.wait(5)
            done.append("slow")
            if fails:
                raise KeyError

        task = asyncio.create_task(finished(asyncio.to_thread(slow)))
        await asyncio.to_thread(begun.wait, 5)
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return done

    assert asyncio.run(work()) == ["slow"]


def test_works_go_on_together_a_few_at_a_time() -> None:
    running: list[int] = []

    async def work(number: int) -> None:
        running.append(number)
        assert len(running) <= 2
        await asyncio.sleep(0)
        running.remove(number)
        ended.append(number)

    ended: list[int] = []
    asyncio.run(together([partial(work, number) for number in range(5)], 2))
    assert sorted(ended) == [0, 1, 2, 3, 4]
    asyncio.run(together([], 2))


def test_the_first_failure_ends_the_others_and_is_raised() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("waits")
            raise ValueError("while it was cancelled")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(together([waits, fails, waits], 3))
    assert ended == ["waits", "waits"]


def test_works_have_ended_when_who_waits_for_them_is_cancelled_again_and_again() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            ended.append(number)

    async def run() -> None:
        # A scope of anyio cancels its task in each turn of the loop.
        with anyio.move_on_after(0.01):
            await together([partial(work, number) for number in range(3)], 3)
        assert sorted(ended) == [0, 1, 2]

    asyncio.run(run())


@pytest.mark.parametrize("ending", ["cancelled", "failed"])
def test_nothing_of_works_outlives_them(ending: str) -> None:
    class Held:
        pass

    kept: list[weakref.ref[Held]] = []

    async def work(held: Held) -> None:
        kept.append(weakref.ref(held))
        await asyncio.sleep(0.01)
        if ending == "failed":
            raise RuntimeError
        await asyncio.Event().wait()

    async def run() -> None:
        with anyio.move_on_after(0.02), suppress(RuntimeError):
            await together([partial(work, Held()) for _ in range(3)], 3)
        await asyncio.sleep(0)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(run())
        assert [each() for each in kept] == [None] * 3
    finally:
        gc.enable()
