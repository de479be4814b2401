"""What the real services sent, through the Responses encoder, whole and in pieces."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tests.support import responses_client as client
from tests.support.driving import Outcome, told
from tests.support.recordings import Recording, accepted, normal
from tests.support.shared import needs_checker, needs_recordings

import oaicompat
from oaicompat import OaicompatError, Target
from oaicompat.mapper import sse_bytes

Json = dict[str, Any]

TARGETS = {"gemini": Target(), "vertex": Target("vertex", project="some-project")}
NEWEST = "gemini-3.5-flash"
REQUEST = client.ask(
    model=NEWEST, include=["code_interpreter_call.outputs", "web_search_call.action.sources"]
)

_found = [pytest.param(each, id=each.name[:50]) for each in accepted() if each.candidates == 1]
recordings = pytest.mark.parametrize(
    "recording", _found or [pytest.param(None, marks=needs_recordings, id="none")]
)


def convert(recording: Recording, pieces: list[bytes]) -> Outcome:
    exchange = oaicompat.Exchange("responses", REQUEST, created=1, streaming=recording.streamed)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, TARGETS[recording.backend])
    sent = b""
    try:
        for piece in pieces:
            sent += sse_bytes(exchange.feed(call, piece))
        frames = exchange.close(call)
    except OaicompatError as error:
        return Outcome(sent, told(error))
    return Outcome(sent + (sse_bytes(frames) if recording.streamed else frames[0].data))


@needs_checker
@recordings
def test_a_recorded_answer_is_one_openai_would_send(recording: Recording) -> None:
    outcome = convert(recording, [recording.body])
    if not outcome.sent:
        assert outcome.error is not None
        return
    kind = "response-stream" if recording.streamed else "response"
    assert client.findings(kind, outcome.sent, REQUEST, sdk=False) == []


@recordings
def test_a_recorded_stream_may_be_cut_anywhere(recording: Recording) -> None:
    source, body, pieces = random.Random(recording.name), recording.body, []
    while body:
        size = source.choice((1, 2, 7, 40, 400, 20_000))
        pieces.append(body[:size])
        body = body[size:]
    assert convert(recording, pieces) == convert(recording, [recording.body])


@recordings
def test_a_recorded_answer_survives_a_responses_client(recording: Recording) -> None:
    outcome = convert(recording, [recording.body])
    if outcome.error is not None:
        return
    answer = client.last(outcome.sent) if recording.streamed else json.loads(outcome.sent)
    output = [item for item in answer["output"] if not _refuses(item)]
    parts = [
        part
        for chunk in recording.chunks
        for candidate in chunk.get("candidates") or ()
        for part in (candidate.get("content") or {}).get("parts") or ()
    ]
    if answer["status"] == "failed" or not output or _in_pieces(parts):
        return
    request = client.follow_up(output, model=NEWEST)
    target = TARGETS[recording.backend]
    body = oaicompat.openai_to_gemini(request, dialect="responses", target=target).body
    turns = [turn["parts"] for turn in body["contents"] if turn["role"] == "model"]
    assert [normal(turn) for turn in turns] == ([normal(parts)] if normal(parts) else [])


def _refuses(item: Json) -> bool:
    return any(part["type"] == "refusal" for part in item.get("content") or ())


def _in_pieces(parts: list[Json]) -> bool:
    """Tell whether arguments came in pieces, which go back as a whole."""
    return any(
        {"willContinue", "partialArgs"} & set(part.get("functionCall", ())) for part in parts
    )
