"""Law 3: what the model said comes back to it as it said it, through a client that keeps its message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import chat_client
from tests.support.driving import ask, follow_up, streamed, whole

import oaicompat
from oaicompat import Target
from oaicompat.testing import GeminiStream, gemini_streams, gemini_turns

Json = dict[str, Any]

NEWEST = "gemini-3.5-flash"
SENTINEL = "skip_thought_signature_validator"
VERTEX = Target("vertex", project="some-project")

turns = gemini_turns()


def answer_with(parts: list[Json], **more: Any) -> Json:
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    return {"candidates": [candidate], "responseId": "resp-1", **more}


def kept(parts: list[Json]) -> Json:
    """Return the message a client keeps of an unstreamed answer."""
    outcome = whole(ask(model=NEWEST), answer_with(parts))
    assert outcome.error is None, outcome.error
    return chat_client.message_of(json.loads(outcome.sent))


def model_turn(body: Json) -> list[Json]:
    """Return the parts of the model's one turn in a request body."""
    (turn,) = [content for content in body["contents"] if content["role"] == "model"]
    parts: list[Json] = turn["parts"]
    return parts


def returned(message: Json, **more: Any) -> list[Json]:
    request = follow_up(message, model=NEWEST)
    return model_turn(oaicompat.openai_to_gemini(request, **more).body)


@given(turns)
def test_law_3_a_turn_comes_back_whole(parts: list[Json]) -> None:
    assert returned(kept(parts)) == parts


@given(gemini_streams(turns.map(answer_with)))
def test_law_3_a_streamed_turn_comes_back_whole(stream: GeminiStream) -> None:
    outcome = streamed(ask(model=NEWEST, stream=True), [stream.body])
    message = chat_client.message_of(chat_client.accumulate(outcome.sent))
    parts = stream.answer["candidates"][0]["content"]["parts"]
    assert returned(message) == parts


@given(turns, st.data())
def test_law_3_a_turn_made_of_several_answers_keeps_their_order(
    parts: list[Json], data: st.DataObject
) -> None:
    again = data.draw(turns)
    calls = [part for part in parts if "functionCall" in part]
    message = kept(parts)
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "done"}
        for call in message.get("tool_calls", ())
    ]
    go_on = {"role": "user", "content": "go on"}
    request = follow_up(kept(again), model=NEWEST)
    request["messages"][1:1] = [message, *results, go_on]
    contents = oaicompat.openai_to_gemini(request).body["contents"]
    models = [content["parts"] for content in contents if content["role"] == "model"]
    assert models == [parts, again]
    answers = contents[2]["parts"]
    assert [part["functionResponse"]["name"] for part in answers if "functionResponse" in part] == [
        call["functionCall"]["name"] for call in calls
    ]


@given(turns, st.data())
def test_law_3_results_in_any_order_go_to_their_calls_and_native_ids_are_echoed(
    parts: list[Json], data: st.DataObject
) -> None:
    message = kept(parts)
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"result {position}"}
        for position, call in enumerate(message.get("tool_calls", ()))
    ]
    results = data.draw(st.permutations(results))
    request = follow_up(message, model=NEWEST, results=results)
    contents = oaicompat.openai_to_gemini(request).body["contents"]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    responses = [
        part["functionResponse"] for part in contents[2]["parts"] if "functionResponse" in part
    ]
    assert [each.get("id") for each in responses] == [each.get("id") for each in calls]
    assert [each["response"] for each in responses] == [
        {"output": f"result {position}"} for position in range(len(calls))
    ]


@given(turns)
def test_law_3_without_unknown_fields_calls_pair_and_the_sentinel_stands_in(
    parts: list[Json],
) -> None:
    message = chat_client.strict_message(json.loads(whole(ask(), answer_with(parts)).sent))
    calls = message.get("tool_calls", ())
    request = follow_up(message, model=NEWEST)
    del request["messages"][-1]
    if not calls:
        return
    body = oaicompat.openai_to_gemini(request).body
    sent = [part for part in model_turn(body) if "functionCall" in part]
    given_calls = [part["functionCall"] for part in parts if "functionCall" in part]
    assert [part["functionCall"] for part in sent] == given_calls
    assert [part.get("thoughtSignature") for part in sent] == [SENTINEL] + [None] * (len(sent) - 1)
    assert "thoughtSignature" not in str(body["contents"][2:])
    assert len(body["contents"][2]["parts"]) == len(calls)


@given(turns)
def test_law_3_a_client_that_drops_the_thoughts_keeps_the_rest(parts: list[Json]) -> None:
    message = kept(parts)
    message.pop("reasoning_content", None)
    shown = [part for part in parts if not (part.get("thought") and part.get("text"))]
    if not shown:
        return
    assert returned(message) == shown


@given(turns)
def test_law_3_signatures_do_not_travel_to_the_other_backend(parts: list[Json]) -> None:
    body = oaicompat.openai_to_gemini(follow_up(kept(parts), model=NEWEST), target=VERTEX).body
    assert "sig" not in {
        part.get("thoughtSignature") for content in body["contents"] for part in content["parts"]
    }
    made_here = {part["thoughtSignature"] for part in parts if "thoughtSignature" in part}
    for content in body["contents"]:
        for part in content["parts"]:
            assert part.get("thoughtSignature") not in made_here


@given(turns, st.booleans())
def test_law_3_a_client_that_changed_the_text_is_believed(parts: list[Json], longer: bool) -> None:
    message = kept(parts)
    content = message["content"]
    if not content:
        return
    message["content"] = "changed: " + content if longer else chr(ord(content[0]) ^ 1) + content[1:]
    call = oaicompat.openai_to_gemini(follow_up(message, model=NEWEST))
    texts = [part["text"] for part in model_turn(call.body) if "text" in part]
    assert "".join(texts) == message["content"]
    if "extra_content" in message:
        assert any("carrier is ignored" in note.reason for note in call.notes)


@pytest.mark.parametrize("place", ["first", "last"])
def test_law_3_a_signature_goes_back_once(place: str) -> None:
    call: Json = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2ln"}
    text: Json = {"text": "so"}
    parts = [call, text] if place == "first" else [text, call]
    body = oaicompat.openai_to_gemini(follow_up(kept(parts), model=NEWEST)).body
    assert str(body).count("c2ln") == 1
