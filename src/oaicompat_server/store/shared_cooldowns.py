"""Cooldowns in the state file and in Redis, so that they outlive a process and are shared.

One rule: on the disk and between machines a cooldown is a moment, read back as the seconds that are left and
never more than it had; what cannot be read is left out, since a limit is found out anew by meeting it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Connection
from typing import TYPE_CHECKING

import msgspec
from msgspec import structs

from oaicompat_server.store import Store
from oaicompat_server.store.cooldowns import Cooldown, CooldownStore, MemoryCooldowns
from oaicompat_server.store.database import Database
from oaicompat_server.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from oaicompat_server.store.redis_client import Client

_KEY = b"oaicompat:1:cooldowns"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Cooldown).decode

# Moments are those of the Redis server, whose clock all gateways share.
_PUT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 1, #ARGV, 3 do
    local until_ = now + ARGV[at + 1]
    local known = redis.call('HGET', KEYS[1], ARGV[at])
    if not known or tonumber(string.match(known, '^%d+')) < until_ then
        redis.call('HSET', KEYS[1], ARGV[at], string.format('%d:', until_) .. ARGV[at + 2])
    end
end
redis.call('PEXPIRE', KEYS[1], 86400000)
return 1
"""
_ALL = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rows = redis.call('HGETALL', KEYS[1])
local found = {}
for at = 1, #rows, 2 do
    local until_, body = string.match(rows[at + 1], '^(%d+):(.*)$')
    local left = until_ and tonumber(until_) - now or 0
    if left > 0 then
        found[#found + 1] = left
        found[#found + 1] = body
    else
        redis.call('HDEL', KEYS[1], rows[at])
    end
end
return found
"""


def cooldowns_of(store: Store) -> CooldownStore:
    """Return where cooldowns are kept beside this store: with what it keeps, or in memory."""
    if isinstance(store, SqliteStore):
        return SqliteCooldowns(store.database)
    client = getattr(store, "client", None)
    return MemoryCooldowns() if client is None else RedisCooldowns(client)


class SqliteCooldowns:
    """Keeps rows in the state file; its owner closes the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, rows: Sequence[Cooldown], now: float) -> None:
        """Keep rows until their rest is over; of two of one name the one that lasts longer stays."""

        def job(connection: Connection) -> None:
            connection.execute("DELETE FROM cooldowns WHERE until <= ?", (now,))
            connection.executemany(
                "INSERT INTO cooldowns (name, until, body) VALUES (?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET until = excluded.until, body = excluded.body "
                "WHERE excluded.until > until",
                [(_encode(row.name), now + row.rest, _encode(row)) for row in rows],
            )

        await self._database.write(job)

    async def all(self, now: float) -> tuple[Cooldown, ...]:
        """Return the rows that still last, with the rest that is left."""

        def job(connection: Connection) -> list[tuple[float, bytes]]:
            query = "SELECT until - ?, body FROM cooldowns WHERE until > ?"
            return connection.execute(query, (now, now)).fetchall()

        return _read(await self._database.read(job))

    async def clear(self) -> None:
        """Forget every row."""
        await self._database.write(lambda connection: connection.execute("DELETE FROM cooldowns"))


class RedisCooldowns:
    """Keeps rows in Redis, for all gateways that use it; its owner closes the client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def put(self, rows: Sequence[Cooldown], now: float) -> None:
        """Keep rows until their rest is over; of two of one name the one that lasts longer stays."""
        arguments: list[bytes | int] = []
        for row in rows:
            arguments += [_encode(row.name), max(1, round(row.rest * 1000)), _encode(row)]
        if arguments:
            await self._client.script(_PUT, [_KEY], arguments)

    async def all(self, now: float) -> tuple[Cooldown, ...]:
        """Return the rows that still last, with the rest that is left."""
        found = await self._client.script(_ALL, [_KEY], [])
        return _read(
            (left / 1000, body) for left, body in zip(found[::2], found[1::2], strict=True)
        )

    async def clear(self) -> None:
        """Forget every row."""
        await self._client.script("return redis.call('DEL', KEYS[1])", [_KEY], [])


def _read(found: Iterable[tuple[float, bytes]]) -> tuple[Cooldown, ...]:
    rows = []
    for left, body in found:
        try:
            row = _decode(body)
        except msgspec.MsgspecError:
            continue
        rows.append(structs.replace(row, rest=min(left, row.rest)))
    return tuple(rows)
