"""Whatever is asked of them, in whatever order: the file and Redis answer as the memory does."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import stores
from tests.support.stores import END, frame, item, response, signed

from oaicompat_server.store import Conversation, NotStored, Store

Operation = tuple[str, Sequence[Any]]

OWNERS = st.sampled_from(["", "o"])
RESPONSES = st.sampled_from(["r0", "r1", "r2"])
CONVERSATIONS = st.sampled_from(["c0", "c1"])
ITEM_IDS = ["i0", "i1", "i2"]
ITEMS = st.lists(st.builds(item, st.sampled_from(ITEM_IDS), st.sampled_from("xyz")), max_size=3)
FRAMES = st.lists(
    st.builds(frame, st.integers(0, 5), st.sampled_from("pq")) | st.just(END), max_size=3
)
RUNNING = st.sampled_from([0.0, 5e6])
METADATA = st.dictionaries(st.sampled_from("ab"), st.text(max_size=3), max_size=2)
ANSWERS = st.builds(
    response,
    RESPONSES,
    input=ITEMS,
    output=ITEMS,
    previous=st.just("") | RESPONSES,
    conversation=st.just("") | CONVERSATIONS,
    until=RUNNING,
    body=st.binary(max_size=3),
)
CALLS = ["s0", "s1", "s2"]
SIGNED = st.lists(
    st.builds(
        signed,
        st.sampled_from(CALLS),
        st.sampled_from(["", "one", "two"]),
        st.sampled_from(["gemini", "vertex"]),
        OWNERS,
    ),
    max_size=4,
)
TIMES = st.just(1e6)
AFTER = st.integers(-2, 6)

PARAMETERS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "save": (ANSWERS, FRAMES, TIMES),
    "append": (RESPONSES, FRAMES, st.just(6e6)),
    "find": (RESPONSES,),
    "frames": (RESPONSES, AFTER),
    "delete": (RESPONSES,),
    "history": (RESPONSES, TIMES),
    "items": (st.just(ITEM_IDS),),
    "create_conversation": (st.builds(Conversation, CONVERSATIONS, TIMES, METADATA), ITEMS),
    "conversation": (CONVERSATIONS,),
    "update_conversation": (CONVERSATIONS, METADATA),
    "delete_conversation": (CONVERSATIONS,),
    "add_items": (CONVERSATIONS, ITEMS, TIMES),
    "conversation_items": (CONVERSATIONS, TIMES),
    "delete_item": (CONVERSATIONS, st.sampled_from(ITEM_IDS)),
    "keep_signatures": (),
    "find_signatures": (st.lists(st.sampled_from(CALLS), max_size=3), TIMES),
    "sweep": (),
}
OFTEN = ["keep_signatures"] * 2 + ["save"] * 5 + ["append", "delete_item", "items", "add_items"] * 2


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    name = draw(st.sampled_from([*PARAMETERS, *OFTEN]))
    if name == "sweep":
        return name, (1e6,)
    if name == "keep_signatures":
        return name, (draw(SIGNED), 1e6)
    return name, (draw(OWNERS), *(draw(each) for each in PARAMETERS[name]))


async def told(store: Store, operation: Operation) -> object:
    """Return what a store says to an operation."""
    name, arguments = operation
    method: Callable[..., Awaitable[object]] = getattr(store, name)
    try:
        return await method(*arguments)
    except NotStored as missing:
        return ("missing", missing.id)


def everything() -> list[Operation]:
    """Return what is to be asked at the end."""
    asked: list[Operation] = []
    for owner in ("", "o"):
        for id in ("r0", "r1", "r2"):
            asked += [("find", (owner, id)), ("frames", (owner, id, -1))]
            asked += [("history", (owner, id, 1e6))]
        for id in ("c0", "c1"):
            asked += [("conversation", (owner, id)), ("conversation_items", (owner, id, 1e6))]
        asked += [("items", (owner, ITEM_IDS)), ("find_signatures", (owner, CALLS, 1e6))]
    return asked


async def compare(other: Callable[[], Any], asked: Sequence[Operation]) -> None:
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(stores.memory())
        store = await stack.enter_async_context(other())
        for operation in [*asked, *everything()]:
            assert await told(store, operation) == await told(model, operation), operation


@settings(max_examples=60)
@given(asked=st.lists(operations(), max_size=25))
def test_the_file_answers_as_the_memory(asked: list[Operation]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(compare(partial(stores.sqlite, Path(directory, "state.sqlite3")), asked))


@settings(max_examples=60)
@given(asked=st.lists(operations(), max_size=25))
def test_redis_answers_as_the_memory(redis_url: str, asked: list[Operation]) -> None:
    async def main() -> None:
        await stores.flush(redis_url)
        await compare(partial(stores.redis, redis_url), asked)

    asyncio.run(main())
