"""What happens to the store beside the requests: it is swept, and closed at the end."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import pytest
from tests.support.asking import ask
from tests.support.gateway import gateway

from oaicompat_server.store import Store, StoreError
from oaicompat_server.store.memory import MemoryStore
from oaicompat_server.upkeep import kept_up


class _Swept:
    def __init__(self, failures: list[Exception]) -> None:
        self.times: list[float] = []
        self.failures = failures
        self.often = asyncio.Event()

    async def sweep(self, now: float) -> None:
        self.times.append(now)
        if len(self.times) == 4:
            self.often.set()
        if self.failures:
            raise self.failures.pop(0)


def test_the_store_is_swept_again_and_again_whatever_happens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = _Swept([StoreError("locked"), RuntimeError("a fault")])

    async def main() -> int:
        async with kept_up(cast(Store, store), 0.01):
            await store.often.wait()
        swept = len(store.times)
        await asyncio.sleep(0.05)
        return swept

    with caplog.at_level(logging.WARNING, "oaicompat"):
        swept = asyncio.run(asyncio.wait_for(main(), 5))
    assert len(store.times) == swept
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert store.times == sorted(store.times)


def test_the_store_is_swept_while_serving_and_closed_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    async def note(store: Store, what: str) -> None:
        done.append(what)

    monkeypatch.setattr(MemoryStore, "sweep", lambda store, now: note(store, "swept"))
    monkeypatch.setattr(MemoryStore, "aclose", lambda store: note(store, "closed"))
    with gateway() as served:
        assert ask(served, "GET", "/healthz").status == 200
        assert done == ["swept"]
    assert done == ["swept", "closed"]
