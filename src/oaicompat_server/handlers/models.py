"""The model list, single models, and what a name means here.

One rule: none of these needs the upstream to be well; what it does not tell is left out of the list.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from oaicompat.errors import InvalidRequestError, ModelNotFoundError
from oaicompat_server.bodies import read_body
from oaicompat_server.framing import header_value
from oaicompat_server.handlers.context import Context, Table, read_only, shown
from oaicompat_server.listing import ModelList


class _Detect(Struct):
    model: str = ""


class Models:
    """Answers what is asked about models; `body_limit` is the longest body in bytes."""

    def __init__(self, models: ModelList, body_limit: int) -> None:
        self._models = models
        self._limit = body_limit
        self.table: Table = {
            "/models": read_only(self._list),
            "/models/{id}": read_only(self._retrieve),
            "/models/detect": {"POST": self._detect},
        }

    async def _list(self, context: Context) -> None:
        await context.reply({"object": "list", "data": await self._models.entries()})

    async def _retrieve(self, context: Context) -> None:
        entry = await self._models.entry(context.route.id)
        if entry is None:
            raise ModelNotFoundError(
                f"The model `{shown(context.route.id)}` does not exist or you do not have access to it.",
                param="model",
            )
        await context.reply(entry)

    async def _detect(self, context: Context) -> None:
        body = await read_body(context.headers, context.receive, self._limit)
        try:
            wanted = msgspec.json.decode(body, type=_Detect)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise InvalidRequestError("The body must be an object with a string 'model'.") from None
        if not wanted.model:
            raise InvalidRequestError("Missing required parameter: 'model'.", param="model")
        found = self._models.detect(wanted.model)
        mapped = (b"x-mapped-model", header_value(str(found["mapped_model"])))
        await context.reply(found, [mapped])
