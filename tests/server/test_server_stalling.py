"""A connection on which nothing is asked for is closed on time, however often it was used before."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from oaicompat_server.stalling import Idleness, WriteStall


class Plug(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closed = 0.0
        self.aborted = 0.0
        self.unsent = 0

    def close(self) -> None:
        self.closed = time.monotonic()

    def is_closing(self) -> bool:
        return bool(self.closed)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = time.monotonic()


SECONDS = 0.2


async def idle(
    *begun: float, busy: tuple[float, ...] = (), ended: bool = False
) -> tuple[float, int]:
    """Begin to be idle and be busy again at these times; return when it was closed, after how many timers."""
    loop = asyncio.get_running_loop()
    plug = Plug()
    idleness = Idleness(loop, plug, WriteStall(loop, SECONDS), SECONDS)
    timers = 0
    call_later = loop.call_later

    def counted(delay: float, work: Any, *rest: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += getattr(work, "__self__", None) is idleness
        return call_later(delay, work, *rest)

    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_later", counted)
        for at in sorted((*begun, *busy)):
            await asyncio.sleep(start + at - time.monotonic())
            if at in busy:
                idleness.since = 0.0
            else:
                idleness.begin()
        if ended:
            idleness.end()
        await asyncio.sleep(3 * SECONDS)
        idleness.end()
    return plug.closed - start if plug.closed else 0.0, timers


@pytest.mark.parametrize("begun", [(0.0,), (0.0, 0.05, 0.1, 0.15), (0.0, 0.15, 0.25, 0.4)])
def test_it_is_closed_after_the_last_request(begun: tuple[float, ...]) -> None:
    closed, _ = asyncio.run(idle(*begun))
    assert begun[-1] + SECONDS - 0.01 < closed < begun[-1] + SECONDS + 0.15


def test_requests_in_a_row_share_a_timer() -> None:
    _, timers = asyncio.run(idle(0.0, 0.001, 0.002, 0.003))
    assert timers == 2


def test_it_is_not_closed_while_a_request_runs_or_once_it_is_over() -> None:
    assert asyncio.run(idle(0.0, busy=(0.1,)))[0] == 0
    assert asyncio.run(idle(0.0, ended=True))[0] == 0


@pytest.mark.parametrize(
    ("unsent", "resumed", "cut"), [(4096, False, True), (4096, True, True), (0, False, False)]
)
def test_what_is_unsent_at_a_close_has_its_time(unsent: int, resumed: bool, cut: bool) -> None:
    async def run() -> Plug:
        plug = Plug()
        plug.unsent = unsent
        stall = WriteStall(asyncio.get_running_loop(), SECONDS)
        stall.close(plug)
        if resumed:
            stall.resume(plug)
        await asyncio.sleep(1.5 * SECONDS)
        stall.end()
        return plug

    plug = asyncio.run(run())
    assert plug.closed
    assert bool(plug.aborted) is cut


def test_a_client_that_takes_enough_again_is_not_watched() -> None:
    async def run() -> Plug:
        plug = Plug()
        plug.unsent = 70_000
        stall = WriteStall(asyncio.get_running_loop(), SECONDS)
        stall.begin(plug)
        stall.resume(plug)
        await asyncio.sleep(1.5 * SECONDS)
        return plug

    assert not asyncio.run(run()).aborted
