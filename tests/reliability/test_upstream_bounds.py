"""Rows B13, B14, B16: upstreams that send without end, and what that may cost in time and memory.

The gateway is a process of its own, so that its memory can be looked at.
"""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import faulty, raw
from tests.support.faulty import Told, failure, replying, shapes
from tests.support.processes import GatewayProcess, gateway_process

from oaicompat_server.simulator import Body, Finish, Head, Raw, Repeat, Simulator, running
from oaicompat_server.simulator.faults import Step

MIB = 1024 * 1024
EVENT_CAP = 64 * MIB
BODY_CAP = 128 * MIB
OPENING = b'{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"'


class Bounded:
    """A gateway in a process, and the upstream that it asks."""

    def __init__(self, served: GatewayProcess, simulator: Simulator) -> None:
        self.served = served
        self.simulator = simulator

    def tell(self, steps: list[Step], path: str, stream: bool) -> Told:
        """Ask in one shape; the upstream does this, until it is left, or answers."""
        if steps:
            self.simulator.enqueue(steps)
        before = len(self.simulator.requests)
        began = time.monotonic()
        body = raw.words(path, "hello", stream=stream)
        reply = self.served.ask("POST", path.removeprefix("/v1"), body)
        told = Told(path, stream, reply, time.monotonic() - began)
        assert self.simulator.requests[before].wait(2) is not None
        return told

    def more_memory(self, work: Callable[[], object]) -> float:
        """Return by how many MiB the process grew at most while this was done."""
        place = Path(f"/proc/{self.served.process.pid}")
        (place / "clear_refs").write_text("5")
        before = self._memory(place, "VmRSS")
        work()
        return self._memory(place, "VmHWM") - before

    def _memory(self, place: Path, name: str) -> float:
        lines = (place / "status").read_text().splitlines()
        (found,) = (int(line.split()[1]) for line in lines if line.startswith(name))
        return found / 1024


@pytest.fixture(scope="module", params=faulty.KINDS)
def bounded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bounded]:
    if sys.platform != "linux":
        pytest.skip("the memory of another process is read from /proc")
    settings = {
        "OAICOMPAT_UPSTREAM__HTTP": str(request.param),
        "OAICOMPAT_UPSTREAM__ATTEMPTS": "1",
        "OAICOMPAT_UPSTREAM__FIRST_BYTE_TIMEOUT": "2",
        "OAICOMPAT_UPSTREAM__TOTAL_TIMEOUT": "9",
        "OAICOMPAT_UPSTREAM__TOTAL_TIMEOUT_STREAM": "9",
    }
    place = tmp_path_factory.mktemp("bounded")
    with (
        running(any_model=True) as simulator,
        gateway_process(simulator.url, place, **settings) as served,
    ):
        started = Bounded(served, simulator)
        for path, stream in faulty.SHAPES:
            started.tell([], path, stream)
        yield started


def huge(size: int) -> list[bytes]:
    """Return one event of more than `size` bytes in pieces of 4 KiB."""
    piece = b"A" * 4096
    return [b"data: " + OPENING, *([piece] * (size // len(piece) + 1))]


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
def test_b13_an_event_without_end_is_refused_at_its_cap(bounded: Bounded, path: str) -> None:
    """An event above 64 MiB in pieces of 4 KiB is an error within seconds, for 3 times that at most."""
    told: list[Told] = []
    steps = replying(huge(EVENT_CAP), True)
    grown = bounded.more_memory(lambda: told.append(bounded.tell(steps, path, True)))
    assert failure(told[0])["code"] == "upstream_malformed"
    assert told[0].seconds < 6
    assert grown < 3 * EVENT_CAP / MIB


ENDLESS: dict[str, list[Step]] = {
    "a body": [Head(framing="chunked"), Repeat(b"x" * MIB, 0)],
    "a body until the end": [Head(framing="close"), Repeat(b"x" * MIB, 0)],
    "blanks": [Head(framing="chunked"), Repeat(b" " * MIB, 0)],
}
HEADS: dict[str, list[Step]] = {
    "lines of a head": [Raw(b"HTTP/1.1 200 OK\r\n"), Repeat(b"X-Line: " + b"y" * 500 + b"\r\n", 0)],
    "one line of a head": [Raw(b"HTTP/1.1 200 OK\r\nX-Line: "), Repeat(b"y" * 4096, 0)],
    "a status line": [Raw(b"HTTP/1.1 200 "), Repeat(b"y" * 4096, 0)],
    "20,000 hints": [Raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20_000), *replying(b"{}", False)],
    "hints": [Repeat(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 50, 0)],
}


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
@pytest.mark.parametrize("name", ENDLESS)
def test_b14_a_body_without_end_is_refused_at_its_cap(
    bounded: Bounded, path: str, name: str
) -> None:
    """A whole answer above 128 MiB is a 502 within seconds, and takes no more than twice that."""
    told: list[Told] = []
    grown = bounded.more_memory(lambda: told.append(bounded.tell(ENDLESS[name], path, False)))
    assert failure(told[0])["code"] == "upstream_malformed"
    assert told[0].reply.status == 502
    assert told[0].seconds < 6
    assert grown < 2 * BODY_CAP / MIB


@shapes
@pytest.mark.parametrize("name", HEADS)
def test_b14_a_head_without_end_is_refused_at_its_cap(
    bounded: Bounded, path: str, stream: bool, name: str
) -> None:
    """A head without end, or hints without end, is a 502 at once, and takes no memory to speak of."""
    told: list[Told] = []
    grown = bounded.more_memory(lambda: told.append(bounded.tell(HEADS[name], path, stream)))
    failure(told[0])
    assert told[0].reply.status == 502
    assert told[0].seconds < 1.5
    assert grown < 8


def test_b14_a_stream_of_nothing_ends_at_its_deadline() -> None:
    """A stream of comments without end, which costs nothing, is ended by the deadline of the whole."""
    with faulty.faulty("fast", total_timeout_stream=0.6) as served, faulty.left_clean(served):
        for path in (raw.CHAT, raw.RESPONSES):
            head = Head(content_type="text/event-stream", framing="chunked")
            served.simulator.enqueue([head, Repeat(b": nothing\r\n\r\n" * 50, 0.001)])
            told = faulty.tell(served, path, True)
            failure(told)
            assert told.reply.status == 504
            assert 0.5 < told.seconds < 1.2


BOMB = gzip.compress(b" " * 100_000_000, 9, mtime=0)


@shapes
@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
def test_b16_a_compressed_body_is_refused_unread(
    bounded: Bounded, path: str, stream: bool, coding: str
) -> None:
    """Nothing compressed is asked for, and what comes so is a 502 that costs no memory: 1000 to 1 included."""
    head = Head(headers=(("Content-Encoding", coding),), length=len(BOMB))
    told: list[Told] = []
    grown = bounded.more_memory(
        lambda: told.append(bounded.tell([head, Body(BOMB), Finish()], path, stream))
    )
    assert "compressed" in failure(told[0])["message"]
    assert told[0].reply.status == 502
    assert grown < 5
    assert bounded.simulator.requests[-1].headers["accept-encoding"] == "identity"
