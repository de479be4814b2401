"""One request and its answer: what is sent is what uvicorn's own cycle sends, and a head never waits long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from oaicompat_server.corking import Cork
from oaicompat_server.cycle import Cycle, last_answer
from oaicompat_server.framing import BODY_FOLLOWS, Message, Receive, Scope, Send, send_body

START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", b"4")],
}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading: list[bool] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            self.written.append(bytes(data))

    def close(self) -> None:
        self.written.append(b"closed")

    def is_closing(self) -> bool:
        return b"closed" in self.written

    def pause_reading(self) -> None:
        self.reading.append(False)

    def resume_reading(self) -> None:
        self.reading.append(True)


class Line:
    """The connection of one cycle."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.cork = Cork()
        self.wire = Wire()
        self.transport: asyncio.Transport = self.wire
        self.flow = FlowControl(self.transport)
        self.tasks: set[asyncio.Task[None]] = set()
        self.completed = 0

    def close(self) -> None:
        self.cork.pull()
        self.wire.close()

    def on_response_complete(self) -> None:
        self.completed += 1


def scope(method: str = "POST") -> dict[str, Any]:
    return {"type": "http", "method": method, "http_version": "1.1", "headers": []}


def worked(
    work: Callable[[Cycle, Line], Awaitable[None]], keep_alive: bool = True, expecting: bool = False
) -> list[bytes]:
    """Return what was written while something was done with a cycle."""

    async def run() -> list[bytes]:
        line = Line()
        await work(Cycle(line, scope(), keep_alive, expecting), line)
        line.cork.pull()
        return line.wire.written

    return asyncio.run(run())


def body(data: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def test_head_and_body_are_one_write() -> None:
    async def work(cycle: Cycle, line: Line) -> None:
        await cycle.send(START)
        await cycle.send(body(b"bo", more=True))
        await cycle.send(body(b"dy"))
        assert line.completed == 1

    assert worked(work) == [HEAD + b"bo", b"dy"]


def test_a_head_without_a_body_goes_out_in_the_same_turn() -> None:
    async def work(cycle: Cycle, line: Line) -> None:
        await cycle.send(START)
        assert line.wire.written == []
        await asyncio.sleep(0)

    assert worked(work) == [HEAD]


def test_a_whole_reply_leaves_nothing_for_the_next_turn() -> None:
    async def work(cycle: Cycle, line: Line) -> None:
        later: list[object] = []
        # The turn has an end already, which others wait for as well.
        line.cork.write(line.loop, Wire(), b"another's")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(line.loop, "call_soon", later.append)
            await send_body(cycle.send, 200, [], b"body")
        assert later == []

    assert worked(work) == [HEAD + b"body"]


def test_a_head_that_was_to_be_followed_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, BODY_FOLLOWS: True})
        raise ValueError

    async def work(cycle: Cycle, line: Line) -> None:
        cycle.start(app, scope())
        await asyncio.wait(line.tasks)

    caplog.set_level(logging.CRITICAL, "uvicorn.error")
    assert worked(work) == [HEAD, b"closed"]


def test_a_head_is_sent_before_the_connection_closes(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)

    async def work(cycle: Cycle, line: Line) -> None:
        cycle.start(app, scope())
        await asyncio.wait(line.tasks)
        assert not line.tasks

    caplog.set_level(logging.CRITICAL, "uvicorn.error")
    assert worked(work) == [HEAD, b"closed"]


def test_a_fault_before_the_answer_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError

    async def work(cycle: Cycle, line: Line) -> None:
        cycle.start(app, scope())
        await asyncio.wait(line.tasks)

    (written, closed) = worked(work)
    assert written.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert written.endswith(b"\r\n\r\nInternal Server Error")
    assert closed == b"closed"
    assert [record.name for record in caplog.records] == ["uvicorn.error"]


def test_an_interim_answer_goes_out_at_once_and_once() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"

    async def work(cycle: Cycle, line: Line) -> None:
        receiving = asyncio.ensure_future(cycle.receive())
        await asyncio.sleep(0)
        assert line.wire.written == [interim]
        cycle.feed(b"hi")
        await receiving
        cycle.end_body()
        await cycle.receive()
        await cycle.send(START)
        await cycle.send(body(b"body"))

    assert worked(work, expecting=True) == [interim, HEAD + b"body"]


def test_an_interim_answer_goes_out_behind_what_waits() -> None:
    async def work(cycle: Cycle, line: Line) -> None:
        line.cork.write(line.loop, line.wire, b"earlier")
        cycle.feed(b"hi")
        await cycle.receive()

    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert worked(work, expecting=True) == [b"earlier", interim]


def test_a_body_that_has_come_is_received_without_a_turn_of_the_loop() -> None:
    async def work(cycle: Cycle, line: Line) -> None:
        cycle.feed(b"he")
        cycle.feed(b"llo")
        cycle.end_body()
        with pytest.raises(StopIteration) as received:
            cycle.receive().__await__().send(None)
        assert received.value.value == {
            "type": "http.request",
            "body": b"hello",
            "more_body": False,
        }

    worked(work)


def test_all_who_receive_are_told_that_the_client_has_left() -> None:
    async def work(cycle: Cycle, line: Line) -> None:
        cycle.end_body()
        assert (await cycle.receive())["type"] == "http.request"
        both = [asyncio.ensure_future(cycle.receive()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in both)
        cycle.tell()
        gone = {"type": "http.disconnect"}
        assert [await one for one in both] == [gone, gone]
        assert await cycle.receive() == gone
        await cycle.send(START)

    assert worked(work) == []


def test_a_piece_is_received_by_one_of_those_who_wait() -> None:
    async def work(cycle: Cycle, line: Line) -> None:
        both = [asyncio.ensure_future(cycle.receive()) for _ in range(2)]
        await asyncio.sleep(0)
        cycle.feed(b"first")
        done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result()["body"] for one in done] == [b"first"]
        cycle.end_body()
        assert (await waiting.pop())["more_body"] is False

    worked(work)


def test_after_the_answer_the_client_counts_as_gone() -> None:
    async def work(cycle: Cycle, line: Line) -> None:
        cycle.end_body()
        await cycle.receive()
        receiving = asyncio.ensure_future(cycle.receive())
        await asyncio.sleep(0)
        await cycle.send(START)
        await cycle.send(body(b"body"))
        assert await receiving == {"type": "http.disconnect"}
        with pytest.raises(RuntimeError):
            await cycle.send(body(b""))

    worked(work)


def test_reading_pauses_for_what_is_not_received() -> None:
    async def work(cycle: Cycle, line: Line) -> None:
        cycle.feed(b"x" * 60_000)
        assert not line.flow.read_paused
        cycle.feed(b"x" * 60_000)
        assert line.wire.reading == [False]
        assert len((await cycle.receive())["body"]) == 120_000
        assert line.wire.reading == [False, True]
        assert cycle.unread == 0

    worked(work)


def test_an_answer_of_ours_is_whole() -> None:
    assert last_answer(431, [(b"x-request-id", b"mine")], b"{}") == (
        b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
        b"content-length: 2\r\nconnection: close\r\nx-request-id: mine\r\n\r\n{}"
    )


NAMES = st.sampled_from(
    [
        b"x-note",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"server",
    ]
) | st.binary(max_size=6).map(bytes.lower)
VALUES = st.sampled_from([b"4", b"0", b"Chunked", b"close", b"keep-alive , Close"]) | st.binary(
    max_size=8
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
ANSWERS = st.lists(st.tuples(st.binary(max_size=6), st.booleans()), max_size=4)


async def sent(cycle: Any, line: Line, messages: list[Message]) -> tuple[bytes, bool, int]:
    """Return all that was written, whether a fault ended it, and how often the answer was complete."""
    fault = False
    try:
        for message in messages:
            await cycle.send(message)
    except (RuntimeError, ValueError):
        fault = True
    await asyncio.sleep(0)
    return b"".join(line.wire.written), fault, line.completed


@given(
    st.sampled_from(["GET", "POST", "HEAD"]),
    st.sampled_from([100, 200, 204, 304, 418, 503, 599]),
    HEADERS,
    ANSWERS,
    st.booleans(),
)
def test_what_is_sent_is_what_uvicorn_sends(
    method: str,
    status: int,
    headers: list[tuple[bytes, bytes]],
    pieces: list[tuple[bytes, bool]],
    keep_alive: bool,
) -> None:
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    messages = [start, *(body(piece, more) for piece, more in pieces)]

    async def run() -> None:
        line = Line()
        ours = await sent(Cycle(line, scope(method), keep_alive, False), line, messages)
        line = Line()
        made: Any = RequestResponseCycle
        theirs = made(
            scope=scope(method),
            transport=line.transport,
            flow=line.flow,
            logger=logging.getLogger("uvicorn.error"),
            access_logger=None,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=line.on_response_complete,
        )
        assert ours == await sent(theirs, line, messages)

    asyncio.run(run())


@pytest.mark.parametrize("bad", [*(bytes([code]) for code in range(0x20) if code != 9), b"\x7f"])
@pytest.mark.parametrize("place", ["name", "value"])
def test_no_header_brings_a_line_of_its_own(bad: bytes, place: str) -> None:
    text = b"a" + bad + b"b"
    header = (text, b"c") if place == "name" else (b"x-note", text)

    async def work(cycle: Cycle, line: Line) -> None:
        with pytest.raises(RuntimeError):
            await cycle.send({"type": "http.response.start", "status": 200, "headers": [header]})
        await asyncio.sleep(0)

    assert worked(work) == []
