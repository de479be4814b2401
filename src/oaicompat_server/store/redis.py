"""Responses, conversations and signatures in Redis, for several gateways that share what they keep.

One rule: a response is one hash, a conversation another, so that none of it goes without the rest when its
time comes; every key lives for the retention time after its last use, a signature for its lifetime. Keys are
`oaicompat:1:<owner>:<kind>:<id>`, owner and id percent-encoded.

Response: created, body, input, output, previous, previous_key, conversation, until, items, and its frames as
chunk:<n> with the highest number of each in lasts. Conversation: created, metadata, count, item:<n>:<key>.
Item: a list of places, latest first (`redis_scripts`).
Signature: its backend and value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from oaicompat.events import Frame
from oaicompat.messages import Signature
from oaicompat.supplies import Item
from oaicompat_server.secret import Secret
from oaicompat_server.store import (
    LONGEST_CHAIN,
    Conversation,
    KeptSignature,
    NotStored,
    SignatureBounds,
    StoredResponse,
    StoreError,
    redis_scripts,
)
from oaicompat_server.store.packing import HIGHEST, Chunk, key_of, pack_apart, text_of, unpack
from oaicompat_server.store.redis_client import Client
from oaicompat_server.store.signatures import BOUNDS

_PREFIX = "oaicompat:1"
_LONGEST_NAME = 200
_RUN_SECONDS = 86400.0
"""How long a running response, and the id of a deleted one, is kept at least."""

_Packed = list[tuple[bytes, bytes]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode
_signature = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode
_metadata = msgspec.json.Decoder(dict[str, str]).decode


class RedisStore:
    """Keeps for `retention` seconds after the last use; what Redis holds is bounded by its own settings.

    Raises `ValueError` for a URL that cannot name a Redis.
    """

    def __init__(
        self,
        url: Secret,
        *,
        retention: float = 30 * 86400.0,
        bounds: SignatureBounds = BOUNDS,
    ) -> None:
        self.client = Client(url)
        self._ttl = max(1, int(retention * 1000))
        self._longer_ttl = max(self._ttl, int(_RUN_SECONDS * 1000))
        self._lifetime = max(1, int(min(bounds.lifetime, retention) * 1000))

    async def check(self) -> None:
        """Close the store and raise `StoreError` where Redis cannot be used."""
        try:
            await self.client.one("PING")
        except BaseException:
            await self.client.aclose()
            raise

    async def save(
        self, owner: str, response: StoredResponse, frames: Sequence[Frame], now: float
    ) -> bool:
        """Keep a response; False where it has ended, was deleted, or its conversation is gone."""
        chunks = await pack_apart(frames)
        keys = [_key(owner, "response", response.id)]
        added: Sequence[Item] = ()
        if response.conversation and not response.running_until:
            keys.append(_key(owner, "conversation", response.conversation))
            added = (*response.input, *response.output)
        arguments = [
            self._longer_ttl if response.running_until else self._ttl,
            *_fields(owner, response),
            *_places(owner, response),
            *_chunks(chunks),
            *_added(owner, added),
        ]
        return bool(await self.client.script(redis_scripts.SAVE, keys, arguments))

    async def append(
        self, owner: str, response_id: str, frames: Sequence[Frame], running_until: float
    ) -> bool:
        """Keep more frames of a running response; False where it has ended or was deleted."""
        chunks = await pack_apart(frames)
        arguments = [self._longer_ttl, _until(running_until), *_chunks(chunks)]
        keys = [_key(owner, "response", response_id)]
        return bool(await self.client.script(redis_scripts.APPEND, keys, arguments))

    async def find(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response."""
        fields = ("created", "body", "input", "output", "previous", "conversation", "until")
        row = await self.client.one("HMGET", _key(owner, "response", response_id), *fields)
        if any(value is None for value in row):
            return None
        created, body, input, output, previous, conversation, until = row
        return StoredResponse(
            response_id,
            float(created),
            body,
            tuple(_items(input)),
            tuple(_items(output)),
            text_of(previous),
            text_of(conversation),
            float(until or 0),
        )

    async def frames(self, owner: str, response_id: str, after: int) -> tuple[Frame, ...]:
        """Return the frames whose sequence is greater than `after`, and the end mark."""
        key = _key(owner, "response", response_id)
        lasts = (await self.client.one("HGET", key, "lasts") or b"").split()
        wanted = [f"chunk:{index}" for index, last in enumerate(lasts) if _wanted(last, after)]
        packed = await self.client.one("HMGET", key, *wanted) if wanted else []
        return unpack((each for each in packed if each is not None), after)

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget a response; False where it is not there."""
        keys = [_key(owner, "response", response_id)]
        return bool(await self.client.script(redis_scripts.DELETE, keys, [self._longer_ttl]))

    async def history(self, owner: str, response_id: str, now: float) -> tuple[Item, ...]:
        """Return the items of a response and of all it continues, oldest first."""
        kind, *rest = await self.client.script(
            redis_scripts.HISTORY,
            [_key(owner, "response", response_id)],
            [key_of(response_id), LONGEST_CHAIN, self._ttl, self._longer_ttl],
        )
        if kind == b"missing":
            raise NotStored(text_of(rest[0]))
        if kind == b"long":
            raise StoreError(f"more than {LONGEST_CHAIN} responses continue each other")
        (packed,) = rest
        pairs = zip(packed[-2::-2], packed[::-2], strict=True)
        return tuple(item for pair in pairs for each in pair for item in _items(each))

    async def items(self, owner: str, ids: Sequence[str]) -> dict[str, Item]:
        """Return those of these items that are kept, by id."""
        keys = {each: _key(owner, "item", each) for each in ids}
        lists = await self.client.many([("LRANGE", key, 0, -1) for key in keys.values()])
        places = dict(zip(keys, lists, strict=True))
        found: dict[str, Item] = {}
        # A place may be empty: what was there went when its time had come.
        while places := {each: left for each, left in places.items() if left and each not in found}:
            firsts = {each: left.pop(0) for each, left in places.items()}
            there = await self._at(set(firsts.values()))
            found |= {each: there[at][each] for each, at in firsts.items() if each in there[at]}
        return found

    async def _at(self, places: Iterable[bytes]) -> dict[bytes, dict[str, Item]]:
        """Return the items at each of these places, by id; the last one with an id wins."""
        wanted = list(places)
        packed = await self.client.many([("HGET", *place.split(b"\n", 1)) for place in wanted])
        return {
            place: {item.id: item for item in _items(each)} if each is not None else {}
            for place, each in zip(wanted, packed, strict=True)
        }

    async def create_conversation(
        self, owner: str, conversation: Conversation, items: Sequence[Item]
    ) -> None:
        """Keep a new conversation."""
        metadata = msgspec.json.encode(conversation.metadata)
        arguments = [self._ttl, repr(conversation.created), metadata, *_added(owner, items)]
        keys = [_key(owner, "conversation", conversation.id)]
        await self.client.script(redis_scripts.CREATE_CONVERSATION, keys, arguments)

    async def conversation(self, owner: str, conversation_id: str) -> Conversation | None:
        """Return a conversation."""
        key = _key(owner, "conversation", conversation_id)
        created, metadata = await self.client.one("HMGET", key, "created", "metadata")
        if created is None:
            return None
        return Conversation(conversation_id, float(created), _metadata(metadata))

    async def update_conversation(
        self, owner: str, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation | None:
        """Replace the metadata of a conversation; return it."""
        created = await self.client.script(
            redis_scripts.UPDATE_CONVERSATION,
            [_key(owner, "conversation", conversation_id)],
            [msgspec.json.encode(metadata)],
        )
        if created is None:
            return None
        return Conversation(conversation_id, float(created), dict(metadata))

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        """Forget a conversation; False where it is not there."""
        keys = [_key(owner, "conversation", conversation_id)]
        return bool(await self.client.script(redis_scripts.DELETE_CONVERSATION, keys, []))

    async def add_items(
        self, owner: str, conversation_id: str, items: Sequence[Item], now: float
    ) -> bool:
        """Add items at the end of a conversation; False where it is not there."""
        keys = [_key(owner, "conversation", conversation_id)]
        arguments = [self._ttl, *_added(owner, items)]
        return bool(await self.client.script(redis_scripts.ADD_ITEMS, keys, arguments))

    async def conversation_items(
        self, owner: str, conversation_id: str, now: float
    ) -> tuple[Item, ...] | None:
        """Return the items of a conversation, oldest first, and mark it as used."""
        keys = [_key(owner, "conversation", conversation_id)]
        pairs = await self.client.script(redis_scripts.CONVERSATION_ITEMS, keys, [self._ttl])
        if pairs is None:
            return None
        numbered = sorted(
            (int(field.split(b":", 2)[1]), packed)
            for field, packed in zip(pairs[::2], pairs[1::2], strict=True)
            if field.startswith(b"item:")
        )
        return tuple(item for _, packed in numbered for item in _items(packed))

    async def delete_item(self, owner: str, conversation_id: str, item_id: str) -> bool:
        """Take one item out of a conversation; False where it is not there."""
        keys = [_key(owner, "conversation", conversation_id)]
        arguments = [_key(owner, "item", item_id)]
        return bool(await self.client.script(redis_scripts.DELETE_ITEM, keys, arguments))

    async def keep_signatures(self, rows: Sequence[KeptSignature], now: float) -> None:
        """Keep signatures of calls."""
        if not rows:
            return
        keys = [_key(row.owner, "signature", row.id) for row in rows]
        packed = [_pack_signature(row.signature) for row in rows]
        await self.client.script(redis_scripts.KEEP_SIGNATURES, keys, [self._lifetime, *packed])

    async def find_signatures(
        self, owner: str, ids: Sequence[str], now: float
    ) -> dict[str, Signature]:
        """Return those signatures of these calls that are kept."""
        if not ids:
            return {}
        keys = [_key(owner, "signature", each) for each in ids]
        packed = await self.client.one("MGET", *keys)
        return {
            id: _unpack_signature(each)
            for id, each in zip(ids, packed, strict=True)
            if each is not None
        }

    async def sweep(self, now: float) -> None:
        """Do nothing: every key has its time, and Redis keeps it."""

    async def aclose(self) -> None:
        """Finish what was begun and close the connections."""
        await self.client.aclose()


def _key(owner: str, kind: str, id: str) -> bytes:
    return f"{_PREFIX}:{_name(owner)}:{kind}:{_name(id)}".encode("ascii")


def _name(text: str) -> str:
    """Return a part of a key: no text of a client's gets out of it, and none makes it long."""
    raw = key_of(text)
    name = quote(raw, safe="")
    # A percent-encoded text holds no equals sign, so that none is taken for a digest.
    return name if len(name) <= _LONGEST_NAME else "=" + hashlib.sha256(raw).hexdigest()


def _until(running_until: float) -> str:
    return repr(running_until) if running_until else ""


def _fields(owner: str, response: StoredResponse) -> list[Any]:
    """Return the number of fields, and field by field."""
    previous = response.previous
    fields = {
        "created": repr(response.created),
        "body": response.body,
        "input": _pack(response.input),
        "output": _pack(response.output),
        "previous": key_of(previous),
        "previous_key": _key(owner, "response", previous) if previous else b"",
        "conversation": key_of(response.conversation),
        "until": _until(response.running_until),
    }
    return [len(fields), *(each for pair in fields.items() for each in pair)]


def _places(owner: str, response: StoredResponse) -> list[Any]:
    """Return the number of items, and of each its key and the field it is in."""
    places = {(item.id, "input"): None for item in response.input}
    places |= {(item.id, "output"): None for item in response.output}
    return [
        len(places),
        *(each for id, field in places for each in (_key(owner, "item", id), field)),
    ]


def _chunks(chunks: Sequence[Chunk]) -> list[Any]:
    return [len(chunks), *(each for chunk in chunks for each in (chunk.last, chunk.packed))]


def _added(owner: str, items: Sequence[Item]) -> list[Any]:
    added = [each for item in items for each in (_key(owner, "item", item.id), _pack([item]))]
    return [len(items), *added]


def _wanted(last: bytes, after: int) -> bool:
    return int(last) > min(after, HIGHEST - 1)


def _pack(items: Iterable[Item]) -> bytes:
    return _encode([(key_of(item.id), item.body) for item in items])


def _items(packed: bytes) -> list[Item]:
    try:
        return [Item(text_of(id), body) for id, body in _decode(packed)]
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise StoreError("items are damaged") from None


def _pack_signature(signature: Signature) -> bytes:
    return _encode((key_of(signature.backend), key_of(signature.value)))


def _unpack_signature(packed: bytes) -> Signature:
    try:
        backend, value = _signature(packed)
        return Signature(text_of(value), text_of(backend))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise StoreError("a signature is damaged") from None
