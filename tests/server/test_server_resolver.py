"""Addresses of upstream hosts: kept, shared, and served on while a look-up fails or hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import pytest
from tests.support.asking import ask
from tests.support.gateway import gateway

from oaicompat_server.network import in_turn
from oaicompat_server.resolver import FRESH_SECONDS, STALE_SECONDS, Resolver
from oaicompat_server.secret import Secret
from oaicompat_server.settings import Config, CredentialSettings, UpstreamSettings
from oaicompat_server.simulator import running


class Names:
    """A resolver's look-ups: what they return, how often they were asked, and a gate that holds them."""

    def __init__(self) -> None:
        self.addresses: Sequence[str] | None = ["192.0.2.1"]
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        self.open.wait(10)
        if self.addresses is None:
            raise OSError("no such name")
        return self.addresses


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(work: Callable[[Resolver, Names, Clock], Awaitable[None]]) -> None:
    names, clock = Names(), Clock()

    async def main() -> None:
        await work(Resolver(names, clock), names, clock)

    try:
        asyncio.run(main())
    finally:
        names.open.set()


def test_an_address_is_its_own() -> None:
    async def work(resolve: Resolver, names: Names, clock: Clock) -> None:
        for address in ("127.0.0.1", "::1", "2001:db8::1"):
            assert await resolve(address) == [address]
        assert names.asked == []

    run(work)


def test_a_name_is_asked_once_a_minute() -> None:
    async def work(resolve: Resolver, names: Names, clock: Clock) -> None:
        assert await resolve("a.example") == ["192.0.2.1"]
        clock.now = FRESH_SECONDS - 1
        assert await resolve("a.example") == ["192.0.2.1"]
        assert names.asked == ["a.example"]
        clock.now, names.addresses = FRESH_SECONDS, ["192.0.2.2"]
        assert await resolve("a.example") == ["192.0.2.2"]
        assert names.asked == ["a.example"] * 2

    run(work)


def test_what_was_found_serves_while_look_ups_fail() -> None:
    async def work(resolve: Resolver, names: Names, clock: Clock) -> None:
        await resolve("a.example")
        names.addresses = None
        clock.now = STALE_SECONDS - 1
        assert await resolve("a.example") == ["192.0.2.1"]
        clock.now = STALE_SECONDS
        with pytest.raises(OSError, match="no such name"):
            await resolve("a.example")

    run(work)


def test_one_look_up_serves_all_who_wait_and_outlives_who_leaves() -> None:
    async def work(resolve: Resolver, names: Names, clock: Clock) -> None:
        names.open.clear()
        waiting = [asyncio.ensure_future(resolve("a.example")) for _ in range(20)]
        await asyncio.sleep(0.02)
        for each in waiting[:10]:
            each.cancel()
        names.open.set()
        assert await asyncio.gather(*waiting[10:]) == [["192.0.2.1"]] * 10
        assert names.asked == ["a.example"]

    run(work)


def test_no_address_is_an_error() -> None:
    async def work(resolve: Resolver, names: Names, clock: Clock) -> None:
        names.addresses = []
        with pytest.raises(OSError, match="no address"):
            await resolve("a.example")

    run(work)


def test_families_take_turns() -> None:
    assert in_turn(["::1", "::2", "1.1.1.1", "::3", "2.2.2.2"]) == [
        "::1", "1.1.1.1", "::2", "2.2.2.2", "::3",
    ]  # fmt: skip
    assert in_turn([]) == []


def test_names_are_looked_up_for_both_kinds_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def found(self: Resolver, host: str) -> Awaitable[Sequence[str]]:
        asked.append(host)
        return asyncio.sleep(0, ["127.0.0.2", "127.0.0.1"])

    monkeypatch.setattr(Resolver, "__call__", found)
    kinds: tuple[Literal["fast", "httpcore"], ...] = ("fast", "httpcore")
    for kind in kinds:
        with running(any_model=True) as simulator:
            port = simulator.url.rpartition(":")[2]
            entry = CredentialSettings(key=Secret("k"), base_url=f"http://gemini.example:{port}")
            config = Config(credentials=(entry,), upstream=UpstreamSettings(http=kind))
            with gateway(config, simulator) as served:
                body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
                assert ask(served, "POST", "/v1/chat/completions", body).status == 200
    assert asked == ["gemini.example"] * 2
