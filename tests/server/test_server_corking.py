"""Writes that come close together: each connection's in their order, none lost, none late."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.gateway import Serving, serving

from oaicompat_server.corking import Cork, cork_of
from oaicompat_server.framing import Receive, Scope, Send, send_body


class Line(asyncio.Transport):
    """Tells its log what is written to it."""

    def __init__(self, name: str, log: list[tuple[str, bytes]]) -> None:
        super().__init__()
        self.name = name
        self.log = log
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.log.append((self.name, bytes(data)))

    def is_closing(self) -> bool:
        return self.closed


class Broken(Line):
    """Fails as soon as it is written to."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise OSError

    def abort(self) -> None:
        self.closed = True
        raise OSError


class Lines:
    """Two connections and a cork."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.log: list[tuple[str, bytes]] = []
        self.one, self.other = Line("one", self.log), Line("other", self.log)
        self.cork = Cork()

    def write(self, line: Line, data: bytes) -> None:
        self.cork.write(self.loop, line, data)


def test_writes_that_come_together_go_in_a_row_at_the_end_of_the_turn() -> None:
    async def run() -> None:
        lines = Lines()
        lines.write(lines.one, b"a")
        lines.write(lines.other, b"b")
        lines.write(lines.one, b"c")
        assert lines.log == []
        await asyncio.sleep(0)
        assert lines.log == [("one", b"a"), ("other", b"b"), ("one", b"c")]

    asyncio.run(run())


def test_no_write_waits_for_more_than_seven_others() -> None:
    async def run() -> None:
        lines = Lines()
        for number in range(2 * 8 + 3):
            lines.write(lines.one, b"%d" % number)
        assert len(lines.log) == 2 * 8

    asyncio.run(run())


def test_a_large_write_goes_at_once_behind_those_that_wait() -> None:
    async def run() -> None:
        lines = Lines()
        large = bytes(16 * 1024 + 1)
        for data in (b"a", b"b", large):
            lines.write(lines.one, data)
        assert [data for _, data in lines.log] == [b"a", b"b", large]

    asyncio.run(run())


def test_what_waits_for_a_connection_that_is_closed_is_dropped_alone() -> None:
    async def run() -> None:
        lines = Lines()
        for line in (lines.one, lines.other, lines.one):
            lines.write(line, b"x")
        lines.other.closed = True
        await asyncio.sleep(0)
        assert lines.log == [("one", b"x"), ("one", b"x")]

    asyncio.run(run())


def test_a_connection_that_cannot_be_written_to_takes_no_other_one_along(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        lines = Lines()
        broken = Broken("broken", lines.log)
        for line in (lines.one, broken, lines.other, broken):
            lines.write(line, b"x")
        await asyncio.sleep(0)
        assert lines.log == [("one", b"x"), ("other", b"x")]
        assert broken.closed

    asyncio.run(run())
    assert [record.levelname for record in caplog.records] == ["ERROR"]


STEPS = st.sampled_from(["one", "other", "pull", "turn"])


@given(st.lists(STEPS, max_size=40))
def test_every_connection_is_written_all_in_its_order(steps: list[str]) -> None:
    async def run() -> None:
        lines = Lines()
        wanted: dict[str, list[bytes]] = {"one": [], "other": []}
        for number, step in enumerate(steps):
            match step:
                case "pull":
                    lines.cork.pull()
                case "turn":
                    await asyncio.sleep(0)
                case _:
                    data = b"%d" % number
                    wanted[step].append(data)
                    lines.write(lines.one if step == "one" else lines.other, data)
        await asyncio.sleep(0)
        for name, pieces in wanted.items():
            assert [data for line, data in lines.log if line == name] == pieces

    asyncio.run(run())


def test_all_who_write_in_a_loop_share_a_cork_that_does_not_keep_it() -> None:
    async def run() -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = asyncio.get_running_loop()
        assert cork_of(loop) is cork_of(loop)
        Lines().cork.write(loop, Line("one", []), b"x")
        return weakref.ref(loop)

    known = asyncio.run(run())
    gc.collect()
    assert known() is None


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await receive()
        if scope["path"] == "/slow":
            await asyncio.sleep(0.3)
        await send_body(send, 200, [], b"answered")


@pytest.fixture
def served() -> Iterator[Serving]:
    with serving(_app) as running:
        yield running


GOOD = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nhost: x\r\n\r\n"
GARBAGE = b"\x00garbage\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\n\r\n"
)


@pytest.mark.parametrize(
    ("sent", "answers"),
    [(LAST, 1), (OLD, 1), (GOOD + GOOD + LAST, 3), (GOOD + GARBAGE, 1)],
)
def test_an_answer_that_waits_is_out_before_its_connection_is_closed(
    served: Serving, sent: bytes, answers: int
) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plug:
        plug.sendall(sent)
        reply = b"".join(iter(lambda: plug.recv(65536), b""))
    assert reply.count(b"HTTP/1.1 200 OK") == reply.count(b"HTTP/1.1") == answers
    assert reply.endswith(b"answered")


@pytest.mark.parametrize(
    ("before", "work", "after"),
    [
        (b"", lambda connection: connection.close(), b""),
        (b"", lambda connection: connection.data_received(GARBAGE), b"HTTP/1.1 400 "),
        (b"", lambda connection: connection.data_received(UPGRADE), b"HTTP/1.1 400 "),
        (LAST.replace(b"/", b"/slow", 1), lambda one: one.eof_received(), b"HTTP/1.1 100 "),
    ],
    ids=["closed", "refused", "upgraded", "half closed"],
)
def test_what_waits_is_written_before_whatever_else_is_done(
    served: Serving, before: bytes, work: Callable[[Any], None], after: bytes
) -> None:
    def both() -> None:
        connection: Any = next(iter(served.server.server_state.connections))
        connection.cork.write(served.loop, connection.transport, b"waited ")
        work(connection)

    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plug:
        plug.sendall(before or GOOD)
        if not before:
            assert plug.recv(65536).endswith(b"answered")
        else:
            time.sleep(0.1)
        served.call(both)
        reply = b""
        while len(reply) < len(b"waited " + after) and (piece := plug.recv(65536)):
            reply += piece
    assert reply.startswith(b"waited " + after)
