"""Responses, conversations and signatures in memory: gone with the process, bounded by age and size.

One rule: nothing here awaits, so every method is one step and no two interfere. What is kept lies in the order
of its last use; what is above the limit goes at once, not only when it is swept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from oaicompat.events import Frame
from oaicompat.messages import Signature
from oaicompat.supplies import Item
from oaicompat_server.store import (
    LONGEST_CHAIN,
    Conversation,
    KeptSignature,
    NotStored,
    SignatureBounds,
    SignatureStore,
    StoredResponse,
    StoreError,
)
from oaicompat_server.store.signatures import BOUNDS

_OVERHEAD = 128
"""Bytes that a value takes beside its content, roughly."""

_Key = tuple[str, str]


class _Response(Struct):
    response: StoredResponse
    frames: list[Frame]
    used: float
    size: int = 0

    @property
    def items(self) -> tuple[Item, ...]:
        return (*self.response.input, *self.response.output)


class _Conversation(Struct):
    conversation: Conversation
    items: list[Item]
    used: float
    size: int = 0


_Kept = _Response | _Conversation


class MemoryStore:
    """Keeps what was used last; `retention` is seconds, `max_bytes` bounds bodies, items and frames."""

    def __init__(
        self,
        *,
        retention: float = 30 * 86400.0,
        max_bytes: int = 1 << 30,
        bounds: SignatureBounds = BOUNDS,
    ) -> None:
        self._retention = retention
        self._max_bytes = max_bytes
        self._responses: OrderedDict[_Key, _Response] = OrderedDict()
        self._conversations: OrderedDict[_Key, _Conversation] = OrderedDict()
        self._deleted: dict[_Key, float] = {}
        self._items = _Items()
        self._size = 0
        self._bounds = bounds.within(retention, max_bytes)
        self._signatures = SignatureStore(self._bounds)

    async def save(
        self, owner: str, response: StoredResponse, frames: Sequence[Frame], now: float
    ) -> bool:
        """Keep a response; False where it has ended, was deleted, or its conversation is gone."""
        key = (owner, response.id)
        before = self._responses.get(key)
        if key in self._deleted or (before is not None and not before.response.running_until):
            return False
        if response.conversation and not response.running_until:
            items = (*response.input, *response.output)
            if not self._extend((owner, response.conversation), items, now):
                return False
        self._drop_response(key)
        kept = _Response(response, [*(before.frames if before else ()), *frames], now)
        self._responses[key] = kept
        self._weigh(kept, _size_of(kept))
        self._items.add(owner, kept, kept.items)
        self._shrink(now)
        return True

    async def append(
        self, owner: str, response_id: str, frames: Sequence[Frame], running_until: float
    ) -> bool:
        """Keep more frames of a running response; False where it has ended or was deleted."""
        found = self._responses.get((owner, response_id))
        if found is None or not found.response.running_until:
            return False
        found.response = replace(found.response, running_until=running_until)
        found.frames.extend(frames)
        self._weigh(found, found.size + _frames_size(frames))
        return True

    async def find(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response."""
        found = self._responses.get((owner, response_id))
        return found.response if found else None

    async def frames(self, owner: str, response_id: str, after: int) -> tuple[Frame, ...]:
        """Return the frames whose sequence is greater than `after`, and the end mark."""
        found = self._responses.get((owner, response_id))
        frames = found.frames if found else ()
        numbered = [each for each in frames if each.sequence > max(after, -1)]
        return (*numbered, *(each for each in frames if each.sequence < 0))

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget a response; False where it is not there."""
        return self._bury((owner, response_id))

    async def history(self, owner: str, response_id: str, now: float) -> tuple[Item, ...]:
        """Return the items of a response and of all it continues, oldest first."""
        chain: dict[str, _Response] = {}
        while response_id and response_id not in chain:
            if len(chain) == LONGEST_CHAIN:
                raise StoreError(f"more than {LONGEST_CHAIN} responses continue each other")
            found = self._responses.get((owner, response_id))
            if found is None:
                raise NotStored(response_id)
            chain[response_id] = found
            response_id = found.response.previous
        for each in chain:
            chain[each].used = now
            self._responses.move_to_end((owner, each))
        return tuple(item for found in reversed(chain.values()) for item in found.items)

    async def items(self, owner: str, ids: Sequence[str]) -> dict[str, Item]:
        """Return those of these items that are kept, by id."""
        return self._items.find(owner, ids)

    async def create_conversation(
        self, owner: str, conversation: Conversation, items: Sequence[Item]
    ) -> None:
        """Keep a new conversation."""
        key = (owner, conversation.id)
        self._drop_conversation(key)
        self._conversations[key] = _Conversation(conversation, [], conversation.created)
        self._extend(key, items, conversation.created)
        self._shrink(conversation.created)

    async def conversation(self, owner: str, conversation_id: str) -> Conversation | None:
        """Return a conversation."""
        found = self._conversations.get((owner, conversation_id))
        return found.conversation if found else None

    async def update_conversation(
        self, owner: str, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation | None:
        """Replace the metadata of a conversation; return it."""
        found = self._conversations.get((owner, conversation_id))
        if found is None:
            return None
        found.conversation = replace(found.conversation, metadata=dict(metadata))
        return found.conversation

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        """Forget a conversation; False where it is not there."""
        return self._drop_conversation((owner, conversation_id))

    async def add_items(
        self, owner: str, conversation_id: str, items: Sequence[Item], now: float
    ) -> bool:
        """Add items at the end of a conversation; False where it is not there."""
        added = self._extend((owner, conversation_id), items, now)
        self._shrink(now)
        return added

    async def conversation_items(
        self, owner: str, conversation_id: str, now: float
    ) -> tuple[Item, ...] | None:
        """Return the items of a conversation, oldest first, and mark it as used."""
        found = self._conversations.get((owner, conversation_id))
        if found is None:
            return None
        found.used = now
        self._conversations.move_to_end((owner, conversation_id))
        return tuple(found.items)

    async def delete_item(self, owner: str, conversation_id: str, item_id: str) -> bool:
        """Take one item out of a conversation; False where it is not there."""
        found = self._conversations.get((owner, conversation_id))
        gone = [item for item in found.items if item.id == item_id] if found else []
        if found is None or not gone:
            return False
        found.items = [item for item in found.items if item.id != item_id]
        self._weigh(found, found.size - _items_size(gone))
        self._items.remove(owner, found, gone)
        return True

    async def keep_signatures(self, rows: Sequence[KeptSignature], now: float) -> None:
        """Keep signatures of calls."""
        for row in rows:
            self._signatures.remember(row.owner, row.id, row.signature, now)

    async def find_signatures(
        self, owner: str, ids: Sequence[str], now: float
    ) -> dict[str, Signature]:
        """Return those signatures of these calls that are kept."""
        found = {each: self._signatures.get(owner, each, now) for each in ids}
        return {each: signature for each, signature in found.items() if signature is not None}

    async def sweep(self, now: float) -> None:
        """Forget what was not used for the retention time."""
        oldest = now - self._retention
        self._signatures.expire(now)
        for key, kept in list(self._responses.items()):
            if max(kept.used, kept.response.running_until) < oldest:
                self._drop_response(key)
        for key, conversation in list(self._conversations.items()):
            if conversation.used < oldest:
                self._drop_conversation(key)
        self._deleted = {key: used for key, used in self._deleted.items() if used >= oldest}
        self._shrink(now)

    async def aclose(self) -> None:
        """Forget everything."""
        self._responses.clear()
        self._conversations.clear()
        self._deleted.clear()
        self._items = _Items()
        self._size = 0
        self._signatures = SignatureStore(self._bounds)

    def _extend(self, key: _Key, items: Sequence[Item], now: float) -> bool:
        found = self._conversations.get(key)
        if found is None:
            return False
        found.items.extend(items)
        found.used = now
        self._conversations.move_to_end(key)
        self._weigh(found, found.size + _items_size(items))
        self._items.add(key[0], found, items)
        return True

    def _weigh(self, kept: _Kept, size: int) -> None:
        self._size += size - kept.size
        kept.size = size

    def _bury(self, key: _Key) -> bool:
        """Drop a response so that its id cannot come back."""
        found = self._responses.get(key)
        if found is not None:
            self._deleted[key] = max(found.used, found.response.running_until)
        return self._drop_response(key)

    def _drop_response(self, key: _Key) -> bool:
        found = self._responses.pop(key, None)
        if found is None:
            return False
        self._weigh(found, 0)
        self._items.remove(key[0], found, found.items)
        return True

    def _drop_conversation(self, key: _Key) -> bool:
        found = self._conversations.pop(key, None)
        if found is None:
            return False
        self._weigh(found, 0)
        self._items.remove(key[0], found, found.items)
        return True

    def _shrink(self, now: float) -> None:
        while self._size > self._max_bytes:
            ended = (
                key for key, each in self._responses.items() if each.response.running_until < now
            )
            response, conversation = next(ended, None), next(iter(self._conversations), None)
            if response is not None and (
                conversation is None
                or self._responses[response].used <= self._conversations[conversation].used
            ):
                self._evict(response)
            elif conversation is not None:
                self._drop_conversation(conversation)
            else:
                return

    def _evict(self, key: _Key) -> None:
        # A lost response whose gateway is only slow must not come back as its last half.
        if self._responses[key].response.running_until:
            self._bury(key)
        else:
            self._drop_response(key)


class _Items:
    """Items by owner and id, each with who holds it, the latest last."""

    def __init__(self) -> None:
        self._held: dict[_Key, list[tuple[_Kept, Item]]] = {}

    def add(self, owner: str, holder: _Kept, items: Sequence[Item]) -> None:
        for item in items:
            self._held.setdefault((owner, item.id), []).append((holder, item))

    def remove(self, owner: str, holder: _Kept, items: Sequence[Item]) -> None:
        for key in {(owner, item.id) for item in items}:
            left = [held for held in self._held[key] if held[0] is not holder]
            if left:
                self._held[key] = left
            else:
                del self._held[key]

    def find(self, owner: str, ids: Sequence[str]) -> dict[str, Item]:
        found = {each: self._held.get((owner, each)) for each in ids}
        return {each: held[-1][1] for each, held in found.items() if held}


def _size_of(kept: _Response) -> int:
    body = len(kept.response.body) + _OVERHEAD
    return body + _items_size(kept.items) + _frames_size(kept.frames)


def _items_size(items: Sequence[Item]) -> int:
    return sum(len(item.body) + _OVERHEAD for item in items)


def _frames_size(frames: Sequence[Frame]) -> int:
    return sum(len(frame.data) + _OVERHEAD for frame in frames)
