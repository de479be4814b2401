"""The application: settings in, a Starlette app out.

One rule: Starlette gives the lifespan, nothing on the way of a request; the gate wraps
everything, and what requests share (connections, pool, cache) is made here and closed at the end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from oaicompat_server.auth import Gate
from oaicompat_server.background import Background
from oaicompat_server.isolating import Isolated
from oaicompat_server.listing import ModelList
from oaicompat_server.pool import SourceOf
from oaicompat_server.pool.sharing import Sharing, shared
from oaicompat_server.relay import Relay
from oaicompat_server.routes import Router
from oaicompat_server.settings import Config
from oaicompat_server.snapshot import Sources, snapshot
from oaicompat_server.store import Store
from oaicompat_server.store.opening import open_store
from oaicompat_server.store.shared_cooldowns import cooldowns_of
from oaicompat_server.upkeep import kept_up
from oaicompat_server.upstream import Upstream
from oaicompat_server.vertex import token_source

_GC_THRESHOLD = 100_000
"""More than the objects of 1,000 requests in flight: a request leaves no cycle, and looking at so many that
wait costs each of them a tenth."""


class _Gateway(Starlette):
    """Starlette with our router for requests, and without its error middlewares: ours answers every error."""

    def __init__(self, requests: ASGIApp, **named: Any) -> None:
        super().__init__(**named)
        self._requests = requests
        # A mount's pattern lets some paths by (`*`, a decoded line end), so it is what follows no route.
        self.router.default = requests

    def build_middleware_stack(self) -> ASGIApp:
        def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            through = scope["type"] == "lifespan" or self.router.routes
            return (self.router if through else self._requests)(scope, receive, send)

        for middleware, arguments, named in reversed(self.user_middleware):
            app = middleware(app, *arguments, **named)
        return app


def create_app(
    config: Config,
    *,
    tune: bool = True,
    store: Store | None = None,
    sources: SourceOf | None = None,
) -> Starlette:
    """Build the gateway for these settings; raises `ConfigError` for a start that would be unsafe.

    `app.state.relay` gives the shared parts. `tune` freezes the garbage collector's view of what was loaded
    by then, which suits a process that only serves. `store`, opened at the start where it is not given, is
    closed at the end. `sources` gives the token sources of Vertex AI's accounts, by default over google-auth.
    """
    upstream = Upstream(config.upstream)
    relay = Relay(snapshot(config, sources or Sources(token_source)), upstream)
    relay.background = background = Background(relay)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        relay.store = store or await open_store(config.state, os.environ)
        relay.sharing = Sharing(relay.pool, cooldowns_of(relay.store))
        upstream.secure()
        if tune:
            _freeze()
        try:
            kept_signatures = relay.signatures.kept_in(relay.store)
            async with kept_up(relay.store), shared(relay.sharing), kept_signatures:
                yield
                await background.aclose()
        finally:
            relay.media.close()
            await upstream.aclose()
            await relay.store.aclose()

    gate = Middleware(Gate, rules=lambda: relay.settings.access)
    requests = Router(relay, ModelList(lambda: relay.settings, upstream))
    app = _Gateway(requests, middleware=[Middleware(Isolated), gate], lifespan=lifespan)
    app.state.relay = relay
    return app


def _freeze() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 20)
