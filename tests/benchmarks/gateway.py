"""The gateway beside bare pass-throughs: CPU of the server process for one answer and for one chunk.

Each figure is taken from every server in turn, several rounds interleaved, against the same canned upstream.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop
from msgspec import Struct
from tests.benchmarks import samples

ROUNDS = 3
SERVERS = ("gateway", "passc", "pass")
STORES = {"unstored": "memory", "memory": "memory", "sqlite": "sqlite"}
"""The gateway as a server of Responses, by what becomes of them, and the store behind it."""
TICKS = os.sysconf("SC_CLK_TCK")


class Scenario(Struct, frozen=True):
    """One load: `connections` clients for `seconds`; an upstream of this delay, chunks and pace."""

    name: str
    connections: int
    seconds: float
    delay: float = 0.0
    chunks: int = 0
    pace: float = 0.0
    servers: tuple[str, ...] = SERVERS
    responses: bool = False


SCENARIOS = (
    Scenario("answer, c=32", 32, 3.0),
    Scenario("answer, c=256, 300 ms upstream", 256, 4.0, delay=0.3, servers=("gateway", "passc")),
    Scenario("burst stream, c=8", 8, 3.0, chunks=100),
    Scenario("paced stream, c=64", 64, 4.0, chunks=100, pace=0.02),
    Scenario("response, c=32", 32, 3.0, servers=tuple(STORES), responses=True),
    Scenario("burst response, c=8", 8, 3.0, chunks=100, servers=tuple(STORES), responses=True),
)


class Measured(Struct):
    """What one round gave: seconds of CPU, answers, and each answer's seconds."""

    cpu: float
    elapsed: float
    latencies: list[float]


@contextmanager
def process(
    *arguments: str, environment: dict[str, str] | None = None
) -> Iterator[tuple[int, int]]:
    """Run a server that prints its port; yields (pid, port)."""
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
        cwd=Path(__file__).parents[2],
    )
    try:
        assert child.stdout is not None
        yield child.pid, int(child.stdout.readline())
    finally:
        child.terminate()
        child.wait(10)


@contextmanager
def server(name: str, upstream: int) -> Iterator[tuple[int, int]]:
    """Run one of the servers against an upstream port."""
    if name in ("passc", "pass"):
        arguments = ("tests.benchmarks.floors", name, str(upstream))
    else:
        arguments = ("tests.benchmarks.served", str(upstream), STORES.get(name, "memory"))
    with process(*arguments) as (pid, port):
        _wait_for(port)
        yield pid, port


def _wait_for(port: int) -> None:
    import socket

    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port}")


def cpu(pid: int) -> float:
    """Return the CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def client(port: int, request: bytes, until: float, latencies: list[float]) -> None:
    """Send one request after another on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    while time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode())
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        latencies.append(time.perf_counter() - began)
    writer.close()


async def load(
    port: int, scenario: Scenario, name: str, seconds: float
) -> tuple[float, list[float]]:
    streamed = scenario.chunks > 0
    path, body = b"/v1/chat/completions", samples.small_request(stream=streamed)
    if scenario.responses:
        path = b"/v1/responses"
        body = samples.small_response_request(stream=streamed, store=name != "unstored")
    request = (
        b"POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer sk-benchmark\r\ncontent-length: %d\r\n\r\n%s"
        % (path, port, len(body), body)
    )
    latencies: list[float] = []
    began = time.perf_counter()
    clients = (
        client(port, request, began + seconds, latencies) for _ in range(scenario.connections)
    )
    await asyncio.gather(*clients)
    return time.perf_counter() - began, latencies


def measure(scenario: Scenario) -> dict[str, list[Measured]]:
    """Take a scenario from each of its servers, interleaved."""
    taken: dict[str, list[Measured]] = {name: [] for name in scenario.servers}
    upstream = (str(scenario.delay), str(scenario.chunks or 1), str(scenario.pace))
    with process("tests.benchmarks.upstream", *upstream) as (_, upstream_port):
        for _ in range(ROUNDS):
            for name in scenario.servers:
                with server(name, upstream_port) as (pid, port):
                    uvloop.run(load(port, scenario, name, 0.5))
                    before = cpu(pid)
                    elapsed, latencies = uvloop.run(load(port, scenario, name, scenario.seconds))
                    taken[name].append(Measured(cpu(pid) - before, elapsed, latencies))
    return taken


def print_figures() -> None:
    """Print every scenario: CPU per answer or chunk, ratio to the floors, rate and median latency."""
    for scenario in SCENARIOS:
        taken = measure(scenario)
        units = max(scenario.chunks, 1)
        per_unit = {
            name: statistics.median(each.cpu / (len(each.latencies) * units) for each in rounds)
            for name, rounds in taken.items()
        }
        print(f"\n{scenario.name}: CPU per {'chunk' if scenario.chunks else 'answer'}")
        for name, rounds in taken.items():
            ratios = "  ".join(
                f"{per_unit[name] / per_unit[floor]:.2f} x {floor}"
                for floor in taken
                if floor not in ("gateway", "memory", "sqlite")
            )
            rate = statistics.median(len(each.latencies) / each.elapsed for each in rounds)
            median = statistics.median(statistics.median(each.latencies) for each in rounds)
            print(
                f"  {name:<8}{per_unit[name] * 1e6:>9.1f} µs   {ratios:<28}"
                f"{rate:>9.0f}/s{median * 1e3:>9.2f} ms p50"
            )
