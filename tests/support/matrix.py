"""The fault matrix: which rows there are, which tests hold them, and the page that lists both.

One rule: a test belongs to a row by its name (`test_b7_...`), and says in the first line of its docstring what
holds; the page is made of that and never written by hand.

    python -m tests.support.matrix
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"

SECTIONS: Mapping[str, tuple[str, int]] = {
    "A": ("Clients that leave, read slowly or send slowly", 11),
    "B": ("Faults of the upstream", 20),
    "C": ("Retries, rotation, cooldowns", 14),
    "D": ("Overload and resources", 15),
    "E": ("Access: keys, browsers, exposure", 12),
    "F": ("URLs, headers, fetching", 10),
    "G": ("Secrets and logs", 9),
    "H": ("Lifecycle and state", 9),
    "I": ("Properties over generated input", 8),
}
"""The rows: a letter, what its rows are about, and how many there are."""

_NAME = re.compile(r"test_([a-i])(\d{1,2})_")
_INTRO = """# Reliability

What the gateway does when things go wrong, each as a test that is named after its row. This page is made from
the tests (`python -m tests.support.matrix`); a test compares.

How the gateway is run, and longer runs of the same faults, are told in [Operations](operations.md).
"""


class Held(Struct, frozen=True):
    """One test of a row: what it says holds, and where it stands."""

    row: str
    says: str
    place: str


def rows() -> list[str]:
    """Return every row there is."""
    return [f"{letter}{n}" for letter, (_, last) in SECTIONS.items() for n in range(1, last + 1)]


def held() -> list[Held]:
    """Return the tests of rows, in the order of rows."""
    found = [
        each
        for path in sorted((ROOT / "tests" / "reliability").glob("test_*.py"))
        for each in _in(path)
    ]
    order = {row: number for number, row in enumerate(rows())}
    return sorted(found, key=lambda each: order.get(each.row, len(order)))


def page() -> str:
    """Return the page."""
    tests = held()
    parts = [_INTRO]
    for letter, (title, last) in SECTIONS.items():
        parts.append(f"\n## {letter}. {title}\n\n| row | what holds | test |\n|---|---|---|\n")
        for number in range(1, last + 1):
            row = f"{letter}{number}"
            parts += [_line(each) for each in tests if each.row == row]
    return "".join(parts)


def _line(test: Held) -> str:
    return f"| {test.row} | {test.says} | `{test.place}` |\n"


def _in(path: Path) -> Iterator[Held]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            matched = _NAME.match(node.name)
            if matched:
                says = (ast.get_docstring(node) or "").partition("\n")[0].replace("|", "\\|")
                place = path.relative_to(ROOT / "tests").as_posix()
                yield Held(f"{matched[1].upper()}{matched[2]}", says, place)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    missing = sorted(set(rows()) - {each.row for each in held()})
    sys.stdout.write(f"{len(held())} tests; rows without one: {', '.join(missing) or 'none'}\n")
