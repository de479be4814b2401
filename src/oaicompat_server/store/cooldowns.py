"""The cooldowns of the pool as a store keeps them, and those of this process alone.

One rule: a row names its subject by a digest and holds no secret; a store knows nothing of the pool, which
makes rows of what rests and takes it over from them (`pool.sharing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct, structs

SharedKind = Literal["limit", "overload"]


class Cooldown(Struct, frozen=True):
    """One rest: whose, of what kind, for which model, how many seconds it lasts from now, and why."""

    key: str
    kind: SharedKind
    model: str
    rest: float
    failures: int
    cause: str
    status: int
    type: str
    code: str
    message: str

    @property
    def name(self) -> tuple[str, str, str]:
        """Return what there is one row of."""
        return self.key, self.kind, self.model


class CooldownStore(Protocol):
    """Keeps rows for all processes that share it; `now` is Unix seconds. Methods may raise `StoreError`."""

    async def put(self, rows: Sequence[Cooldown], now: float) -> None:
        """Keep rows until their rest is over; of two of one name the one that lasts longer stays."""
        ...

    async def all(self, now: float) -> tuple[Cooldown, ...]:
        """Return the rows that still last, with the rest that is left."""
        ...

    async def clear(self) -> None:
        """Forget every row."""
        ...


class MemoryCooldowns:
    """Keeps rows in this process: for tests, and where nothing is to be kept."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], tuple[float, Cooldown]] = {}

    async def put(self, rows: Sequence[Cooldown], now: float) -> None:
        """Keep rows until their rest is over."""
        self._rows = {name: kept for name, kept in self._rows.items() if kept[0] > now}
        for row in rows:
            until = now + row.rest
            if until > self._rows.get(row.name, (now, row))[0]:
                self._rows[row.name] = (until, row)

    async def all(self, now: float) -> tuple[Cooldown, ...]:
        """Return the rows that still last."""
        return tuple(_left(row, until - now) for until, row in self._rows.values() if until > now)

    async def clear(self) -> None:
        """Forget every row."""
        self._rows.clear()


def _left(row: Cooldown, rest: float) -> Cooldown:
    return structs.replace(row, rest=rest)
