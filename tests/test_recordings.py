"""What the real services sent, through the decoder and the chat encoder, whole and in pieces.

Every accepted recording is converted streamed and not; the output has to be OpenAI's, and every turn of a
model, answered or sent back by a client then, has to survive the way through a chat client.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tests.support import chat_client, grammar
from tests.support.driving import HELLO, Outcome
from tests.support.recordings import Recording, accepted, normal
from tests.support.shared import findings, needs_checker, needs_recordings

import oaicompat
from oaicompat import OaicompatError, Target
from oaicompat.events import Event, Failed
from oaicompat.mapper import sse_bytes
from oaicompat.notes import Notes
from oaicompat.providers.gemini.candidate import Reading
from oaicompat.providers.gemini.response import Decoder

Json = dict[str, Any]

TARGETS = {"gemini": Target(), "vertex": Target("vertex", project="some-project")}
NEWEST = "gemini-3.5-flash"


def over(*chosen: Recording) -> pytest.MarkDecorator:
    """Parametrise over recordings; without any, one test is left, which is skipped."""
    values = [pytest.param(each, id=each.name[:50]) for each in chosen]
    return pytest.mark.parametrize(
        "recording", values or [pytest.param(None, marks=needs_recordings, id="none")]
    )


recordings = over(*accepted())
streams = over(*[each for each in accepted() if each.streamed])
answers = over(*[each for each in accepted() if not each.streamed])

FAILING = {
    "UNEXPECTED_TOOL_CALL": "unexpected_tool_call",
    "MALFORMED_FUNCTION_CALL": "malformed_function_call",
}


def ask(recording: Recording) -> Json:
    several = {"n": recording.candidates} if recording.candidates > 1 else {}
    model = "gemini-2.5-flash" if several else NEWEST
    return {"model": model, "messages": HELLO, **several}


def convert(recording: Recording, request: Json, pieces: list[bytes]) -> Outcome:
    exchange = oaicompat.Exchange("chat", request, created=1)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, TARGETS[recording.backend])
    exchange.receive_head(call, 200, {})
    sent = b""
    try:
        for piece in pieces:
            frames = exchange.feed(call, piece)
            sent += sse_bytes(frames) if exchange.streaming else b""
        frames = exchange.close(call)
    except OaicompatError as error:
        return Outcome(sent, (type(error).__name__, error.message, error.status, error.code))
    return Outcome(sent + (sse_bytes(frames) if exchange.streaming else frames[0].data))


def pieces_of(body: bytes, seed: str) -> list[bytes]:
    source = random.Random(seed)
    pieces = []
    while body:
        size = source.choice((1, 2, 7, 40, 400, 20_000))
        pieces.append(body[:size])
        body = body[size:]
    return pieces


def expected_failure(recording: Recording) -> str | None:
    """Return the code of the error an answer has to become, if it is none."""
    candidates = [each for chunk in recording.chunks for each in chunk.get("candidates") or ()]
    blocked = any(chunk.get("promptFeedback", {}).get("blockReason") for chunk in recording.chunks)
    if not candidates:
        return None if blocked else "upstream_empty"
    reasons = [str(each["finishReason"]) for each in candidates if "finishReason" in each]
    return FAILING.get(reasons[-1]) if reasons else "upstream_incomplete"


@needs_checker
@streams
def test_a_recorded_stream_is_openai_s_stream(recording: Recording) -> None:
    request = {**ask(recording), "stream": True, "stream_options": {"include_usage": True}}
    outcome = convert(recording, request, [recording.body])
    failed = expected_failure(recording)
    if failed is not None:
        failure = chat_client.failure(outcome.sent) or {}
        assert failed in (failure.get("code"), outcome.error and outcome.error[3])
    else:
        assert outcome.error is None
        assert chat_client.done(outcome.sent)
    if outcome.sent:
        assert findings("chat-stream", outcome.sent, request) == []


@needs_checker
@answers
def test_a_recorded_answer_is_openai_s_body(recording: Recording) -> None:
    request = ask(recording)
    outcome = convert(recording, request, [recording.body])
    assert (outcome.error and outcome.error[3]) == expected_failure(recording)
    if outcome.error is None:
        assert findings("chat", outcome.sent, request) == []


@streams
def test_a_recorded_stream_may_be_cut_anywhere(recording: Recording) -> None:
    request = {**ask(recording), "stream": True}
    once = convert(recording, request, [recording.body])
    assert convert(recording, request, pieces_of(recording.body, recording.name)) == once


@streams
def test_a_recorded_stream_folds_to_the_answer(recording: Recording) -> None:
    if expected_failure(recording) is not None:
        return
    request = ask(recording)
    flowing = convert(
        recording,
        {**request, "stream": True, "stream_options": {"include_usage": True}},
        [recording.body],
    )
    merged = json.dumps(_merged(recording.chunks)).encode()
    body = json.loads(convert(recording, request, [merged]).sent)
    body.pop("service_tier", None)
    added = chat_client.normal(chat_client.accumulate(flowing.sent))
    assert added == chat_client.normal(body)


def _merged(chunks: list[Json]) -> Json:
    """Write the chunks of one answer as one answer."""
    whole: Json = {}
    candidates: dict[int, Json] = {}
    for chunk in chunks:
        whole |= {
            key: chunk[key]
            for key in ("responseId", "modelVersion", "promptFeedback")
            if key in chunk
        }
        whole["usageMetadata"] = whole.get("usageMetadata", {}) | chunk.get("usageMetadata", {})
        for position, candidate in enumerate(chunk.get("candidates") or ()):
            index = candidate.get("index", position)
            kept = candidates.setdefault(index, {"index": index, "content": {"parts": []}})
            content = candidate.get("content") or {}
            kept["content"]["parts"] += content.get("parts") or []
            for key in ("finishReason", "finishMessage", "citationMetadata", "urlContextMetadata"):
                if key in candidate:
                    kept[key] = candidate[key]
            _merge_grounding(kept, candidate.get("groundingMetadata") or {})
    if candidates:
        whole["candidates"] = [candidates[index] for index in sorted(candidates)]
    return whole


def _merge_grounding(kept: Json, found: Json) -> None:
    grounding = kept.setdefault("groundingMetadata", {})
    for key in ("webSearchQueries", "groundingChunks", "groundingSupports"):
        if key in found:
            grounding[key] = grounding.get(key, []) + found[key]


@recordings
def test_the_events_of_a_recorded_answer_follow_their_grammar(recording: Recording) -> None:
    reading = Reading(streamed=recording.streamed, candidates=recording.candidates)
    decoder = Decoder(reading, Notes("answer"))
    events: list[Event] = decoder.feed(recording.body) + decoder.close()
    grammar.check(events)
    assert isinstance(events[-1], Failed) == (expected_failure(recording) is not None)


def through_a_client(parts: list[Json], backend: str) -> list[Json]:
    """Send a turn as an answer to a client that keeps everything; return it as it comes back."""
    candidate = {"content": {"parts": parts}, "finishReason": "STOP"}
    request = {"model": NEWEST, "messages": HELLO}
    call = oaicompat.openai_to_gemini(request, target=TARGETS[backend])
    answer = oaicompat.gemini_to_openai({"candidates": [candidate], "responseId": "r"}, call)
    message = chat_client.message_of(answer)
    results = [
        {"role": "tool", "tool_call_id": each["id"], "content": "done"}
        for each in message.get("tool_calls", ())
    ]
    messages = [*HELLO, message, *results, {"role": "user", "content": "go on"}]
    again = oaicompat.openai_to_gemini(
        {"model": NEWEST, "messages": messages}, target=TARGETS[backend]
    )
    turns = [each["parts"] for each in again.body["contents"] if each["role"] == "model"]
    assert len(turns) == 1
    return list(turns[0])


def turns_of(recording: Recording) -> list[list[Json]]:
    """Return every turn of a model in a recording, in normal form: sent back then, or answered."""
    contents = recording.request.get("contents") or []
    contents = contents if isinstance(contents, list) else [contents]
    turns = [each.get("parts") or [] for each in contents if each.get("role") == "model"]
    candidates = _merged(recording.chunks).get("candidates") or []
    turns += [candidate["content"]["parts"] for candidate in candidates]
    listed = [turn if isinstance(turn, list) else [turn] for turn in turns]
    return [turn for turn in map(normal, listed) if turn]


@recordings
def test_recorded_turns_survive_a_chat_client(recording: Recording) -> None:
    for turn in turns_of(recording):
        once = normal(through_a_client(turn, recording.backend))
        if not in_pieces(turn):
            assert once == turn
        assert normal(through_a_client(once, recording.backend)) == once


def in_pieces(turn: list[Json]) -> bool:
    """Tell whether arguments came in pieces, which go back as a whole."""
    return any({"willContinue", "partialArgs"} & set(part.get("functionCall", ())) for part in turn)
