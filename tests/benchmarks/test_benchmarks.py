"""The benchmark's own client and verdicts: a figure is worth what counts it."""

from __future__ import annotations

import asyncio

import pytest
from tests.benchmarks.budgets import BUDGETS, Budget
from tests.benchmarks.load import Client, Meter, post

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: a\r\n"
COUNTED = HEAD + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n4\r\n0\n\n0\r\n0\r\n\r\n"
REQUEST = post(80, "/v1/chat/completions", b"{}")


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True


def connected() -> tuple[Client, Meter, Wire]:
    meter, wire = Meter(), Wire()
    client = Client(REQUEST, meter)
    client.connection_made(wire)
    return client, meter, wire


@pytest.mark.parametrize("answer", [COUNTED, CHUNKED], ids=["counted", "chunked"])
def test_an_answer_counts_once_however_it_is_cut(answer: bytes) -> None:
    for cut in range(1, len(answer)):
        client, meter, wire = connected()
        for _ in range(2):
            client.data_received(answer[:cut])
            client.data_received(answer[cut:])
        assert (len(meter.latencies), meter.open, meter.failure) == (2, 0, ""), cut
        assert wire.written == [REQUEST] * 3


def test_the_last_answer_closes() -> None:
    client, meter, wire = connected()
    meter.running = False
    client.data_received(COUNTED)
    client.connection_lost(None)
    assert (wire.closed, meter.waiting, meter.failure) == (True, set(), "")


def test_an_error_and_a_lost_connection_are_failures() -> None:
    client, meter, wire = connected()
    client.data_received(b"HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n")
    assert (meter.failure[:12], meter.latencies, wire.closed) == ("HTTP/1.1 503", [], True)
    client, meter, _ = connected()
    client.connection_lost(None)
    assert "lost" in meter.failure


@pytest.mark.parametrize(
    ("value", "least", "verdict"),
    [
        (1.0, False, "ok, aim too"),
        (2.0, False, "ok"),
        (2.1, False, "miss"),
        (2.0, True, "ok"),
        (3.0, True, "ok, aim too"),
        (1.9, True, "miss"),
    ],
)
def test_a_verdict(value: float, least: bool, verdict: str) -> None:
    assert Budget("0", "", "", 2.0, 3.0 if least else 1.0, least).verdict(value) == verdict


def test_each_budget_has_its_figure_once() -> None:
    numbers = [budget.number for budget in BUDGETS]
    assert len(set(numbers)) == len(numbers)
    assert {number.rstrip("abcd") for number in numbers} == {str(each) for each in range(1, 11)}
