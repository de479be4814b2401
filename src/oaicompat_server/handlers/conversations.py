"""The routes of conversations: what they are, and the items in them.

One rule: an item is the client's; what is listed is what was sent, completed, in the order it came.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio.to_thread
from msgspec import Raw

from oaicompat.dialects.responses.conversations import (
    read_conversation,
    read_items,
    read_metadata,
)
from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat.supplies import Item
from oaicompat_server.bodies import has_body, read_body
from oaicompat_server.entropy import token
from oaicompat_server.handlers.context import Context, Table, read_only, shown
from oaicompat_server.handlers.query import Page, Query, item_list
from oaicompat_server.relay import Relay
from oaicompat_server.store import Conversation

T = TypeVar("T")

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
_READ_IN_THREAD = 1024 * 1024


class Conversations:
    """Answers what is asked about conversations."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.table: Table = {
            "/conversations": {"POST": self._create},
            "/conversations/{id}": {
                **read_only(self._retrieve),
                "POST": self._update,
                "DELETE": self._delete,
            },
            "/conversations/{id}/items": {**read_only(self._list), "POST": self._add},
            "/conversations/{id}/items/{item}": {
                **read_only(self._retrieve_item),
                "DELETE": self._delete_item,
            },
        }

    async def _create(self, context: Context) -> None:
        body = await self._body(context) if has_body(context.headers) else b"{}"
        unique = token()[:28]
        items, metadata = await _apart(body, lambda: read_conversation(body, unique))
        conversation = Conversation(f"conv_{unique}", float(int(time.time())), metadata)
        await self._relay.store.create_conversation(context.owner, conversation, items)
        await context.reply(_data(conversation))

    async def _retrieve(self, context: Context) -> None:
        await context.reply(_data(await self._found(context)))

    async def _update(self, context: Context) -> None:
        metadata = read_metadata(await self._body(context))
        found = await self._relay.store.update_conversation(
            context.owner, _id_of(context), metadata
        )
        if found is None:
            raise _not_found(context)
        await context.reply(_data(found))

    async def _delete(self, context: Context) -> None:
        conversation_id = _id_of(context)
        if not await self._relay.store.delete_conversation(context.owner, conversation_id):
            raise _not_found(context)
        await context.reply(
            {"id": conversation_id, "object": "conversation.deleted", "deleted": True}
        )

    async def _add(self, context: Context) -> None:
        body = await self._body(context)
        conversation_id = _id_of(context)
        items = await _apart(body, lambda: read_items(body, token()[:28]))
        if not await self._relay.store.add_items(
            context.owner, conversation_id, items, time.time()
        ):
            raise _not_found(context)
        await context.reply(item_list(items))

    async def _list(self, context: Context) -> None:
        page = Page(Query(context.scope["query_string"]))
        await context.reply(page.of(await self._items(context)))

    async def _retrieve_item(self, context: Context) -> None:
        for item in reversed(await self._items(context)):
            if item.id == context.route.item:
                await context.reply(Raw(item.body))
                return
        raise _item_not_found(context)

    async def _delete_item(self, context: Context) -> None:
        conversation = await self._found(context)
        if not await self._relay.store.delete_item(
            context.owner, conversation.id, context.route.item
        ):
            raise _item_not_found(context)
        await context.reply(_data(conversation))

    async def _body(self, context: Context) -> bytes:
        limit = self._relay.config.server.body_limit
        return await read_body(context.headers, context.receive, limit)

    async def _found(self, context: Context) -> Conversation:
        found = await self._relay.store.conversation(context.owner, _id_of(context))
        if found is None:
            raise _not_found(context)
        return found

    async def _items(self, context: Context) -> Sequence[Item]:
        items = await self._relay.store.conversation_items(
            context.owner, _id_of(context), time.time()
        )
        if items is None:
            raise _not_found(context)
        return items


async def _apart(body: bytes, read: Callable[[], T]) -> T:
    """Read a body, in a thread where that takes long."""
    if len(body) < _READ_IN_THREAD:
        return read()
    return await anyio.to_thread.run_sync(read, abandon_on_cancel=True)


def _data(conversation: Conversation) -> dict[str, object]:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": int(conversation.created),
        "metadata": conversation.metadata,
    }


def _id_of(context: Context) -> str:
    """Return the id of a conversation; raises where it cannot be one."""
    if not _ID.fullmatch(context.route.id):
        raise _not_found(context)
    return context.route.id


def _not_found(context: Context) -> OaicompatError:
    return InvalidRequestError(
        f"Conversation with id '{shown(context.route.id)}' not found.", status=404
    )


def _item_not_found(context: Context) -> OaicompatError:
    return InvalidRequestError(f"Item with id '{shown(context.route.item)}' not found.", status=404)
