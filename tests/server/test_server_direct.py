"""What our server does at once for a request: the same as by messages, and by nobody who stands between."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.test_server_cycle import HEADERS, Line, Wire, scope
from tests.support.gateway import serving

from oaicompat.errors import InvalidRequestError
from oaicompat_server.app import create_app
from oaicompat_server.bodies import BodyBudget, ClientLeft, Reading, body_at_once, read_body
from oaicompat_server.cycle import Cycle
from oaicompat_server.framing import Headers, Message, Receive, Scope, Send, send_body
from oaicompat_server.secret import Secret
from oaicompat_server.settings import (
    AuthSettings,
    Config,
    CredentialSettings,
    StateSettings,
    UpstreamSettings,
)
from oaicompat_server.simulator import Simulator, running

OURS: Headers = [
    (b"content-type", b"application/json"),
    (b"x-request-id", b"mine"),
    (b"openai-processing-ms", b"12"),
]


async def by_messages(cycle: Cycle, headers: Headers, body: bytes) -> bool:
    """Send a whole answer; tell whether a fault ended it."""
    try:
        await send_body(cycle.send, 200, headers, body)
    except (RuntimeError, ValueError):
        return True
    return False


@given(
    HEADERS | st.just(OURS),
    st.binary(max_size=9),
    st.booleans(),
    st.sampled_from(["POST", "HEAD"]),
)
def test_an_answer_at_once_is_what_its_messages_are(
    headers: Headers, body: bytes, keep_alive: bool, method: str
) -> None:
    async def run() -> None:
        line, other = Line(), Line()
        one, two = (Cycle(each, scope(method), keep_alive, False) for each in (line, other))
        fault = await by_messages(one, headers, body)
        # What was sent once is known, so that the second one has no reason to decline an answer of ours.
        done = two.answer(200, headers, body)
        if headers is OURS:
            assert done == (method == "POST")
        if not done:
            assert other.wire.written == []
            assert not two.response_started
            assert await by_messages(two, headers, body) == fault
        for each in (line, other):
            each.cork.pull()
        assert b"".join(line.wire.written) == b"".join(other.wire.written)
        assert line.completed == other.completed
        assert one.response_complete == two.response_complete

    asyncio.run(run())


async def acquainted() -> Line:
    """Return a connection on which the names of our headers were sent once, and nothing else is seen."""
    line = Line()
    await send_body(Cycle(line, scope(), True, False).send, 200, OURS, b"{}")
    line.cork.pull()
    line.wire.written.clear()
    return line


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\x00", b"a\r", b"\n"])
def test_a_value_with_control_characters_goes_no_way(value: bytes) -> None:
    async def run() -> None:
        line = await acquainted()
        cycle = Cycle(line, scope(), True, False)
        headers = [*OURS[:1], (OURS[1][0], value)]
        assert not cycle.answer(200, headers, b"{}")
        assert await by_messages(cycle, headers, b"{}")
        line.cork.pull()
        assert line.wire.written == []

    asyncio.run(run())


@pytest.mark.parametrize("why", ["slow reader", "gone", "begun", "no body"])
def test_an_answer_that_cannot_go_at_once_does_nothing(why: str) -> None:
    async def run() -> None:
        line = await acquainted()
        cycle = Cycle(line, scope(), True, False)
        match why:
            case "slow reader":
                line.flow.pause_writing()
            case "gone":
                cycle.tell()
            case "begun":
                await cycle.send({"type": "http.response.start", "status": 200, "headers": []})
        assert not cycle.answer(204 if why == "no body" else 200, OURS, b"{}")
        line.cork.pull()
        assert line.wire.written == []
        assert line.completed == 1
        assert not cycle.response_complete

    asyncio.run(run())


def test_a_body_is_there_at_once_when_it_is_whole_and_once() -> None:
    async def run() -> None:
        cycle = Cycle(Line(), scope(), True, False)
        assert cycle.body() is None
        cycle.feed(b"bo")
        assert cycle.body() is None
        cycle.feed(b"dy")
        cycle.end_body()
        assert cycle.body() == b"body"
        assert cycle.unread == 0
        assert cycle.body() is None

    asyncio.run(run())


@pytest.mark.parametrize("why", ["expecting", "gone", "received"])
def test_a_body_that_has_to_be_received_is_left_there(why: str) -> None:
    async def run() -> None:
        cycle = Cycle(Line(), scope(), True, why == "expecting")
        cycle.feed(b"body")
        if why == "received":
            await cycle.receive()
        cycle.end_body()
        if why == "gone":
            cycle.tell()
        assert cycle.body() is None
        wanted = {"expecting": b"body", "received": b"", "gone": None}[why]
        assert (await cycle.receive()).get("body") == wanted

    asyncio.run(run())


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        b"content-type": st.sampled_from([b"application/json", b"text/plain", b"a/b+json"]),
        b"content-encoding": st.sampled_from([b"gzip", b"identity"]),
        b"content-length": st.sampled_from([b"0", b"4", b"9", b"70000", b"9" * 40]),
    },
)


@given(FIELDS, st.sampled_from([b"", b" \n", b"{}", b"123456789", bytes(70_000)]))
def test_a_body_at_once_is_the_body_that_is_read(fields: dict[bytes, bytes], body: bytes) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def run(direct: bool) -> tuple[object, int]:
        budget = BodyBudget(100_000)
        reading = Reading(receive, budget)
        cycle = Cycle(Line(), scope(), True, False)
        cycle.feed(body)
        cycle.end_body()
        found: object
        try:
            if direct:
                found = body_at_once(fields, reading, cycle, 80_000)
            else:
                found = await read_body(fields, reading, 80_000)
            assert reading.complete
        except InvalidRequestError as error:
            found = (type(error), str(error), error.status)
        return found, budget.used

    assert asyncio.run(run(True)) == asyncio.run(run(False))


def test_a_client_that_leaves_before_its_body_is_whole_is_not_answered() -> None:
    async def run() -> None:
        cycle = Cycle(Line(), scope(), True, False)
        cycle.feed(b"{")
        cycle.tell()
        reading = Reading(cycle.receive, BodyBudget(100))
        fields = {b"content-type": b"application/json"}
        assert body_at_once(fields, reading, cycle, 100) is None
        with pytest.raises(ClientLeft):
            await read_body(fields, reading, 100)

    asyncio.run(run())


class Between:
    """A middleware that puts something into both ways."""

    def __init__(self, app: Any, received: bool, sent: bool) -> None:
        self.app, self.received, self.sent = app, received, sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def take() -> Message:
            message = await receive()
            if "body" in message:
                message["body"] = message["body"].replace(b"hello", b"goodbye")
            return message

        async def give(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-between", b"seen")]
            await send(message)

        await self.app(scope, take if self.received else receive, give if self.sent else send)


@contextmanager
def with_middleware(
    made: Any, keys: tuple[Secret, ...] = (), **named: Any
) -> Iterator[tuple[int, Simulator]]:
    with running(any_model=True) as upstream:
        config = Config(
            upstream=UpstreamSettings(base_url=upstream.url),
            credentials=(CredentialSettings(key=Secret("one")),),
            state=StateSettings(store="memory"),
            auth=AuthSettings(keys=keys),
        )
        app = create_app(config, tune=False)
        app.add_middleware(made, **named)
        with serving(app, relay=app.state.relay) as served:
            yield served.port, upstream


def asked(port: int, **headers: str) -> list[tuple[int, Any]]:
    """Ask twice on one connection: the second answer would go at once if nobody were in between."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    answers = []
    for _ in range(2):
        sent = {"content-type": "application/json"} | headers
        connection.request("POST", "/v1/chat/completions", json.dumps(body), sent)
        reply = connection.getresponse()
        assert json.loads(reply.read())
        answers.append((reply.status, reply.getheader("x-between")))
    connection.close()
    return answers


@pytest.mark.parametrize("received", [True, False])
@pytest.mark.parametrize("sent", [True, False])
def test_a_middleware_between_the_server_and_the_gateway_sees_all(
    received: bool, sent: bool
) -> None:
    with with_middleware(Between, received=received, sent=sent) as (port, upstream):
        assert asked(port) == [(200, "seen" if sent else None)] * 2
        bodies = upstream.bodies()
    texts = [each["contents"][0]["parts"][0]["text"] for each in bodies]
    assert texts == ["goodbye" if received else "hello"] * 2


class Proxy:
    """Stands for a callable and tells of its attributes, as libraries that instrument others do."""

    def __init__(self, inner: Any, seen: list[str]) -> None:
        self.inner, self.seen = inner, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, *message: Any) -> Any:
        self.seen.append("called")
        return self.inner(*message)


class Proxied:
    def __init__(self, app: Any, seen: list[str]) -> None:
        self.app, self.seen = app, seen

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            receive, send = Proxy(receive, self.seen), Proxy(send, self.seen)
        await self.app(scope, receive, send)


def test_who_stands_for_a_method_of_the_servers_is_not_taken_for_it() -> None:
    seen: list[str] = []
    with with_middleware(Proxied, seen=seen) as (port, _):
        assert [status for status, _ in asked(port)] == [200, 200]
    assert len(seen) == 2 * 3


class Rewriting:
    """Puts other headers into the scope, in place or anew."""

    def __init__(self, app: Any, key: bytes, in_place: bool) -> None:
        self.app, self.key, self.in_place = app, key, in_place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            kept = [line for line in scope["headers"] if line[0] != b"authorization"]
            if self.key:
                kept.append((b"authorization", b"Bearer " + self.key))
            if self.in_place:
                scope["headers"][:] = kept
            else:
                scope = {**scope, "headers": kept}
        await self.app(scope, receive, send)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize(("key", "status"), [(b"right", 200), (b"", 401)])
def test_the_gate_reads_the_headers_that_a_middleware_left(
    key: bytes, status: int, in_place: bool
) -> None:
    shown = "wrong" if key else "right"
    keys = (Secret("right"),)
    with with_middleware(Rewriting, keys, key=key, in_place=in_place) as (port, _):
        assert asked(port, authorization=f"Bearer {shown}") == [(status, None)] * 2


def test_a_head_that_goes_alone_goes_behind_what_waits(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        line = Line()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            line.cork.write(line.loop, line.transport, b"before")
            await send({"type": "http.response.start", "status": 204, "headers": []})
            raise ValueError

        Cycle(line, scope(), True, False).start(app, scope())
        await asyncio.wait(line.tasks)
        wire: Wire = line.wire
        assert wire.written == [b"before", b"HTTP/1.1 204 No Content\r\n\r\n", b"closed"]

    caplog.set_level(logging.CRITICAL, "uvicorn.error")
    asyncio.run(run())
