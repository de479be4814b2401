"""Which path means what: canonical routes, the aliases clients make of them, and honest refusals.

One rule: the last known suffix of a path decides. Base URLs come with and without `/v1`, doubled, with a
trailing slash, or with a whole endpoint in them (clients.md, "Path stacking"); every spelling of a route has
the same semantics. What is not served says so as JSON and names what is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import Struct

from oaicompat.dialects.chat import encode_error
from oaicompat.errors import InvalidRequestError, ModelNotFoundError, OaicompatError
from oaicompat_server.auth import OWNER
from oaicompat_server.bodies import ClientLeft, Reading, has_body, read_body
from oaicompat_server.framing import (
    JSON_TYPE,
    Headers,
    Receive,
    Scope,
    Send,
    common_headers,
    find_header,
    header_value,
    refuse,
    request_id_of,
    retry_headers,
    send_body,
)
from oaicompat_server.listing import ModelList
from oaicompat_server.relay import Incoming, Relay, internal_error
from oaicompat_server.session import serve

DIALECT_ROUTES: Mapping[str, str] = {"/chat/completions": "chat", "/responses": "responses"}
"""The dialect behind each route that takes a request; a new one is one line."""

_PLANNED = frozenset({"/completions", "/embeddings"})
_KNOWN = frozenset({*DIALECT_ROUTES, *_PLANNED, "/models", "/models/detect"})
_HEALTH = frozenset({"/healthz", "/health", "/readyz"})
_STACKED = "/chat/completions"

logger = logging.getLogger("oaicompat")


class Route(Struct, frozen=True):
    """What a path means: the canonical suffix, and the model id where the path holds one."""

    suffix: str
    model: str = ""


def resolve(path: str) -> Route | None:
    """Return the route of a path, or None."""
    if path in _HEALTH:
        return Route(path)
    rest = _unversioned(path.rstrip("/"))
    while rest.startswith(_STACKED + "/"):
        inner = _unversioned(rest[len(_STACKED) :])
        if inner not in _KNOWN and not inner.startswith((_STACKED + "/", "/models/")):
            return None
        rest = inner
    if rest in _KNOWN:
        return Route(rest)
    if rest.startswith("/models/"):
        return Route("/models/{id}", rest.removeprefix("/models/").removeprefix("models/"))
    return None


def _unversioned(path: str) -> str:
    while path.startswith("/v1/"):
        path = path[3:]
    return path


class _Context(Struct, frozen=True):
    """One request as the handlers see it."""

    scope: Any
    receive: Reading
    send: Send
    route: Route
    request_id: str
    started: float

    @property
    def headers(self) -> Headers:
        headers: Headers = self.scope["headers"]
        return headers

    async def reply(self, data: object, headers: Headers | None = None) -> None:
        """Answer 200 with JSON."""
        more = common_headers(self.request_id, self.started)
        await send_body(
            self.send, 200, [JSON_TYPE, *more, *(headers or ())], msgspec.json.encode(data)
        )


_Handler = Callable[[_Context], Awaitable[None]]


class Router:
    """The application behind the gate: one ASGI callable for every path."""

    def __init__(self, relay: Relay, models: ModelList) -> None:
        self._relay = relay
        self._models = models
        self._version = version("oaicompat-server")
        health: dict[str, _Handler] = {"GET": self._health, "HEAD": self._health}
        self._handlers: dict[str, dict[str, _Handler]] = {
            **dict.fromkeys(_HEALTH, health),
            **{path: {"POST": self._exchange} for path in DIALECT_ROUTES},
            "/models": {"GET": self._list, "HEAD": self._list},
            "/models/{id}": {"GET": self._retrieve, "HEAD": self._retrieve},
            "/models/detect": {"POST": self._detect},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
            return
        context = _Context(
            scope,
            Reading(receive),
            send,
            resolve(scope["path"]) or Route(""),
            request_id_of(scope["headers"]),
            time.monotonic(),
        )
        try:
            await self._dispatch(context)
        except ClientLeft:
            return
        except OaicompatError as error:
            await _answer_error(context, error)
        except Exception:
            logger.exception("request %s failed by a fault of the gateway", context.request_id)
            await _answer_error(context, internal_error(context.request_id))

    async def _dispatch(self, context: _Context) -> None:
        method: str = context.scope["method"]
        if _wants_websocket(context.headers):
            raise InvalidRequestError("WebSocket is not served here; use POST.", status=426)
        handlers = self._handlers.get(context.route.suffix)
        if handlers is None:
            raise _unknown_url(method, context.scope["path"])
        handler = handlers.get(method)
        if handler is not None:
            await handler(context)
            return
        allowed = (b"allow", ", ".join([*handlers, "OPTIONS"]).encode("ascii"))
        if method == "OPTIONS":
            more = [*common_headers(context.request_id, context.started), allowed]
            await context.send({"type": "http.response.start", "status": 204, "headers": more})
            await context.send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        error = InvalidRequestError(
            f"Not allowed to {method} on {_shown(context.scope['path'])}.",
            status=405,
            code="method_not_supported",
        )
        await _answer_error(context, error, [allowed])

    async def _exchange(self, context: _Context) -> None:
        body = await self._body(context)
        dialect = DIALECT_ROUTES[context.route.suffix]
        owner = context.scope.get(OWNER, "")
        incoming = Incoming(dialect, body, context.request_id, context.started, owner)
        await serve(self._relay, incoming, context.receive, context.send)

    async def _body(self, context: _Context) -> bytes:
        limit = self._relay.config.server.body_limit
        return await read_body(context.headers, context.receive, limit)

    async def _health(self, context: _Context) -> None:
        await context.reply({"status": "ok", "version": self._version})

    async def _list(self, context: _Context) -> None:
        await context.reply({"object": "list", "data": await self._models.entries()})

    async def _retrieve(self, context: _Context) -> None:
        entry = await self._models.entry(context.route.model)
        if entry is None:
            raise ModelNotFoundError(
                f"The model `{_shown(context.route.model)}` does not exist or you do not have access to it.",
                param="model",
            )
        await context.reply(entry)

    async def _detect(self, context: _Context) -> None:
        try:
            wanted = msgspec.json.decode(await self._body(context), type=_Detect)
        except (msgspec.DecodeError, RecursionError):
            raise InvalidRequestError("The body must be an object with a string 'model'.") from None
        if not wanted.model:
            raise InvalidRequestError("Missing required parameter: 'model'.", param="model")
        found = self._models.detect(wanted.model)
        mapped = (b"x-mapped-model", header_value(str(found["mapped_model"])))
        await context.reply(found, [mapped])


class _Detect(Struct):
    model: str = ""


def _wants_websocket(headers: Headers) -> bool:
    return (find_header(headers, b"upgrade") or b"").strip().lower() == b"websocket"


def _shown(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text[:200])


def _unknown_url(method: str, path: str) -> OaicompatError:
    served = ", ".join(f"POST /v1{route}" for route in DIALECT_ROUTES)
    return InvalidRequestError(
        f"Invalid URL ({method} {_shown(path)}). Served here: {served}, GET /v1/models, "
        "GET /v1/models/{id}, POST /v1/models/detect, GET /healthz.",
        status=404,
    )


async def _answer_error(
    context: _Context, error: OaicompatError, more: Headers | None = None
) -> None:
    """Answer, and close the connection only where some of the body was not read."""
    headers = [*common_headers(context.request_id, context.started), *(more or ())]
    if error.status == 426:
        headers.append((b"upgrade", b"HTTP/1.1"))
    if has_body(context.headers) and not context.receive.complete:
        await refuse(context.receive, context.send, error, headers)
        return
    headers += [JSON_TYPE, *retry_headers(error)]
    await send_body(context.send, error.status, headers, encode_error(error))
