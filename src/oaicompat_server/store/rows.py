"""The statements on responses, conversations and items in the state file.

One rule: every function is one step of somebody's transaction and leaves no half of anything; it decides
before it writes. `owner` and ids are bytes here (`key_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from sqlite3 import Connection

import msgspec

from oaicompat.supplies import Item
from oaicompat_server.store import (
    LONGEST_CHAIN,
    Conversation,
    NotStored,
    StoredResponse,
    StoreError,
)
from oaicompat_server.store.packing import HIGHEST, Chunk, key_of, text_of

_metadata = msgspec.json.Decoder(dict[str, str]).decode

_CHAIN = """
    WITH RECURSIVE chain (key, id, previous) AS (
        SELECT key, id, previous FROM responses WHERE owner = :owner AND id = :id
        UNION
        SELECT responses.key, responses.id, responses.previous
        FROM chain JOIN responses ON responses.owner = :owner AND responses.id = chain.previous
        WHERE chain.previous <> X''
        LIMIT :most
    )
    SELECT chain.key, chain.id, chain.previous, items.key, items.id, items.body
    FROM chain LEFT JOIN items ON items.response = chain.key
"""


def save(
    connection: Connection,
    owner: bytes,
    response: StoredResponse,
    chunks: Sequence[Chunk],
    now: float,
) -> bool:
    """Keep a response with more frames; False where `Store.save` says so."""
    id = key_of(response.id)
    deleted = "SELECT 1 FROM deleted_responses WHERE owner = ? AND id = ?"
    if connection.execute(deleted, (owner, id)).fetchone():
        return False
    before = _find_response(connection, owner, id)
    if before is not None and not before[1]:
        return False
    conversation = None
    if response.conversation and not response.running_until:
        conversation = find_conversation(connection, owner, key_of(response.conversation))
        if conversation is None:
            return False
        use_conversation(connection, conversation, now)
    key = _put_response(connection, owner, response, now, before[0] if before else None)
    _put_items(connection, owner, response.input, key, conversation)
    _put_items(connection, owner, response.output, key, conversation, output=True)
    _put_chunks(connection, key, chunks)
    return True


def append(
    connection: Connection, owner: bytes, id: bytes, chunks: Sequence[Chunk], running_until: float
) -> bool:
    """Keep more frames of a running response; False where `Store.append` says so."""
    found = _find_response(connection, owner, id)
    if found is None or not found[1]:
        return False
    connection.execute(
        "UPDATE responses SET running_until = :until, used = max(used, :until) WHERE key = :key",
        {"until": running_until, "key": found[0]},
    )
    _put_chunks(connection, found[0], chunks)
    return True


def find(connection: Connection, owner: bytes, id: str) -> StoredResponse | None:
    """Return a response."""
    row = connection.execute(
        "SELECT key, created, body, previous, conversation, running_until"
        " FROM responses JOIN bodies ON response = key WHERE owner = ? AND id = ?",
        (owner, key_of(id)),
    ).fetchone()
    if row is None:
        return None
    key, created, body, previous, conversation, running_until = row
    items: tuple[list[Item], list[Item]] = ([], [])
    for output, item_id, item in connection.execute(
        "SELECT output, id, body FROM items WHERE response = ? ORDER BY key", (key,)
    ):
        items[output].append(Item(text_of(item_id), item))
    return StoredResponse(
        id,
        created,
        body,
        tuple(items[0]),
        tuple(items[1]),
        text_of(previous),
        text_of(conversation),
        running_until,
    )


def packed_frames(connection: Connection, owner: bytes, id: bytes, after: int) -> list[bytes]:
    """Return the chunks in which frames after this number are."""
    rows = connection.execute(
        "SELECT packed FROM frames JOIN responses ON frames.response = responses.key"
        " WHERE owner = ? AND id = ? AND last > ? ORDER BY frames.key",
        (owner, id, min(max(after, -1), HIGHEST - 1)),
    )
    return [packed for (packed,) in rows]


def delete(connection: Connection, owner: bytes, id: bytes) -> bool:
    """Forget a response so that its id does not come back."""
    found = _find_response(connection, owner, id)
    if found is not None:
        bury(connection, found[0])
    return found is not None


def bury(connection: Connection, key: int) -> None:
    """Drop a response so that its id does not come back."""
    connection.execute(
        "INSERT OR REPLACE INTO deleted_responses (owner, id, used)"
        " SELECT owner, id, used FROM responses WHERE key = ?",
        (key,),
    )
    drop_response(connection, key)


def drop_response(connection: Connection, key: int) -> None:
    """Take a response out, with all that only it holds."""
    connection.execute("DELETE FROM items WHERE response = ? AND conversation IS NULL", (key,))
    connection.execute("UPDATE items SET response = NULL WHERE response = ?", (key,))
    connection.execute("DELETE FROM responses WHERE key = ?", (key,))


def history(connection: Connection, owner: bytes, id: str) -> tuple[list[Item], list[int]]:
    """Return the items of a response and of all it continues, oldest first, and the keys of the responses.

    Raises `NotStored` and `StoreError` as `Store.history`.
    """
    found: dict[bytes, tuple[int, bytes, dict[int, Item]]] = {}
    rows = connection.execute(_CHAIN, {"owner": owner, "id": key_of(id), "most": LONGEST_CHAIN + 1})
    for key, own, previous, item_key, item_id, body in rows:
        items = found.setdefault(own, (key, previous, {}))[2]
        if item_key is not None:
            items[item_key] = Item(text_of(item_id), body)
    if len(found) > LONGEST_CHAIN:
        raise StoreError(f"more than {LONGEST_CHAIN} responses continue each other")
    chain: dict[bytes, None] = {}
    wanted = key_of(id)
    while wanted and wanted not in chain:
        if wanted not in found:
            raise NotStored(text_of(wanted))
        chain[wanted] = None
        wanted = found[wanted][1]
    # Sorted here, where only keys are moved: SQLite would sort the bodies with them.
    every = [item for each in reversed(chain) for _, item in sorted(found[each][2].items())]
    return every, [found[each][0] for each in chain]


def use_responses(connection: Connection, keys: Iterable[int], now: float) -> None:
    """Mark responses as used; a key that is gone is left alone."""
    connection.executemany(
        "UPDATE responses SET used = max(?, running_until) WHERE key = ?",
        ((now, key) for key in keys),
    )


def newest_items(connection: Connection, owner: bytes, ids: Iterable[str]) -> dict[str, Item]:
    """Return those of these items that are kept."""
    query = "SELECT body FROM items WHERE owner = ? AND id = ? ORDER BY key DESC LIMIT 1"
    found: dict[str, Item] = {}
    for id in dict.fromkeys(ids):
        row = connection.execute(query, (owner, key_of(id))).fetchone()
        if row is not None:
            found[id] = Item(id, row[0])
    return found


def create_conversation(
    connection: Connection, owner: bytes, conversation: Conversation, items: Sequence[Item]
) -> None:
    """Keep a new conversation in place of one with its id."""
    id = key_of(conversation.id)
    before = find_conversation(connection, owner, id)
    if before is not None:
        drop_conversation(connection, before)
    metadata = msgspec.json.encode(conversation.metadata)
    key = connection.execute(
        "INSERT INTO conversations (owner, id, created, metadata, used) VALUES (?, ?, ?, ?, ?)",
        (owner, id, conversation.created, metadata, conversation.created),
    ).lastrowid
    _put_items(connection, owner, items, None, key)


def find_conversation(connection: Connection, owner: bytes, id: bytes) -> int | None:
    """Return the key of a conversation."""
    query = "SELECT key FROM conversations WHERE owner = ? AND id = ?"
    row = connection.execute(query, (owner, id)).fetchone()
    return row[0] if row else None


def conversation(connection: Connection, owner: bytes, id: str) -> Conversation | None:
    """Return a conversation."""
    query = "SELECT created, metadata FROM conversations WHERE owner = ? AND id = ?"
    row = connection.execute(query, (owner, key_of(id))).fetchone()
    return Conversation(id, row[0], _metadata(row[1])) if row else None


def update_conversation(
    connection: Connection, owner: bytes, id: str, metadata: Mapping[str, str]
) -> Conversation | None:
    """Replace the metadata of a conversation; return it."""
    connection.execute(
        "UPDATE conversations SET metadata = ? WHERE owner = ? AND id = ?",
        (msgspec.json.encode(metadata), owner, key_of(id)),
    )
    return conversation(connection, owner, id)


def add_items(
    connection: Connection, owner: bytes, id: bytes, items: Sequence[Item], now: float
) -> bool:
    """Add items at the end of a conversation."""
    key = find_conversation(connection, owner, id)
    if key is None:
        return False
    use_conversation(connection, key, now)
    _put_items(connection, owner, items, None, key)
    return True


def conversation_items(
    connection: Connection, owner: bytes, id: bytes
) -> tuple[int, tuple[Item, ...]] | None:
    """Return the key of a conversation and its items, oldest first."""
    key = find_conversation(connection, owner, id)
    if key is None:
        return None
    rows = connection.execute(
        "SELECT id, body FROM items WHERE conversation = ? ORDER BY key", (key,)
    )
    return key, tuple(Item(text_of(item_id), body) for item_id, body in rows)


def use_conversation(connection: Connection, key: int, now: float) -> None:
    """Mark a conversation as used; one that is gone is left alone."""
    connection.execute("UPDATE conversations SET used = ? WHERE key = ?", (now, key))


def delete_conversation(connection: Connection, owner: bytes, id: bytes) -> bool:
    """Forget a conversation."""
    key = find_conversation(connection, owner, id)
    if key is not None:
        drop_conversation(connection, key)
    return key is not None


def drop_conversation(connection: Connection, key: int) -> None:
    """Take a conversation out, with all that only it holds."""
    connection.execute("DELETE FROM items WHERE conversation = ? AND response IS NULL", (key,))
    connection.execute("UPDATE items SET conversation = NULL WHERE conversation = ?", (key,))
    connection.execute("DELETE FROM conversations WHERE key = ?", (key,))


def delete_item(connection: Connection, owner: bytes, id: bytes, item_id: bytes) -> bool:
    """Take an item out of a conversation."""
    key = find_conversation(connection, owner, id)
    of_it = "owner = ? AND id = ? AND conversation = ?"
    wanted = (owner, item_id, key)
    gone = connection.execute(f"DELETE FROM items WHERE {of_it} AND response IS NULL", wanted)
    left = connection.execute(f"UPDATE items SET conversation = NULL WHERE {of_it}", wanted)
    return gone.rowcount + left.rowcount > 0


def _find_response(connection: Connection, owner: bytes, id: bytes) -> tuple[int, float] | None:
    row: tuple[int, float] | None = connection.execute(
        "SELECT key, running_until FROM responses WHERE owner = ? AND id = ?", (owner, id)
    ).fetchone()
    return row


def _put_response(
    connection: Connection, owner: bytes, response: StoredResponse, now: float, key: int | None
) -> int:
    """Write the row and the body, over those with this key; return the key."""
    if key is not None:
        connection.execute("DELETE FROM items WHERE response = ?", (key,))
    row = {
        "key": key,
        "owner": owner,
        "id": key_of(response.id),
        "created": response.created,
        "previous": key_of(response.previous),
        "conversation": key_of(response.conversation),
        "until": response.running_until,
        "used": max(now, response.running_until),
    }
    cursor = connection.execute(
        "INSERT INTO responses VALUES"
        " (:key, :owner, :id, :created, :previous, :conversation, :until, :used)"
        " ON CONFLICT (key) DO UPDATE SET created = :created, previous = :previous,"
        " conversation = :conversation, running_until = :until, used = :used",
        row,
    )
    key = key or cursor.lastrowid
    assert key is not None
    connection.execute("INSERT OR REPLACE INTO bodies VALUES (?, ?)", (key, response.body))
    return key


def _put_items(
    connection: Connection,
    owner: bytes,
    items: Iterable[Item],
    response: int | None,
    conversation: int | None,
    *,
    output: bool = False,
) -> None:
    connection.executemany(
        "INSERT INTO items (owner, id, response, output, conversation, body)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        ((owner, key_of(item.id), response, output, conversation, item.body) for item in items),
    )


def _put_chunks(connection: Connection, response: int, chunks: Iterable[Chunk]) -> None:
    connection.executemany(
        "INSERT INTO frames (response, last, packed) VALUES (?, ?, ?)",
        ((response, chunk.last, chunk.packed) for chunk in chunks),
    )
