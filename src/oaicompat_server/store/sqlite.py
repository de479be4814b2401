"""Responses, conversations and signatures in the state file, the default store.

One rule: every method is one job of the file's threads (`database`), so that the event loop never waits for
the disk; what is kept together is one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oaicompat.events import Frame
from oaicompat.messages import Signature
from oaicompat.supplies import Item
from oaicompat_server.store import (
    Conversation,
    KeptSignature,
    SignatureBounds,
    StoredResponse,
    rows,
    signature_rows,
)
from oaicompat_server.store.database import Database
from oaicompat_server.store.packing import key_of, pack_apart, unpack
from oaicompat_server.store.signatures import BOUNDS
from oaicompat_server.store.sweeping import Sweep


class SqliteStore:
    """Keeps what was used last; `retention` is seconds, `max_bytes` bounds the file when it is swept.

    The database is closed with the store; others may keep tables of theirs in it.
    """

    def __init__(
        self,
        database: Database,
        *,
        retention: float = 30 * 86400.0,
        max_bytes: int = 1 << 30,
        bounds: SignatureBounds = BOUNDS,
    ) -> None:
        self.database = database
        self._retention = retention
        self._max_bytes = max_bytes
        self._bounds = bounds.within(retention, max_bytes)

    async def save(
        self, owner: str, response: StoredResponse, frames: Sequence[Frame], now: float
    ) -> bool:
        """Keep a response; False where it has ended, was deleted, or its conversation is gone."""
        chunks = await pack_apart(frames)
        return await self.database.write(
            lambda connection: rows.save(connection, key_of(owner), response, chunks, now)
        )

    async def append(
        self, owner: str, response_id: str, frames: Sequence[Frame], running_until: float
    ) -> bool:
        """Keep more frames of a running response; False where it has ended or was deleted."""
        chunks = await pack_apart(frames)
        own, id = key_of(owner), key_of(response_id)
        return await self.database.write(
            lambda connection: rows.append(connection, own, id, chunks, running_until)
        )

    async def find(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response."""
        return await self.database.read(
            lambda connection: rows.find(connection, key_of(owner), response_id)
        )

    async def frames(self, owner: str, response_id: str, after: int) -> tuple[Frame, ...]:
        """Return the frames whose sequence is greater than `after`, and the end mark."""
        own, id = key_of(owner), key_of(response_id)
        return await self.database.read(
            lambda connection: unpack(rows.packed_frames(connection, own, id, after), after)
        )

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget a response; False where it is not there."""
        own, id = key_of(owner), key_of(response_id)
        return await self.database.write(lambda connection: rows.delete(connection, own, id))

    async def history(self, owner: str, response_id: str, now: float) -> tuple[Item, ...]:
        """Return the items of a response and of all it continues, oldest first."""
        items, keys = await self.database.read(
            lambda connection: rows.history(connection, key_of(owner), response_id)
        )
        await self.database.write(lambda connection: rows.use_responses(connection, keys, now))
        return tuple(items)

    async def items(self, owner: str, ids: Sequence[str]) -> dict[str, Item]:
        """Return those of these items that are kept, by id."""
        return await self.database.read(
            lambda connection: rows.newest_items(connection, key_of(owner), ids)
        )

    async def create_conversation(
        self, owner: str, conversation: Conversation, items: Sequence[Item]
    ) -> None:
        """Keep a new conversation."""
        await self.database.write(
            lambda connection: rows.create_conversation(
                connection, key_of(owner), conversation, items
            )
        )

    async def conversation(self, owner: str, conversation_id: str) -> Conversation | None:
        """Return a conversation."""
        return await self.database.read(
            lambda connection: rows.conversation(connection, key_of(owner), conversation_id)
        )

    async def update_conversation(
        self, owner: str, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation | None:
        """Replace the metadata of a conversation; return it."""
        return await self.database.write(
            lambda connection: rows.update_conversation(
                connection, key_of(owner), conversation_id, metadata
            )
        )

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        """Forget a conversation; False where it is not there."""
        own, id = key_of(owner), key_of(conversation_id)
        return await self.database.write(
            lambda connection: rows.delete_conversation(connection, own, id)
        )

    async def add_items(
        self, owner: str, conversation_id: str, items: Sequence[Item], now: float
    ) -> bool:
        """Add items at the end of a conversation; False where it is not there."""
        own, id = key_of(owner), key_of(conversation_id)
        return await self.database.write(
            lambda connection: rows.add_items(connection, own, id, items, now)
        )

    async def conversation_items(
        self, owner: str, conversation_id: str, now: float
    ) -> tuple[Item, ...] | None:
        """Return the items of a conversation, oldest first, and mark it as used."""
        own, id = key_of(owner), key_of(conversation_id)
        found = await self.database.read(
            lambda connection: rows.conversation_items(connection, own, id)
        )
        if found is None:
            return None
        key, items = found
        await self.database.write(lambda connection: rows.use_conversation(connection, key, now))
        return items

    async def delete_item(self, owner: str, conversation_id: str, item_id: str) -> bool:
        """Take one item out of a conversation; False where it is not there."""
        own, id, item = key_of(owner), key_of(conversation_id), key_of(item_id)
        return await self.database.write(
            lambda connection: rows.delete_item(connection, own, id, item)
        )

    async def keep_signatures(self, rows: Sequence[KeptSignature], now: float) -> None:
        """Keep signatures of calls."""
        await self.database.write(
            lambda connection: signature_rows.keep(connection, rows, self._bounds, now)
        )

    async def find_signatures(
        self, owner: str, ids: Sequence[str], now: float
    ) -> dict[str, Signature]:
        """Return those signatures of these calls that are kept."""
        return await self.database.read(
            lambda connection: signature_rows.find(connection, key_of(owner), ids, now)
        )

    async def sweep(self, now: float) -> None:
        """Forget what was not used for the retention time, and what is too much."""
        sweep = Sweep(now, now - self._retention, self._max_bytes)
        while await self.database.write(sweep.step):
            pass

    async def aclose(self) -> None:
        """Finish what was begun and close the file."""
        await self.database.aclose()
