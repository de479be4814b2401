"""`python -m tests.benchmarks [core] [gateway]`: figures beside their floors, all in one run.

Only ratios inside one run mean anything: the machine's speed cancels out. Budgets are in docs/performance.md.
"""

from __future__ import annotations

import sys

from tests.benchmarks import core


def print_core() -> None:
    print(f"{'conversion':<26}{'µs':>10}{'plain µs':>10}{'ratio':>8}")
    for name, seconds, plain in core.figures():
        beside = f"{plain * 1e6:>10.2f}{seconds / plain:>8.2f}" if plain else ""
        print(f"{name:<26}{seconds * 1e6:>10.2f}{beside}")


def main(wanted: list[str]) -> None:
    if not wanted or "core" in wanted:
        print_core()
    if not wanted or "gateway" in wanted:
        from tests.benchmarks import gateway

        gateway.print_figures()


if __name__ == "__main__":
    main(sys.argv[1:])
