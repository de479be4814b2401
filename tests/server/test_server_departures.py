"""Clients that end their side, leave, or send the next request before they have an answer."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support.gateway import Gateway, gateway

SOON = 0.1
STALL = "#script:long:3 #script:stall-after:0"
STALL_LATER = "#script:long:3 #script:stall-after:1"


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


def _request(served: Gateway, text: str, stream: bool = False) -> bytes:
    message = {"role": "user", "content": text}
    body = json.dumps({"model": "gpt-4o", "messages": [message], "stream": stream}).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (served.port, len(body), body)
    )


def _calls(served: Gateway) -> list[Any]:
    return [record for record in served.simulator.requests if record.method == "POST"]


@contextmanager
def _plug(served: Gateway, sent: bytes, calls: int = 1) -> Iterator[tuple[socket.socket, Any]]:
    """Send bytes, wait for their upstream call, and give the socket and that call's record."""
    before = len(_calls(served))
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        plug.sendall(sent)
        until = time.monotonic() + 3
        while len(_calls(served)) < before + calls and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(0.05)
        yield plug, _calls(served)[before]


def _assert_idle(served: Gateway) -> None:
    nothing = {"active": 0, "waiting": 0, "leases": 0, "tasks": 0}
    until = time.monotonic() + 1
    while served.idle() != nothing and time.monotonic() < until:
        time.sleep(0.005)
    assert served.idle() == nothing


def _read_all(plug: socket.socket) -> bytes:
    data = b""
    while piece := plug.recv(65536):
        data += piece
    return data


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [STALL, STALL_LATER])
@pytest.mark.parametrize("more", ["whole", "half a head", "half a body", "a flood", "garbage", ""])
def test_regression_a_client_that_pipelined_and_leaves_is_noticed(
    served: Gateway, stream: bool, script: str, more: str
) -> None:
    second = _request(served, "second")
    tails = {
        "whole": second,
        "half a head": second[:40],
        "half a body": second[:-10],
        "a flood": second * 3000,
        "garbage": b"\x00\x01\r\n\r\n",
        "": b"",
    }
    before = len(_calls(served))
    with _plug(served, _request(served, script, stream) + tails[more]) as (plug, record):
        left = time.monotonic()
        plug.close()
    assert record.wait(2) == "client left"
    assert record.ended_at - left < SOON
    _assert_idle(served)
    assert len(_calls(served)) == before + 1


def test_pipelined_requests_are_answered_in_order(served: Gateway) -> None:
    last = _request(served, "c").replace(b"\r\nContent-T", b"\r\nConnection: close\r\nContent-T")
    sent = _request(served, "a") + _request(served, "b") + last
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        plug.sendall(sent)
        data = _read_all(plug)
    assert data.count(b"HTTP/1.1 200 ") == 3
    assert [data.index(b'"content":"%s"' % one) for one in (b"a", b"b", b"c")] == sorted(
        data.index(b'"content":"%s"' % one) for one in (b"a", b"b", b"c")
    )


def test_too_much_pipelined_is_dropped_after_the_answer(served: Gateway) -> None:
    more = _request(served, "x" * 100_000)
    slow = _request(served, "#script:long:6 #script:pace:60 first", stream=True)
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        plug.sendall(slow + more)
        data = _read_all(plug)
    assert data.count(b"HTTP/1.1 200 ") == 1
    assert b"x" * 1000 not in data
    _assert_idle(served)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_regression_a_client_that_ends_its_side_gets_its_answer(
    served: Gateway, stream: bool, count: int
) -> None:
    script = "#script:slow:200 #script:long:4 #script:pace:60"
    sent = _request(served, script, stream) * count
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        plug.sendall(sent)
        plug.shutdown(socket.SHUT_WR)
        if count == 1:
            reply = http.client.HTTPResponse(plug)
            reply.begin()
            assert reply.status == 200
            assert reply.read().endswith(b"[DONE]\n\n" if stream else b"}")
            assert reply.getheader("connection") == "close" or stream
        else:
            assert _read_all(plug).count(b"HTTP/1.1 200 ") == count
    _assert_idle(served)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_ends_its_side_with_half_a_request_is_gone(
    served: Gateway, stream: bool
) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        plug.sendall(_request(served, "hello", stream)[:-5])
        plug.shutdown(socket.SHUT_WR)
        started = time.monotonic()
        assert plug.recv(100) == b""
        assert time.monotonic() - started < 1
    _assert_idle(served)


def test_regression_no_task_is_left_at_shutdown_by_a_client_that_pipelined() -> None:
    with gateway() as running:
        sent = _request(running, STALL) + _request(running, "second")
        with _plug(running, sent) as (plug, _):
            plug.close()
        time.sleep(0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 2
