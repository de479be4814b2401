"""The pool itself: leases out, outcomes in.

One rule: what rests is decided by the cells, who serves by the selection; here they are joined, in the order
in which things happened. What is held against a credential is held against one model of it, because quotas
and denials are; a key that is itself invalid is out for all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from copy import copy
from typing import Any

from msgspec import Struct

from oaicompat.errors import UpstreamError
from oaicompat_server.pool.budget import RetryBudget
from oaicompat_server.pool.cells import Cell, CellKind, rule_of
from oaicompat_server.pool.credential import Credential
from oaicompat_server.pool.selection import Lease, Slot, Wanted, choose
from oaicompat_server.pool.sharing import cell_of, cooldown_of
from oaicompat_server.pool.status import describe
from oaicompat_server.store.cooldowns import Cooldown

REFUSED = frozenset({"credential"})
"""The causes that take a credential out until the settings are loaded again."""

DENIED = frozenset({"permission", "model_permission"})
"""The causes for which waiting is of no known use."""

_WHOLE_PROJECT = frozenset({"upstream_api_disabled", "upstream_billing_required"})
_MOST_CELLS = 4096

CellKey = tuple[str, CellKind, str]
"""What rests (a credential, a quota, a door), of what kind, for which model."""


class Outlook(Struct, frozen=True):
    """What can be said of one model.

    `wait` is the seconds until a credential is usable, 0 where one is now, None where no wait is known to
    help; `reason` why, for the credential that is back first. `allowed` may serve the model, `refused` of them
    are out.
    """

    allowed: int = 0
    refused: int = 0
    wait: float | None = None
    reason: UpstreamError | None = None


class Pool:
    """Hands out credentials and remembers what became of them; `retries` bounds the retries of all requests."""

    def __init__(self, credentials: Sequence[Credential]) -> None:
        self.credentials = tuple(dict.fromkeys(credentials))
        self.retries = RetryBudget()
        self._slots = [Slot(credential) for credential in self.credentials]
        self._by_priority = sorted(self._slots, key=lambda slot: slot.credential.priority)
        self._cells: dict[CellKey, Cell] = {}
        self._served = 0.0
        self._events = 0

    @property
    def in_flight(self) -> int:
        """Return how many leases are held."""
        return sum(slot.in_flight for slot in self._slots)

    @property
    def all_refused(self) -> bool:
        """Tell whether every credential was refused as invalid: waiting does not help."""
        return all(slot.out is not None for slot in self._slots)

    def lease(self, now: float, wanted: Wanted) -> Lease | None:
        """Lease the credential that serves next what is wanted, or None where none is usable."""
        slots = self._usable(now, wanted)
        if not slots:
            return None
        slot = slots[0]
        least = slot.turn if len(slots) == 1 else min([each.turn for each in slots])
        self._served = served = max(self._served, least)
        if len(slots) > 1:
            slot = choose(slots, wanted.sticky, served)
        self._events += 1
        # One that was away does not make up for what it missed.
        slot.turn = max(slot.turn, served) + slot.share
        slot.last = self._events
        slot.served += 1
        slot.in_flight += 1
        lease = Lease(self, slot, slot.credential, wanted.model, self._events, wanted.owner)
        if self._cells:
            probed = [cell for _, cell in self._about(slot, wanted.model) if cell.half_open(now)]
            for cell in probed:
                cell.begin(lease, now)
            lease.probes = tuple(probed)
        return lease

    def peek(self, now: float, wanted: Wanted) -> Credential | None:
        """Return what `lease` would lease, and change nothing."""
        slots = self._usable(now, wanted)
        return choose(slots, wanted.sticky, self._served).credential if slots else None

    def succeed(self, lease: Lease) -> None:
        """Take the success of a lease."""
        self._events += 1
        lease.slot.suspect = False
        if self._cells:
            for key, cell in self._about(lease.slot, lease.model):
                if cell.renewed(lease.begun):
                    del self._cells[key]

    def settle(self, lease: Lease, now: float, error: UpstreamError) -> None:
        """Take the failure of a lease, whose `cause` decides."""
        self._events += 1
        slot = lease.slot
        # What was raised holds its request, body and all, by its traceback; a cooldown outlives that by far.
        error = copy(error)
        if error.cause in REFUSED:
            self._refuse(slot, lease, error)
        elif (rule := rule_of(error)) is not None:
            cell = self._cell(_key(slot, lease.model, rule.kind, error), now)
            cell.owners.add(lease.owner)
            cell.fail(rule, error, now, begun=lease.begun, number=self._events)

    def probing(self, now: float, model: str, exclude: Collection[Credential] = ()) -> bool:
        """Tell whether a credential would be usable for `model` but for a probe that is under way."""
        wanted = Wanted(model, exclude)
        return any(
            cell.until <= now < cell.probing
            for slot in wanted.among(self._slots)
            for _, cell in self._about(slot, model)
        )

    def outlook(self, now: float, model: str, exclude: Collection[Credential] = ()) -> Outlook:
        """Return what can be said of a model; who is excluded is not waited for."""
        allowed = [
            slot for slot in self._slots if not model or slot.allows is None or slot.allows(model)
        ]
        refused = sum(slot.out is not None for slot in allowed)
        best: tuple[float, UpstreamError | None] | None = None
        denied: UpstreamError | None = None
        for slot in allowed:
            if slot.out is not None or slot.credential in exclude:
                continue
            held = [(key, cell) for key, cell in self._about(slot, model) if cell.ready_at() > now]
            denial = next((cell for key, cell in held if key[1] == "denial"), None)
            if denial is not None:
                denied = denied or denial.reason
                continue
            last = max((cell for _, cell in held), key=Cell.ready_at, default=None)
            found = (last.ready_at() - now, last.reason) if last else (0.0, None)
            best = found if best is None or found[0] < best[0] else best
        wait, reason = best or (None, denied)
        return Outlook(len(allowed), refused, wait, reason)

    def status(self, now: float) -> dict[str, Any]:
        """Return what is known as plain data without secrets, seconds counted from `now`."""
        return describe(now, self._slots, self._cells, self.retries.taken)

    def reset(self, account: str = "", model: str = "") -> None:
        """Forget what is held against a credential (by its account), a model, or all of them."""
        chosen = [slot for slot in self._slots if account in ("", slot.credential.account)]
        if not model:
            for slot in chosen:
                slot.out, slot.suspect = None, False
        names = {name for slot in chosen for name in (slot.own, slot.quota, slot.door)}
        self._cells = {
            key: cell
            for key, cell in self._cells.items()
            if key[0] not in names or model not in ("", key[2])
        }

    def export(self, now: float) -> tuple[Cooldown, ...]:
        """Return the cooldowns that another process, or this one after a restart, should keep."""
        rows = (cooldown_of(key, cell, now) for key, cell in self._cells.items())
        return tuple(row for row in rows if row is not None)

    def adopt(self, rows: Sequence[Cooldown], now: float) -> None:
        """Take cooldowns as `export` returned them; what is of no credential here is left out.

        A rest that is known already is made longer, never shorter.
        """
        names = {name for slot in self._slots for name in (slot.own, slot.quota, slot.door)}
        for row in rows:
            if row.key in names and row.rest > 0:
                key: CellKey = (row.key, row.kind, row.model)
                known = self._cells.get(key)
                if known is None or known.until < now + row.rest:
                    self._make_room(now)
                    self._cells[key] = cell_of(row, now, self._events)

    def _refuse(self, slot: Slot, lease: Lease, error: UpstreamError) -> None:
        """Take a credential out; a token that expires may be renewed once before."""
        if lease.begun <= slot.refused:
            return
        slot.refused = self._events
        if slot.credential.source is None or slot.suspect:
            slot.out = error
        slot.suspect = True

    def _usable(self, now: float, wanted: Wanted) -> list[Slot]:
        """Return the usable credentials of the best tier that has any."""
        found: list[Slot] = []
        resting = bool(self._cells)
        for slot in wanted.among(self._by_priority):
            if found and slot.credential.priority > found[0].credential.priority:
                break
            if not resting or self._ready(slot, now, wanted):
                found.append(slot)
        return found

    def _ready(self, slot: Slot, now: float, wanted: Wanted) -> bool:
        return all(
            cell.ready_at() <= now
            or (wanted.retrying and not cell.firm)
            or cell.passes(wanted.owner)
            for _, cell in self._about(slot, wanted.model)
        )

    def _about(self, slot: Slot, model: str) -> Iterator[tuple[CellKey, Cell]]:
        """Yield what is known of one credential and model."""
        keys: tuple[CellKey, ...] = (
            (slot.quota, "limit", model),
            (slot.own, "denial", model),
            (slot.quota, "denial", model),
            (slot.door, "overload", model),
        )
        for key in dict.fromkeys(keys):
            cell = self._cells.get(key)
            if cell is not None:
                yield key, cell

    def _cell(self, key: CellKey, now: float) -> Cell:
        if key not in self._cells:
            self._make_room(now)
            self._cells[key] = Cell()
        return self._cells[key]

    def _make_room(self, now: float) -> None:
        """Forget what is over, and what is over first, when clients invent too many model names."""
        if len(self._cells) < _MOST_CELLS:
            return
        kept = [(key, cell) for key, cell in self._cells.items() if cell.ready_at() > now]
        kept.sort(key=lambda pair: pair[1].ready_at())
        self._cells = dict(kept[-_MOST_CELLS // 2 :])


def _key(slot: Slot, model: str, kind: CellKind, error: UpstreamError) -> CellKey:
    """Return what a failure is held against: a denial may be the whole project's."""
    if kind == "overload":
        return slot.door, kind, model
    if kind == "denial" and error.code not in _WHOLE_PROJECT:
        return slot.own, kind, model
    return slot.quota, kind, model
