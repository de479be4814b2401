"""The free list of upstream connections against random use and cancellation: row I5."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from oaicompat.errors import UpstreamError
from oaicompat_server.connection import Outgoing, Waits, network_error
from oaicompat_server.settings import UpstreamSettings
from oaicompat_server.upstream import Upstream

MOST_IDLE = 3
ORIGINS = ("http://one.example", "http://two.example")


class Line:
    """A connection without a network: it answers when it is told to, and knows what is done with it."""

    every: ClassVar[list[Line]] = []

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.busy = False
        self.closed = False
        self.dead = False
        self.received = False
        self.whole = False
        self.answer = asyncio.Event()
        self.fails = False
        Line.every.append(self)

    async def exchange(self, request: Outgoing, waits: Waits) -> tuple[int, Mapping[str, str]]:
        assert not self.busy, "a connection is used twice at once"
        assert not self.closed, "a closed connection is used"
        assert request.url.startswith(self.origin)
        self.busy, self.received, self.whole = True, False, False
        self.answer.clear()
        await self.answer.wait()
        if self.fails:
            raise network_error("It failed.")
        self.received = True
        return 200, {}

    async def read(self) -> bytes:
        if self.whole:
            return b""
        self.whole = True
        return b"x"

    async def finish(self) -> bool:
        self.busy = False
        if self.whole and not self.closed:
            return True
        await self.aclose()
        return False

    def usable(self) -> bool:
        return not self.closed and not self.dead

    async def aclose(self) -> None:
        self.busy = False
        self.closed = True


class Get:
    method = "GET"
    body = b""

    def __init__(self, url: str) -> None:
        self.url = url


class UpstreamMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        Line.every = []
        self.loop = asyncio.new_event_loop()
        self.upstream = Upstream(UpstreamSettings(max_idle=MOST_IDLE, idle_expiry=1e6), Line)
        self.running: list[asyncio.Task[str]] = []

    def step(self, turns: int = 6) -> None:
        async def some() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(some())

    async def ask(self, origin: str, whole: bool) -> str:
        try:
            async with self.upstream.open(Get(f"{origin}/x")) as response:
                if whole:
                    async for _ in response:
                        pass
        except UpstreamError:
            return "failed"
        return "answered"

    def chosen(self, number: int) -> Line | None:
        waiting = [line for line in Line.every if line.busy and not line.answer.is_set()]
        return waiting[number % len(waiting)] if waiting else None

    @rule(origin=st.sampled_from(ORIGINS), whole=st.booleans(), count=st.integers(1, 5))
    def request(self, origin: str, whole: bool, count: int) -> None:
        self.running += [self.loop.create_task(self.ask(origin, whole)) for _ in range(count)]
        self.step()

    @rule(number=st.integers(0, 20), fails=st.booleans())
    def answer(self, number: int, fails: bool) -> None:
        line = self.chosen(number)
        if line is not None:
            line.fails = fails
            line.answer.set()
        self.step()

    @rule(number=st.integers(0, 20), turns=st.integers(0, 3))
    def cancel(self, number: int, turns: int) -> None:
        if self.running:
            self.step(turns)
            self.running[number % len(self.running)].cancel()
        self.step()

    @rule(number=st.integers(0, 20))
    def answer_and_cancel_at_once(self, number: int) -> None:
        line = self.chosen(number)
        if line is not None and self.running:
            line.answer.set()
            self.running[number % len(self.running)].cancel()
        self.step()

    @rule(number=st.integers(0, 20))
    def die_while_idle(self, number: int) -> None:
        idle = [line for line in Line.every if not line.busy and not line.closed]
        if idle:
            idle[number % len(idle)].dead = True

    @invariant()
    def every_connection_is_in_use_idle_or_closed(self) -> None:
        self.running = [task for task in self.running if not task.done()]
        used = sum(line.busy for line in Line.every)
        open_lines = sum(not line.closed for line in Line.every)
        assert used <= len(self.running)
        assert open_lines == used + self.upstream.idle_count()
        assert self.upstream.idle_count() <= MOST_IDLE * len(ORIGINS)

    def teardown(self) -> None:
        for task in self.running:
            task.cancel()
        self.step()
        self.loop.run_until_complete(self.upstream.aclose())
        assert all(line.closed for line in Line.every)
        self.loop.close()


def test_i5_no_cancellation_loses_a_connection_or_shares_one() -> None:
    """However calls end, a connection serves one of them at a time and is idle, in use or closed."""
    bounded = settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
    run_state_machine_as_test(UpstreamMachine, settings=bounded)
