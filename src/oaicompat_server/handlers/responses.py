"""The routes of one stored response: the object, its events, its input, its deletion, its cancellation.

One rule: what belongs to somebody else is not there, and neither is what cannot be an id.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from oaicompat.errors import InvalidRequestError
from oaicompat.supplies import Item
from oaicompat_server.handlers.context import Context, Table, read_only, shown
from oaicompat_server.handlers.query import LARGEST, Page, Query
from oaicompat_server.handlers.streaming import send_stream
from oaicompat_server.relay import Relay
from oaicompat_server.store import NotStored, StoredResponse
from oaicompat_server.stored import Stored, in_background, not_found

_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


class Responses:
    """Answers what is asked about stored responses."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.table: Table = {
            "/responses/{id}": {**read_only(self._retrieve), "DELETE": self._delete},
            "/responses/{id}/cancel": {"POST": self._cancel},
            "/responses/{id}/input_items": read_only(self._input_items),
        }

    def _stored(self, context: Context) -> Stored:
        return Stored(self._relay.store, self._relay.background, context.owner)

    async def _found(self, context: Context) -> StoredResponse:
        response_id = context.route.id
        if _ID.fullmatch(response_id):
            response = await self._stored(context).find(response_id)
            if response is not None:
                return response
        raise not_found(shown(response_id))

    async def _retrieve(self, context: Context) -> None:
        query = Query(context.scope["query_string"])
        streaming = query.truth("stream")
        after = query.integer("starting_after", -1, 0, LARGEST)
        query.truth("include_obfuscation")
        response = await self._found(context)
        if not streaming or context.method == "HEAD":
            await context.reply(response.body)
            return
        idle = self._relay.config.answer.keepalive
        frames = self._stored(context).follow(response, after, idle)
        await send_stream(context, frames, self._relay.cuts)

    async def _delete(self, context: Context) -> None:
        response = await self._found(context)
        if not await self._relay.store.delete(context.owner, response.id):
            raise not_found(response.id)
        await context.reply({"id": response.id, "object": "response", "deleted": True})

    async def _cancel(self, context: Context) -> None:
        response = await self._found(context)
        if not in_background(response):
            raise InvalidRequestError("Cannot cancel a synchronous response.")
        body = await self._stored(context).cancel(response)
        if body is None:
            raise not_found(response.id)
        await context.reply(body)

    async def _input_items(self, context: Context) -> None:
        page = Page(Query(context.scope["query_string"]))
        response = await self._found(context)
        await context.reply(page.of(await self._input(context, response)))

    async def _input(self, context: Context, response: StoredResponse) -> Sequence[Item]:
        """Return the items an answer was made of: those of the responses it continues, and its own input."""
        if not response.previous:
            return response.input
        store = self._relay.store
        try:
            past = await store.history(context.owner, response.previous, time.time())
        except NotStored:
            return response.input
        return (*past, *response.input)
