"""What every store does, sentence by sentence of the protocol, whatever it is made of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from tests.support import stores
from tests.support.stores import END, MEGABYTE, Opening, frame, item, response, signed

from oaicompat.events import Frame
from oaicompat_server.store import (
    Conversation,
    Item,
    NotStored,
    SignatureBounds,
    Store,
    StoreError,
    memory,
    redis,
    rows,
)

pytestmark = pytest.mark.anyio

ODD = [
    "a:b",
    "*",
    "../../up",
    "{brace}",
    "a b",
    "nul\0nul",
    "line\r\nend",
    "%3A",
    "ä€😀",
    "\ud800",
    "'; DROP TABLE responses; --",
    "x" * 5000,
    "x" * 4999 + "y",
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """Open an empty store of each kind."""
    if request.param == "sqlite":
        return partial(stores.sqlite, tmp_path / "state.sqlite3")
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url")
        await stores.flush(url)
        return partial(stores.redis, url)
    return stores.memory


@pytest.fixture
async def store(opening: Opening) -> AsyncIterator[Store]:
    async with opening() as opened:
        yield opened


async def talk(store: Store, *ids: str, owner: str = "") -> None:
    """Keep a conversation without items for each id."""
    for each in ids:
        await store.create_conversation(owner, Conversation(each, 1.0), ())


class TestResponses:
    async def test_a_response_comes_back_whole(self, store: Store) -> None:
        kept = response(
            "r",
            input=[item("i1"), item("i2")],
            output=[item("o1")],
            previous="p",
            conversation="",
            body=b'{"id":"r"}',
        )
        assert await store.save("", kept, [frame(0), frame(1), END], 1.0)
        assert await store.find("", "r") == kept
        assert await store.frames("", "r", -1) == (frame(0), frame(1), END)

    async def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        assert await store.find("", "r") is None
        assert await store.frames("", "r", -1) == ()
        assert not await store.delete("", "r")
        assert not await store.append("", "r", [frame(0)], 9.0)
        assert await store.items("", ["i"]) == {}
        assert await store.items("", []) == {}

    async def test_a_running_response_is_replaced_and_its_frames_go_on(self, store: Store) -> None:
        begun = response("r", input=[item("i")], output=[item("gone")], until=50.0, body=b"1")
        assert await store.save("", begun, [frame(0)], 1.0)
        assert await store.find("", "r") == begun
        ended = response("r", input=[item("i")], output=[item("o")], body=b"2")
        assert await store.save("", ended, [frame(1), END], 2.0)
        assert await store.find("", "r") == ended
        assert await store.frames("", "r", -1) == (frame(0), frame(1), END)
        assert await store.items("", ["i", "o", "gone"]) == {"i": item("i"), "o": item("o")}

    async def test_a_response_that_has_ended_stays_as_it_is(self, store: Store) -> None:
        await talk(store, "c")
        ended = response("r", output=[item("o")], body=b"1")
        assert await store.save("", ended, [frame(0)], 1.0)
        later = response("r", output=[item("p")], body=b"2", conversation="c")
        assert not await store.save("", later, [frame(1)], 2.0)
        running = response("r", until=50.0)
        assert not await store.save("", running, [frame(1)], 2.0)
        assert not await store.append("", "r", [frame(1)], 50.0)
        assert await store.find("", "r") == ended
        assert await store.frames("", "r", -1) == (frame(0),)
        assert await store.items("", ["p"]) == {}
        assert await store.conversation_items("", "c", 3.0) == ()

    @pytest.mark.parametrize("until", [0.0, 50.0])
    async def test_a_deleted_response_does_not_come_back(self, store: Store, until: float) -> None:
        begun = response("r", input=[item("i")], until=until)
        assert await store.save("", begun, [frame(0)], 1.0)
        assert await store.delete("", "r")
        assert not await store.delete("", "r")
        assert not await store.save("", response("r", output=[item("o")]), [frame(1)], 2.0)
        assert not await store.append("", "r", [frame(1)], 50.0)
        assert await store.find("", "r") is None
        assert await store.frames("", "r", -1) == ()
        assert await store.items("", ["i", "o"]) == {}

    async def test_frames_are_added_while_a_response_runs(self, store: Store) -> None:
        await store.save("", response("r", body=b"1", until=50.0), [frame(0)], 1.0)
        assert await store.append("", "r", [frame(1), frame(2)], 60.5)
        assert await store.append("", "r", [], 70.25)
        assert await store.find("", "r") == response("r", body=b"1", until=70.25)
        assert await store.frames("", "r", -1) == (frame(0), frame(1), frame(2))

    async def test_frames_after_a_number_and_always_the_end_mark(self, store: Store) -> None:
        await store.save("", response("r", until=50.0), [frame(0), frame(1)], 1.0)
        await store.append("", "r", [frame(2)], 50.0)
        await store.save("", response("r"), [frame(3), END], 1.0)
        for after in range(-3, 5):
            expected = [frame(each) for each in range(4) if each > after]
            assert await store.frames("", "r", after) == (*expected, END)
        assert await store.frames("", "r", 2**70) == (END,)

    async def test_many_frames_and_long_ones(self, store: Store) -> None:
        frames = [frame(each, "y" * (200_000 if each % 50 == 0 else 20)) for each in range(300)]
        await store.save("", response("r", until=50.0), frames[:100], 1.0)
        await store.append("", "r", frames[100:250], 50.0)
        await store.save("", response("r"), [*frames[250:], END], 1.0)
        for after in (-1, 0, 98, 99, 100, 248, 249, 250, 298, 299):
            assert await store.frames("", "r", after) == (*frames[after + 1 :], END)

    async def test_frames_without_a_name_or_number(self, store: Store) -> None:
        frames = (Frame(b"\x00\xff", "", 7), Frame(b""), Frame(b"end", "näme"))
        await store.save("", response("r"), frames, 1.0)
        assert await store.frames("", "r", 6) == frames

    async def test_big_bodies(self, store: Store) -> None:
        noise = random.Random(1).randbytes(20 * MEGABYTE)
        big = response("r", input=[Item("i", noise)], body=noise[::-1])
        frames = (Frame(noise, "event", 1), END)
        assert await store.save("", big, frames, 1.0)
        assert await store.find("", "r") == big
        assert await store.frames("", "r", 0) == frames
        assert await store.history("", "r", 2.0) == big.input


class TestHistory:
    async def test_oldest_first_input_before_output(self, store: Store) -> None:
        for number in range(4):
            previous = f"r{number - 1}" if number else ""
            two = [item(f"i{number}"), item(f"j{number}")]
            kept = response(f"r{number}", input=two, output=[item(f"o{number}")], previous=previous)
            await store.save("", kept, [], 1.0)
        expected = [item(f"{kind}{number}") for number in range(3) for kind in "ijo"]
        assert await store.history("", "r2", 2.0) == tuple(expected)

    async def test_the_missing_response_is_named(self, store: Store) -> None:
        for id, previous in (("a", ""), ("b", "a"), ("c", "b")):
            await store.save("", response(id, previous=previous), [], 1.0)
        with pytest.raises(NotStored) as missing:
            await store.history("", "unknown", 2.0)
        assert missing.value.id == "unknown"
        await store.delete("", "a")
        with pytest.raises(NotStored) as missing:
            await store.history("", "c", 2.0)
        assert missing.value.id == "a"

    async def test_a_response_that_continues_itself_comes_once(self, store: Store) -> None:
        for id, previous in (("a", "b"), ("b", "a"), ("own", "own")):
            await store.save("", response(id, output=[item(id)], previous=previous), [], 1.0)
        assert await store.history("", "own", 2.0) == (item("own"),)
        assert await store.history("", "a", 2.0) == (item("b"), item("a"))

    async def test_a_chain_has_an_end(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (memory, redis, rows):
            monkeypatch.setattr(module, "LONGEST_CHAIN", 40)
        await store.save("", response("r0"), [], 1.0)
        saving = (
            store.save("", response(f"r{each + 1}", previous=f"r{each}"), [], 1.0)
            for each in range(40)
        )
        assert all(await asyncio.gather(*saving))
        assert await store.history("", "r39", 2.0) == ()
        with pytest.raises(StoreError, match="continue each other"):
            await store.history("", "r40", 2.0)

    async def test_a_running_response_is_part_of_it(self, store: Store) -> None:
        await store.save("", response("r", input=[item("i")], until=50.0), [], 1.0)
        assert await store.history("", "r", 2.0) == (item("i"),)


class TestItems:
    async def test_of_responses_and_conversations(self, store: Store) -> None:
        kept = response("r", input=[item("i")], output=[item("o")])
        await store.save("", kept, [], 1.0)
        await store.create_conversation("", Conversation("c", 1.0), [item("m")])
        wanted = ["o", "i", "m", "unknown", "o"]
        assert await store.items("", wanted) == {each: item(each) for each in "oim"}

    async def test_the_one_kept_last_wins(self, store: Store) -> None:
        async def newest() -> str:
            return (await store.items("", ["i"]))["i"].body.decode()

        await store.save("", response("a", input=[item("i", "first")]), [], 1.0)
        await store.create_conversation("", Conversation("c", 1.0), [item("i", "second")])
        assert "second" in await newest()
        await store.save("", response("b", output=[item("i", "third")]), [], 1.0)
        assert "third" in await newest()
        await store.add_items("", "c", [item("i", "fourth"), item("i", "fifth")], 1.0)
        assert "fifth" in await newest()
        await store.delete_item("", "c", "i")
        assert "third" in await newest()
        await store.delete("", "b")
        assert "first" in await newest()
        await store.delete("", "a")
        assert await store.items("", ["i"]) == {}

    async def test_replaced_is_kept_last(self, store: Store) -> None:
        await store.save("", response("a", input=[item("i", "1")], until=50.0), [], 1.0)
        await store.save("", response("b", input=[item("i", "2")]), [], 1.0)
        await store.save("", response("a", input=[item("i", "3")]), [], 1.0)
        assert await store.items("", ["i"]) == {"i": item("i", "3")}
        await store.delete("", "a")
        assert await store.items("", ["i"]) == {"i": item("i", "2")}


class TestConversations:
    async def test_a_conversation_comes_back(self, store: Store) -> None:
        kept = Conversation("c", 12.5, {"topic": "ä€😀", "": "empty"})
        await store.create_conversation("", kept, [item("b"), item("a")])
        assert await store.conversation("", "c") == kept
        assert await store.conversation_items("", "c", 2.0) == (item("b"), item("a"))

    async def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        assert await store.conversation("", "c") is None
        assert await store.conversation_items("", "c", 1.0) is None
        assert await store.update_conversation("", "c", {}) is None
        assert not await store.add_items("", "c", [item("i")], 1.0)
        assert not await store.delete_conversation("", "c")
        assert not await store.delete_item("", "c", "i")
        assert await store.items("", ["i"]) == {}
        assert await store.conversation("", "c") is None

    async def test_metadata_is_replaced(self, store: Store) -> None:
        await store.create_conversation("", Conversation("c", 1.0, {"a": "b"}), [item("i")])
        expected = Conversation("c", 1.0, {"c": "d"})
        assert await store.update_conversation("", "c", {"c": "d"}) == expected
        assert await store.conversation("", "c") == expected
        assert await store.conversation_items("", "c", 2.0) == (item("i"),)

    async def test_items_are_added_at_the_end(self, store: Store) -> None:
        await store.create_conversation("", Conversation("c", 1.0), [item("z")])
        assert await store.add_items("", "c", [item("y"), item("x")], 2.0)
        assert await store.add_items("", "c", [], 2.0)
        assert await store.add_items("", "c", [item("z")], 2.0)
        expected = (item("z"), item("y"), item("x"), item("z"))
        assert await store.conversation_items("", "c", 3.0) == expected

    async def test_many_items_keep_their_order(self, store: Store) -> None:
        await talk(store, "c")
        items = [item(f"i{number}") for number in range(30)]
        for each in items:
            await store.add_items("", "c", [each], 1.0)
        assert await store.conversation_items("", "c", 3.0) == tuple(items)

    async def test_one_item_is_taken_out(self, store: Store) -> None:
        await store.create_conversation("", Conversation("c", 1.0), [item("a"), item("b")])
        await store.add_items("", "c", [item("a"), item("ba")], 1.0)
        assert await store.delete_item("", "c", "a")
        assert not await store.delete_item("", "c", "a")
        assert await store.conversation_items("", "c", 3.0) == (item("b"), item("ba"))
        assert await store.items("", ["a"]) == {}

    async def test_an_item_is_taken_out_of_its_conversation_only(self, store: Store) -> None:
        await talk(store, "c", "d")
        kept = response("r", output=[item("o")], conversation="c")
        await store.save("", kept, [], 1.0)
        assert not await store.delete_item("", "d", "o")
        assert await store.delete_item("", "c", "o")
        assert await store.conversation_items("", "c", 2.0) == ()
        assert await store.find("", "r") == kept
        assert await store.items("", ["o"]) == {"o": item("o")}

    async def test_a_deleted_conversation_takes_its_items_along(self, store: Store) -> None:
        await store.create_conversation("", Conversation("c", 1.0), [item("i")])
        kept = response("r", output=[item("o")], conversation="c")
        await store.save("", kept, [], 1.0)
        assert await store.delete_conversation("", "c")
        assert not await store.delete_conversation("", "c")
        assert await store.conversation("", "c") is None
        assert await store.conversation_items("", "c", 2.0) is None
        assert await store.items("", ["i", "o"]) == {"o": item("o")}
        assert await store.find("", "r") == kept

    async def test_a_new_one_takes_the_place_of_one_with_its_id(self, store: Store) -> None:
        await store.create_conversation("", Conversation("c", 1.0, {"a": "b"}), [item("i")])
        await store.create_conversation("", Conversation("c", 2.0), [item("j")])
        assert await store.conversation("", "c") == Conversation("c", 2.0)
        assert await store.conversation_items("", "c", 2.0) == (item("j"),)
        assert await store.items("", ["i"]) == {}


class TestAnAnswerInAConversation:
    async def test_adds_its_items_once_it_has_ended(self, store: Store) -> None:
        await store.create_conversation("", Conversation("c", 1.0), [item("first")])
        begun = response("r", input=[item("i")], conversation="c", until=50.0)
        assert await store.save("", begun, [], 1.0)
        assert await store.conversation_items("", "c", 2.0) == (item("first"),)
        await store.add_items("", "c", [item("meanwhile")], 2.0)
        ended = response("r", input=[item("i")], output=[item("o")], conversation="c")
        assert await store.save("", ended, [], 3.0)
        assert await store.find("", "r") == ended
        expected = (item("first"), item("meanwhile"), item("i"), item("o"))
        assert await store.conversation_items("", "c", 4.0) == expected
        assert await store.history("", "r", 4.0) == (item("i"), item("o"))

    async def test_its_items_stay_when_it_is_deleted(self, store: Store) -> None:
        await talk(store, "c")
        kept = response("r", input=[item("i")], output=[item("o")], conversation="c")
        await store.save("", kept, [], 1.0)
        assert await store.delete("", "r")
        assert await store.conversation_items("", "c", 4.0) == (item("i"), item("o"))
        assert await store.items("", ["i", "o"]) == {"i": item("i"), "o": item("o")}
        assert await store.delete_item("", "c", "i")
        assert await store.delete_conversation("", "c")
        assert await store.items("", ["i", "o"]) == {}

    async def test_is_not_kept_where_that_is_gone(self, store: Store) -> None:
        lost = response("a", output=[item("o")], conversation="c")
        assert not await store.save("", lost, [frame(0)], 1.0)
        assert await store.find("", "a") is None
        assert await store.items("", ["o"]) == {}
        begun = response("b", conversation="c", until=50.0)
        assert await store.save("", begun, [frame(0)], 1.0)
        ended = response("b", output=[item("o")], conversation="c")
        assert not await store.save("", ended, [frame(1)], 1.0)
        assert await store.find("", "b") == begun
        assert await store.frames("", "b", -1) == (frame(0),)
        assert await store.append("", "b", [frame(1)], 60.0)


class TestSignatures:
    async def test_come_back_whole(self, store: Store) -> None:
        rows = [signed("a", "c2lnMQ=="), signed("b", "c2lnMg==", "vertex"), signed("c", "", "")]
        await store.keep_signatures(rows, 1.0)
        found = await store.find_signatures("", ["b", "missing", "c", "a", "a"], 2.0)
        assert found == {row.id: row.signature for row in rows}
        assert await store.find_signatures("", ["missing"], 2.0) == {}

    async def test_none_are_kept_and_none_asked_for(self, store: Store) -> None:
        await store.keep_signatures([], 1.0)
        assert await store.find_signatures("", [], 1.0) == {}

    async def test_the_latest_of_a_call_wins(self, store: Store) -> None:
        await store.keep_signatures([signed("a", "one"), signed("a", "two")], 1.0)
        assert await store.find_signatures("", ["a"], 1.0) == {"a": signed("a", "two").signature}
        await store.keep_signatures([signed("a", "three", "vertex")], 2.0)
        latest = signed("a", "three", "vertex").signature
        assert await store.find_signatures("", ["a"], 2.0) == {"a": latest}

    async def test_of_several_owners_are_kept_together(self, store: Store) -> None:
        await store.keep_signatures([signed("a", each, owner=each) for each in ("me", "you")], 1.0)
        for each in ("me", "you"):
            found = await store.find_signatures(each, ["a"], 1.0)
            assert found == {"a": signed("a", each).signature}
        assert await store.find_signatures("", ["a"], 1.0) == {}

    async def test_of_odd_calls(self, store: Store) -> None:
        rows = [signed(each, str(number), owner="o:*") for number, each in enumerate(ODD)]
        await store.keep_signatures(rows, 1.0)
        found = await store.find_signatures("o:*", ODD, 1.0)
        assert found == {row.id: row.signature for row in rows}

    async def test_of_many_calls(self, store: Store) -> None:
        rows = [signed(f"call_{number}", f"{number}" * 50) for number in range(2500)]
        await store.keep_signatures(rows, 1.0)
        found = await store.find_signatures("", [row.id for row in rows], 1.0)
        assert found == {row.id: row.signature for row in rows}

    async def test_are_no_items(self, store: Store) -> None:
        await store.save("", response("r", output=[item("a")]), [], 1.0)
        await store.keep_signatures([signed("a")], 1.0)
        assert await store.delete("", "r")
        assert await store.items("", ["a"]) == {}
        assert "a" in await store.find_signatures("", ["a"], 1.0)


class TestOwners:
    async def test_do_not_see_each_other(self, store: Store) -> None:
        await store.create_conversation("me", Conversation("c", 1.0), [item("m")])
        kept = response("r", input=[item("i")], until=50.0)
        await store.save("me", kept, [frame(0)], 1.0)
        await store.keep_signatures([signed("s", owner="me")], 1.0)
        for other in ("", "you", "me:", "m", "ME"):
            assert await store.find(other, "r") is None
            assert await store.frames(other, "r", -1) == ()
            assert not await store.append(other, "r", [frame(1)], 99.0)
            assert not await store.delete(other, "r")
            assert await store.items(other, ["i", "m"]) == {}
            assert await store.conversation(other, "c") is None
            assert await store.conversation_items(other, "c", 1.0) is None
            assert await store.update_conversation(other, "c", {"a": "b"}) is None
            assert not await store.add_items(other, "c", [item("n")], 1.0)
            assert not await store.delete_item(other, "c", "m")
            assert not await store.delete_conversation(other, "c")
            assert not await store.save(other, response("x", conversation="c"), [], 1.0)
            assert await store.find_signatures(other, ["s"], 1.0) == {}
            with pytest.raises(NotStored):
                await store.history(other, "r", 1.0)
        assert await store.find("me", "r") == kept
        assert await store.frames("me", "r", -1) == (frame(0),)
        assert await store.conversation("me", "c") == Conversation("c", 1.0)
        assert await store.conversation_items("me", "c", 1.0) == (item("m"),)

    async def test_may_use_the_same_ids(self, store: Store) -> None:
        for owner in ("me", "you"):
            kept = response("r", input=[item("i", owner)], body=owner.encode())
            assert await store.save(owner, kept, [], 1.0)
            await store.create_conversation(owner, Conversation("c", 1.0, {"of": owner}), ())
        await store.delete("you", "r")
        assert await store.items("me", ["i"]) == {"i": item("i", "me")}
        mine = await store.conversation("me", "c")
        assert mine == Conversation("c", 1.0, {"of": "me"})

    async def test_cannot_continue_what_belongs_to_others(self, store: Store) -> None:
        await store.save("me", response("a", input=[item("i")]), [], 1.0)
        await store.save("you", response("b", previous="a"), [], 1.0)
        with pytest.raises(NotStored) as missing:
            await store.history("you", "b", 1.0)
        assert missing.value.id == "a"


class TestOddIds:
    async def test_are_told_apart(self, store: Store) -> None:
        for owner in ("", "a:b"):
            for id in ODD:
                kept = response(id, input=[item(id, owner)], previous=id, body=owner.encode())
                assert await store.save(owner, kept, [frame(0)], 1.0)
                await store.create_conversation(owner, Conversation(id, 1.0), [item(id, "c")])
        for owner in ("", "a:b"):
            for id in ODD:
                found = await store.find(owner, id)
                assert found is not None
                assert (found.id, found.previous, found.body) == (id, id, owner.encode())
                assert await store.history(owner, id, 2.0) == (item(id, owner),)
                assert await store.conversation(owner, id) == Conversation(id, 1.0)
            assert await store.items(owner, ODD) == {id: item(id, "c") for id in ODD}

    async def test_delete_nothing_else(self, store: Store) -> None:
        for id in ODD:
            await store.save("", response(id), [], 1.0)
            await store.create_conversation("", Conversation(id, 1.0), [item(id)])
        for number, id in enumerate(ODD):
            assert await store.delete("", id)
            assert await store.delete_item("", id, id)
            assert await store.delete_conversation("", id)
            for other in ODD[number + 1 :]:
                assert await store.find("", other) is not None
                assert await store.conversation_items("", other, 2.0) == (item(other),)


class TestAtTheSameTime:
    async def test_many_save(self, store: Store) -> None:
        saved = await asyncio.gather(
            *(
                store.save("", response(f"r{each}", output=[item(f"o{each}")]), [frame(0)], 1.0)
                for each in range(200)
            )
        )
        assert all(saved)
        found = await asyncio.gather(*(store.find("", f"r{each}") for each in range(200)))
        assert [each.output[0].id for each in found if each] == [f"o{each}" for each in range(200)]

    async def test_one_of_them_ends_a_response(self, store: Store) -> None:
        await store.save("", response("r", until=50.0), [frame(0)], 1.0)
        ended = await asyncio.gather(
            *(
                store.save("", response("r", body=str(each).encode()), [frame(1), END], 1.0)
                for each in range(20)
            )
        )
        assert ended.count(True) == 1
        found = await store.find("", "r")
        assert found is not None
        assert found.body == str(ended.index(True)).encode()
        assert await store.frames("", "r", -1) == (frame(0), frame(1), END)

    async def test_all_add_to_a_conversation(self, store: Store) -> None:
        await talk(store, "c")
        pairs = [(item(f"a{each}"), item(f"b{each}")) for each in range(30)]
        await asyncio.gather(*(store.add_items("", "c", pair, 1.0) for pair in pairs))
        found = await store.conversation_items("", "c", 1.0)
        assert found is not None
        assert sorted(zip(found[::2], found[1::2], strict=True), key=str) == sorted(pairs, key=str)

    async def test_a_caller_that_goes_away_leaves_all_or_nothing(self, store: Store) -> None:
        def saving(number: int) -> Awaitable[bool]:
            kept = response(f"r{number}", input=[item(f"i{number}")])
            return store.save("", kept, [frame(0, "y" * 1000), END], 1.0)

        tasks = [asyncio.ensure_future(saving(each)) for each in range(60)]
        for number, task in enumerate(tasks):
            if number % 3:
                await asyncio.sleep(0)
            if number % 2:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(results[::2])
        for number, result in enumerate(results):
            found = await store.find("", f"r{number}")
            assert found is not None or result is not True
            complete = (frame(0, "y" * 1000), END) if found else ()
            assert await store.frames("", f"r{number}", -1) == complete
            assert len(await store.items("", [f"i{number}"])) == bool(found)


Use = Callable[[Store, float], Awaitable[object]]

KEEP_USED: dict[str, Use] = {
    "history": lambda store, now: store.history("", "last", now),
    "saving": lambda store, now: store.save("", response("first"), [], now),
}
KEEP_TALKING: dict[str, Use] = {
    "listing": lambda store, now: store.conversation_items("", "c", now),
    "adding": lambda store, now: store.add_items("", "c", [item("i")], now),
    "answering": lambda store, now: store.save("", response("r", conversation="c"), [], now),
}


@pytest.fixture(params=["memory", "sqlite"])
def swept(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """Open stores that are swept; what Redis keeps goes by Redis' own clock."""
    if request.param == "sqlite":
        return partial(stores.sqlite, tmp_path / "state.sqlite3")
    return stores.memory


class TestBoundsOfSignatures:
    async def left(self, store: Store, now: float = 1000.0) -> set[str]:
        return set(await store.find_signatures("", [f"s{number}" for number in range(30)], now))

    async def test_each_has_its_time(self, swept: Opening) -> None:
        async with swept(bounds=SignatureBounds(lifetime=10.0)) as store:
            await store.keep_signatures([signed("s0"), signed("s1")], 1000.0)
            await store.keep_signatures([signed("s1"), signed("s2")], 1005.0)
            assert await self.left(store, 1009.9) == {"s0", "s1", "s2"}
            assert await self.left(store, 1010.0) == {"s1", "s2"}
            await store.sweep(1010.0)
            assert await self.left(store, 1010.0) == {"s1", "s2"}
            await store.sweep(1015.0)
            assert await self.left(store, 1000.0) == set()

    async def test_no_more_than_the_retention_time(self, swept: Opening) -> None:
        async with swept(retention=10.0) as store:
            await store.keep_signatures([signed("s0")], 1000.0)
            assert await self.left(store, 1009.9) == {"s0"}
            assert await self.left(store, 1010.0) == set()

    @pytest.mark.parametrize("together", [1, 4, 30])
    async def test_the_first_kept_go_above_a_number(self, swept: Opening, together: int) -> None:
        rows = [signed(f"s{number}") for number in range(30)]
        async with swept(bounds=SignatureBounds(entries=5)) as store:
            for at in range(0, 30, together):
                await store.keep_signatures(rows[at : at + together], 1000.0)
                assert len(await self.left(store)) <= 5
            assert await self.left(store) == {f"s{number}" for number in range(25, 30)}

    @pytest.mark.parametrize("together", [1, 4, 30])
    async def test_the_first_kept_go_above_a_size(self, swept: Opening, together: int) -> None:
        rows = [signed(f"s{number}", "x" * 30) for number in range(30)]
        async with swept(bounds=SignatureBounds(size=100)) as store:
            for at in range(0, 30, together):
                await store.keep_signatures(rows[at : at + together], 1000.0)
                assert len(await self.left(store)) <= 3
            assert await self.left(store) == {"s27", "s28", "s29"}
            await store.keep_signatures([signed("s0", "x" * 40)], 1000.0)
            assert await self.left(store) == {"s28", "s29", "s0"}
            await store.keep_signatures([signed("s1", "x" * 100)], 1000.0)
            assert await self.left(store) == {"s1"}

    async def test_one_that_is_too_large_takes_nobodys_place(self, swept: Opening) -> None:
        async with swept(bounds=SignatureBounds(size=100)) as store:
            await store.keep_signatures([signed("s0"), signed("s1", "x" * 101)], 1000.0)
            assert await self.left(store) == {"s0"}

    async def test_they_leave_most_of_the_store_to_responses(self, swept: Opening) -> None:
        async with swept(max_bytes=800) as store:
            await store.keep_signatures([signed("s0", "x" * 60), signed("s1", "x" * 60)], 1000.0)
            assert await self.left(store) == {"s1"}


class TestSweeping:
    async def test_what_was_not_used_for_long_is_forgotten(self, swept: Opening) -> None:
        async with swept(retention=100.0) as store:
            await store.save("", response("r", input=[item("i")]), [frame(0)], 1000.0)
            await store.create_conversation("", Conversation("c", 1000.0), [item("m")])
            await store.sweep(1099.0)
            assert await store.find("", "r") is not None
            assert await store.conversation("", "c") is not None
            await store.sweep(1101.0)
            assert await store.find("", "r") is None
            assert await store.frames("", "r", -1) == ()
            assert await store.conversation("", "c") is None
            assert await store.items("", ["i", "m"]) == {}

    @pytest.mark.parametrize("use", KEEP_USED)
    async def test_a_response_that_was_used_stays(self, swept: Opening, use: str) -> None:
        async with swept(retention=100.0) as store:
            await store.save("", response("first", until=1.0), [], 1000.0)
            await store.save("", response("last", previous="first"), [], 1000.0)
            await KEEP_USED[use](store, 1050.0)
            await store.sweep(1140.0)
            assert await store.find("", "first") is not None

    @pytest.mark.parametrize("use", KEEP_TALKING)
    async def test_a_conversation_that_was_used_stays(self, swept: Opening, use: str) -> None:
        async with swept(retention=100.0) as store:
            await talk(store, "c", "unused")
            await KEEP_TALKING[use](store, 1050.0)
            await store.sweep(1140.0)
            assert await store.conversation("", "c") is not None
            assert await store.conversation("", "unused") is None

    async def test_a_running_response_is_not_forgotten(self, swept: Opening) -> None:
        async with swept(retention=100.0, max_bytes=1) as store:
            await store.save("", response("r", until=1200.0, body=b"x" * 9000), [], 1000.0)
            await store.append("", "r", [frame(0)], 1300.0)
            await store.sweep(1250.0)
            assert await store.find("", "r") is not None
            assert await store.frames("", "r", -1) == (frame(0),)
            await store.sweep(1301.0)
            assert await store.find("", "r") is None
            assert not await store.save("", response("r"), [END], 1302.0)
            await store.sweep(1500.0)
            assert await store.save("", response("r"), [END], 1501.0)

    async def test_a_deleted_id_is_forgotten_at_last(self, swept: Opening) -> None:
        async with swept(retention=100.0) as store:
            await store.save("", response("r"), [], 1000.0)
            await store.delete("", "r")
            await store.sweep(1090.0)
            assert not await store.save("", response("r"), [], 1091.0)
            await store.sweep(1101.0)
            assert await store.save("", response("r"), [], 1102.0)

    async def test_the_least_recently_used_go_above_the_limit(self, swept: Opening) -> None:
        noise = random.Random(1).randbytes
        async with swept(max_bytes=int(4.5 * MEGABYTE)) as store:
            for number in range(4):
                kept = response(f"r{number}", output=[item(f"o{number}")], body=noise(MEGABYTE))
                await store.save("", kept, [], 1000.0 + number)
            await store.history("", "r0", 1010.0)
            await store.sweep(1011.0)
            big = Item("m", noise(MEGABYTE))
            await store.create_conversation("", Conversation("c", 1012.0), [big])
            await store.sweep(1013.0)
            assert await self.left(store) == {"r0", "r2", "r3", "c"}
            assert await store.items("", ["o1"]) == {}
            await store.save("", response("r5", body=noise(MEGABYTE)), [], 1014.0)
            await store.save("", response("r6", body=noise(MEGABYTE)), [], 1015.0)
            await store.sweep(1016.0)
            assert await self.left(store) == {"r0", "c", "r5", "r6"}
            await store.conversation_items("", "c", 1017.0)
            await store.save("", response("r7", body=noise(2 * MEGABYTE)), [], 1018.0)
            await store.sweep(1019.0)
            assert await self.left(store) == {"c", "r6", "r7"}
            await store.sweep(2000.0)
            assert await self.left(store) == {"c", "r6", "r7"}

    async def test_conversations_go_in_the_order_of_their_use(self, swept: Opening) -> None:
        async with swept(max_bytes=int(2.5 * MEGABYTE)) as store:
            for number, id in enumerate("cd"):
                big = Item("m", bytes(MEGABYTE))
                await store.create_conversation("", Conversation(id, 1000.0 + number), [big])
            await store.conversation_items("", "c", 1010.0)
            await store.save("", response("r", body=bytes(MEGABYTE)), [], 1020.0)
            await store.sweep(1021.0)
            assert await store.conversation("", "c") is not None
            assert await store.conversation("", "d") is None

    async def test_frames_count(self, swept: Opening) -> None:
        noise = random.Random(1).randbytes
        async with swept(max_bytes=int(2.5 * MEGABYTE)) as store:
            await store.save("", response("r", until=1001.0), [], 1000.0)
            await store.append("", "r", [Frame(noise(MEGABYTE), "", 0)], 1001.0)
            await store.append("", "r", [Frame(noise(MEGABYTE), "", 1)], 1001.0)
            await store.sweep(1002.0)
            assert await store.find("", "r") is not None
            await store.save("", response("s", body=noise(MEGABYTE)), [], 1003.0)
            await store.sweep(1004.0)
            assert await store.find("", "r") is None
            assert await store.find("", "s") is not None

    async def left(self, store: Store) -> set[str]:
        names = [f"r{number}" for number in range(9)]
        found = {each for each in names if await store.find("", each)}
        return found | ({"c"} if await store.conversation("", "c") else set())
