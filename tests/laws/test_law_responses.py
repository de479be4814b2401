"""The laws of answers and round trips, for the Responses dialect."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support import responses_client as client
from tests.support import responses_grammar
from tests.support.responses_turns import TOOLS, turns_with_tools
from tests.support.shared import needs_checker

import oaicompat
from oaicompat import Options, Target
from oaicompat.testing import (
    FRAMINGS,
    GeminiStream,
    cuts,
    frame,
    gemini_answers,
    gemini_streams,
    gemini_turns,
)

Json = dict[str, Any]

NEWEST = "gemini-3.5-flash"
SENTINEL = "skip_thought_signature_validator"
VERTEX = Target("vertex", project="some-project")
INCLUDE = ["web_search_call.action.sources", "code_interpreter_call.outputs"]
ALL = client.ask(include=[*INCLUDE, "message.output_text.logprobs"])

streams = gemini_streams(gemini_answers(max_candidates=1, broken=True))
turns = gemini_turns()


@given(streams, st.data())
def test_law_1_any_cut_of_the_stream_gives_the_same_bytes(
    stream: GeminiStream, data: st.DataObject
) -> None:
    assert client.streamed(ALL, data.draw(cuts(stream.body))) == client.streamed(ALL, [stream.body])


@given(streams)
def test_law_1_any_framing_of_the_stream_gives_the_same_bytes(stream: GeminiStream) -> None:
    first, *others = [client.streamed(ALL, [frame(stream.chunks, framing)]) for framing in FRAMINGS]
    assert all(other == first for other in others)


@given(streams)
def test_law_2_the_last_object_of_a_stream_is_the_whole_answer(stream: GeminiStream) -> None:
    sent = client.streamed(ALL, [stream.body])
    body = client.whole(ALL, stream.whole)
    if body.error is not None:
        said = sent.error[1] if sent.error else client.last(sent.sent)["error"]["message"]
        assert said == body.error[1]
        return
    assert client.last(sent.sent) == json.loads(body.sent)


@given(streams, st.data())
def test_the_fast_lane_changes_nothing(stream: GeminiStream, data: st.DataObject) -> None:
    pieces = data.draw(cuts(stream.body))
    fast = client.streamed(ALL, pieces)
    slow = client.streamed(ALL, pieces, Options(fast=False))
    assert client.events(fast.sent) == client.events(slow.sent)
    assert fast.error == slow.error


@needs_checker
@given(streams, st.booleans())
def test_laws_6_and_7_a_stream_is_one_openai_would_send(stream: GeminiStream, all_: bool) -> None:
    request = ALL if all_ else client.ask()
    outcome = client.streamed(request, [stream.body])
    if outcome.sent:
        assert client.findings("response-stream", outcome.sent, request, sdk=False) == []


@needs_checker
@given(streams)
def test_law_6_a_body_is_one_openai_would_send(stream: GeminiStream) -> None:
    outcome = client.whole(ALL, stream.whole)
    if outcome.error is None:
        assert client.findings("response", outcome.sent, ALL, sdk=False) == []


@given(streams, st.data())
def test_law_8_a_stream_that_lost_its_end_never_completes(
    stream: GeminiStream, data: st.DataObject
) -> None:
    last = max(
        (
            number
            for number, chunk in enumerate(stream.chunks)
            if any("finishReason" in each for each in chunk.get("candidates", ()))
        ),
        default=0,
    )
    kept = stream.chunks[: data.draw(st.integers(0, last))]
    outcome = client.streamed(ALL, [frame(kept, "crlf")])
    if outcome.error is None:
        told = client.events(outcome.sent)
        assert [event["type"] for event in told[-2:]] == ["error", "response.failed"]
        assert told[-2]["code"] == told[-2]["error"]["code"] == "upstream_incomplete"
        assert told[-1]["response"]["error"]["code"] == "server_error"


def answer_with(parts: list[Json]) -> Json:
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    return {"candidates": [candidate], "responseId": "resp-1"}


def kept(parts: list[Json]) -> list[Json]:
    """Return the items of an answer that is not streamed."""
    outcome = client.whole(client.ask(model=NEWEST), answer_with(parts))
    assert outcome.error is None, outcome.error
    items: list[Json] = json.loads(outcome.sent)["output"]
    return items


def model_turn(body: Json) -> list[Json]:
    (turn,) = [content for content in body["contents"] if content["role"] == "model"]
    parts: list[Json] = turn["parts"]
    return parts


def returned(output: list[Json], **more: Any) -> list[Json]:
    request = client.follow_up(output, model=NEWEST)
    return model_turn(oaicompat.openai_to_gemini(request, dialect="responses", **more).body)


@given(turns)
def test_law_3_a_turn_comes_back_whole(parts: list[Json]) -> None:
    assert returned(kept(parts)) == parts


@given(gemini_streams(turns.map(answer_with)))
def test_law_3_a_streamed_turn_comes_back_whole(stream: GeminiStream) -> None:
    outcome = client.streamed(client.ask(model=NEWEST), [stream.body])
    done = [
        event["item"]
        for event in client.events(outcome.sent)
        if event["type"] == "response.output_item.done"
    ]
    assert returned(done) == stream.answer["candidates"][0]["content"]["parts"]


@given(turns)
def test_law_3_a_client_may_leave_out_ids_and_states(parts: list[Json]) -> None:
    bare = [
        {key: value for key, value in item.items() if key not in ("id", "status")}
        | ({"content": None} if item["type"] == "reasoning" else {})
        for item in kept(parts)
    ]
    assert returned(bare) == parts


@given(turns)
def test_law_3_without_reasoning_items_calls_pair_and_the_sentinel_stands_in(
    parts: list[Json],
) -> None:
    output = [item for item in kept(parts) if item["type"] != "reasoning"]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    if not calls:
        return
    request = client.follow_up(output, model=NEWEST)
    del request["input"][-1]
    body = oaicompat.openai_to_gemini(request, dialect="responses").body
    sent = [part for part in model_turn(body) if "functionCall" in part]
    assert [part["functionCall"] for part in sent] == calls
    assert [part.get("thoughtSignature") for part in sent] == [SENTINEL] + [None] * (len(sent) - 1)
    assert len(body["contents"][2]["parts"]) == len(calls)


@given(turns)
def test_law_3_signatures_do_not_travel_to_the_other_backend(parts: list[Json]) -> None:
    request = client.follow_up(kept(parts), model=NEWEST)
    body = oaicompat.openai_to_gemini(request, dialect="responses", target=VERTEX).body
    made_here = {part["thoughtSignature"] for part in parts if "thoughtSignature" in part}
    for content in body["contents"]:
        for part in content["parts"]:
            assert part.get("thoughtSignature") not in made_here


@given(turns, st.data())
def test_law_3_damaged_content_is_ignored_with_a_note(
    parts: list[Json], data: st.DataObject
) -> None:
    output = kept(parts)
    sealed = [item for item in output if "encrypted_content" in item]
    if not sealed:
        return
    item = data.draw(st.sampled_from(sealed))
    text = item["encrypted_content"]
    at = data.draw(st.integers(0, len(text) - 1))
    item["encrypted_content"] = text[:at] + data.draw(st.sampled_from("Aé.=")) + text[at + 1 :]
    if item["encrypted_content"].rstrip("=") == text.rstrip("="):
        return
    call = oaicompat.openai_to_gemini(client.follow_up(output, model=NEWEST), dialect="responses")
    paths = [note.path for note in call.notes]
    assert f"input[{1 + output.index(item)}].encrypted_content" in paths


@given(turns)
def test_law_3_a_client_that_changed_the_text_is_believed(parts: list[Json]) -> None:
    output = kept(parts)
    messages = [item for item in output if item["type"] == "message"]
    if not messages:
        return
    messages[0]["content"][0]["text"] = "changed: " + messages[0]["content"][0]["text"]
    texts = "".join(
        part["text"] for part in returned(output) if not part.get("thought") and "text" in part
    )
    assert texts == "".join(item["content"][0]["text"] for item in messages)


@given(turns_with_tools())
def test_law_3_calls_in_every_form_come_back_as_they_were(parts: list[Json]) -> None:
    sent = json.loads(client.whole(client.ask(model=NEWEST, tools=TOOLS), answer_with(parts)).sent)
    body = client.follow_up(sent["output"], model=NEWEST, tools=TOOLS)
    assert model_turn(oaicompat.openai_to_gemini(body, dialect="responses").body) == parts


@given(turns_with_tools(), st.data())
def test_law_3_turns_keep_their_order_and_results_go_to_their_calls(
    parts: list[Json], data: st.DataObject
) -> None:
    again = data.draw(turns)
    first = json.loads(client.whole(client.ask(model=NEWEST, tools=TOOLS), answer_with(parts)).sent)
    results = data.draw(st.permutations(client.outputs(first["output"])))
    request = client.follow_up(kept(again), model=NEWEST, tools=TOOLS)
    go_on = {"role": "user", "content": "go on"}
    request["input"][1:1] = [*first["output"], *results, go_on]
    contents = oaicompat.openai_to_gemini(request, dialect="responses").body["contents"]
    assert [each["parts"] for each in contents if each["role"] == "model"] == [parts, again]
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    answers = [
        part["functionResponse"] for part in contents[2]["parts"] if "functionResponse" in part
    ]
    assert [(each["name"], each.get("id")) for each in answers] == [
        (call["name"], call.get("id")) for call in calls
    ]


@given(streams)
def test_law_7_a_client_that_adds_up_the_events_has_the_whole_answer(stream: GeminiStream) -> None:
    sent = client.streamed(ALL, [stream.body])
    if sent.error is None:
        grown, last = responses_grammar.check(client.events(sent.sent))
        assert grown == last["output"]


@needs_checker
@given(streams)
def test_law_6_the_sdk_reads_a_stream_and_a_body(stream: GeminiStream) -> None:
    sent = client.streamed(ALL, [stream.body])
    body = client.whole(ALL, stream.whole)
    found: list[Any] = []
    if sent.sent:
        found += client.findings("response-stream", sent.sent, ALL)
    if body.error is None:
        found += client.findings("response", body.sent, ALL)
    assert [each for each in found if not each[3].startswith("response/error/code:")] == []
