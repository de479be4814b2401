"""The statements on signatures in the state file.

One rule: what is kept last stays; above the limits the first kept go in the same step, so that the file never
holds more. `owner` and ids are bytes here (`key_of`).
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from oaicompat.messages import Signature
from oaicompat_server.store.packing import key_of, text_of
from oaicompat_server.store.signatures import KeptSignature, SignatureBounds

_STEP_ROWS = 500

# Older builds of SQLite take no more values in one statement.
_MOST_VALUES = 900


def keep(
    connection: Connection, rows: Sequence[KeptSignature], bounds: SignatureBounds, now: float
) -> None:
    """Keep signatures, the later of two of one call, and let go of the first kept."""
    query = "SELECT key, upto FROM signatures ORDER BY key DESC LIMIT 1"
    key, upto = connection.execute(query).fetchone() or (0, 0)
    values: list[tuple[object, ...]] = []
    for row in rows:
        signature = row.signature
        value = key_of(signature.value)
        if len(value) > bounds.size:
            continue
        key, upto = key + 1, upto + len(value)
        name = (key_of(row.owner), key_of(row.id))
        values.append((key, *name, now + bounds.lifetime, upto, key_of(signature.backend), value))
    connection.executemany(
        "INSERT OR REPLACE INTO signatures (key, owner, id, until, upto, backend, value)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    _evict(connection, key - bounds.entries, upto - bounds.size)


def find(
    connection: Connection, owner: bytes, ids: Sequence[str], now: float
) -> dict[str, Signature]:
    """Return those of these signatures that are kept."""
    found: dict[str, Signature] = {}
    for at in range(0, len(ids), _MOST_VALUES):
        some = [key_of(id) for id in ids[at : at + _MOST_VALUES]]
        # One statement for all: each one more may have to wait for its turn of the interpreter.
        rows = connection.execute(
            "SELECT id, value, backend FROM signatures WHERE owner = ? AND until > ?"
            f" AND id IN ({','.join('?' * len(some))})",
            (owner, now, *some),
        )
        for id, value, backend in rows:
            found[text_of(id)] = Signature(text_of(value), text_of(backend))
    return found


def expire(connection: Connection, now: float) -> bool:
    """Forget some of what has had its time; tell whether there may be more."""
    gone = connection.execute(
        "DELETE FROM signatures WHERE key IN (SELECT key FROM signatures WHERE until <= ? LIMIT ?)",
        (now, _STEP_ROWS),
    )
    return gone.rowcount == _STEP_ROWS


def _evict(connection: Connection, key: int, upto: int) -> None:
    """Let go of what was kept up to this key, or begins before this byte."""
    connection.execute("DELETE FROM signatures WHERE key <= ?", (key,))
    first = "SELECT key, upto - length(value) FROM signatures ORDER BY key LIMIT 1"
    while (row := connection.execute(first).fetchone()) and row[1] < upto:
        connection.execute("DELETE FROM signatures WHERE key = ?", (row[0],))
