"""The span of a task's work: ended once, for the first reason, and never anybody else's cancellation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from oaicompat_server.span import Reason, Span, Spans


async def forever() -> None:
    await asyncio.Event().wait()


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def ended_by(reason: Reason) -> Span:
    async def work() -> Span:
        with Span(Spans()) as span:
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
        with Span(Spans()) as span:
            span.end("cut")
            span.end("left")
            await forever()
        return span

    assert asyncio.run(work()).ended == "cut"


def test_work_that_was_ended_before_it_began_ends_at_its_first_wait() -> None:
    async def work() -> list[str]:
        span = Span(Spans())
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
        with Span(Spans()) as span:
            span.limit(time.monotonic() + 60)
        span.end("left")
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(work())


def test_a_limit_ends_what_is_late_and_nothing_once_it_is_taken_back() -> None:
    async def work() -> tuple[Span, Span]:
        with Span(Spans()) as late:
            late.limit(time.monotonic() + 0.01)
            await forever()
        with Span(Spans()) as kept:
            kept.limit(time.monotonic() + 0.01)
            kept.unlimit()
            await asyncio.sleep(0.03)
        return late, kept

    late, kept = asyncio.run(work())
    assert (late.ended, kept.ended) == ("late", None)


def test_cleaning_up_is_not_cancelled_again() -> None:
    async def work() -> list[str]:
        done = []
        with Span(Spans()) as span:
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
        begun, span = asyncio.Event(), Span(Spans())
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
        with Span(Spans()) as span:
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

        with Span(Spans()) as span:
            async with anyio.create_task_group() as group:
                group.start_soon(part)
                group.start_soon(part)
                asyncio.get_running_loop().call_later(0.01, span.end, "left")
        return ended

    assert asyncio.run(work()) == ["part", "part"]


def ends(durations: Sequence[float]) -> list[tuple[float, float]]:
    """Let spans of one loop run until each is late; return for each when it was due and when it ended."""

    async def one(spans: Spans, seconds: float) -> tuple[float, float]:
        due = time.monotonic() + seconds
        with Span(spans) as span:
            span.limit(due)
            await forever()
        assert span.ended == "late"
        return due, time.monotonic()

    async def work() -> list[tuple[float, float]]:
        spans = Spans()
        return await asyncio.gather(*(one(spans, seconds) for seconds in durations))

    return asyncio.run(work())


def test_deadlines_in_any_order_come_soon_after_their_time_and_never_before() -> None:
    for due, ended in ends([0.2, 0.05, 0.1, 0.1, 0.01, 0.101, 0.15]):
        assert due <= ended < due + 0.5


def test_many_deadlines_are_few_wake_ups() -> None:
    async def work() -> int:
        loop, spans = asyncio.get_running_loop(), Spans()
        timers = 0
        call_later = loop.call_later

        def counting(*args: Any, **more: Any) -> asyncio.TimerHandle:
            nonlocal timers
            timers += 1
            return call_later(*args, **more)

        async def one(seconds: float) -> None:
            with Span(spans) as span:
                span.limit(time.monotonic() + seconds)
                await forever()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(loop, "call_later", counting)
            await asyncio.gather(*(one(0.02 + number / 5000) for number in range(300)))
        return timers

    assert asyncio.run(work()) <= 10


def test_a_deadline_that_was_taken_back_leaves_the_others_theirs() -> None:
    async def work() -> tuple[Span, Span]:
        spans = Spans()
        with Span(spans) as kept:
            kept.limit(time.monotonic() + 0.01)
            with Span(spans) as gone:
                gone.limit(time.monotonic() + 0.005)
            await forever()
        return kept, gone

    kept, gone = asyncio.run(work())
    assert (kept.ended, gone.ended) == ("late", None)


def test_spans_in_another_loop_than_before_have_their_deadlines() -> None:
    spans = Spans()

    async def work(seconds: float, rest: float) -> Span:
        with Span(spans) as span:
            span.limit(time.monotonic() + seconds)
            await asyncio.sleep(rest)
        return span

    assert asyncio.run(work(0.01, rest=0)).ended is None
    assert asyncio.run(work(0.02, rest=5)).ended == "late"
    assert asyncio.run(work(60, rest=0)).ended is None
    assert not spans.running


def test_what_is_cut_ends_and_so_does_what_begins_then() -> None:
    async def work() -> list[Span]:
        spans, ended = Spans(), []
        asyncio.get_running_loop().call_later(0.01, spans.cut)
        for _ in range(2):
            with Span(spans) as span:
                await forever()
            ended.append(span)
        return ended

    assert [span.ended for span in asyncio.run(work())] == ["cut", "cut"]


def test_a_span_that_moves_is_cut_with_its_new_ones() -> None:
    async def work() -> list[Reason | None]:
        former, later = Spans(), Spans()
        seen = []
        with Span(former) as span:
            span.limit(time.monotonic() + 0.01)
            span.move(later)
            await asyncio.sleep(0.03)
            former.cut()
            seen.append(span.ended)
            later.cut()
            await forever()
        return [*seen, span.ended]

    assert asyncio.run(work()) == [None, "cut"]
