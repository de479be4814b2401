"""What the pool tells and takes over: status, reset, export and adopt, and the exchange with others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from msgspec import structs
from tests.support.pools import A, B, M, credential, failure, quota, rate, spend, taken

from oaicompat_server.pool import Credential, Pool, Wanted
from oaicompat_server.pool.sharing import Sharing, shared
from oaicompat_server.secret import Secret
from oaicompat_server.store import StoreError
from oaicompat_server.store.cooldowns import Cooldown, MemoryCooldowns

LONG = failure("rate", 429, retry_after=30)


def test_account_is_the_address_the_label_or_a_fingerprint() -> None:
    assert A.account == "a"
    assert credential("a", email="me@x.example").account == "me@x.example"
    anonymous = Credential(Secret("AIzaSentinel"))
    assert anonymous.account.startswith("key-")
    assert len(anonymous.account) == 12
    assert "AIza" not in repr(anonymous) + anonymous.account + anonymous.identity
    assert Credential(Secret(""), kind="adc", project="p").account == "adc-p"
    assert Credential(Secret(""), kind="adc").account.startswith("adc-")


def test_status_tells_all_but_secrets() -> None:
    keys = [
        Credential(Secret("sentinel-key"), proxy=Secret("http://u:sentinel-pass@h:1"), weight=2.0),
        credential("b", quota_group="g", models=("gemini-*",)),
        credential("c"),
    ]
    pool = Pool(keys)
    spend(pool, 0, LONG, only=keys[1])
    spend(pool, 0, failure("credential", 401), only=keys[2])
    spend(pool, 0, failure("overload"), only=keys[0])
    held = pool.lease(0, Wanted(M))
    assert held is not None
    status = pool.status(1)
    assert "sentinel" not in json.dumps(status)
    assert (status["usable"], status["in_flight"], status["retries"]) == (2, 1, 0)
    rows = status["credentials"]
    assert [row["state"] for row in rows] == ["usable", "usable", "out"]
    assert [row["proxy"] for row in rows] == [True, False, False]
    assert rows[2]["reason"]["status"] == 401
    assert [row["served"] for row in rows] == [2, 1, 1]
    cells = {cell["kind"]: cell for cell in status["cells"]}
    assert cells["limit"]["accounts"] == ["b"]
    assert (cells["limit"]["state"], cells["limit"]["seconds"]) == ("resting", 29)
    assert cells["overload"]["accounts"] == [keys[0].account, "b", "c"]
    assert cells["overload"]["state"] == "watched"
    states = [cell["state"] for cell in pool.status(31)["cells"] if cell["kind"] == "limit"]
    assert states == ["half-open"]
    assert pool.lease(31, Wanted(M, only=keys[1])) is not None
    states = [cell["state"] for cell in pool.status(31)["cells"] if cell["kind"] == "limit"]
    assert states == ["probing"]


@pytest.mark.parametrize(
    ("account", "model", "usable"),
    [
        ("", "", {"a m", "a n", "b m", "b n"}),
        ("a", "", {"a m", "a n"}),
        ("", "m", {"a m", "b m"}),
        ("b", "n", {"b n"}),
        ("nobody", "", set()),
        ("", "other", set()),
    ],
)
def test_reset_forgets_what_it_names(account: str, model: str, usable: set[str]) -> None:
    pool = Pool([A, B])
    for each in (A, B):
        for name in "mn":
            spend(pool, 0, LONG, only=each, model=name)
    pool.reset(account, model)
    found = {
        f"{each.account} {name}"
        for each in (A, B)
        for name in "mn"
        if taken(pool, 0, name, only=each)
    }
    assert found == usable


def test_what_rests_goes_on_in_another_pool() -> None:
    pool = Pool([A, B])
    spend(pool, 100, LONG, only=A)
    spend(pool, 100, quota(), only=B)
    spend(pool, 100, failure("permission", 403), only=A, model="denied")
    for _ in range(3):
        spend(pool, 100, failure("overload"), only=A, model="busy")
    assert {row.kind for row in pool.export(101)} == {"limit", "overload"}
    assert {row.kind for row in pool.export(102)} == {"limit"}
    other = Pool([B, A, credential("new")])
    other.adopt(pool.export(101), 5000)
    assert taken(other, 5001, only=A) == taken(other, 5001, only=B) == ""
    assert other.outlook(5000, "busy").wait == 1
    assert taken(other, 5001, only=A, model="denied") == "a"
    assert taken(other, 5028, only=A) == ""
    assert taken(other, 5029, only=A) == "a"
    assert taken(other, 5058, only=B) == ""
    assert taken(other, 5059, only=B) == "b"


def test_adopting_makes_a_rest_longer_and_never_shorter_and_goes_on_counting() -> None:
    pool, other = Pool([A]), Pool([A])
    spend(pool, 0, failure("rate", 429), only=A)
    spend(pool, 10, failure("rate", 429), only=A)
    (row,) = pool.export(10)
    spend(other, 0, LONG, only=A)
    other.adopt([row], 0)
    assert other.outlook(0, M).wait == 30
    other.adopt([structs.replace(row, rest=40.0)], 0)
    assert other.outlook(0, M).wait == 40
    spend(other, 40, failure("rate", 429), only=A)
    assert other.outlook(40, M).wait == 30


def test_rows_of_nobody_and_rows_that_are_over_are_left_out() -> None:
    pool = Pool([A])
    spend(pool, 0, LONG, only=A)
    (row,) = pool.export(0)
    other = Pool([A])
    other.adopt([structs.replace(row, key="somebody"), structs.replace(row, rest=0.0)], 0)
    assert other.status(0)["cells"] == []
    other.adopt([structs.replace(row, rest=1e12)], 0)
    assert other.outlook(0, M).wait == 24 * 3600
    assert pool.export(31) == ()


def test_rows_hold_no_secret() -> None:
    key = Credential(Secret("sentinel"), quota_group="sentinel group")
    pool = Pool([key])
    spend(pool, 0, LONG, only=key)
    spend(pool, 0, failure("overload", 503, retry_after=9), only=key, model="x")
    assert len(pool.export(0)) == 2
    assert "sentinel" not in repr(pool.export(0))


def test_names_that_clients_invent_fill_no_memory() -> None:
    pool = Pool([A])
    for number in range(10_000):
        spend(pool, number / 1000, LONG, only=A, model=f"model {number}")
    assert len(pool.status(10)["cells"]) <= 4096
    assert taken(pool, 10, model="model 9999") == ""


def test_what_is_over_makes_room_first() -> None:
    pool = Pool([A])
    spend(pool, 0, failure("rate", 429, retry_after=20_000), only=A, model="long")
    for number in range(9_000):
        spend(pool, float(number), failure("rate", 429), only=A, model=f"model {number}")
    assert taken(pool, 9_000, model="long") == ""


def test_of_too_many_the_longest_stay() -> None:
    pool = Pool([A])
    for number in range(5_000):
        told = failure("rate", 429, retry_after=10_000.0 - number)
        spend(pool, 0, told, only=A, model=f"model {number}")
    assert taken(pool, 9_000, model="model 0") == ""


def test_pools_that_share_a_store_rest_together() -> None:
    async def play() -> None:
        store = MemoryCooldowns()
        first, second = Pool([A, B]), Pool([A, B])
        one, two = Sharing(first, store), Sharing(second, store)
        spend(first, 0, LONG, only=A)
        await one.exchange(0, 1e9)
        await two.exchange(700, 1e9 + 1)
        assert taken(second, 701, only=A) == ""
        assert taken(second, 729, only=A) == "a"
        second.reset("a")
        await two.exchange(702, 1e9 + 3)
        assert taken(second, 702, only=A) == "a"
        spend(second, 702, failure("rate", 429, retry_after=60), only=A)
        await two.exchange(702, 1e9 + 3)
        await one.exchange(3, 1e9 + 3)
        assert first.outlook(3, M).wait == 0
        assert taken(first, 62, only=A) == ""
        await one.reset()
        assert taken(first, 4, only=A) == "a"
        assert await store.all(1e9 + 4) == ()

    asyncio.run(play())


class Broken(MemoryCooldowns):
    """A store that fails."""

    async def put(self, rows: Sequence[Cooldown], now: float) -> None:
        raise StoreError("gone")

    async def all(self, now: float) -> tuple[Cooldown, ...]:
        raise StoreError("gone")


def test_a_store_that_fails_is_told_once_and_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def play() -> None:
        async with shared(Sharing(Pool([A]), Broken()), every=0.001):
            await asyncio.sleep(0.02)

    asyncio.run(play())
    assert [record.message for record in caplog.records] == ["cooldowns are not shared: gone"]


def test_what_rests_is_shared_at_the_end_too() -> None:
    async def play() -> None:
        store, pool = MemoryCooldowns(), Pool([A])
        clock = {"monotonic": lambda: 0.0, "wall": lambda: 1e9}
        async with shared(Sharing(pool, store), every=60, **clock):
            spend(pool, 0, LONG, only=A)
        assert [row.rest for row in await store.all(1e9)] == [30]

    asyncio.run(play())


async def _exchanged(sharing: Sharing) -> None:
    await sharing.exchange(10.0, 1000.0)


def test_what_a_former_pool_finds_out_is_known_to_its_successor() -> None:
    former, pool, store = Pool([A, B]), Pool([A, B]), MemoryCooldowns()
    sharing = Sharing(former, store)
    lease = former.lease(0.0, Wanted(M, only=A))
    assert lease is not None
    sharing.replace(pool)
    lease.report(5.0, rate(60))
    asyncio.run(_exchanged(sharing))
    assert pool.lease(10.0, Wanted(M, only=A)) is None
    assert [row.rest for row in asyncio.run(store.all(1000.0))] == [55.0]
    asyncio.run(sharing.reset())
    asyncio.run(_exchanged(sharing))
    assert pool.lease(10.0, Wanted(M, only=A)) is not None
