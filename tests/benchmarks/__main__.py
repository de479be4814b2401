"""`python -m tests.benchmarks [core] [gateway] [limits] [stores] [--rounds N]`: figures beside their floors.

All groups by default. Only ratios inside one run mean anything: the machine's speed cancels out. What the rows
mean stands in docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

from tests.benchmarks import core, gateway, limits
from tests.benchmarks.budgets import print_budgets
from tests.benchmarks.processes import raise_descriptor_limit

GROUPS: dict[str, Callable[[int], dict[str, list[float]]]] = {
    "core": core.measure,
    "gateway": gateway.measure,
    "limits": limits.measure,
    "stores": gateway.measure_stores,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("groups", nargs="*", metavar="group", help=", ".join(GROUPS))
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison (default 3)")
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    if options.rounds < 1:
        parser.error("--rounds needs at least 1")
    raise_descriptor_limit()
    began = time.monotonic()
    print(f"{os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f} before the run")
    results: dict[str, list[float]] = {}
    for name in options.groups or GROUPS:
        results |= GROUPS[name](options.rounds)
    print_budgets(results)
    print(f"\n{time.monotonic() - began:.0f} s, rounds: {options.rounds}")


if __name__ == "__main__":
    main()
