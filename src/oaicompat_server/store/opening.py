"""Which store the settings name, ready to use.

One rule: a store that cannot be used stops the start with a `ConfigError` that tells the way out; nothing
falls back to a store that keeps less than was asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from oaicompat_server.settings import ConfigError, StateSettings
from oaicompat_server.store import Store, StoreError
from oaicompat_server.store.database import Database
from oaicompat_server.store.file import default_path
from oaicompat_server.store.memory import MemoryStore
from oaicompat_server.store.sqlite import SqliteStore

_DAY = 86400.0


async def open_store(settings: StateSettings, environ: Mapping[str, str]) -> Store:
    """Open the store that the settings name; `environ` tells the place of data. Raises `ConfigError`."""
    retention = settings.retention_days * _DAY
    if settings.store == "memory":
        return MemoryStore(retention=retention, max_bytes=settings.max_bytes)
    if settings.store == "redis":
        return await _open_redis(settings, retention)
    database = await asyncio.to_thread(_open_file, settings.path, environ)
    return SqliteStore(database, retention=retention, max_bytes=settings.max_bytes)


def _open_file(path: str, environ: Mapping[str, str]) -> Database:
    try:
        return Database(Path(path).expanduser() if path else default_path(environ))
    except RuntimeError:
        raise ConfigError("state.path: ~ stands for no known directory; name another") from None


async def _open_redis(settings: StateSettings, retention: float) -> Store:
    if not settings.redis_url:
        raise ConfigError('state.redis_url: is needed for state.store = "redis"')
    try:
        from oaicompat_server.store.redis import RedisStore
    except ModuleNotFoundError:
        raise ConfigError(
            'state.store: "redis" needs the package redis: pip install "oaicompat-server[redis]"'
        ) from None
    try:
        store = RedisStore(settings.redis_url, retention=retention)
        await store.check()
    except (ValueError, TypeError):
        # What the package says of an address may quote it.
        raise ConfigError(
            "state.redis_url: must be redis://, rediss:// or unix://, with a port that is a number and "
            "no options that are unknown"
        ) from None
    except StoreError as error:
        raise ConfigError(
            f"state.redis_url: {error}; see that Redis runs and takes calls from here"
        ) from None
    return store
