"""Responses that were broken off: what is kept of them, and how their events end."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.driving import MODEL
from tests.support.responses_client import ask, events, findings
from tests.support.shared import needs_checker

import oaicompat
from oaicompat import OaicompatError, Options
from oaicompat.dialects.responses.broken import broken_off, cancelled, error_frame
from oaicompat.events import Frame
from oaicompat.mapper import sse_bytes
from oaicompat.supplies import KeepResponse

ERROR = OaicompatError("The response was interrupted.", status=500, code="interrupted")
ANSWER = [
    {"text": "thinking", "thought": True},
    {"text": "some text"},
    {"functionCall": {"name": "f", "args": {"x": 1.5}}},
]


def made() -> tuple[bytes, list[Frame]]:
    """Return the body of a response as it began, and all frames it would have had."""
    exchange = oaicompat.Exchange(
        "responses",
        ask(background=True, stream=True),
        created=1,
        new_id=lambda: "x",
        options=Options(keep="stored"),
    )
    frames = list(exchange.announce())
    (kept,) = (each for each in exchange.effects() if isinstance(each, KeepResponse))
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    for part in ANSWER:
        chunk: dict[str, Any] = {"candidates": [{"content": {"role": "model", "parts": [part]}}]}
        if part is ANSWER[-1]:
            chunk["candidates"][0]["finishReason"] = "STOP"
            chunk["modelVersion"] = MODEL
        frames += exchange.feed(call, b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n")
    frames += [*exchange.close(call), *exchange.conclude()]
    return kept.body, frames


BODY, FRAMES = made()


def test_there_is_something_to_break_off() -> None:
    names = [frame.name for frame in FRAMES]
    assert names[0] == "response.created"
    assert names[-2:] == ["response.completed", ""]
    assert names.count("response.output_item.done") == 3


@needs_checker
@given(st.integers(1, len(FRAMES) - 2))
def test_what_is_broken_off_anywhere_is_a_valid_failure(count: int) -> None:
    begun = FRAMES[:count]
    broken = broken_off(BODY, begun, ERROR)
    raw = sse_bytes([*begun, *broken.frames])
    assert not [str(each) for each in findings("response-stream", raw)]
    told = events(raw)
    assert [each["sequence_number"] for each in told] == list(range(count + 2))
    assert told[-1]["response"] == json.loads(broken.body)
    done = [each["item"] for each in told if each["type"] == "response.output_item.done"]
    assert json.loads(broken.body)["output"] == done
    assert [json.loads(item.body) for item in broken.output] == done
    assert [item.id for item in broken.output] == [item["id"] for item in done]


def test_the_reason_is_told() -> None:
    broken = broken_off(BODY, FRAMES[:1], ERROR)
    response = json.loads(broken.body)
    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert json.loads(broken.frames[0].data)["error"]["code"] == "interrupted"
    assert broken.frames[-1] == Frame(b"[DONE]")
    ended = json.loads(cancelled(broken.body))
    assert (ended["status"], ended["error"]) == ("cancelled", None)


def test_a_response_without_frames_can_be_broken_off() -> None:
    broken = broken_off(b'{"id": "resp_x"}', (), ERROR)
    assert [frame.sequence for frame in broken.frames] == [0, 1, -1]


def test_an_error_has_both_forms() -> None:
    frame = error_frame(ERROR, 7)
    data = json.loads(frame.data)
    assert (frame.name, frame.sequence, data["type"], data["sequence_number"]) == (
        "error", 7, "error", 7,
    )  # fmt: skip
    assert data["message"] == data["error"]["message"] == ERROR.message
