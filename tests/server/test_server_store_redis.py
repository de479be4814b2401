"""Redis: what lies there and for how long, and what happens when it does not answer."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import anyio
import pytest
from redis.asyncio import Redis
from tests.support import stores
from tests.support.redis_server import redis_server
from tests.support.stores import END, frame, item, response, signed

from oaicompat_server.secret import Secret
from oaicompat_server.store import (
    Conversation,
    NotStored,
    SignatureBounds,
    StoreError,
    redis_client,
)
from oaicompat_server.store.redis import RedisStore

pytestmark = pytest.mark.anyio

DAY = 86400


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def direct(redis_url: str) -> AsyncIterator[Redis]:
    """Give an empty Redis itself."""
    client = Redis.from_url(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def store(direct: Redis, redis_url: str) -> AsyncIterator[RedisStore]:
    async with stores.redis(redis_url, retention=2.0 * DAY) as opened:
        yield opened


async def keys(direct: Redis) -> set[bytes]:
    return {each for each in await direct.keys("*") if isinstance(each, bytes)}


async def fill(store: RedisStore) -> None:
    """Keep something of each kind."""
    await store.create_conversation("me", Conversation("c", 1.0), [item("m")])
    first = response("first", input=[item("i")], output=[item("o")], conversation="c")
    assert await store.save("me", first, [frame(0), END], 1.0)
    assert await store.save("me", response("last", output=[item("p")], previous="first"), [], 1.0)


class TestKeys:
    async def test_are_our_own(self, store: RedisStore, direct: Redis) -> None:
        await fill(store)
        prefix = b"oaicompat:1:me:"
        expected = {b"response:first", b"response:last", b"conversation:c"}
        expected |= {b"item:i", b"item:o", b"item:m", b"item:p"}
        assert await keys(direct) == {prefix + each for each in expected}

    async def test_hold_ids_that_do_not_get_out(self, store: RedisStore, direct: Redis) -> None:
        await store.save("a:b", response("r:x*\n{y}\0%é"), [], 1.0)
        await store.save("", response("z" * 1000), [], 1.0)
        plain, long = sorted(await keys(direct), key=len)
        assert plain == b"oaicompat:1:a%3Ab:response:r%3Ax%2A%0A%7By%7D%00%25%C3%A9"
        assert long.startswith(b"oaicompat:1::response:=")
        assert len(long) < 100

    async def test_leave_nothing_behind(self, store: RedisStore, direct: Redis) -> None:
        await fill(store)
        await store.save("me", response("r", input=[item("x")], until=9.0), [], 1.0)
        await store.save("me", response("r", input=[item("y")]), [], 1.0)
        assert b"oaicompat:1:me:item:x" not in await keys(direct)
        await store.delete("me", "r")
        await store.delete_item("me", "c", "m")
        await store.delete("me", "last")
        await store.delete_conversation("me", "c")
        await store.delete("me", "first")
        deleted = {b"oaicompat:1:me:response:" + id for id in (b"first", b"last", b"r")}
        assert await keys(direct) == deleted
        assert {await direct.hlen(each.decode()) for each in deleted} == {1}


class TestTime:
    async def times(self, direct: Redis) -> dict[bytes, int]:
        return {each: await direct.ttl(each) for each in await keys(direct)}

    async def test_every_key_has_its_time(self, store: RedisStore, direct: Redis) -> None:
        await fill(store)
        await store.delete("me", "last")
        times = await self.times(direct)
        assert len(times) == 7 - 1
        assert all(2 * DAY - 5 <= time <= 2 * DAY for time in times.values())

    async def test_a_use_gives_it_again(self, store: RedisStore, direct: Redis) -> None:
        await fill(store)
        for each in await keys(direct):
            await direct.expire(each, 50)
        await store.history("me", "last", 1.0)
        await store.conversation_items("me", "c", 1.0)
        assert all(time > DAY for time in (await self.times(direct)).values())

    async def test_what_is_added_gives_it_too(self, store: RedisStore, direct: Redis) -> None:
        await fill(store)
        conversation = b"oaicompat:1:me:conversation:c"
        for add in (
            store.add_items("me", "c", [item("n")], 1.0),
            store.save("me", response("r", conversation="c"), [], 1.0),
        ):
            await direct.expire(conversation, 50)
            assert await add
            assert await direct.ttl(conversation) > DAY

    async def test_then_it_is_gone(self, direct: Redis, redis_url: str) -> None:
        async with stores.redis(redis_url, retention=0.05) as store:
            await fill(store)
            await asyncio.sleep(0.1)
            assert await store.find("me", "first") is None
            assert await store.conversation("me", "c") is None
            assert await store.items("me", ["i", "o", "m"]) == {}
            with pytest.raises(NotStored):
                await store.history("me", "last", 1.0)
            assert await keys(direct) == set()

    async def test_a_signature_has_its_own(
        self, store: RedisStore, direct: Redis, redis_url: str
    ) -> None:
        await store.keep_signatures([signed("a", owner="me"), signed("b:c", owner="me")], 1.0)
        prefix = b"oaicompat:1:me:signature:"
        times = await self.times(direct)
        assert set(times) == {prefix + b"a", prefix + b"b%3Ac"}
        assert all(7195 <= time <= 7200 for time in times.values())
        await direct.expire(prefix + b"a", 50)
        await store.find_signatures("me", ["a"], 1.0)
        assert await direct.ttl(prefix + b"a") <= 50
        await store.keep_signatures([signed("a", owner="me")], 1.0)
        assert await direct.ttl(prefix + b"a") > 7000
        short = SignatureBounds(lifetime=0.05)
        async with stores.redis(redis_url, bounds=short) as other:
            await other.keep_signatures([signed("short"), signed("a", owner="me")], 1.0)
            await asyncio.sleep(0.1)
            assert await other.find_signatures("", ["short"], 1.0) == {}
            assert await keys(direct) == {prefix + b"b%3Ac"}
        async with stores.redis(redis_url, retention=9.0) as brief:
            await brief.keep_signatures([signed("a", owner="me")], 1.0)
        assert await direct.ttl(prefix + b"a") <= 9

    async def test_a_running_response_has_a_day(self, direct: Redis, redis_url: str) -> None:
        async with stores.redis(redis_url, retention=5.0) as store:
            key = b"oaicompat:1::response:r"
            await store.save("", response("r", until=9.0), [], 1.0)
            assert await direct.ttl(key) > DAY - 5
            await store.history("", "r", 1.0)
            await store.append("", "r", [frame(0)], 19.0)
            assert await direct.ttl(key) > DAY - 5
            await store.save("", response("r"), [], 1.0)
            assert await direct.ttl(key) <= 5
            await store.delete("", "r")
            assert await direct.ttl(key) > DAY - 5

    async def test_an_item_whose_place_is_gone_is_found_in_another(
        self, store: RedisStore, direct: Redis
    ) -> None:
        for id, text in (("a", "1"), ("b", "2"), ("c", "3")):
            await store.save("", response(id, output=[item("i", text), item("j")]), [], 1.0)
        await direct.delete("oaicompat:1::response:c")
        assert await store.items("", ["i"]) == {"i": item("i", "2")}
        await direct.delete("oaicompat:1::response:b", "oaicompat:1::response:a")
        assert await store.items("", ["i", "j"]) == {}


class TestCallersThatGoAway:
    async def test_what_was_begun_is_finished(self, store: RedisStore, direct: Redis) -> None:
        await store.check()
        await direct.client_pause(200, all=False)
        with anyio.move_on_after(0.1):
            await store.save("", response("r"), [frame(0)], 1.0)
        assert await store.find("", "r") is None
        await store.save("", response("later"), [], 1.0)
        assert await store.find("", "r") is not None
        assert await store.frames("", "r", -1) == (frame(0),)

    async def test_keep_no_connection(
        self, direct: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_client, "_CONNECTIONS", 2)
        async with stores.redis(redis_url) as narrow:
            for number in range(30):
                await narrow.save("", response(f"r{number}", body=b"%d" % number), [], 1.0)
            for number in range(30):
                with anyio.move_on_after(0.0005 * (number % 4)):
                    while True:
                        await narrow.find("", "r0")
            found = await asyncio.gather(*(narrow.find("", f"r{each}") for each in range(30)))
            assert [each.body for each in found if each] == [b"%d" % each for each in range(30)]


class TestADamagedSignature:
    async def test_is_told(self, store: RedisStore, direct: Redis) -> None:
        await direct.set("oaicompat:1::signature:a", b"nothing of ours")
        with pytest.raises(StoreError, match=r"^a signature is damaged$"):
            await store.find_signatures("", ["a"], 1.0)


class TestSeveralGateways:
    async def test_see_the_same(self, store: RedisStore, redis_url: str) -> None:
        async with stores.redis(redis_url) as other:
            await store.save("", response("r", until=9.0), [frame(0)], 1.0)
            assert await other.append("", "r", [frame(1)], 19.0)
            assert await store.frames("", "r", -1) == (frame(0), frame(1))
            ended = await asyncio.gather(
                *(each.save("", response("r"), [END], 1.0) for each in (store, other) * 5)
            )
            assert ended.count(True) == 1
            assert await other.frames("", "r", 0) == (frame(1), END)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for little."""
    monkeypatch.setattr(redis_client, "_ANSWER_SECONDS", 0.2)


@pytest.fixture
def deaf() -> Iterator[int]:
    """Listen and never answer; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        yield port


SECRET = "hunter2-and-more"


async def refused(url: str) -> str:
    """Return what every kind of call says of this Redis."""
    store = RedisStore(Secret(url))
    told: set[str] = set()
    calls: list[Callable[[], Awaitable[object]]] = [
        store.check,
        lambda: store.find("", "r"),
        lambda: store.items("", ["i"]),
        lambda: store.find_signatures("", ["s"], 1.0),
    ]
    for call in calls:
        with pytest.raises(StoreError) as failed:
            await call()
        assert failed.value.__suppress_context__
        told.add(str(failed.value))
    with pytest.raises(StoreError) as failed:
        await store.keep_signatures([signed("s")], 1.0)
    told.add(str(failed.value))
    with pytest.raises(StoreError) as failed:
        await store.save("", response("r"), [], 1.0)
    await store.aclose()
    (text,) = told | {str(failed.value)}
    assert SECRET not in text + repr(vars(store))
    assert "127.0.0.1" not in text
    return text


@pytest.mark.usefixtures("quick")
class TestFailures:
    async def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        url = f"redis://:{SECRET}@127.0.0.1:{port}"
        assert await refused(url) == "Redis cannot be reached"

    async def test_nobody_answers(self, deaf: int) -> None:
        url = f"redis://:{SECRET}@127.0.0.1:{deaf}"
        assert await refused(url) == "Redis does not answer in time"

    async def test_nothing_is_tried_twice(self) -> None:
        called: list[bytes] = []

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            called.append(await reader.read(10))
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            store = RedisStore(Secret(f"redis://127.0.0.1:{port}"))
            with pytest.raises(StoreError, match="cannot be reached"):
                await store.save("", response("r"), [], 1.0)
            await store.aclose()
        assert len(called) == 1

    async def test_a_wrong_password(self, direct: Redis, redis_url: str) -> None:
        await direct.config_set("requirepass", "another")
        try:
            url = redis_url.replace("unix://", f"unix://:{SECRET}@")
            assert await refused(url) == "Redis refuses the name or password"
        finally:
            await direct.config_set("requirepass", "")

    async def test_no_memory_left(self, store: RedisStore, direct: Redis) -> None:
        begun = response("r", input=[item("i")], until=9.0)
        await store.save("", begun, [frame(0)], 1.0)
        await direct.config_set("maxmemory", "1")
        try:
            ended = response("r", input=[item("j")])
            with pytest.raises(StoreError, match=r"^Redis refuses \(OutOfMemoryError\)$"):
                await store.save("", response("s"), [], 1.0)
            await store.save("", ended, [END], 1.0)
        except StoreError:
            assert await store.find("", "r") == begun
            assert await store.items("", ["i", "j"]) == {"i": item("i")}
        else:
            assert await store.find("", "r") == ended
            assert await store.items("", ["i", "j"]) == {"j": item("j")}
        finally:
            await direct.config_set("maxmemory", "0")
        assert await store.find("", "s") is None

    async def test_a_restart_is_survived(self, redis_url: str) -> None:
        with tempfile.TemporaryDirectory() as directory:
            with redis_server(directory) as url:
                store = RedisStore(Secret(url))
                await asyncio.gather(*(store.find("", f"r{each}") for each in range(8)))
            with pytest.raises(StoreError, match="cannot be reached"):
                await store.find("", "r")
            with redis_server(directory):
                found = await asyncio.gather(*(store.find("", f"r{each}") for each in range(8)))
                assert found == [None] * 8
                assert await store.save("", response("r"), [], 1.0)
                await store.aclose()
