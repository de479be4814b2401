"""What the state file forgets: what was not used for long, and the least recently used above the size limit.

One rule: a step is short, so that nobody who saves waits for long behind one.
"""

from __future__ import annotations

import time
from sqlite3 import Connection

from msgspec import Struct

from oaicompat_server.store import rows, signature_rows

_STEP_SECONDS = 0.02
_STEP_PAGES = 256
_STEP_ROWS = 500


class Sweep(Struct, frozen=True):
    """One sweep at `now`; `oldest` is the last use that is remembered."""

    now: float
    oldest: float
    max_bytes: int

    def step(self, connection: Connection) -> bool:
        """Forget some of what is to be forgotten; tell whether there may be more."""
        until = time.monotonic() + _STEP_SECONDS
        while self._expire(connection) or self._evict(connection):
            if time.monotonic() >= until:
                return True
        return (
            self._forget_deleted(connection)
            or signature_rows.expire(connection, self.now)
            or self._give_back(connection)
        )

    def _expire(self, connection: Connection) -> bool:
        query = "SELECT key FROM {} WHERE used < ? LIMIT 1"
        response = connection.execute(query.format("responses"), (self.oldest,)).fetchone()
        if response is not None:
            rows.drop_response(connection, response[0])
            return True
        conversation = connection.execute(query.format("conversations"), (self.oldest,)).fetchone()
        if conversation is not None:
            rows.drop_conversation(connection, conversation[0])
            return True
        return False

    def _evict(self, connection: Connection) -> bool:
        if _pages(connection) - _free(connection) <= self._most_pages(connection):
            return False
        response = connection.execute(
            "SELECT used, key, running_until FROM responses WHERE running_until < ?"
            " ORDER BY used LIMIT 1",
            (self.now,),
        ).fetchone()
        conversation = connection.execute(
            "SELECT used, key FROM conversations ORDER BY used LIMIT 1"
        ).fetchone()
        if response is not None and (conversation is None or response[0] <= conversation[0]):
            # A lost response whose gateway is only slow must not come back as its last half.
            drop = rows.bury if response[2] else rows.drop_response
            drop(connection, response[1])
        elif conversation is not None:
            rows.drop_conversation(connection, conversation[1])
        return response is not None or conversation is not None

    def _forget_deleted(self, connection: Connection) -> bool:
        deleted = connection.execute(
            "DELETE FROM deleted_responses WHERE (owner, id) IN"
            " (SELECT owner, id FROM deleted_responses WHERE used < ? LIMIT ?)",
            (self.oldest, _STEP_ROWS),
        )
        return deleted.rowcount == _STEP_ROWS

    def _give_back(self, connection: Connection) -> bool:
        """Make the file smaller where it is larger than what it may hold."""
        if not _free(connection) or _pages(connection) <= self._most_pages(connection):
            return False
        before = _free(connection)
        connection.execute(f"PRAGMA incremental_vacuum({_STEP_PAGES})").fetchall()
        return _free(connection) < before

    def _most_pages(self, connection: Connection) -> int:
        return self.max_bytes // _pragma(connection, "page_size")


def _pages(connection: Connection) -> int:
    return _pragma(connection, "page_count")


def _free(connection: Connection) -> int:
    return _pragma(connection, "freelist_count")


def _pragma(connection: Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
