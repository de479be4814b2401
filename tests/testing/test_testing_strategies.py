"""What the public strategies draw: valid data only, and all of what they promise.

That every drawn request is served and valid for OpenAI is proved with the laws of requests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from tests.support.recordings import normal
from tests.support.shared import CHECKER, schemas

from oaicompat import sse
from oaicompat.testing import (
    FRAMINGS,
    Framing,
    GeminiStream,
    chat_requests,
    cuts,
    frame,
    gemini_answers,
    gemini_streams,
    gemini_turns,
    sse_framings,
)

Json = dict[str, Any]

hunting = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)


@given(gemini_turns())
def test_turns_are_in_normal_form(parts: list[Json]) -> None:
    assert parts
    assert normal(parts) == parts


@given(gemini_turns())
def test_ids_of_a_turn_belong_to_one_call_each(parts: list[Json]) -> None:
    ids = [
        part[key]["id"]
        for part in parts
        for key in ("functionCall", "toolCall")
        if key in part and "id" in part[key]
    ]
    assert len(set(ids)) == len(ids)
    answered = {part["toolResponse"]["id"] for part in parts if "toolResponse" in part}
    assert answered <= {part["toolCall"]["id"] for part in parts if "toolCall" in part}


@given(gemini_turns(server_tools=False))
def test_turns_without_server_tools_have_none(parts: list[Json]) -> None:
    assert not any({"toolCall", "toolResponse"} & set(part) for part in parts)


TURNS: dict[str, Callable[[list[Json]], bool]] = {
    "an empty last text that is signed": lambda turn: turn[-1].get("text") == "" and len(turn) > 1,
    "a signed thought": lambda turn: any(
        {"thought", "thoughtSignature"} <= set(part) for part in turn
    ),
    "a call without an id": lambda turn: any(
        "id" not in part.get("functionCall", {"id": 1}) for part in turn
    ),
    "a call with an id": lambda turn: any("id" in part.get("functionCall", {}) for part in turn),
    "a signed image": lambda turn: any(
        {"inlineData", "thoughtSignature"} <= set(part) for part in turn
    ),
    "two results of one code": lambda turn: sum("codeExecutionResult" in part for part in turn) > 1,
    "a server tool": lambda turn: any("toolResponse" in part for part in turn),
    "text after a call": lambda turn: (
        len(turn) > 1 and "functionCall" in turn[0] and "text" in turn[1]
    ),
}


def test_turns_hold_it_all_sooner_or_later() -> None:
    missing = dict(TURNS)

    def all_seen(turn: list[Json]) -> bool:
        for name in [name for name, holds in missing.items() if holds(turn)]:
            del missing[name]
        return not missing

    find(gemini_turns(), all_seen, settings=hunting)


ANSWERS: dict[str, Callable[[Json], bool]] = {
    "a refused prompt": lambda answer: "promptFeedback" in answer,
    "three candidates": lambda answer: len(answer.get("candidates", ())) == 3,
    "no usage": lambda answer: "usageMetadata" not in answer,
    "thoughts that are counted": lambda answer: (
        "thoughtsTokenCount" in answer.get("usageMetadata", ())
    ),
    "a malformed call": lambda answer: "MALFORMED_FUNCTION_CALL" in json.dumps(answer),
    "an answer without parts": lambda answer: any(
        not each["content"].get("parts") for each in answer.get("candidates", ())
    ),
    "a cited text that is not ASCII": lambda answer: any(
        not support["segment"]["text"].isascii()
        for each in answer.get("candidates", ())
        for support in each.get("groundingMetadata", {}).get("groundingSupports", ())
    ),
}


def test_answers_hold_it_all_sooner_or_later() -> None:
    missing = dict(ANSWERS)

    def all_seen(answer: Json) -> bool:
        for name in [name for name, holds in missing.items() if holds(answer)]:
            del missing[name]
        return not missing

    find(gemini_answers(broken=True), all_seen, settings=hunting)


@given(gemini_answers())
def test_counts_add_up_and_segments_are_cut_out_of_the_text(answer: Json) -> None:
    usage = dict(answer.get("usageMetadata", {}))
    total = usage.pop("totalTokenCount", 0)
    names = (
        "promptTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
        "toolUsePromptTokenCount",
    )
    assert total == sum(usage.get(name, 0) for name in names)
    for candidate in answer.get("candidates", ()):
        parts = candidate["content"].get("parts", ())
        text = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
        for support in candidate.get("groundingMetadata", {}).get("groundingSupports", ()):
            segment = support["segment"]
            cut = text.encode()[segment.get("startIndex", 0) : segment["endIndex"]]
            assert cut.decode() == segment["text"]


@given(gemini_streams())
def test_the_chunks_of_a_stream_add_up_to_its_answer(stream: GeminiStream) -> None:
    for number, candidate in enumerate(stream.answer.get("candidates", ())):
        seen = [
            each
            for chunk in stream.chunks
            for each in chunk.get("candidates", ())
            if each["index"] == number
        ]
        parts = [part for each in seen for part in each.get("content", {}).get("parts", ())]
        assert normal(parts) == candidate["content"].get("parts", [])
        assert [each["finishReason"] for each in seen if "finishReason" in each] == [
            candidate["finishReason"]
        ]
        assert "finishReason" in seen[-1]
    counts: Json = {}
    for chunk in stream.chunks:
        counts |= chunk.get("usageMetadata", {})
    assert counts == stream.answer.get("usageMetadata", {})


@given(gemini_streams(), sse_framings(), st.booleans())
def test_every_framing_says_the_same(stream: GeminiStream, framing: Framing, escaped: bool) -> None:
    decoder = sse.Decoder()
    body = frame(stream.chunks, framing, escaped=escaped)
    payloads = [*decoder.feed(body), *decoder.close()]
    assert [json.loads(payload) for payload in payloads] == stream.chunks
    assert json.loads(stream.whole) == stream.answer


@given(st.binary(max_size=30), st.data())
def test_cuts_are_the_same_bytes(data: bytes, drawn: st.DataObject) -> None:
    assert b"".join(drawn.draw(cuts(data))) == data


def test_framings_are_all_drawn() -> None:
    for framing in FRAMINGS:
        assert find(sse_framings(), framing.__eq__) == framing


def properties() -> list[str]:
    """Return every property of OpenAI's schema of a chat request."""
    if not CHECKER.exists():
        return []
    found: set[str] = set()
    names = ["CreateChatCompletionRequest"]
    while names:
        definition = schemas().bundle["$defs"][names.pop()]
        for branch in definition.get("allOf", [definition]):
            if "$ref" in branch:
                names.append(branch["$ref"].rsplit("/", 1)[1])
            found |= set(branch.get("properties", ()))
    return sorted(found)


ROLES = ("system", "developer", "user", "assistant", "tool", "function")
PARTS = ("text", "image_url", "input_audio", "file", "refusal", "custom", "function")


def test_every_property_role_and_part_of_a_request_is_drawn_sooner_or_later() -> None:
    missing = {f'"role": "{role}"' for role in ROLES} | {f'"type": "{kind}"' for kind in PARTS}
    missing |= {f'"{name}": ' for name in properties()}

    def all_seen(body: Json) -> bool:
        text = json.dumps(body)
        missing.difference_update([each for each in missing if each in text])
        return not missing

    find(chat_requests(), all_seen, settings=hunting)
