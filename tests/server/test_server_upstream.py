"""The way to the provider: reuse, stale connections, deadlines, caps, cancellation, and what errors say."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from msgspec import Struct, structs

from oaicompat.errors import UpstreamError, UpstreamProtocolError
from oaicompat_server.settings import UpstreamSettings
from oaicompat_server.simulator import (
    Body,
    Close,
    Drip,
    Finish,
    Head,
    Raw,
    Repeat,
    Reset,
    Simulator,
    Stall,
    Wait,
)
from oaicompat_server.upstream import ERROR_BODY_CAP, Upstream

QUICK = UpstreamSettings(
    connect_timeout=1.0, first_byte_timeout=0.4, idle_timeout=0.3, idle_expiry=30.0
)
HEADERS = (("x-goog-api-key", "sentinel-key"), ("content-type", "application/json"))

BROKEN = (("x-goog-api-key", "sentinel\n"),)


class Post(Struct, frozen=True):
    """A request as the core makes them."""

    url: str
    method: str = "POST"
    body: bytes = b"{}"


class _Chosen:
    http = "fast"


@pytest.fixture(autouse=True, params=["fast", "httpcore"])
def _http(request: pytest.FixtureRequest) -> Iterator[None]:
    _Chosen.http = request.param
    yield
    _Chosen.http = "fast"


@asynccontextmanager
async def _rig(settings: UpstreamSettings = QUICK) -> AsyncIterator[tuple[Simulator, Upstream]]:
    async with Simulator() as simulator:
        upstream = Upstream(structs.replace(settings, http=_Chosen.http))
        try:
            yield simulator, upstream
        finally:
            await upstream.aclose()


async def _fetch(upstream: Upstream, simulator: Simulator, **named: Any) -> tuple[int, bytes]:
    async with upstream.open(Post(simulator.url + "/x"), HEADERS, **named) as response:
        return response.status, b"".join([chunk async for chunk in response])


def _test(
    work: Callable[[Simulator, Upstream], Awaitable[None]], settings: UpstreamSettings = QUICK
) -> None:
    async def run() -> None:
        async with _rig(settings) as (simulator, upstream):
            await work(simulator, upstream)

    asyncio.run(run())


def test_connection_is_reused_and_asked_for_no_compression() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        for _ in range(3):
            simulator.enqueue([Head(length=4), Body(b"fine"), Finish()])
            assert await _fetch(upstream, simulator) == (200, b"fine")
        assert simulator.connections_opened == 1
        assert upstream.idle_count() == 1
        assert simulator.requests[0].headers["accept-encoding"] == "identity"

    _test(work)


def test_what_has_come_of_a_reply_is_there_without_waiting() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        simulator.enqueue([Head(length=4), Body(b"fi"), Wait(0.05), Body(b"ne"), Finish()])
        async with upstream.open(Post(simulator.url + "/x"), HEADERS, 3) as response:
            read = response.ready() or await response.read()
            assert read == b"fi"
            assert response.ready() is None
            with pytest.raises(UpstreamProtocolError, match="too large"):
                await response.read()
        simulator.enqueue([Head(500, length=4), Body(b"fine"), Finish()])
        async with upstream.open(Post(simulator.url + "/x"), HEADERS) as response:
            await asyncio.sleep(0.05)
            assert response.ready() is None
            assert await response.read() == b"fine"

    _test(work)


def test_a_request_is_held_until_the_head_of_its_reply_is_there() -> None:
    async def work(simulator: Simulator, other: Upstream) -> None:
        upstream = Upstream(structs.replace(QUICK, http="fast"))
        post = Post(simulator.url + "/x", body=bytes(100_000))
        held = [sys.getrefcount(post.body)]
        for status in (200, 500):
            simulator.enqueue([Head(status, length=4), Body(b"fine"), Finish()])
            async with upstream.open(post, HEADERS) as response:
                held.append(sys.getrefcount(post.body))
                assert await response.read() == b"fine"
        # The first one looks like a connection that had been idle for too long.
        for _ in range(2):
            simulator.enqueue([Reset()])
        failing = upstream.open(post, HEADERS)
        with suppress(UpstreamError):
            await failing.__aenter__()
            raise AssertionError
        held.append(sys.getrefcount(post.body))
        assert len(set(held)) == 1
        await upstream.aclose()

    _test(work)


def test_the_end_of_a_reply_is_known_without_waiting() -> None:
    async def work(simulator: Simulator, other: Upstream) -> None:
        upstream = Upstream(structs.replace(QUICK, http="fast"))
        simulator.enqueue([Head(length=4), Body(b"fi"), Wait(0.05), Body(b"ne"), Finish()])
        async with upstream.open(Post(simulator.url + "/x"), HEADERS) as response:
            read = b""
            while data := response.ready() or await response.read():
                read += data
                if read == b"fine":
                    assert response.ready() == b""
            assert read == b"fine"
        assert upstream.idle_count() == 1
        await upstream.aclose()

    _test(work)


def test_concurrent_requests_have_a_connection_each_and_the_newest_serves_next() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        for _ in range(5):
            simulator.enqueue([Wait(0.05), Head(length=2), Body(b"ok"), Finish()])
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(_fetch, upstream, simulator)
        assert simulator.connections_opened == 5
        simulator.enqueue([Head(length=2), Body(b"ok"), Finish()])
        await _fetch(upstream, simulator)
        assert upstream.idle_count() == 5
        assert simulator.connections_opened == 5

    _test(work)


def test_idle_connections_are_capped() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        for _ in range(5):
            simulator.enqueue([Wait(0.05), Head(length=2), Body(b"ok"), Finish()])
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(_fetch, upstream, simulator)
        assert upstream.idle_count() == 2

    _test(work, UpstreamSettings(max_idle=2))


def test_connection_the_upstream_closed_while_idle_is_replaced_silently() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        for _ in range(20):
            simulator.enqueue([Head(length=2), Body(b"ok"), Finish(), Close()])
            assert await _fetch(upstream, simulator) == (200, b"ok")
        assert len(simulator.requests) == 20

    _test(work)


def test_connection_that_dies_under_a_reused_request_is_replaced_once() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        simulator.enqueue([Head(length=2), Body(b"ok"), Finish()])
        await _fetch(upstream, simulator)
        simulator.enqueue([Close()])
        simulator.enqueue([Head(length=2), Body(b"ok"), Finish()])
        assert await _fetch(upstream, simulator) == (200, b"ok")
        simulator.enqueue([Close()])
        simulator.enqueue([Close()])
        with pytest.raises(UpstreamError):
            await _fetch(upstream, simulator)
        assert len(simulator.requests) == 5

    _test(work)


def test_first_use_of_a_connection_is_never_repeated() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        simulator.enqueue([Close()])
        with pytest.raises(UpstreamError) as caught:
            await _fetch(upstream, simulator)
        assert (caught.value.status, caught.value.cause) == (502, "network")
        assert len(simulator.requests) == 1

    _test(work)


@pytest.mark.parametrize(
    ("steps", "status", "within"),
    [
        ([Reset()], 502, 0.5),
        ([Stall()], 504, 0.8),
        ([Raw(b"HTTP/1.1 200 OK\r\nContent-Le"), Close()], 502, 0.5),
        ([Raw(b"nonsense\r\n\r\n"), Close()], 502, 0.5),
        ([Head(framing="chunked"), Body(b"abc"), Close()], 502, 0.5),
        ([Head(framing="chunked"), Body(b"abc"), Reset()], 502, 0.5),
        ([Head(length=100), Body(b"abc"), Close()], 502, 0.5),
        ([Head(framing="chunked"), Body(b"abc"), Stall()], 504, 0.8),
        ([Head(status=302, headers=(("Location", "http://169.254.169.254/"),)), Finish()], 502, 0.5),
        ([Head(length=3, headers=(("Content-Encoding", "gzip"),)), Body(b"abc"), Finish()], 502, 0.5),
    ],
)  # fmt: skip
def test_faults_become_our_errors_in_time(steps: list[Any], status: int, within: float) -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        simulator.enqueue(steps)
        with anyio.fail_after(within + 0.5), pytest.raises(UpstreamError) as caught:
            await _fetch(upstream, simulator)
        assert caught.value.status == status
        assert upstream.idle_count() == 0
        assert "127.0.0.1" not in str(caught.value)

    _test(work)


def test_refused_and_unresolvable_upstreams() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x"

    async def run() -> None:
        upstream = Upstream(structs.replace(QUICK, http=_Chosen.http))
        with pytest.raises(UpstreamError, match="cannot be reached") as caught:
            async with upstream.open(Post(url), HEADERS):
                pass
        assert (caught.value.status, caught.value.retryable) == (502, True)

    asyncio.run(run())


def test_plain_text_port_behind_https_is_an_error() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        url = simulator.url.replace("http:", "https:")
        with pytest.raises(UpstreamError):
            async with upstream.open(Post(url), HEADERS):
                pass
        await anyio.sleep(0.05)
        assert simulator.connections == 0

    _test(work)


def test_error_body_is_cut_and_other_bodies_are_refused_over_their_cap() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        big = b"x" * (ERROR_BODY_CAP * 2)
        simulator.enqueue([Head(status=500, length=len(big)), Body(big), Finish()])
        status, body = await _fetch(upstream, simulator)
        assert (status, len(body)) == (500, ERROR_BODY_CAP)
        assert upstream.idle_count() == 0
        simulator.enqueue([Head(length=5000), Body(b"x" * 5000), Finish()])
        with pytest.raises(UpstreamProtocolError, match="too large"):
            await _fetch(upstream, simulator, body_limit=4999)
        simulator.enqueue([Head(length=5000), Body(b"x" * 5000), Finish()])
        assert len((await _fetch(upstream, simulator, body_limit=5000))[1]) == 5000
        simulator.enqueue([Head(framing="chunked"), Repeat(b"x" * 1000, 0.001)])
        with pytest.raises(UpstreamProtocolError, match="too large"):
            await _fetch(upstream, simulator, body_limit=10_000)

    _test(work)


@pytest.mark.parametrize(
    "steps",
    [
        [Stall()],
        [Head(framing="chunked"), Body(b"abc"), Stall()],
        [Head(framing="chunked"), Repeat(b"abc", 0.005)],
        [Head(length=1000), Drip(b"x" * 1000, 0.01)],
    ],
)
def test_cancelled_request_closes_its_connection_at_once(steps: list[Any]) -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        simulator.enqueue(steps)
        with anyio.move_on_after(0.1):
            await _fetch(upstream, simulator)
        cancelled = asyncio.get_running_loop().time()
        assert await simulator.ended(simulator.requests[0], 2) == "client left"
        ended = simulator.requests[0].ended_at
        assert ended is not None
        assert ended - cancelled < 0.5
        assert upstream.idle_count() == 0

    _test(work, UpstreamSettings())


def test_many_cancellations_leave_nothing_behind() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        async def one(index: int) -> None:
            with anyio.move_on_after(0.0005 * (index % 40)):
                await _fetch(upstream, simulator)

        for _ in range(120):
            simulator.enqueue(
                [Wait(0.005), Head(framing="chunked"), Body(b"a"), Body(b"b"), Finish()]
            )
        for wave in range(3):
            async with anyio.create_task_group() as group:
                for index in range(40):
                    group.start_soon(one, index + wave)
        await anyio.sleep(0.1)
        assert simulator.connections == upstream.idle_count()
        assert len(asyncio.all_tasks()) <= 1 + simulator.connections
        simulator.enqueue([Head(length=2), Body(b"ok"), Finish()])
        with anyio.fail_after(2):
            assert await _fetch(upstream, simulator)

    _test(work)


def test_idle_connections_are_closed_when_their_time_is_over() -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        for _ in range(3):
            simulator.enqueue([Wait(0.02), Head(length=2), Body(b"ok"), Finish()])
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(_fetch, upstream, simulator)
        assert upstream.idle_count() == 3
        await anyio.sleep(0.1)
        simulator.enqueue([Head(length=2), Body(b"ok"), Finish()])
        await _fetch(upstream, simulator)
        await anyio.sleep(0.15)
        assert (upstream.idle_count(), simulator.connections) == (1, 1)
        await anyio.sleep(0.15)
        assert (upstream.idle_count(), simulator.connections) == (0, 0)

    _test(work, UpstreamSettings(idle_expiry=0.2))


def test_no_error_shows_the_key(caplog: pytest.LogCaptureFixture) -> None:
    async def work(simulator: Simulator, upstream: Upstream) -> None:
        faults: list[list[Any]] = [[Reset()], [Close()], [Raw(b"\x00\r\n\r\n"), Close()], [Stall()]]
        for steps in faults:
            simulator.enqueue(steps)
            with pytest.raises(UpstreamError) as caught:
                await _fetch(upstream, simulator)
            shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
            assert "sentinel" not in shown
        with pytest.raises(UpstreamError) as caught:
            async with upstream.open(Post(simulator.url), BROKEN):
                pass
        assert "sentinel" not in "".join(traceback.format_exception(caught.value))

    with caplog.at_level(logging.DEBUG):
        _test(work)
    assert "sentinel" not in caplog.text
