"""The routes whose requests are answered by a model.

One rule: the route decides the dialect of the answer; everything else about a request is its session's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from oaicompat.errors import InvalidRequestError
from oaicompat_server.bodies import body_at_once, read_body
from oaicompat_server.framing import direct_of, session_of
from oaicompat_server.handlers.context import Context, Table
from oaicompat_server.relay import Incoming, Relay
from oaicompat_server.session import serve

DIALECT_ROUTES: Mapping[str, str] = {
    "/chat/completions": "chat",
    "/responses": "responses",
    "/responses/compact": "responses/compact",
    "/responses/input_tokens": "responses/input_tokens",
}
"""The dialect behind each route that takes a request; a new one is one line."""


class Exchanges:
    """Has the relay answer."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._limit = relay.config.server.body_limit
        self.table: Table = {path: {"POST": self._exchange} for path in DIALECT_ROUTES} | {
            "/responses": {"POST": self._exchange, "GET": self._upgrade}
        }

    async def _upgrade(self, context: Context) -> None:
        message = "A response is created by POST, or over WebSocket: this request offers none."
        error = InvalidRequestError(message, status=426)
        await context.refuse(error, [(b"upgrade", b"websocket")])

    def _exchange(self, context: Context) -> Awaitable[None]:
        direct = direct_of(context.scope, context.receive.receive)
        if direct is not None:
            body = body_at_once(context.headers, context.receive, direct, self._limit)
            if body is not None:
                return self._serve(context, body)
        return self._serve_later(context)

    async def _serve_later(self, context: Context) -> None:
        body = await read_body(context.headers, context.receive, self._limit)
        await self._serve(context, body)

    def _serve(self, context: Context, body: bytes) -> Awaitable[None]:
        incoming = Incoming(
            DIALECT_ROUTES[context.route.suffix],
            body,
            context.request_id,
            context.started,
            owner=context.owner,
            session=session_of(context.headers),
            release=context.receive.release,
        )
        return serve(self._relay, incoming, context.scope, context.receive, context.send)
