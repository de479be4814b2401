"""The load: closed-loop clients on a bare asyncio protocol, so that the client is not what is measured.

One rule: figures are taken over a window in which every connection is busy; opening, warming up and the last
answers lie outside it.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import cast

import uvloop
from msgspec import Struct
from tests.benchmarks.processes import KEY, Target

_END = b"\r\n0\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_CHUNKED = -1
_OPEN_SECONDS = 5.0
_DRAIN_SECONDS = 10.0


class Plan(Struct, frozen=True):
    """What so many connections ask, opened over `spread` seconds, measured for `seconds` after `warm` more."""

    path: str
    body: bytes
    connections: int
    seconds: float
    spread: float = 0.0
    warm: float = 0.5


class Measured(Struct):
    """What a window gave: seconds of CPU and of time, answers (parts of streams included), their seconds."""

    cpu: float
    elapsed: float
    answers: float
    latencies: list[float]


class Meter:
    """What all clients of one load have seen."""

    def __init__(self) -> None:
        self.open = 0
        self.running = True
        self.waiting: set[Client] = set()
        self.answered = 0
        self.received = 0
        self.latencies: list[float] = []
        self.failure = ""


class Client(asyncio.Protocol):
    """One connection that sends its request again as soon as the answer is whole."""

    def __init__(self, request: bytes, meter: Meter) -> None:
        self.request, self.meter = request, meter
        self.buffer = self.tail = b""
        self.left: int | None = None
        self.began = 0.0
        self.first = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.meter.waiting.add(self)
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.meter.waiting:
            self.fail(f"a connection was lost: {error!r}")

    def send(self) -> None:
        self.left = None
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.meter.received += len(data)
        if self.left is None:
            data = self.buffer = self.buffer + data
            if (end := data.find(b"\r\n\r\n")) < 0:
                return
            self.left = self.length(data[: end + 2])
            self.buffer, self.tail, data = b"", b"", data[end + 4 :]
            if self.meter.failure:
                return
        if self.left == _CHUNKED:
            self.tail = data[-7:] if len(data) > 6 else (self.tail + data)[-7:]
            if self.tail == _END:
                self.answered()
        else:
            self.left -= len(data)
            if self.left <= 0:
                self.answered()

    def length(self, head: bytes) -> int:
        """Return the bytes to come, -1 where the end is told by a last chunk."""
        if not head.startswith(b"HTTP/1.1 200"):
            self.fail(head.decode("latin-1"))
        self.meter.open += 1
        head = head.lower()
        at = head.find(_LENGTH)
        return int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else _CHUNKED

    def answered(self) -> None:
        meter = self.meter
        meter.open -= 1
        meter.latencies.append(time.perf_counter() - self.began)
        if self.first:
            self.first = False
            meter.answered += 1
        if meter.running:
            self.send()
        else:
            self.close()

    def fail(self, reason: str) -> None:
        self.meter.failure = self.meter.failure or reason
        self.close()

    def close(self) -> None:
        self.meter.waiting.discard(self)
        self.transport.close()


class Load:
    """Clients on a target; `open()` them, look at the target, `drain()` or `abandon()` them."""

    def __init__(self, target: Target, plan: Plan) -> None:
        self.target, self.plan = target, plan
        self.meter = Meter()

    async def open(self) -> None:
        """Connect evenly over the spread, wait until each was answered, then warm up.

        A server that leaves some waiting for long is measured with what it does answer.
        """
        loop = asyncio.get_running_loop()
        began, plan, port = loop.time(), self.plan, self.target.port
        connected = functools.partial(Client, post(port, plan.path, plan.body), self.meter)
        for number in range(plan.connections):
            ahead = began + plan.spread * number / plan.connections - loop.time()
            if ahead > 0:
                await asyncio.sleep(ahead)
            await loop.create_connection(connected, "127.0.0.1", port)
        until = time.monotonic() + _OPEN_SECONDS
        # An event set by the last one would cost every answer a look.
        while self.meter.answered < plan.connections and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await asyncio.sleep(plan.warm)

    async def drain(self) -> None:
        """Let the last answers come; raises RuntimeError if any request failed or hangs."""
        self.meter.running = False
        until = time.monotonic() + _DRAIN_SECONDS
        # An event set by the last answer would cost every answer a look.
        while self.meter.waiting and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if self.meter.waiting:
            self.meter.failure = self.meter.failure or f"{len(self.meter.waiting)} answers hang"
        if self.meter.failure:
            raise RuntimeError(self.meter.failure)

    def abandon(self) -> None:
        """Leave without the last answers."""
        for each in list(self.meter.waiting):
            each.close()

    async def measured(self) -> Measured:
        """Run the load whole and return what its window gave."""
        await self.open()
        meter = self.meter
        cpu, began = self.target.cpu(), time.perf_counter()
        received, count = meter.received, len(meter.latencies)
        await asyncio.sleep(self.plan.seconds)
        elapsed = time.perf_counter() - began
        cpu = self.target.cpu() - cpu
        received, latencies = meter.received - received, meter.latencies[count:]
        await self.drain()
        # Bytes count the streams that the window cuts in two.
        answers = received / (meter.received / len(meter.latencies))
        return Measured(cpu, elapsed, answers, latencies)


def post(port: int, path: str, body: bytes) -> bytes:
    """Return a request with a client's usual headers."""
    return (
        b"POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s"
        % (path.encode(), port, KEY.encode(), len(body), body)
    )


def measure(target: Target, plan: Plan) -> Measured:
    """Put a load on a target and return what its window gave."""
    return uvloop.run(Load(target, plan).measured())
