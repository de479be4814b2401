"""Which store the settings open, and what is said when it cannot be opened."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.stores import response

from oaicompat_server.config import ConfigError
from oaicompat_server.secret import Secret
from oaicompat_server.settings import StateSettings
from oaicompat_server.store import redis_client
from oaicompat_server.store.memory import MemoryStore
from oaicompat_server.store.opening import open_store
from oaicompat_server.store.redis import RedisStore
from oaicompat_server.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

SECRET = "hunter2-and-more"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def said(settings: StateSettings, environ: Mapping[str, str]) -> str:
    """Return why a store is not opened."""
    with pytest.raises(ConfigError) as failed:
        await open_store(settings, environ)
    return str(failed.value)


def is_file(*parts: str | Path) -> bool:
    return Path(*parts).is_file()


async def test_memory() -> None:
    store = await open_store(StateSettings(store="memory", max_bytes=1, retention_days=1.0), {})
    assert isinstance(store, MemoryStore)
    await store.save("", response("a"), [], 1.0)
    await store.save("", response("b"), [], 2.0)
    assert await store.find("", "a") is None
    await store.sweep(2.0 + 86401)
    assert await store.find("", "b") is None
    await store.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="another place there")
async def test_the_file_in_its_default_place(tmp_path: Path) -> None:
    store = await open_store(
        StateSettings(retention_days=1.0), {"XDG_DATA_HOME": str(tmp_path / "data")}
    )
    assert isinstance(store, SqliteStore)
    assert is_file(tmp_path, "data", "oaicompat", "state.sqlite3")
    await store.save("", response("a"), [], 1.0)
    await store.sweep(86000)
    assert await store.find("", "a") is not None
    await store.sweep(86402)
    assert await store.find("", "a") is None
    await store.aclose()


async def test_the_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = await open_store(StateSettings(path="~/mine.db"), {})
    assert is_file(tmp_path, "mine.db")
    await store.aclose()


async def test_a_file_of_no_use() -> None:
    path = f"{__file__}/mine.db"
    told = await said(StateSettings(path=path), {})
    assert told.startswith(f"state.path: {path} cannot be written (")
    assert 'state.store = "memory"' in told
    told = await said(StateSettings(path="~nobody-of-that-name/mine.db"), {})
    assert "~ stands for no known directory" in told


async def test_redis(redis_url: str) -> None:
    store = await open_store(StateSettings(store="redis", redis_url=Secret(redis_url)), {})
    assert isinstance(store, RedisStore)
    await store.aclose()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", 'is needed for state.store = "redis"'),
        (f"http://:{SECRET}@127.0.0.1", "must be redis://, rediss:// or unix://"),
        (f"redis://:{SECRET}@127.0.0.1:no/", "must be redis://"),
        (f"redis://:{SECRET}@127.0.0.1/0?unknown={SECRET}", "no options that are unknown"),
        (f"unix://:{SECRET}@/nowhere/at-all.sock", "Redis cannot be reached; see that"),
    ],
)
async def test_a_redis_of_no_use(url: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_client, "_ANSWER_SECONDS", 0.2)
    told = await said(StateSettings(store="redis", redis_url=Secret(url)), {})
    assert told.startswith("state.redis_url: ")
    assert why in told
    assert SECRET not in told


async def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("oaicompat_server.store.redis", "oaicompat_server.store.redis_client"):
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.split(".")[0] == "redis"]:
        monkeypatch.setitem(sys.modules, name, None)
    settings = StateSettings(store="redis", redis_url=Secret("redis://127.0.0.1"))
    told = await said(settings, {})
    assert 'pip install "oaicompat-server[redis]"' in told
