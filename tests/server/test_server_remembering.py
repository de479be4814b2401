"""Signatures in memory with a store behind: what the store is asked and told, when, and what if it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import cast

import pytest
from tests.support.stores import signed

from oaicompat.messages import Signature
from oaicompat_server.store import (
    KeptSignature,
    SignatureBounds,
    SignatureStore,
    Store,
    StoreError,
    remembering,
)
from oaicompat_server.store.memory import MemoryStore
from oaicompat_server.store.remembering import Signatures

pytestmark = pytest.mark.anyio

FIRST, SECOND, THIRD = Signature("one", "gemini"), Signature("two", "vertex"), Signature("three")
SOON = 0.01


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Witnessed:
    """A store that tells what it was asked, and fails where it is told to."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.kept: list[list[KeptSignature]] = []
        self.asked: list[tuple[str, list[str]]] = []
        self.failure: Exception | None = None
        self.hangs = False
        self.held: asyncio.Event | None = None

    async def keep_signatures(self, rows: Sequence[KeptSignature], now: float) -> None:
        await self._fail()
        self.kept.append(list(rows))
        if self.held is not None:
            await self.held.wait()
        await self.store.keep_signatures(rows, now)

    async def find_signatures(
        self, owner: str, ids: Sequence[str], now: float
    ) -> dict[str, Signature]:
        self.asked.append((owner, list(ids)))
        await self._fail()
        found = await self.store.find_signatures(owner, ids, now)
        if self.held is not None:
            await self.held.wait()
        return found

    async def _fail(self) -> None:
        if self.hangs:
            await asyncio.sleep(60)
        if self.failure is not None:
            raise self.failure

    @property
    def there(self) -> Store:
        return cast(Store, self)

    @property
    def names(self) -> list[str]:
        return [row.id for rows in self.kept for row in rows]


@pytest.fixture
def store() -> Witnessed:
    return Witnessed()


async def until(true: Callable[[], object]) -> None:
    """Wait until it is true."""
    for _ in range(5000):
        if true():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it is not true still")


class TestKeeping:
    async def test_memory_has_it_at_once_and_the_store_soon(self, store: Witnessed) -> None:
        signatures = Signatures()
        async with signatures.kept_in(store.there, SOON):
            signatures.remember("me", "a", FIRST)
            assert await signatures.find("me", ("a",)) == {"a": FIRST}
            assert store.kept == []
            await until(lambda: store.kept)
        assert store.kept == [[KeptSignature("me", "a", FIRST)]]
        assert store.asked == []

    async def test_what_comes_together_is_written_together(self, store: Witnessed) -> None:
        signatures = Signatures()
        async with signatures.kept_in(store.there, SOON):
            for number in range(600):
                signatures.remember("", f"a{number}", FIRST)
            await until(lambda: len(store.names) == 600)
            signatures.remember("", "b", FIRST)
            await until(lambda: len(store.names) == 601)
        assert [len(rows) for rows in store.kept] == [256, 256, 88, 1]
        assert len(set(store.names)) == 601

    async def test_the_latest_of_a_call_is_written(self, store: Witnessed) -> None:
        signatures = Signatures()
        async with signatures.kept_in(store.there, SOON):
            store.held = asyncio.Event()
            signatures.remember("", "a", FIRST)
            signatures.remember("", "a", SECOND)
            await until(lambda: store.kept)
            signatures.remember("", "a", THIRD)
            store.held.set()
            await until(lambda: len(store.kept) == 2)
        assert store.kept == [[KeptSignature("", "a", SECOND)], [KeptSignature("", "a", THIRD)]]

    async def test_nothing_is_written_while_nothing_is_new(self, store: Witnessed) -> None:
        async with Signatures().kept_in(store.there, 0.001):
            await asyncio.sleep(0.02)
        assert store.kept == []

    async def test_the_rest_is_written_at_the_end(self, store: Witnessed) -> None:
        signatures = Signatures()
        async with signatures.kept_in(store.there, 60.0):
            signatures.remember("", "a", FIRST)
            signatures.remember("", "b", SECOND)
        assert store.names == ["a", "b"]

    async def test_what_is_being_written_at_the_end_is_not_lost(self, store: Witnessed) -> None:
        signatures = Signatures()
        async with signatures.kept_in(store.there, SOON):
            store.held = asyncio.Event()
            signatures.remember("", "a", FIRST)
            await until(lambda: store.kept)
            asyncio.get_running_loop().call_later(0.01, store.held.set)
        assert set(await store.store.find_signatures("", ["a"], 0.0)) == {"a"}

    async def test_what_memory_let_go_of_is_not_written(self, store: Witnessed) -> None:
        signatures = Signatures(SignatureStore(SignatureBounds(entries=2)))
        async with signatures.kept_in(store.there, SOON):
            for each in "abc":
                signatures.remember("", each, FIRST)
        assert store.names == ["b", "c"]

    async def test_a_store_in_memory_is_left_alone(self) -> None:
        signatures, store = Signatures(), MemoryStore()
        async with signatures.kept_in(store, 0.001):
            signatures.remember("", "a", FIRST)
            await asyncio.sleep(0.02)
            assert await signatures.find("", ("a", "b")) == {"a": FIRST}
        assert await store.find_signatures("", ["a"], 0.0) == {}


class TestFinding:
    async def test_what_memory_has_the_store_is_not_asked_for(self, store: Witnessed) -> None:
        signatures = Signatures()
        await store.store.keep_signatures([signed("b", "two", "vertex"), signed("c")], 1e12)
        async with signatures.kept_in(store.there):
            signatures.remember("", "a", FIRST)
            assert await signatures.find("", ()) == {}
            assert await signatures.find("", ("a",)) == {"a": FIRST}
            assert store.asked == []
            found = await signatures.find("", ("b", "a", "b", "x"))
            assert found == {"a": FIRST, "b": SECOND}
            assert store.asked == [("", ["b", "x"])]
            assert await signatures.find("", ("a", "b")) == {"a": FIRST, "b": SECOND}
            assert len(store.asked) == 1
        assert store.names == ["a"]

    async def test_owners_have_their_own(self, store: Witnessed) -> None:
        signatures = Signatures()
        await store.store.keep_signatures([signed("a", "one", owner="me")], 1e12)
        async with signatures.kept_in(store.there):
            assert await signatures.find("you", ("a",)) == {}
            assert await signatures.find("me", ("a",)) == {"a": FIRST}
            assert await signatures.find("you", ("a",)) == {}
        assert [owner for owner, _ in store.asked] == ["you", "me", "you"]

    async def test_of_very_many_the_latest_are_asked_for(self, store: Witnessed) -> None:
        names = tuple(f"a{number}" for number in range(5000))
        signatures = Signatures()
        async with signatures.kept_in(store.there):
            await signatures.find("", names)
        assert store.asked == [("", list(names[-1000:]))]

    async def test_what_is_remembered_meanwhile_stays(self, store: Witnessed) -> None:
        signatures = Signatures()
        await store.store.keep_signatures([signed("a", "old")], 1e12)
        async with signatures.kept_in(store.there):
            store.held = asyncio.Event()
            finding = asyncio.ensure_future(signatures.find("", ("a",)))
            await until(lambda: store.asked)
            signatures.remember("", "a", FIRST)
            store.held.set()
            await finding
            assert await signatures.find("", ("a",)) == {"a": FIRST}

    async def test_without_a_store_memory_answers(self) -> None:
        signatures = Signatures()
        signatures.remember("", "a", FIRST)
        assert await signatures.find("", ("a", "b")) == {"a": FIRST}


SECRET = Signature("sentinel-signature", "gemini")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for little, and rest for little."""
    monkeypatch.setattr(remembering, "_ASKING_SECONDS", 0.02)
    monkeypatch.setattr(remembering, "_ENDING_SECONDS", 0.05)
    monkeypatch.setattr(remembering, "_RESTING_SECONDS", 0.05)


@pytest.mark.usefixtures("quick")
class TestAStoreThatFails:
    @pytest.mark.parametrize("failure", [StoreError("locked"), RuntimeError("a fault")])
    async def test_memory_goes_on_and_it_is_told_once(
        self, store: Witnessed, failure: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        signatures = Signatures()
        store.failure = failure
        async with signatures.kept_in(store.there, 0.001):
            signatures.remember("me", "a", SECRET)
            for _ in range(6):
                assert await signatures.find("me", ("a", "b")) == {"a": SECRET}
                await asyncio.sleep(0.03)
            assert len(store.asked) < 6
            store.failure = None
            await until(lambda: store.kept)
            await store.store.keep_signatures([signed("b", owner="me")], 1e12)
            await asyncio.sleep(0.06)
            assert set(await signatures.find("me", ("a", "b"))) == {"a", "b"}
        assert store.names == ["a"]
        told = sorted(record.message[:35] for record in caplog.records)
        assert told == [
            "signatures are not found in the sto",
            "signatures are not kept in the stor",
        ]
        assert SECRET.value not in caplog.text

    async def test_it_is_told_again_once_it_worked(
        self, store: Witnessed, caplog: pytest.LogCaptureFixture
    ) -> None:
        signatures = Signatures()
        async with signatures.kept_in(store.there, 0.001):
            for number in range(2):
                store.failure = StoreError("locked")
                signatures.remember("", f"a{number}", FIRST)
                await until(lambda number=number: len(caplog.records) == number + 1)  # type: ignore[misc]
                store.failure = None
                await until(lambda number=number: len(store.kept) == number + 1)  # type: ignore[misc]
        assert {record.message for record in caplog.records} == {
            "signatures are not kept in the store: locked"
        }

    async def test_one_that_does_not_answer_is_not_waited_for(
        self, store: Witnessed, caplog: pytest.LogCaptureFixture
    ) -> None:
        signatures = Signatures()
        store.hangs = True
        async with asyncio.timeout(2), signatures.kept_in(store.there, 0.001):
            signatures.remember("", "a", FIRST)
            assert await signatures.find("", ("a", "b")) == {"a": FIRST}
            for _ in range(100):
                await signatures.find("", ("b",))
            assert len(store.asked) == 1
        assert {(record.levelno, record.message) for record in caplog.records} == {
            (logging.WARNING, "signatures are not found in the store in time"),
            (logging.WARNING, "signatures are not kept in the store in time"),
        }

    async def test_a_full_disk_does_not_keep_it_from_being_asked(self, store: Witnessed) -> None:
        signatures = Signatures()
        await store.store.keep_signatures([signed("b")], 1e12)
        async with signatures.kept_in(store.there, 0.001):
            store.failure = StoreError("full")
            signatures.remember("", "a", FIRST)
            await asyncio.sleep(0.02)
            store.failure = None
            assert set(await signatures.find("", ("b",))) == {"b"}

    async def test_what_waits_is_bounded(
        self, store: Witnessed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(remembering, "_MOST_WAITING", 10)
        signatures = Signatures()
        store.failure = StoreError("locked")
        async with signatures.kept_in(store.there, 0.001):
            for number in range(50):
                signatures.remember("", f"a{number}", FIRST)
                await asyncio.sleep(0)
            store.failure = None
        assert sorted(store.names) == [f"a{number}" for number in range(40, 50)]
