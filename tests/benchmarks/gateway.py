"""The gateway beside bare pass-throughs: what an answer and a chunk cost, what waiting and light load do.

One rule: a figure is a ratio between servers that were asked in turn, against the same canned upstream.
"""

from __future__ import annotations

from tests.benchmarks.scenarios import Scenario, Taken, cost, latency, print_taken, rate, take

SERVERS = ("gateway", "passc", "pass")
ANSWER = Scenario("answer, c=32", SERVERS, 32)
AGENT = Scenario("request of an agent, 120 KB, c=8", SERVERS, 8, body="agent")
# The stock pool takes seconds for an answer here, so that only the other floor is asked.
HELD = Scenario(
    "300 ms upstream, c=256", ("direct", "gateway", "passc"), 256, seconds=2.5, delay=0.3
)
HELD_FEW = Scenario("300 ms upstream, c=32", ("gateway",), 32, seconds=2.5, delay=0.3)
HELD_MANY = Scenario(
    "300 ms upstream, c=1000", ("direct", "gateway", "passc"), 1000, seconds=2.5, delay=0.3
)
BURST = Scenario("burst stream, c=8", SERVERS, 8, chunks=100)
PACED = Scenario("paced stream, c=64", SERVERS, 64, seconds=2.5, chunks=100, pace=0.02)
LIGHT = Scenario("20 ms upstream, c=2", ("direct", *SERVERS), 2, seconds=2.5, delay=0.02)
STORES = ("unstored", "memory", "sqlite")
RESPONSE = Scenario("response, c=32", STORES, 32, body="response")
BURST_RESPONSE = Scenario("burst response, c=8", STORES, 8, chunks=100, body="response")


def measure(rounds: int) -> dict[str, list[float]]:
    """Print the scenarios and return the figures of budgets 1 to 5."""
    figures = {}
    answer, few, held = _printed(ANSWER, HELD_FEW, HELD, rounds=rounds)
    figures["1"] = answer.ratios("gateway", "passc", cost)
    figures["2a"] = held.ratios("gateway", "direct", rate)
    (many,) = _printed(HELD_MANY, rounds=rounds)
    figures["2b"] = many.ratios("gateway", "direct", rate)
    both = zip(held.each("gateway", cost), few.each("gateway", cost), strict=True)
    figures["2c"] = [one / other for one, other in both]
    _printed(AGENT, rounds=rounds)
    (burst,) = _printed(BURST, rounds=rounds)
    figures["3"] = burst.ratios("gateway", "passc", cost)
    (paced,) = _printed(PACED, rounds=rounds)
    figures["4a"] = paced.ratios("gateway", "passc", cost)
    figures["4b"] = paced.ratios("gateway", "pass", cost)
    (light,) = _printed(LIGHT, rounds=rounds)
    figures["5"] = _added(light, "gateway", "pass")
    return figures


def measure_stores(rounds: int) -> dict[str, list[float]]:
    """Print what it costs to keep responses; no budget is about it."""
    _printed(RESPONSE, rounds=rounds)
    _printed(BURST_RESPONSE, rounds=rounds)
    return {}


def _printed(*scenarios: Scenario, rounds: int) -> list[Taken]:
    every = take(*scenarios, rounds=rounds)
    for taken in every:
        print_taken(taken)
    return every


def _added(taken: Taken, name: str, floor: str) -> list[float]:
    """Return what one server adds to the upstream's latency beside what another adds."""
    every = (taken.each(server, latency) for server in (name, floor, "direct"))
    return [(one - direct) / (other - direct) for one, other, direct in zip(*every, strict=True)]
