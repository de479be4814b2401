"""Which path means what: canonical routes, the aliases clients make of them, and honest refusals.

One rule: the last known suffix of a path decides. Base URLs come with and without `/v1`, doubled, with a
trailing slash, or with a whole endpoint in them (clients.md, "Path stacking"); every spelling of a route has
the same semantics. What is not served says so as JSON and names what is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Iterable, Mapping

from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat_server.auth import OWNER
from oaicompat_server.bodies import Reading
from oaicompat_server.cuts import shutting_down
from oaicompat_server.framing import (
    FIELDS,
    Fields,
    Receive,
    Scope,
    Send,
    common_headers,
    refuse_upgrade,
    request_id_in,
)
from oaicompat_server.handlers.context import CONTEXT, Context, Handler, Route, Table, shown
from oaicompat_server.handlers.conversations import Conversations
from oaicompat_server.handlers.exchanges import DIALECT_ROUTES as DIALECT_ROUTES
from oaicompat_server.handlers.exchanges import Exchanges
from oaicompat_server.handlers.models import Models
from oaicompat_server.handlers.operations import HEALTH, Operations
from oaicompat_server.handlers.responses import Responses
from oaicompat_server.listing import ModelList
from oaicompat_server.relay import Relay
from oaicompat_server.websocket import Connection

_FIXED = frozenset(
    {
        *DIALECT_ROUTES,
        "/completions",
        "/embeddings",
        "/models",
        "/models/detect",
        "/conversations",
        "/oaicompat/status",
        "/oaicompat/reset",
    }
)
_PATTERNS: Mapping[str, re.Pattern[str]] = {
    suffix: re.compile(pattern, re.DOTALL)
    for suffix, pattern in (
        ("/models/{id}", r"/models/(?:models/)?(.+)"),
        ("/responses/{id}", r"/responses/([^/]+)"),
        ("/responses/{id}/cancel", r"/responses/([^/]+)/cancel"),
        ("/responses/{id}/input_items", r"/responses/([^/]+)/input_items"),
        ("/conversations/{id}", r"/conversations/([^/]+)"),
        ("/conversations/{id}/items", r"/conversations/([^/]+)/items"),
        ("/conversations/{id}/items/{item}", r"/conversations/([^/]+)/items/(.+)"),
    )
}
"""Routes with ids in them; ids of models may hold slashes, and ids of items are the clients' own."""

_STACKED = "/chat/completions"
_UNKNOWN = Route("")
_COMMON: Mapping[str, Route] = {f"/v1{suffix}": Route(suffix) for suffix in _FIXED}


def resolve(path: str) -> Route | None:
    """Return the route of a path, or None."""
    return _COMMON.get(path) or _resolved(path)


def _resolved(path: str) -> Route | None:
    if path in HEALTH:
        return Route(path)
    rest = _unversioned(path.rstrip("/"))
    while rest.startswith(_STACKED + "/"):
        rest = _unversioned(rest[len(_STACKED) :])
    if rest in _FIXED:
        return Route(rest)
    for suffix, pattern in _PATTERNS.items():
        if found := pattern.fullmatch(rest):
            return Route(suffix, *found.groups())
    return None


def _unversioned(path: str) -> str:
    while path.startswith("/v1/"):
        path = path[3:]
    return path


class Router:
    """The application behind the gate: one ASGI callable for every path.

    What it and the handlers raise becomes an answer around it, by the `CONTEXT` that it leaves in the scope.
    """

    def __init__(self, relay: Relay, models: ModelList) -> None:
        self._relay = relay
        self._handlers: dict[str, Mapping[str, Handler]] = {}
        for part in _parts(relay, models):
            self._handlers.update(part)
        self._served = _listed(self._handlers)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "websocket":
            return self._upgrade(scope, receive, send)
        fields: Fields = scope[FIELDS]
        scope[CONTEXT] = context = Context(
            scope,
            fields,
            Reading(receive, self._relay.bodies),
            send,
            resolve(scope["path"]) or _UNKNOWN,
            request_id_in(fields),
            time.monotonic(),
            scope["method"],
            scope[OWNER],
        )
        return self._handler(context)(context)

    async def _upgrade(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = resolve(scope["path"])
        headers = common_headers(request_id_in(scope[FIELDS]), time.monotonic())
        if self._relay.draining:
            await refuse_upgrade(receive, send, shutting_down(), headers)
            return
        if (
            route is not None
            and route.suffix == "/responses"
            and self._relay.config.server.websocket
        ):
            await Connection(self._relay, scope, receive, send, owner=scope[OWNER]).serve()
            return
        await refuse_upgrade(receive, send, no_websocket(), headers)

    def _handler(self, context: Context) -> Handler:
        """Return what answers a request; raises where its path is not served, or nothing is any more."""
        suffix = context.route.suffix
        if self._relay.draining and suffix not in HEALTH:
            raise shutting_down()
        if b"upgrade" in context.headers and _wants_websocket(context.headers):
            raise no_websocket()
        handlers = self._handlers.get(suffix)
        if handlers is None:
            raise self._unknown_url(context)
        return handlers.get(context.method) or self._other_method

    async def _other_method(self, context: Context) -> None:
        handlers = self._handlers[context.route.suffix]
        allowed = (b"allow", ", ".join([*handlers, "OPTIONS"]).encode("ascii"))
        if context.method == "OPTIONS":
            more = [*common_headers(context.request_id, context.started), allowed]
            await context.send({"type": "http.response.start", "status": 204, "headers": more})
            await context.send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        error = InvalidRequestError(
            f"Not allowed to {context.method} on {shown(context.scope['path'])}.",
            status=405,
            code="method_not_supported",
        )
        await context.refuse(error, [allowed])

    def _unknown_url(self, context: Context) -> OaicompatError:
        return InvalidRequestError(
            f"Invalid URL ({context.method} {shown(context.scope['path'])}). "
            f"Served here: {self._served}.",
            status=404,
        )


def _parts(relay: Relay, models: ModelList) -> Iterable[Table]:
    yield Exchanges(relay).table
    yield Responses(relay).table
    yield Conversations(relay).table
    yield Models(models, relay.config.server.body_limit).table
    yield Operations(relay).table


def _listed(handlers: Table) -> str:
    """Return the routes as a refusal names them."""
    kept = {suffix: methods for suffix, methods in handlers.items() if suffix not in HEALTH[1:]}
    return ", ".join(
        f"{'/'.join(method for method in methods if method != 'HEAD')} "
        f"{'' if suffix in HEALTH else '/v1'}{suffix}"
        for suffix, methods in kept.items()
    )


def no_websocket() -> InvalidRequestError:
    """Return the answer that makes clients use POST at once (openai-wire section 7)."""
    return InvalidRequestError("WebSocket is not served here; use POST.", status=426)


def _wants_websocket(fields: Fields) -> bool:
    return fields.get(b"upgrade", b"").strip().lower() == b"websocket"
