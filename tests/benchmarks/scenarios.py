"""The loads that servers are compared under, and how: in turn, several rounds interleaved."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal

from msgspec import Struct
from tests.benchmarks import load, processes, samples
from tests.benchmarks.load import Measured, Plan
from tests.benchmarks.processes import Target

_MOST_SPREAD = 1.0


class Scenario(Struct, frozen=True):
    """One load: `connections` clients for `seconds`; an upstream of this delay, chunks and pace."""

    name: str
    servers: tuple[str, ...]
    connections: int
    seconds: float = 2.0
    delay: float = 0.0
    chunks: int = 0
    pace: float = 0.0
    body: Literal["chat", "agent", "response"] = "chat"

    @property
    def unit(self) -> str:
        return "chunk" if self.chunks else "answer"

    def plan(self, name: str) -> Plan:
        """Return the load that this scenario puts on the server of that name."""
        path, body = "/v1/chat/completions", samples.small_request(stream=self.chunks > 0)
        if self.body == "agent":
            body = samples.agent_request()
        elif self.body == "response":
            path = "/v1/responses"
            body = samples.small_response_request(stream=self.chunks > 0, store=name != "unstored")
        if name == "direct":
            path = "/v1beta/models/m:generateContent"
        spread = min(_MOST_SPREAD, max(self.delay, self.chunks * self.pace))
        return Plan(path, body, self.connections, self.seconds, spread)


Figure = Callable[[Measured], float]


def cost(measured: Measured) -> float:
    """Return the seconds of CPU of an answer."""
    return measured.cpu / measured.answers


def rate(measured: Measured) -> float:
    """Return the answers per second."""
    return measured.answers / measured.elapsed


def latency(measured: Measured) -> float:
    """Return the median seconds until an answer was whole."""
    return statistics.median(measured.latencies)


class Taken(Struct):
    """What a scenario gave, by server and round."""

    scenario: Scenario
    rounds: dict[str, list[Measured]]

    def each(self, name: str, figure: Figure) -> list[float]:
        return [figure(measured) for measured in self.rounds[name]]

    def median(self, name: str, figure: Figure) -> float:
        return statistics.median(self.each(name, figure))

    def ratios(self, name: str, floor: str, figure: Figure) -> list[float]:
        """Return one server's figure beside another's, round by round."""
        both = zip(self.each(name, figure), self.each(floor, figure), strict=True)
        return [one / other for one, other in both]


def take(*scenarios: Scenario, rounds: int) -> list[Taken]:
    """Measure scenarios: each round has all of them, and starts its servers anew in another order.

    Those that are set beside each other belong in one call: a machine that others use is not as fast for long.
    """
    every = [Taken(each, {name: [] for name in each.servers}) for each in scenarios]
    with ExitStack() as running:
        behind = [
            running.enter_context(processes.upstream(each.delay, each.chunks or 1, each.pace))
            for each in scenarios
        ]
        for number in range(rounds):
            for taken, upstream in zip(every, behind, strict=True):
                _take_round(taken, upstream, number)
    return every


def _take_round(taken: Taken, behind: Target, number: int) -> None:
    scenario = taken.scenario
    with processes.servers(scenario.servers, behind) as running:
        first = number % len(running)
        for name in (*scenario.servers[first:], *scenario.servers[:first]):
            measured = load.measure(running[name], scenario.plan(name))
            taken.rounds[name].append(measured)


def print_taken(taken: Taken) -> None:
    """Print a line for each server: CPU per answer or chunk, beside the others', rate and latency."""
    scenario = taken.scenario
    units = max(scenario.chunks, 1)
    print(f"\n{scenario.name}: CPU per {scenario.unit}")
    for name in scenario.servers:
        beside = "  ".join(
            f"{statistics.median(taken.ratios(name, other, cost)):.2f} x {other}"
            for other in scenario.servers
            if other not in (name, "direct") and name != "direct"
        )
        used = "" if name == "direct" else f"{taken.median(name, cost) / units * 1e6:.1f} µs"
        print(
            f"  {name:<13}{used:>12}   {beside:<36}{taken.median(name, rate):>7.0f}/s"
            f"{taken.median(name, latency) * 1e3:>10.2f} ms p50"
        )
