"""The budgets: each figure, what it must be and what it aims at, and the table that says what it is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from msgspec import Struct

Results = Mapping[str, Sequence[float]]
"""The figures by their budgets' numbers, one value for each round."""


class Budget(Struct, frozen=True):
    """A bound on one figure; `least` where more is better."""

    number: str
    figure: str
    unit: str
    must: float
    aim: float | None = None
    least: bool = False

    def holds(self, value: float, bound: float) -> bool:
        return value >= bound if self.least else value <= bound

    def verdict(self, value: float) -> str:
        if not self.holds(value, self.must):
            return "miss"
        return "ok, aim too" if self.aim is not None and self.holds(value, self.aim) else "ok"

    def bound(self, value: float | None) -> str:
        return "" if value is None else f"{'≥' if self.least else '≤'} {value:g}"


BUDGETS = (
    Budget("1", "CPU per answer, 32 connections", "x passc", 0.45, 0.33),
    Budget("2a", "answers/s, 256 connections, 300 ms upstream", "x direct", 0.95, 0.98, True),
    Budget("2b", "answers/s, 1,000 connections, 300 ms upstream", "x direct", 0.88, 0.95, True),
    Budget("2c", "CPU per answer, 256 connections, 300 ms upstream", "x at 32", 1.5),
    Budget("3", "CPU per chunk, burst streams", "x passc", 0.3, 0.2),
    Budget("4a", "CPU per chunk, 64 paced streams", "x passc", 0.8, 0.65),
    Budget("4b", "CPU per chunk, 64 paced streams", "x pass", 0.6),
    Budget("5", "added latency, p50, 2 connections, 20 ms upstream", "x pass", 0.6, 0.35),
    Budget("6a", "core: chunk, alone in its read", "x plain", 2, 1),
    Budget("6b", "core: chunk, 100 in a read", "x plain", 2, 1),
    Budget("7a", "core: whole answer", "x plain", 2, 1.2),
    Budget("7b", "core: small request", "x plain", 2, 1.2),
    Budget("7c", "core: request of an agent, 120 KB", "x plain", 1, 0.4),
    Budget("8a", "start to first 200", "x pass", 2.5, 1.5),
    Budget("8b", "memory, idle", "x pass", 1.6, 1.2),
    Budget("8c", "memory after load", "x idle", 1.3),
    Budget("8d", "memory, 1,000 open streams", "MB", 160, 100),
    Budget("9", "import oaicompat, cold", "ms", 80, 50),
    Budget("10", "CPU per answer, two workers", "x one", 1.15, 1.05),
)


def row(budget: Budget, values: Sequence[float]) -> tuple[str, ...]:
    """Return the cells of one figure: its median decides, the rounds' extremes tell how sure it is."""
    value = statistics.median(values)
    digits = 0 if abs(value) >= 20 else 2
    spread = f"{min(values):.{digits}f}-{max(values):.{digits}f}" if len(values) > 1 else ""
    return (
        budget.number,
        budget.figure,
        f"{value:.{digits}f} {budget.unit}",
        spread,
        budget.bound(budget.must),
        budget.bound(budget.aim),
        budget.verdict(value),
    )


def print_budgets(results: Results) -> None:
    """Print a row for each budget that was measured, as Markdown."""
    heads = ("#", "figure", "measured", "rounds", "must", "aim", "")
    rows = [row(each, results[each.number]) for each in BUDGETS if each.number in results]
    table = [heads, *rows]
    widths = [max(len(cells[column]) for cells in table) for column in range(len(heads))]
    table.insert(1, tuple("-" * width for width in widths))
    print()
    for cells in table:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print(f"| {' | '.join(padded)} |")
