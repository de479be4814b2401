"""The span of a task's work: ended once, for the first reason, and never anybody else's cancellation."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from oaicompat_server.span import Reason, Span


async def forever() -> None:
    await asyncio.Event().wait()


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def ended_by(reason: Reason) -> Span:
    async def work() -> Span:
        with Span() as span:
            asyncio.get_running_loop().call_soon(span.end, reason)
            await forever()
        assert cancelling() == 0
        await asyncio.sleep(0)
        return span

    return asyncio.run(work())


@pytest.mark.parametrize("reason", ["left", "late", "cut"])
def test_work_that_is_ended_goes_on_after_its_span(reason: Reason) -> None:
    assert ended_by(reason).ended == reason


def test_the_first_reason_counts() -> None:
    async def work() -> Span:
        with Span() as span:
            span.end("cut")
            span.end("left")
            await forever()
        return span

    assert asyncio.run(work()).ended == "cut"


def test_work_that_was_ended_before_it_began_ends_at_its_first_wait() -> None:
    async def work() -> list[str]:
        span = Span()
        span.end("cut")
        reached = []
        with span:
            reached.append("begun")
            await forever()
            reached.append("too far")
        return reached

    assert asyncio.run(work()) == ["begun"]


def test_work_that_has_ended_is_not_cancelled_behind_its_span() -> None:
    async def work() -> None:
        with Span() as span:
            span.limit(60)
        span.end("left")
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(work())


def test_a_limit_ends_what_is_late_and_nothing_once_it_is_taken_back() -> None:
    async def work() -> tuple[Span, Span]:
        with Span() as late:
            late.limit(0.01)
            await forever()
        with Span() as kept:
            kept.limit(0.01)
            kept.unlimit()
            await asyncio.sleep(0.03)
        return late, kept

    late, kept = asyncio.run(work())
    assert (late.ended, kept.ended) == ("late", None)


def test_cleaning_up_is_not_cancelled_again() -> None:
    async def work() -> list[str]:
        done = []
        with Span() as span:
            try:
                asyncio.get_running_loop().call_soon(span.end, "left")
                await forever()
            finally:
                span.end("cut")
                await asyncio.sleep(0.01)
                done.append("cleaned")
        return done

    assert asyncio.run(work()) == ["cleaned"]


def test_somebody_elses_cancellation_goes_through() -> None:
    async def inner(begun: asyncio.Event, span: Span) -> None:
        with span:
            begun.set()
            await forever()
        raise AssertionError("it was cancelled by somebody else as well")

    async def work() -> None:
        begun, span = asyncio.Event(), Span()
        task = asyncio.create_task(inner(begun, span))
        await begun.wait()
        span.end("left")
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())


def test_an_error_of_the_work_comes_out() -> None:
    async def failing() -> None:
        with Span() as span:
            try:
                span.end("cut")
                await forever()
            except asyncio.CancelledError:
                raise KeyError from None

    async def work() -> None:
        with pytest.raises(KeyError):
            await failing()
        assert cancelling() == 0

    asyncio.run(work())


def test_tasks_of_the_work_end_with_it() -> None:
    async def work() -> list[str]:
        ended = []

        async def part() -> None:
            try:
                await forever()
            finally:
                ended.append("part")

        with Span() as span:
            async with anyio.create_task_group() as group:
                group.start_soon(part)
                group.start_soon(part)
                asyncio.get_running_loop().call_later(0.01, span.end, "left")
        return ended

    assert asyncio.run(work()) == ["part", "part"]
