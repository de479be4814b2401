"""Rows A of the fault matrix: clients that leave, do not read, or send slowly, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest
from tests.support import raw
from tests.support.gateway import Gateway, gateway, serving
from tests.support.processes import KEY, gateway_process

from oaicompat_server import bodies
from oaicompat_server.app import create_app
from oaicompat_server.limits import Limits
from oaicompat_server.secret import Secret
from oaicompat_server.settings import (
    Config,
    CredentialSettings,
    ServerSettings,
    StateSettings,
)
from oaicompat_server.simulator import running
from oaicompat_server.simulator.faults import Head, Repeat
from oaicompat_server.tokens import Minted, Tokens

SOON = 0.1
MANY_SOON = 0.5
"""How soon the upstream has to know that a client left: one, and thirty at once on a busy machine."""

THINKING = "#script:slow:20000 think"
LIMITS = Limits(header_seconds=0.5, body_gap_seconds=0.5, write_stall_seconds=0.6)

paths = pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
departures = pytest.mark.parametrize("leave", [socket.socket.close, raw.reset], ids=["FIN", "RST"])
Leave = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway(limits=LIMITS) as running_gateway:
        yield running_gateway


def leave_all(served: Gateway, path: str, leave: Leave, count: int, *, stream: bool) -> None:
    """Send requests, leave them all before the first byte, and demand that the upstream hears of it."""
    sent = raw.request(served.port, path, raw.words(path, THINKING, stream=stream))
    with raw.left_idle(served):
        before = len(raw.calls(served))
        plugs = [raw.connect(served.port) for _ in range(count)]
        for plug in plugs:
            plug.sendall(sent)
        raw.until(lambda: len(raw.calls(served)) == before + count, 5)
        left = time.monotonic()
        for plug in plugs:
            leave(plug)
        for record in raw.calls(served)[before:]:
            assert record.wait(2) == "client left"
            assert record.ended_at - left < (SOON if count == 1 else MANY_SOON)


@paths
@departures
@pytest.mark.parametrize("count", [1, 30])
def test_a1_whoever_leaves_before_a_whole_answer_ends_its_upstream_call(
    served: Gateway, path: str, leave: Leave, count: int
) -> None:
    """A client that leaves while it waits for a whole answer takes its upstream call along at once."""
    leave_all(served, path, leave, count, stream=False)


@paths
@departures
@pytest.mark.parametrize("count", [1, 30])
def test_a2_whoever_leaves_before_the_first_event_ends_its_upstream_call(
    served: Gateway, path: str, leave: Leave, count: int
) -> None:
    """A client that leaves before the first event of its stream takes its upstream call along at once."""
    leave_all(served, path, leave, count, stream=True)


@paths
@departures
@pytest.mark.parametrize("after", [1, 2, 12])
def test_a3_whoever_leaves_in_the_middle_of_a_stream_ends_its_upstream_call(
    served: Gateway, path: str, leave: Leave, after: int
) -> None:
    """A client that leaves in the middle of a stream takes its upstream call along at once."""
    text = "#script:long:500 #script:pace:20"
    with raw.left_idle(served), raw.connect(served.port) as plug:
        sent = raw.request(served.port, path, raw.words(path, text, stream=True))
        record = raw.asked(served, plug, sent)
        raw.read(plug, b"chunk %d of" % after)
        left = time.monotonic()
        leave(plug)
        assert record.wait(2) == "client left"
        assert record.ended_at - left < SOON


def test_a4_whoever_leaves_the_queue_costs_nothing() -> None:
    """Of requests that wait for a slot, those whose clients leave are never asked upstream."""
    config = Config(server=ServerSettings(max_in_flight=1, queue=30, queue_wait=10))
    with gateway(config) as served, raw.left_idle(served), contextlib.ExitStack() as open_ones:
        first = open_ones.enter_context(raw.connect(served.port))
        slow = raw.words(raw.CHAT, "#script:slow:400 first")
        raw.asked(served, first, raw.request(served.port, raw.CHAT, slow))
        plugs = [open_ones.enter_context(raw.connect(served.port)) for _ in range(20)]
        for number, plug in enumerate(plugs):
            words = raw.words(raw.CHAT, f"queued {number}", stream=number % 2 == 0)
            plug.sendall(raw.request(served.port, raw.CHAT, words))
        raw.until(lambda: served.idle()["waiting"] == 20)
        for plug in plugs[:-1]:
            plug.close()
        raw.until(lambda: served.idle()["waiting"] == 1)
        assert raw.answer(first)[0] == 200
        assert raw.answer(plugs[-1])[0] == 200
        assert len(raw.calls(served)) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a4_whoever_leaves_while_a_retry_is_waited_for_ends_it(stream: bool) -> None:
    """A client that leaves while the gateway waits before another attempt is not asked for again."""
    with gateway() as served, raw.left_idle(served), raw.connect(served.port) as plug:
        words = raw.words(raw.CHAT, "#script:error:429", stream=stream)
        record = raw.asked(served, plug, raw.request(served.port, raw.CHAT, words))
        assert record.wait(2) == "complete"
        plug.close()
        raw.until(lambda: served.idle()["active"] == 0, 0.5)
        time.sleep(1.2)
        assert len(raw.calls(served)) == 1


def test_a5_whoever_leaves_during_a_refresh_does_not_end_it() -> None:
    """Clients that leave while a token is refreshed free their slots, and the refresh serves the next one."""
    refreshes: list[float] = []
    go = asyncio.Event()

    async def mint() -> Minted:
        refreshes.append(time.monotonic())
        await go.wait()
        return Minted(Secret("ya29.fresh"), 3600)

    source = Tokens(mint, "an account", clock=time.monotonic, jitter=lambda: 0.5)
    with running(any_model=True) as upstream:
        account = CredentialSettings(kind="adc", project="a-project", base_url=upstream.url)
        config = Config(credentials=(account,), state=StateSettings(store="memory"))
        app = create_app(config, tune=False, sources=lambda _: source)
        with serving(app, LIMITS, app.state.relay) as running_app:
            served = Gateway(running_app, upstream)
            sent = raw.request(served.port, raw.CHAT, raw.words(raw.CHAT, "hello"))
            plugs = [raw.connect(served.port) for _ in range(10)]
            for plug in plugs:
                plug.sendall(sent)
            raw.until(lambda: served.idle()["active"] == 10)
            for plug in plugs:
                plug.close()
            raw.until(lambda: served.idle()["active"] == served.idle()["leases"] == 0)
            with raw.connect(served.port) as plug:
                plug.sendall(sent)
                raw.until(lambda: served.idle()["active"] == 1)
                served.serving.call(go.set)
                assert raw.answer(plug)[0] == 200
            assert len(refreshes) == 1
            assert len(raw.calls(served)) == 1


def endless(served: Gateway, plug: socket.socket, path: str = raw.CHAT) -> Any:
    """Ask for a stream that the upstream sends as fast as it is taken."""
    event = b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"%s"}]}}]}\r\n\r\n'
    head = Head(content_type="text/event-stream", framing="chunked")
    served.simulator.enqueue([head, Repeat(event % (b"x" * 16000), 0)])
    return raw.asked(
        served, plug, raw.request(served.port, path, raw.words(path, "x", stream=True))
    )


@paths
def test_a6_whoever_does_not_read_is_cut(served: Gateway, path: str) -> None:
    """A client that stops reading is cut at the deadline, and its upstream call with it."""
    with raw.left_idle(served), raw.connect(served.port, buffer=65536) as plug:
        began = time.monotonic()
        record = endless(served, plug, path)
        assert record.wait(4) == "client left"
        assert 0.5 < record.ended_at - began < 2.5


def test_a6_whoever_reads_slowly_is_not_cut(served: Gateway) -> None:
    """A client that reads slowly, but reads, keeps its stream."""
    with raw.left_idle(served), raw.connect(served.port, buffer=65536) as plug:
        record = endless(served, plug)
        for _ in range(25):
            assert plug.recv(32768)
            time.sleep(0.08)
        assert record.ended is None


@pytest.mark.parametrize("start", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127"])
def test_a7_a_head_that_does_not_come_ends_the_connection(served: Gateway, start: bytes) -> None:
    """A connection without a whole head by the deadline is closed."""
    with raw.connect(served.port) as plug:
        plug.sendall(start)
        began = time.monotonic()
        assert raw.read(plug) == b""
        assert 0.3 < time.monotonic() - began < 1.5


def test_a7_a_head_that_drips_does_not_move_its_deadline(served: Gateway) -> None:
    """A head that comes byte by byte has the same deadline as one that does not come."""
    with raw.connect(served.port) as plug:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in raw.head(served.port, raw.CHAT, 10):
                plug.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - began < 1.5


def test_a8_a_body_that_stalls_gets_408(served: Gateway) -> None:
    """A body of which nothing comes for the length of the gap is answered with 408 and a close."""
    with raw.left_idle(served), raw.connect(served.port) as plug:
        plug.sendall(raw.head(served.port, raw.CHAT, 100) + b"{")
        began = time.monotonic()
        status, headers, body = raw.answer(plug)
        assert 0.3 < time.monotonic() - began < 1.5
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["error"]["type"] == "invalid_request_error"
        assert raw.read(plug) == b""


def test_a8_a_body_that_drips_gets_408(served: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that comes byte by byte is answered with 408 when all of it should have come."""
    monkeypatch.setattr(bodies, "FREE_SECONDS", 0.6)
    with raw.left_idle(served), raw.connect(served.port) as plug:
        plug.sendall(raw.head(served.port, raw.CHAT, 1000))
        began = time.monotonic()
        plug.settimeout(0.02)
        data = b""
        while not data and time.monotonic() - began < 3:
            plug.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                data = plug.recv(65536)
        assert 0.5 < time.monotonic() - began < 1.5
        assert data.startswith(b"HTTP/1.1 408 ")


def test_a9_connections_are_capped_by_the_descriptors(tmp_path: Path) -> None:
    """Beyond its share of the descriptors it refuses connections; what runs goes on, and the log is quiet."""
    bearer = f"authorization: Bearer {KEY}"
    with (
        running(any_model=True) as upstream,
        gateway_process(upstream.url, tmp_path, 200) as served,
    ):
        with raw.connect(served.port) as plug, contextlib.ExitStack() as crowd:
            words = raw.words(raw.CHAT, "#script:long:12 #script:pace:60", stream=True)
            plug.sendall(raw.request(served.port, raw.CHAT, words, bearer))
            assert b"200 OK" in plug.recv(65536)
            others = [crowd.enter_context(raw.connect(served.port)) for _ in range(300)]
            assert b"[DONE]" in raw.read(plug, b"[DONE]")
            assert 0 < sum(map(is_open, others)) <= (200 - 64) // 2
        time.sleep(0.1)
        assert served.data("GET", "/models")["data"]
        assert len(served.log.read_text().splitlines()) <= 10


def is_open(plug: socket.socket) -> bool:
    plug.setblocking(False)
    try:
        return bool(plug.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_a10_a_connection_at_its_clients_expiry_is_served(served: Gateway) -> None:
    """The gateway keeps idle connections longer than clients do: reuse at the client's expiry never fails."""
    assert served.serving.server.config.timeout_keep_alive > 60
    body = json.dumps(raw.words(raw.CHAT, "hello")).encode()
    with httpcore.ConnectionPool(keepalive_expiry=0.01) as pool:
        for number in range(150):
            reply = pool.request(
                "POST",
                f"{served.url}/chat/completions",
                headers={"content-type": "application/json"},
                content=body,
            )
            assert reply.status == 200
            time.sleep(0.009 + number % 3 * 0.001)


@paths
def test_a11_whoever_leaves_a_firehose_is_noticed(served: Gateway, path: str) -> None:
    """A client that leaves while the upstream sends as fast as it can is noticed at once."""
    with raw.left_idle(served), raw.connect(served.port) as plug:
        record = endless(served, plug, path)
        for _ in range(20):
            assert plug.recv(65536)
        left = time.monotonic()
        plug.close()
        assert record.wait(2) == "client left"
        assert record.ended_at - left < MANY_SOON
