"""What the pool knows, as plain data for a page.

One rule: no secret, and nothing that a client wrote but the name of its model; times are seconds from now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oaicompat.errors import UpstreamError
from oaicompat_server.pool.cells import Cell, CellKind
from oaicompat_server.pool.selection import Slot


def describe(
    now: float,
    slots: Sequence[Slot],
    cells: Mapping[tuple[str, CellKind, str], Cell],
    retries: int,
) -> dict[str, Any]:
    """Return credentials in their order, and what rests or was failing lately."""
    return {
        "usable": sum(slot.out is None for slot in slots),
        "in_flight": sum(slot.in_flight for slot in slots),
        "retries": retries,
        "credentials": [_credential(slot) for slot in slots],
        "cells": [_cell(now, key, cell, slots) for key, cell in sorted(cells.items(), key=_order)],
    }


def _order(pair: tuple[tuple[str, CellKind, str], Cell]) -> tuple[str, CellKind, str]:
    return pair[0]


def _credential(slot: Slot) -> dict[str, Any]:
    credential = slot.credential
    return {
        "account": credential.account,
        "id": credential.identity[:8],
        "kind": credential.kind,
        "priority": credential.priority,
        "weight": credential.weight,
        "quota_group": credential.quota_group,
        "models": list(credential.models),
        "door": credential.door,
        "proxy": bool(credential.proxy),
        "state": "usable" if slot.out is None else "out",
        "reason": _reason(slot.out),
        "in_flight": slot.in_flight,
        "served": slot.served,
    }


def _cell(
    now: float, key: tuple[str, CellKind, str], cell: Cell, slots: Sequence[Slot]
) -> dict[str, Any]:
    subject, kind, model = key
    about = [slot.credential.account for slot in slots if subject in (slot.own, slot.quota)]
    about = about or [slot.credential.account for slot in slots if subject == slot.door]
    return {
        "accounts": about,
        "kind": kind,
        "model": model,
        "state": _state(now, cell),
        "seconds": round(max(0.0, cell.until - now), 3),
        "failures": cell.failures,
        "reason": _reason(cell.reason),
    }


def _state(now: float, cell: Cell) -> str:
    if cell.until > now:
        return "resting"
    if cell.probing > now:
        return "probing"
    return "half-open" if cell.half_open(now) else "watched"


def _reason(error: UpstreamError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "cause": error.cause,
        "status": error.upstream_status or error.status,
        "code": error.code,
        "message": error.message,
    }
