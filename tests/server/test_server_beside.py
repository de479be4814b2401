"""Work that goes on beside something else, and work that is waited for to its end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from oaicompat_server.beside import beside, finished


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
