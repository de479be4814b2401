"""What is stored says what was said: a conversation goes on from a store as it does when it is sent whole.

A replay is the rest of the stream, byte for byte.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support import responses_client as client
from tests.support.responses_turns import TOOLS, turns_with_tools

import oaicompat
from oaicompat import Exchange, Item, KeepResponse, Options, Supplies
from oaicompat.events import Frame
from oaicompat.mapper import sse_bytes
from oaicompat.testing import GeminiStream, gemini_answers, gemini_streams, responses_requests
from oaicompat_server.recall import stored_response
from oaicompat_server.store import StoredResponse
from oaicompat_server.store.memory import MemoryStore
from oaicompat_server.stored import Stored

Json = dict[str, Any]

NEWEST = "gemini-3.5-flash"
NOTHING = Supplies()
STATE = ("store", "background", "stream", "stream_options", "text")
streams = gemini_streams(gemini_answers(max_candidates=1, broken=True))


def begun(body: Json, found: Supplies = NOTHING, token: str = "t0") -> Exchange:
    """Begin an exchange that is kept, with what a store has."""
    options = Options(keep="stored")
    exchange = Exchange("responses", body, created=1, new_id=lambda: token, options=options)
    while exchange.needs():
        exchange.supply(found)
    return exchange


def sent(body: Json, found: Supplies = NOTHING) -> tuple[str, Json]:
    """Return what goes upstream."""
    exchange = begun(body, found)
    (call,) = exchange.calls()
    request = exchange.begin_attempt(call, oaicompat.GEMINI_API)
    return request.url, json.loads(request.body)


def answered(body: Json, parts: list[Json], found: Supplies, token: str) -> KeepResponse:
    """Answer a request; return what is kept of it."""
    exchange = begun(body, found, token)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    exchange.feed(call, json.dumps({"candidates": [candidate]}).encode())
    exchange.close(call)
    exchange.conclude()
    (kept,) = [each for each in exchange.effects() if isinstance(each, KeepResponse)]
    return kept


@st.composite
def requests(draw: st.DrawFn) -> Json:
    """Draw requests that are stored, with items of which none shares its id with another."""
    body = {key: value for key, value in draw(responses_requests()).items() if key not in STATE}
    items = body["input"]
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    named = [
        {**item, "id": f"{item['id']}_{number}"} if "id" in item else item
        for number, item in enumerate(items)
        if item != {"type": "compaction_trigger"}
    ]
    own = [tool for tool in body.get("tools", ()) if tool["type"] in ("function", "custom")]
    return {**body, "model": NEWEST, "input": named, "tools": [*own, *TOOLS], "tool_choice": "auto"}


def resting(items: Sequence[Json]) -> list[int]:
    """Return the places in a conversation where the model may be asked."""
    waiting: set[str] = set()
    places = []
    for place, item in enumerate(items, 1):
        kind = item.get("type", "message")
        if kind.endswith("_output") and kind not in ("computer_call_output", "program_output"):
            waiting.discard(item["call_id"])
        elif kind in CALLS:
            waiting.add(item.get("call_id") or "")
        if not waiting - {""} and (kind.endswith("_output") or item.get("role") == "user"):
            places.append(place)
    return places


CALLS = tuple(
    f"{kind}_call"
    for kind in ("function", "custom_tool", "local_shell", "shell", "apply_patch", "tool_search")
)


def decoded(items: Sequence[Item]) -> list[Json]:
    return [json.loads(item.body) for item in items]


class Story:
    """A conversation in which the model was asked several times, as it is told and as it is stored."""

    def __init__(self, body: Json) -> None:
        self.body = body
        self.said: list[Json] = []
        self.past: tuple[Item, ...] = ()

    def ask(self, items: list[Json], parts: list[Json], token: str) -> list[Json]:
        """Say something, and have it answered; return the outputs that the answer wants."""
        kept = answered(self.continued(items), parts, self.found(), token)
        output = decoded(kept.output)
        self.said += [*items, *output]
        self.past += (*kept.input, *kept.output)
        return client.outputs(output)

    def found(self) -> Supplies:
        return Supplies(responses={"resp_1": self.past}, conversations={"conv_1": self.past})

    def continued(self, items: list[Json], how: str = "previous_response_id") -> Json:
        """Return the request that goes on from what is stored."""
        going_on = {how: "resp_1" if how == "previous_response_id" else "conv_1"}
        return {**self.body, "input": items, **(going_on if self.past else {})}

    def inline(self, items: list[Json]) -> Json:
        """Return the request that says it all."""
        return {**self.body, "input": [*self.said, *items]}


@st.composite
def stories(draw: st.DrawFn) -> tuple[Story, list[Json]]:
    """Draw a conversation with one or two answers, and what is said next."""
    body = draw(requests())
    items = body["input"]
    cut = draw(st.lists(st.sampled_from(resting(items)), min_size=1, max_size=2, unique=True))
    story, start, outputs = Story(body), 0, list[Json]()
    for number, place in enumerate(sorted(cut)):
        said = [*outputs, *items[start:place]]
        outputs = story.ask(said, draw(turns_with_tools()), f"t{number}")
        start = place
    rest = [*outputs, *items[start:]]
    return story, rest or [{"role": "user", "content": "go on"}]


@given(stories(), st.sampled_from(("previous_response_id", "conversation")))
def test_a_conversation_that_is_stored_goes_on_as_one_that_is_sent(
    told: tuple[Story, list[Json]], how: str
) -> None:
    story, items = told
    assert sent(story.continued(items, how), story.found()) == sent(story.inline(items))


@given(stories(), st.data())
def test_an_item_that_is_named_is_the_item_itself(
    told: tuple[Story, list[Json]], data: st.DataObject
) -> None:
    story, items = told
    whole = story.inline(items)
    known = {item.id: item for item in story.past}
    stored = decoded(story.past)
    named = data.draw(st.sets(st.sampled_from(range(len(stored)))))
    typed = data.draw(st.sampled_from(({}, {"type": "item_reference"})))
    brief = [
        {**typed, "id": item["id"]} if place in named else item for place, item in enumerate(stored)
    ]
    found = Supplies(items=known)
    assert sent({**whole, "input": [*brief, *items]}, found) == sent(whole)


@given(requests(), turns_with_tools())
def test_what_is_stored_is_what_was_said(body: Json, parts: list[Json]) -> None:
    kept = answered(body, parts, NOTHING, "t0")
    assert json.loads(kept.body)["output"] == decoded(kept.output)
    ids = [item.id for item in (*kept.input, *kept.output)]
    assert sorted(set(ids)) == sorted(ids)
    for item, stored in zip(body["input"], decoded(kept.input), strict=True):
        for name in set(item) - {"content"}:
            assert stored[name] == item[name]


class NoRuns:
    """The responses that are made now: none."""

    def find(self, owner: str, response_id: str) -> None:
        return None


async def replayed(response: StoredResponse, frames: Sequence[Frame], after: int) -> bytes:
    """Return what a client reads who asks for what came after a frame."""
    store = MemoryStore()
    assert await store.save("me", response, frames, 1.0)
    stored = Stored(store, NoRuns(), "me")
    found = await stored.find(response.id)
    assert found is not None
    read = [each async for frames in stored.follow(found, after, 1.0) for each in frames]
    return sse_bytes(read)


@given(streams, st.booleans(), st.data())
def test_a_replay_is_the_rest_of_the_stream(
    stream: GeminiStream, background: bool, data: st.DataObject
) -> None:
    exchange = begun(client.ask(stream=True, background=background))
    frames = list(exchange.announce())
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    try:
        frames += [*exchange.feed(call, stream.body), *exchange.close(call)]
    except oaicompat.OaicompatError as error:
        frames += exchange.fail(error)
    frames += exchange.conclude()
    kept = [each for each in exchange.effects() if isinstance(each, KeepResponse)]
    if not kept:
        return
    after = data.draw(st.integers(-1, len(frames)))
    response = stored_response(kept[-1], "", 1.0)
    rest = [frame for frame in frames if frame.sequence > after or frame.sequence < 0]
    assert asyncio.run(replayed(response, kept[-1].frames, after)) == sse_bytes(rest)
    whole = sse_bytes(frames)
    assert whole.endswith(sse_bytes(rest))
    assert len(client.events(whole)) - len(client.events(sse_bytes(rest))) == min(
        after + 1, len(frames) - 1
    )
