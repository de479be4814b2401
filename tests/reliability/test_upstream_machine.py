"""Row I5: the free list of upstream connections under any order of requests, failures, departures and time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import Struct

from oaicompat_server.connection import Head, Waits, network_error
from oaicompat_server.settings import UpstreamSettings
from oaicompat_server.upstream import Upstream

CAP = 2
EXPIRY = 30.0
ORIGINS = ("http://one.example", "http://two.example")


class Post(Struct, frozen=True):
    """A request as the core makes them."""

    url: str
    method: str = "POST"
    body: bytes = b"{}"


class Plug:
    """A connection on which happens what the machine says; it has one request at a time, none once closed."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.busy = self.closed = self.dead = self.complete = False
        self.received = False
        self.head: asyncio.Future[None] | None = None
        self.chunk: asyncio.Future[bytes] | None = None

    async def exchange(
        self, head: Head, body: bytes, waits: Waits
    ) -> tuple[int, Mapping[str, str]]:
        assert head.url == f"{self.origin}/x"
        assert not self.busy, "used twice at once"
        assert not self.closed, "used after its end"
        assert not self.dead, "used though it was dead before"
        self.busy, self.complete, self.received = True, False, False
        self.head = asyncio.get_running_loop().create_future()
        try:
            await self.head
        finally:
            self.head = None
        self.received = True
        return 200, {}

    async def read(self) -> bytes:
        self.chunk = asyncio.get_running_loop().create_future()
        try:
            chunk = await self.chunk
        finally:
            self.chunk = None
        self.complete = not chunk
        return chunk

    def ready(self) -> bytes:
        return b""

    def spare(self) -> bool:
        return False

    async def finish(self) -> bool:
        await asyncio.sleep(0)
        if not self.complete:
            await self.aclose()
            return False
        self.busy = False
        return True

    def usable(self) -> bool:
        return not self.dead

    async def aclose(self) -> None:
        self.closed, self.busy = True, False
        await asyncio.sleep(0)


class Asker:
    """One request: its task, the scope around it, and whether it leaves at the first bytes."""

    def __init__(self, upstream: Upstream, origin: str, *, hasty: bool) -> None:
        self.scope = anyio.CancelScope()
        self.hasty = hasty
        self.task = asyncio.get_running_loop().create_task(self.run(upstream, origin))

    async def run(self, upstream: Upstream, origin: str) -> str:
        with self.scope:
            try:
                async with upstream.open(Post(f"{origin}/x")) as response:
                    async for _ in response:
                        if self.hasty:
                            break
            except Exception as error:
                return str(error)
        return ""


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time is what the machine says."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class FreeListMachine(RuleBasedStateMachine):
    """Plays with one `Upstream` and counts what it opened."""

    @initialize()
    def begin(self) -> None:
        self.loop = Loop()
        self.plugs: list[Plug] = []
        self.askers: list[Asker] = []
        limits = UpstreamSettings(max_idle=CAP, idle_expiry=EXPIRY)
        self.upstream = Upstream(limits, self.connect)
        self.settled = True

    def connect(self, origin: str) -> Plug:
        self.plugs.append(Plug(origin))
        return self.plugs[-1]

    def go_on(self, settled: bool) -> None:
        """Let what was begun come to rest, or let the next thing happen in the middle of it."""
        self.settled = settled
        if settled:
            self.settle()

    def settle(self) -> None:
        """Let everything happen that does not wait for the machine."""
        self.settled = True

        async def turns() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for asker in [each for each in self.askers if each.task.done()]:
            self.askers.remove(asker)
            if not asker.task.cancelled():
                said = asker.task.result()
                assert said in ("", "It broke."), said

    def waiting(self, what: str) -> list[Plug]:
        return [each for each in self.plugs if getattr(each, what) is not None]

    @rule(origin=st.sampled_from(ORIGINS), hasty=st.booleans(), settled=st.booleans())
    def ask(self, origin: str, hasty: bool, settled: bool) -> None:
        async def start() -> None:
            self.askers.append(Asker(self.upstream, origin, hasty=hasty))

        self.loop.run_until_complete(start())
        self.go_on(settled)

    @precondition(lambda self: self.waiting("head"))
    @rule(data=st.data(), settled=st.booleans())
    def answer(self, data: st.DataObject, settled: bool) -> None:
        plug = data.draw(st.sampled_from(self.waiting("head")))
        assert plug.head is not None
        if not plug.head.done():
            plug.head.set_result(None)
        self.go_on(settled)

    @precondition(lambda self: self.waiting("chunk"))
    @rule(data=st.data(), chunk=st.sampled_from([b"", b"", b"more"]), settled=st.booleans())
    def send(self, data: st.DataObject, chunk: bytes, settled: bool) -> None:
        plug = data.draw(st.sampled_from(self.waiting("chunk")))
        assert plug.chunk is not None
        if not plug.chunk.done():
            plug.chunk.set_result(chunk)
        self.go_on(settled)

    @precondition(lambda self: self.askers)
    @rule()
    def end_all(self) -> None:
        self.settle()
        self.drain()

    def drain(self) -> None:
        """Answer every request to its end."""
        while left := self.waiting("head") + self.waiting("chunk"):
            for plug in left:
                if plug.head is not None and not plug.head.done():
                    plug.head.set_result(None)
                elif plug.chunk is not None and not plug.chunk.done():
                    plug.chunk.set_result(b"")
            self.settle()

    @precondition(lambda self: self.waiting("head") or self.waiting("chunk"))
    @rule(data=st.data(), received=st.booleans())
    def fail(self, data: st.DataObject, received: bool) -> None:
        plug = data.draw(st.sampled_from(self.waiting("head") + self.waiting("chunk")))
        future = plug.head or plug.chunk
        assert future is not None
        if not future.done():
            plug.received = plug.received or received
            future.set_exception(network_error("It broke."))
        self.settle()

    @precondition(lambda self: self.askers)
    @rule(data=st.data(), native=st.booleans(), turns=st.integers(0, 3))
    def leave(self, data: st.DataObject, native: bool, turns: int) -> None:
        asker = data.draw(st.sampled_from(self.askers))

        self.cancel(asker, turns, native=native)
        self.settle()

    def cancel(self, asker: Asker, turns: int = 0, *, native: bool = False) -> None:
        """Cancel a request so many turns of the loop from now."""

        async def work() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            if native:
                asker.task.cancel()
            else:
                asker.scope.cancel()

        self.loop.run_until_complete(work())

    @precondition(lambda self: self.upstream.idle_count())
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.settle()
        idle = [each for each in self.plugs if not (each.busy or each.closed or each.dead)]
        if idle:
            data.draw(st.sampled_from(idle)).dead = True

    @rule(seconds=st.sampled_from([1.0, EXPIRY / 2, EXPIRY + 1]))
    def wait(self, seconds: float) -> None:
        self.settle()
        self.loop.now += seconds
        self.settle()
        if seconds > EXPIRY:
            assert self.upstream.idle_count() == 0

    @invariant()
    def connections_are_conserved(self) -> None:
        if not self.settled:
            return
        opened = [each for each in self.plugs if not each.closed]
        busy = [each for each in opened if each.busy]
        assert len(busy) == len(self.askers)
        assert len(opened) == len(busy) + self.upstream.idle_count()
        for origin in ORIGINS:
            idle = [each for each in opened if each.origin == origin and not each.busy]
            assert len(idle) <= CAP

    def teardown(self) -> None:
        """End with requests under way: what they hold is closed when they are done."""
        self.settle()
        for asker in self.askers[1:]:
            self.cancel(asker)
        self.settle()
        self.loop.run_until_complete(self.upstream.aclose())
        self.drain()
        assert self.askers == []
        assert all(each.closed for each in self.plugs)
        assert self.upstream.idle_count() == 0
        self.loop.close()


def test_i5_no_connection_is_lost_or_used_twice() -> None:
    """Whatever comes after what, requests, failures, departures, time: no connection is lost or shared."""
    run_state_machine_as_test(
        FreeListMachine, settings=settings(max_examples=100, stateful_step_count=30)
    )
