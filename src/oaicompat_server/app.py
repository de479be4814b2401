"""The application: settings in, a Starlette app out.

One rule: Starlette gives the lifespan, nothing on the way of a request; the gate wraps
everything, and what requests share (connections, pool, cache) is made here and closed at the end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from oaicompat.models import PRESETS, ModelMap
from oaicompat_server.auth import Gate, plan_access
from oaicompat_server.background import Background
from oaicompat_server.listing import ModelList
from oaicompat_server.pool import Credential, Pool
from oaicompat_server.relay import Relay
from oaicompat_server.routes import Router
from oaicompat_server.settings import Config, ConfigError
from oaicompat_server.store import Store
from oaicompat_server.store.opening import open_store
from oaicompat_server.upkeep import kept_up
from oaicompat_server.upstream import Upstream

_GC_THRESHOLD = 50_000


def model_map(config: Config) -> ModelMap:
    """Return the mapping of model names that the settings describe; raises `ConfigError`."""
    settings = config.models
    preset: Mapping[str, str] = {}
    if settings.preset:
        if settings.preset not in PRESETS:
            raise ConfigError(
                f"models.preset: unknown preset {settings.preset!r}; valid are {', '.join(PRESETS)}"
            )
        preset = PRESETS[settings.preset]
    try:
        return ModelMap({**preset, **settings.aliases}, settings.default or None, settings.builtin)
    except ValueError as error:
        raise ConfigError(f"models.aliases: {error}") from None


class _Gateway(Starlette):
    """Starlette without its two error middlewares: the router answers every error itself."""

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = self.router
        for middleware, arguments, named in reversed(self.user_middleware):
            app = middleware(app, *arguments, **named)
        return app


def create_app(config: Config, *, tune: bool = True, store: Store | None = None) -> Starlette:
    """Build the gateway for these settings; raises `ConfigError` for a start that would be unsafe.

    `app.state.relay` gives the shared parts. `tune` freezes the garbage collector's view of what was loaded
    by then, which suits a process that only serves. `store`, opened when the application starts where it is
    not given, is closed when it ends.
    """
    access = plan_access(config)
    upstream = Upstream(config.upstream)
    pool = Pool([Credential.of(entry) for entry in config.credentials])
    models = model_map(config)
    relay = Relay(config, upstream, pool, models)
    relay.background = background = Background(relay)
    listing = ModelList(config, upstream, pool, models, relay.target)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        relay.store = store or await open_store(config.state, os.environ)
        upstream.secure()
        if tune:
            gc.collect()
            gc.freeze()
            gc.set_threshold(_GC_THRESHOLD, 20, 20)
        try:
            async with kept_up(relay.store):
                yield
                await background.aclose()
        finally:
            await upstream.aclose()
            await relay.store.aclose()

    app = _Gateway(middleware=[Middleware(Gate, access=access)], lifespan=lifespan)
    # A mount's pattern lets some paths by (`*`, a decoded line end), so our router is what follows no route.
    app.router.default = Router(relay, listing)
    app.state.relay = relay
    return app
