"""Stores to test, each of its kind empty, and the values that are put into them.

One rule: what a test of the contract needs is made here, so that it says nothing of the kind of store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from oaicompat.events import Frame
from oaicompat.messages import Signature
from oaicompat_server.secret import Secret
from oaicompat_server.store import (
    Item,
    KeptSignature,
    SignatureBounds,
    Store,
    StoredResponse,
)
from oaicompat_server.store.database import Database
from oaicompat_server.store.memory import MemoryStore
from oaicompat_server.store.redis import RedisStore
from oaicompat_server.store.signatures import BOUNDS
from oaicompat_server.store.sqlite import SqliteStore

Opening = Callable[..., AbstractAsyncContextManager[Store]]
"""Opens a store; takes `retention` (seconds), `max_bytes`, and the `bounds` of signatures."""

LONG = 30 * 86400.0
MEGABYTE = 1 << 20


@asynccontextmanager
async def memory(
    *, retention: float = LONG, max_bytes: int = 1 << 30, bounds: SignatureBounds = BOUNDS
) -> AsyncIterator[Store]:
    """Open a store in memory."""
    store = MemoryStore(retention=retention, max_bytes=max_bytes, bounds=bounds)
    yield store
    await store.aclose()


@asynccontextmanager
async def sqlite(
    path: Path,
    *,
    retention: float = LONG,
    max_bytes: int = 1 << 30,
    bounds: SignatureBounds = BOUNDS,
) -> AsyncIterator[SqliteStore]:
    """Open a store in this file."""
    store = SqliteStore(Database(path), retention=retention, max_bytes=max_bytes, bounds=bounds)
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def redis(
    url: str,
    *,
    retention: float = LONG,
    max_bytes: int = 1 << 30,
    bounds: SignatureBounds = BOUNDS,
) -> AsyncIterator[RedisStore]:
    """Open a store in this Redis, which bounds its memory by itself."""
    store = RedisStore(Secret(url), retention=retention, bounds=bounds)
    try:
        yield store
    finally:
        await store.aclose()


async def flush(url: str) -> None:
    """Empty this Redis."""
    client = Redis.from_url(url)
    await client.flushall()
    await client.aclose()


def item(id: str, text: str = "") -> Item:
    """Return an item."""
    return Item(id, f'{{"id":"{id}","text":"{text}"}}'.encode("utf-8", "surrogatepass"))


def frame(sequence: int, text: str = "x") -> Frame:
    """Return a frame of this number."""
    return Frame(f'{{"sequence_number":{sequence},"delta":"{text}"}}'.encode(), "event", sequence)


END = Frame(b"[DONE]")


def signed(id: str, value: str = "c2ln", backend: str = "gemini", owner: str = "") -> KeptSignature:
    """Return the signature of a call."""
    return KeptSignature(owner, id, Signature(value, backend))


def response(
    id: str,
    *,
    input: Sequence[Item] = (),
    output: Sequence[Item] = (),
    previous: str = "",
    conversation: str = "",
    until: float = 0.0,
    body: bytes = b"{}",
) -> StoredResponse:
    """Return a response, running where `until` is given."""
    return StoredResponse(id, 1.5, body, tuple(input), tuple(output), previous, conversation, until)
