"""Responses and conversations in memory: gone with the process, bounded by age and size.

One rule: nothing here awaits, so every method is one step and no two interfere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from oaicompat.events import Frame
from oaicompat.supplies import Item
from oaicompat_server.store import Conversation, NotStored, StoredResponse

_CHAIN = 10_000
_Key = tuple[str, str]


class _Response(Struct):
    response: StoredResponse
    frames: list[Frame]
    used: float
    size: int


class _Conversation(Struct):
    conversation: Conversation
    items: list[Item]
    used: float
    size: int


class MemoryStore:
    """Keeps what was used last; `retention` is seconds, `max_bytes` bounds bodies, items and frames."""

    def __init__(self, *, retention: float = 30 * 86400.0, max_bytes: int = 1 << 30) -> None:
        self._retention = retention
        self._max_bytes = max_bytes
        self._responses: OrderedDict[_Key, _Response] = OrderedDict()
        self._conversations: OrderedDict[_Key, _Conversation] = OrderedDict()
        self._items: dict[_Key, Item] = {}
        self._size = 0

    async def save(
        self, owner: str, response: StoredResponse, frames: Sequence[Frame], now: float
    ) -> bool:
        """Keep a response; False where it has ended, was deleted, or its conversation is gone."""
        key = (owner, response.id)
        before = self._responses.get(key)
        if before is not None and not before.response.running_until:
            return False
        ends = not response.running_until
        conversation = self._conversations.get((owner, response.conversation))
        if ends and response.conversation and conversation is None:
            return False
        if ends and conversation is not None:
            self._extend(owner, conversation, (*response.input, *response.output), now)
        kept = [*(before.frames if before else ()), *frames]
        self._drop_response(key)
        size = _size(response, kept)
        self._responses[key] = _Response(response, kept, now, size)
        self._size += size
        for item in (*response.input, *response.output):
            self._items[owner, item.id] = item
        self._shrink()
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
        return True

    async def find(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response."""
        found = self._responses.get((owner, response_id))
        return found.response if found else None

    async def frames(self, owner: str, response_id: str, after: int) -> tuple[Frame, ...]:
        """Return the frames whose sequence is greater than `after`, and the end mark."""
        found = self._responses.get((owner, response_id))
        frames = found.frames if found else ()
        return tuple(each for each in frames if each.sequence < 0 or each.sequence > after)

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget a response; False where it is not there."""
        return self._drop_response((owner, response_id))

    async def history(self, owner: str, response_id: str, now: float) -> tuple[Item, ...]:
        """Return the items of a response and of all it continues, oldest first."""
        chain: list[StoredResponse] = []
        while response_id and len(chain) < _CHAIN:
            found = self._responses.get((owner, response_id))
            if found is None:
                raise NotStored(response_id)
            found.used = now
            self._responses.move_to_end((owner, response_id))
            chain.append(found.response)
            response_id = found.response.previous
        return tuple(item for each in reversed(chain) for item in (*each.input, *each.output))

    async def items(self, owner: str, ids: Sequence[str]) -> dict[str, Item]:
        """Return those of these items that are kept, by id."""
        return {each: self._items[owner, each] for each in ids if (owner, each) in self._items}

    async def create_conversation(
        self, owner: str, conversation: Conversation, items: Sequence[Item]
    ) -> None:
        """Keep a new conversation."""
        new = _Conversation(conversation, [], conversation.created, 0)
        self._conversations[owner, conversation.id] = new
        self._extend(owner, new, items, conversation.created)
        self._shrink()

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
        found.conversation = replace(found.conversation, metadata=metadata)
        return found.conversation

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        """Forget a conversation; False where it is not there."""
        return self._drop_conversation((owner, conversation_id))

    async def add_items(
        self, owner: str, conversation_id: str, items: Sequence[Item], now: float
    ) -> bool:
        """Add items at the end of a conversation; False where it is not there."""
        found = self._conversations.get((owner, conversation_id))
        if found is None:
            return False
        self._extend(owner, found, items, now)
        self._shrink()
        return True

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
        left = [item for item in found.items if item.id != item_id] if found else []
        if found is None or len(left) == len(found.items):
            return False
        found.items = left
        self._items.pop((owner, item_id), None)
        return True

    async def sweep(self, now: float) -> None:
        """Forget what was not used for the retention time."""
        oldest = now - self._retention
        for key in [key for key, each in self._responses.items() if each.used < oldest]:
            self._drop_response(key)
        for key in [key for key, each in self._conversations.items() if each.used < oldest]:
            self._drop_conversation(key)
        self._shrink()

    async def aclose(self) -> None:
        """Forget everything."""
        self._responses.clear()
        self._conversations.clear()
        self._items.clear()
        self._size = 0

    def _extend(
        self, owner: str, conversation: _Conversation, items: Sequence[Item], now: float
    ) -> None:
        size = sum(len(item.body) for item in items)
        conversation.items.extend(items)
        conversation.used = now
        conversation.size += size
        self._size += size
        self._conversations.move_to_end((owner, conversation.conversation.id))
        for item in items:
            self._items[owner, item.id] = item

    def _drop_response(self, key: _Key) -> bool:
        found = self._responses.pop(key, None)
        if found is None:
            return False
        self._size -= found.size
        for item in (*found.response.input, *found.response.output):
            self._items.pop((key[0], item.id), None)
        return True

    def _drop_conversation(self, key: _Key) -> bool:
        found = self._conversations.pop(key, None)
        if found is None:
            return False
        self._size -= found.size
        for item in found.items:
            self._items.pop((key[0], item.id), None)
        return True

    def _shrink(self) -> None:
        while self._size > self._max_bytes and (self._responses or self._conversations):
            if self._responses:
                self._drop_response(next(iter(self._responses)))
            else:
                self._drop_conversation(next(iter(self._conversations)))


def _size(response: StoredResponse, frames: Sequence[Frame]) -> int:
    items = (*response.input, *response.output)
    return (
        len(response.body)
        + sum(len(item.body) for item in items)
        + sum(len(frame.data) for frame in frames)
    )
