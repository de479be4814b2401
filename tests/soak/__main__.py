"""All faults at once for some minutes, and what is left behind: every figure of the last lines must be 0.

    python -m tests.soak --minutes 2 --clients 24 --seed 1

A real gateway in a process of its own stands before the simulator; clients ask plainly and streamed, in both
dialects, continue what is stored, leave, reset and stall, while the upstream fails in every way it knows. Each
question has a word of its own, which a complete answer holds exactly once. Leaks are counted once nobody asks
any more; memory by a line through the second half of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.clients import Client, Tally
from tests.soak.process import Footprint, footprint, growth
from tests.support.processes import GatewayProcess, gateway_process

from oaicompat_server.simulator import running

QUIET_SECONDS = 8.0
LOOK_SECONDS = 0.5
KEYS = ("first", "second", "third")
MEGABYTE = 1 << 20
GROWTH_LIMIT = 8 * MEGABYTE


async def drive(
    port: int, pid: int, seconds: float, clients: int, seed: int, tally: Tally
) -> list[Footprint]:
    """Ask until the time is over; return what the gateway held meanwhile."""
    stop = time.monotonic() + seconds
    looks: list[Footprint] = []

    async def look() -> None:
        while time.monotonic() < stop:
            looks.append(footprint(pid))
            await asyncio.sleep(LOOK_SECONDS)

    async with asyncio.TaskGroup() as group:
        group.create_task(look())
        for number in range(clients):
            chance = random.Random(f"{seed} {number}")
            group.create_task(Client(port, number, chance, tally).run(stop))
    return looks


def settle(served: GatewayProcess, before: Footprint) -> dict[str, int]:
    """Wait until nothing runs; return what is left over then."""
    until = time.monotonic() + QUIET_SECONDS
    while True:
        status = served.data("GET", "/oaicompat/status")
        found = status["requests"]
        left = {
            "running": found["running"] - 0,
            "waiting": found["waiting"],
            "leases": found["leases"],
            "body bytes": found["body_bytes"],
            "tasks": max(0, found["tasks"] - before.tasks),
            "descriptors": max(0, footprint(served.process.pid).descriptors - before.descriptors),
        }
        if not any(left.values()) or time.monotonic() > until:
            return left
        time.sleep(0.1)


def main() -> int:
    """Run, print, and return 1 where something is not 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tally = Tally()
    behaviour: dict[str, list[str]] = {key: [] for key in KEYS}
    settings = {
        "OAICOMPAT_CREDENTIALS": ",".join(KEYS),
        "OAICOMPAT_UPSTREAM__FIRST_BYTE_TIMEOUT": "2",
        "OAICOMPAT_UPSTREAM__IDLE_TIMEOUT": "2",
        "OAICOMPAT_UPSTREAM__TOTAL_TIMEOUT_STREAM": "6",
        "OAICOMPAT_UPSTREAM__IDLE_EXPIRY": "2",
        "OAICOMPAT_SERVER__QUEUE_WAIT": "1",
    }
    with (
        tempfile.TemporaryDirectory() as place,
        running(any_model=True, keys=behaviour) as simulator,
        gateway_process(simulator.url, Path(place), **settings) as served,
    ):
        served.create("warm")
        time.sleep(3)
        before = footprint(
            served.process.pid, served.data("GET", "/oaicompat/status")["requests"]["tasks"]
        )
        work = drive(
            served.port,
            served.process.pid,
            options.minutes * 60,
            options.clients,
            options.seed,
            tally,
        )
        looks = asyncio.run(work)
        left = settle(served, before)
        grown = growth(looks)
        log = served.log.read_text()
    for kind, count in sorted(tally.asked.items()):
        sys.stdout.write(f"{kind:28} {count:7}\n")
    outcome = {
        "lost answers": tally.lost,
        "doubled answers": tally.doubled,
        "answers of another": tally.mixed,
        "faults of the gateway": tally.faults + log.count("by a fault of the gateway"),
        **{f"leaked {name}": count for name, count in left.items()},
        "leaked memory (MiB)": max(0, grown - GROWTH_LIMIT) // MEGABYTE,
    }
    asked = sum(tally.asked.values())
    sys.stdout.write(
        f"requests {asked}, whole answers {tally.whole}, memory grew by {grown / MEGABYTE:.1f} MiB\n"
    )
    for name, count in outcome.items():
        sys.stdout.write(f"{name:28} {count}\n")
    for line in tally.examples:
        sys.stdout.write(f"  {line}\n")
    return 1 if any(outcome.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
