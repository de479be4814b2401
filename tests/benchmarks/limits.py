"""What a gateway needs to exist: its start, its memory, and what a second worker costs.

One rule: start and memory are those of the installed command, with compiled bytecode, beside a floor that is
started in the same way.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import uvloop
from msgspec import structs
from tests.benchmarks import load, processes
from tests.benchmarks.load import Load, post
from tests.benchmarks.processes import Target
from tests.benchmarks.samples import small_request
from tests.benchmarks.scenarios import Scenario, cost, print_taken, take

PAIR = ("gateway", "pass")
WORKERS = Scenario("one worker and two, c=64", ("gateway", "two workers"), 64, seconds=2.5)
STREAMS = Scenario("1,000 streams", ("gateway",), 1000, chunks=40, pace=0.4)
LOADS = (
    Scenario("answers", PAIR, 64, seconds=2.0),
    Scenario("agents", PAIR, 8, seconds=2.0, body="agent"),
)
_STARTS = 3
_MEMORY_ROUNDS = 2
_IDLE_SECONDS = 1.0
_OPENING_SECONDS = 3.0
_LATEST_SECONDS = 9.0
_LOOKS = 10
_LOOK_SECONDS = 0.25


def measure(rounds: int) -> dict[str, list[float]]:
    """Print and return the figures of budgets 8 and 10."""
    figures: dict[str, list[float]] = {}
    with _compiled(), processes.upstream(0.0, STREAMS.chunks, STREAMS.pace) as behind:
        figures["8a"] = _starts(behind, rounds)
        figures |= _memory(behind, rounds)
    (taken,) = take(WORKERS, rounds=rounds)
    print_taken(taken)
    figures["10"] = taken.ratios("two workers", "gateway", cost)
    return figures


@contextmanager
def _compiled() -> Iterator[None]:
    """Let what is started keep its bytecode, as an installed package does."""
    before = dict(os.environ)
    with TemporaryDirectory() as place:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = place
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _starts(behind: Target, rounds: int) -> list[float]:
    taken: dict[str, list[float]] = {name: [] for name in PAIR}
    for name in PAIR:
        _start(name, behind)
    for _ in range(rounds):
        for name in PAIR:
            taken[name].append(min(_start(name, behind) for _ in range(_STARTS)))
    print("\nstart to first 200")
    for name, seconds in taken.items():
        print(f"  {name:<13}{statistics.median(seconds) * 1e3:>9.0f} ms")
    return [one / other for one, other in zip(taken["gateway"], taken["pass"], strict=True)]


def _start(name: str, behind: Target) -> float:
    """Return the seconds from the command to the first answer."""
    began = time.perf_counter()
    with processes.servers((name,), behind) as running:
        first_answer(running[name].port)
        return time.perf_counter() - began


def first_answer(port: int) -> None:
    """Ask once; raises RuntimeError when the answer is no 200."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(post(port, "/v1/chat/completions", small_request()))
        head = connection.recv(1 << 16)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode("latin-1"))


def _memory(behind: Target, rounds: int) -> dict[str, list[float]]:
    idle: dict[str, list[float]] = {name: [] for name in PAIR}
    loaded: dict[str, list[float]] = {name: [] for name in PAIR}
    streams: list[float] = []
    for _ in range(min(rounds, _MEMORY_ROUNDS)):
        for name in PAIR:
            with processes.servers((name,), behind) as running:
                first_answer(running[name].port)
                idle[name].append(_settled(running[name]))
                for scenario in LOADS:
                    load.measure(running[name], scenario.plan(name))
                loaded[name].append(_settled(running[name]))
                if name == "gateway":
                    streams.append(uvloop.run(_streaming(running[name])))
    print("\nmemory (PSS): idle, after load")
    for name in PAIR:
        before, after = statistics.median(idle[name]), statistics.median(loaded[name])
        print(f"  {name:<13}{before:>9.1f} MB{after:>9.1f} MB")
    print(f"  gateway with 1,000 open streams: {statistics.median(streams):.1f} MB")
    return {
        "8b": [one / other for one, other in zip(idle["gateway"], idle["pass"], strict=True)],
        "8c": [
            after / before for before, after in zip(idle["gateway"], loaded["gateway"], strict=True)
        ],
        "8d": streams,
    }


def _settled(target: Target) -> float:
    time.sleep(_IDLE_SECONDS)
    return target.pss()


async def _streaming(target: Target) -> float:
    """Return the most that a target holds while all streams are open, in MB."""
    plan = structs.replace(STREAMS.plan("gateway"), spread=_OPENING_SECONDS)
    running = Load(target, plan)
    until = time.monotonic() + _LATEST_SECONDS
    await running.open()
    while running.meter.open < plan.connections:
        if running.meter.failure or time.monotonic() > until:
            raise RuntimeError(f"{running.meter.open} streams are open. {running.meter.failure}")
        await asyncio.sleep(_LOOK_SECONDS)
    seen = []
    for _ in range(_LOOKS):
        seen.append(target.pss())
        await asyncio.sleep(_LOOK_SECONDS)
    running.abandon()
    await asyncio.sleep(_IDLE_SECONDS)
    return max(seen)
