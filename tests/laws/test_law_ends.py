"""Law 8: a cut stream, a malformed call, a blocked prompt and an empty answer can be told apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.support import chat_client
from tests.support.driving import Outcome, ask, decoded, streamed, whole

from oaicompat.testing import GeminiStream, gemini_answers, gemini_streams

Json = dict[str, Any]

HEAD: Json = {"responseId": "r", "modelVersion": "m"}
TEXT: Json = {"content": {"parts": [{"text": "part of"}], "role": "model"}, "index": 0}
ENDS: dict[str, list[Json]] = {
    "cut": [{"candidates": [TEXT], **HEAD}],
    "cut before anything": [{"usageMetadata": {"promptTokenCount": 3}, **HEAD}],
    "malformed call": [
        {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "index": 0}], **HEAD}
    ],
    "blocked prompt": [{"promptFeedback": {"blockReason": "SAFETY"}, **HEAD}],
    "blocked on the way": [
        {"candidates": [TEXT], **HEAD},
        {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **HEAD},
    ],
    "unsafe answer": [
        {"candidates": [TEXT], **HEAD},
        {"candidates": [{"finishReason": "SAFETY", "index": 0}], **HEAD},
    ],
    "no candidates": [{**HEAD}],
    "empty answer": [{"candidates": [{"finishReason": "STOP", "index": 0}], **HEAD}],
}
VISIBLE = {
    "cut": "error upstream_incomplete",
    "cut before anything": "error upstream_empty",
    "malformed call": "error malformed_function_call",
    "blocked prompt": "content_filter, a refusal",
    "blocked on the way": "content_filter, a refusal, the text so far",
    "unsafe answer": "content_filter, a refusal, the text so far",
    "no candidates": "error upstream_empty",
    "empty answer": "stop",
}


def seen(sent: Outcome, answer: Json | None) -> str:
    """Say what a client sees."""
    if sent.error is not None:
        return f"error {sent.error[3]}"
    assert answer is not None
    (choice,) = answer["choices"]
    message = choice["message"]
    refused = ", a refusal" if message.get("refusal") else ""
    text = ", the text so far" if message.get("content") else ""
    return f"{choice['finish_reason']}{refused}{text}"


def sse(chunks: list[Json]) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks)


@pytest.mark.parametrize("end", sorted(ENDS))
def test_law_8_each_end_of_a_stream_is_what_it_is(end: str) -> None:
    outcome = streamed(ask(stream=True), [sse(ENDS[end])])
    failure = chat_client.failure(outcome.sent)
    if failure is not None:
        assert f"error {failure['code']}" == VISIBLE[end]
        assert not chat_client.done(outcome.sent)
        assert b'"finish_reason":"' not in outcome.sent
        return
    answer = chat_client.accumulate(outcome.sent) if outcome.error is None else None
    assert seen(outcome, answer) == VISIBLE[end]


@pytest.mark.parametrize("end", [end for end in sorted(ENDS) if len(ENDS[end]) == 1])
def test_law_8_each_end_of_a_whole_answer_is_what_it_is(end: str) -> None:
    outcome = whole(ask(), ENDS[end][0])
    answer = json.loads(outcome.sent) if outcome.error is None else None
    assert seen(outcome, answer) == VISIBLE[end]


def test_law_8_four_ends_are_four_outcomes_and_only_the_empty_answer_stops() -> None:
    four = [VISIBLE[end] for end in ("cut", "malformed call", "blocked prompt", "empty answer")]
    assert len(set(four)) == 4
    assert [each for each in four if "stop" in each] == [VISIBLE["empty answer"]]


@given(gemini_streams(gemini_answers(max_candidates=1, blocked=False)), st.data())
def test_law_8_a_stream_that_lost_its_end_never_ends_well(
    stream: GeminiStream, data: st.DataObject
) -> None:
    last = max(
        number
        for number, chunk in enumerate(stream.chunks)
        if any("finishReason" in candidate for candidate in chunk.get("candidates", ()))
    )
    kept = data.draw(st.integers(0, last))
    outcome = streamed(ask(stream=True), [sse(stream.chunks[:kept])])
    assert not chat_client.done(outcome.sent)
    assert outcome.error is not None or chat_client.failure(outcome.sent) is not None


@given(gemini_streams(gemini_answers(max_candidates=1, blocked=False)), st.data())
def test_law_8_an_error_inside_a_stream_ends_it_badly(
    stream: GeminiStream, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(stream.chunks)))
    error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    framed = data.draw(st.booleans())
    broken = sse([error]) if framed else json.dumps(error, indent=2).encode() + b"\n"
    rest = sse(stream.chunks[at:])
    outcome = streamed(ask(stream=True), [sse(stream.chunks[:at]) + broken + rest])
    failure = chat_client.failure(outcome.sent)
    assert not chat_client.done(outcome.sent)
    assert [each["choices"] for each in decoded(outcome.sent) if _finishes(each)] == []
    code = failure["code"] if failure else outcome.error and outcome.error[3]
    assert code == "server_is_overloaded"


def _finishes(chunk: Json) -> bool:
    return any(choice["finish_reason"] for choice in chunk.get("choices", ()))


@given(gemini_answers(max_candidates=1, blocked=False))
def test_law_8_stop_means_that_the_model_stopped(answer: Json) -> None:
    outcome = whole(ask(), answer)
    assume(outcome.error is None)
    (choice,) = json.loads(outcome.sent)["choices"]
    native = answer["candidates"][0]["finishReason"]
    if choice["finish_reason"] in ("stop", "tool_calls"):
        assert native == "STOP"
    assert choice["native_finish_reason"] == native
