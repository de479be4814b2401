"""What a process holds, as the system tells it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Footprint(Struct, frozen=True):
    """Resident memory in bytes, open descriptors, and asyncio tasks where they were asked for."""

    memory: int
    descriptors: int
    tasks: int = 0


def footprint(pid: int, tasks: int = 0) -> Footprint:
    """Look at a process; raises `OSError` where there is none."""
    place = Path("/proc", str(pid))
    pages = int((place / "statm").read_text().split()[1])
    return Footprint(pages * _PAGE, len(list((place / "fd").iterdir())), tasks)


def growth(looks: Sequence[Footprint]) -> int:
    """Return by how many bytes memory grew over the second half of the looks, along a straight line."""
    half = [look.memory for look in looks[len(looks) // 2 :]]
    if len(half) < 3:
        return 0
    middle = (len(half) - 1) / 2
    mean = sum(half) / len(half)
    slope = sum((at - middle) * (value - mean) for at, value in enumerate(half))
    slope /= sum((at - middle) ** 2 for at in range(len(half)))
    return max(0, round(slope * len(half)))
