"""A whole answer that is one plain text takes a short way, which changes cost and never the outcome."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.driving import ask, events_of, told

import oaicompat
from oaicompat import OaicompatError, Options
from oaicompat.events import fold
from oaicompat.notes import Notes
from oaicompat.providers.gemini.candidate import Reading
from oaicompat.providers.gemini.response import Decoder
from oaicompat.testing import GeminiStream, gemini_answers, gemini_streams

streams = gemini_streams(gemini_answers(broken=True))

PLAIN: dict[str, Any] = {"parts": [{"text": "Hello."}], "role": "model"}
COUNTS: dict[str, Any] = {
    "promptTokenCount": 7,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 2,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}],
    "trafficType": "ON_DEMAND",
}


def answer(body: bytes, *, fast: bool, candidates: int = 1) -> tuple[object, ...]:
    """Return all there is to know of an exchange that was answered with this body."""
    exchange = oaicompat.Exchange("chat", ask(candidates), created=1, options=Options(fast=fast))
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.receive_head(call, 200, {})
    error = None
    frames: tuple[oaicompat.Frame, ...] = ()
    try:
        frames = exchange.feed(call, body[:40]) + exchange.feed(call, body[40:])
        frames += exchange.close(call)
    except OaicompatError as raised:
        error = told(raised)
    known = exchange.notes, exchange.usage, exchange.finish_reasons, exchange.effects()
    return frames, error, exchange.committed, exchange.call_committed(call), *known


def plain(body: bytes, *, fast: bool = True) -> object:
    decoder = Decoder(Reading(streamed=False, fast=fast), Notes("answer"))
    decoder.feed(body)
    return decoder.plain()


@given(streams)
def test_the_short_way_changes_nothing(stream: GeminiStream) -> None:
    body = stream.whole
    count = stream.candidates
    assert answer(body, fast=True, candidates=count) == answer(body, fast=False, candidates=count)


_TEXTS = (
    rb'"a"',
    rb'"\ud83d\ude00"',
    rb'"\ud800"',
    b'"\xff"',
    b'""',
    b"null",
    b"5",
    '"é😀"'.encode(),
    rb'"\u003c\/\n"',
)
_CITED = {"citations": [{"endIndex": 1, "uri": "https://a.example"}]}
_CALL = {"name": "f", "args": {}}
_OVERLOADED = {"code": 503, "status": "UNAVAILABLE", "message": "no"}
# What may be otherwise: where, the field, its values.
_ODDITIES: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("candidate", "finishReason", (1, None, "MAX_TOKENS", "SAFETY", "NEW")),
    ("candidate", "index", (None, 1, -1, 0.0, False, "0")),
    ("candidate", "finishMessage", ("said", 5)),
    ("candidate", "continuationToken", ("", "c")),
    ("candidate", "citationMetadata", (None, _CITED)),
    ("candidate", "groundingMetadata", (None, {})),
    ("candidate", "urlContextMetadata", (None, {})),
    ("candidate", "logprobsResult", (None, {})),
    ("candidate", "safetyRatings", ([],)),
    ("part", "thought", (None, False, True)),
    ("part", "thoughtSignature", (None, "", "c2ln")),
    ("part", "functionCall", (None, _CALL)),
    ("part", "newField", (None, {})),
    ("body", "usageMetadata", (None, {}, {"promptTokenCount": "seven"})),
    ("body", "promptFeedback", (None, {}, {"blockReason": "SAFETY"})),
    ("body", "responseId", (None, "")),
    ("body", "modelVersion", (None, "gemini-x", 5)),
    ("body", "error", (None, _OVERLOADED)),
)
_ODD = tuple((where, name, value) for where, name, values in _ODDITIES for value in values)


def odd_body(
    odd: Iterable[tuple[str, str, Any]],
    text: bytes = _TEXTS[0],
    parts: int = 1,
    candidates: int = 1,
) -> bytes:
    """Return the body of a plain text, but for what is odd about it."""
    part: dict[str, Any] = {"text": "@"}
    candidate: dict[str, Any] = {"finishReason": "STOP", "index": 0}
    body: dict[str, Any] = {"usageMetadata": COUNTS, "responseId": "r"}
    for where, name, value in odd:
        {"part": part, "candidate": candidate, "body": body}[where][name] = value
    candidate["content"] = {"parts": [part] * parts, "role": "model"}
    body["candidates"] = [candidate] * candidates
    return json.dumps(body).encode().replace(b'"@"', text)


def check(body: bytes, candidates: int = 1) -> None:
    """Compare the short way with the ordinary one."""
    fast = answer(body, fast=True, candidates=candidates)
    assert fast == answer(body, fast=False, candidates=candidates)
    found = plain(body)
    assert found is None or found == fold(events_of([body], streamed=False))


@pytest.mark.parametrize("odd", _ODD, ids=lambda odd: f"{odd[1]}-{odd[2]}")
def test_the_short_way_takes_an_oddity_as_the_ordinary_way_does(odd: tuple[str, str, Any]) -> None:
    check(odd_body([odd]))


@pytest.mark.parametrize("text", _TEXTS)
def test_the_short_way_takes_odd_texts_as_the_ordinary_way_does(text: bytes) -> None:
    check(odd_body([], text))


@pytest.mark.parametrize(("parts", "candidates"), [(0, 1), (2, 1), (1, 0), (1, 2)])
def test_the_short_way_takes_odd_numbers_as_the_ordinary_way_does(
    parts: int, candidates: int
) -> None:
    body = odd_body([], parts=parts, candidates=candidates)
    check(body)
    check(body, 2)
    check(odd_body([]), 2)


@given(
    st.lists(st.sampled_from(_ODD), max_size=3),
    st.sampled_from(_TEXTS),
    st.sampled_from((None, None, None, -1)),
)
def test_the_short_way_takes_odd_bodies_as_the_ordinary_way_does(
    odd: list[tuple[str, str, Any]], text: bytes, end: int | None
) -> None:
    check(odd_body(odd, text)[:end])


@pytest.mark.parametrize("usage", [{}, {"usageMetadata": COUNTS}])
@pytest.mark.parametrize("index", [{}, {"index": 0}])
def test_an_ordinary_answer_takes_the_short_way(
    usage: dict[str, Any], index: dict[str, Any]
) -> None:
    candidate = {"content": PLAIN, "finishReason": "STOP", "avgLogprobs": -0.1, **index}
    body = json.dumps({"candidates": [candidate], "responseId": "r", **usage}).encode()
    assert plain(body) is not None
    assert plain(body, fast=False) is None
