"""Law 5: whatever comes in, only our own errors come out."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import grammar
from tests.support.driving import ask, events_of, exchanged, streamed, whole

import oaicompat
from oaicompat import OaicompatError
from oaicompat.dialects import chat
from oaicompat.events import Failed
from oaicompat.notes import Notes
from oaicompat.providers.gemini.answer_schema import AnswerPart, Candidate, UsageMetadata
from oaicompat.testing import GeminiStream, chat_requests, gemini_streams

Json = dict[str, Any]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(("", "\ud800", "[undefined]", "a" * 300, "9" * 5000, "$.a[0]", "data:,")),
)
odd = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def fields_of(*structs: type[msgspec.Struct]) -> list[str]:
    return sorted(
        {each.encode_name for struct in structs for each in msgspec.structs.fields(struct)}
    )


ANSWER_FIELDS = [
    *fields_of(AnswerPart, Candidate, UsageMetadata),
    *("candidates", "parts", "name", "args", "id", "partialArgs", "jsonPath", "stringValue"),
    *("numberValue", "willContinue", "mimeType", "data", "code", "output", "promptFeedback"),
    *("blockReason", "usageMetadata", "groundingChunks", "groundingSupports", "segment", "web"),
    *("startIndex", "endIndex", "partIndex", "text", "uri", "groundingChunkIndices", "error"),
    *("chosenCandidates", "topCandidates", "token", "logProbability", "citationSources"),
]
answer_like = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(ANSWER_FIELDS), inner, max_size=4),
    ),
    max_leaves=14,
)


@st.composite
def mutated(draw: st.DrawFn, value: Any, replacements: st.SearchStrategy[Any]) -> Any:
    """Draw a value with one place in it replaced, dropped or doubled."""
    places = list(_places(value, ()))
    path = draw(st.sampled_from(places))
    copy = json.loads(json.dumps(value))
    if not path:
        return draw(replacements)
    *steps, last = path
    at = copy
    for step in steps:
        at = at[step]
    match draw(st.sampled_from(("replace", "drop", "double"))):
        case "replace":
            at[last] = draw(replacements)
        case "drop":
            del at[last]
        case _ if isinstance(at, list):
            at.append(at[last])
        case _:
            at[draw(st.sampled_from(ANSWER_FIELDS))] = at[last]
    return copy


def _places(value: Any, path: tuple[Any, ...]) -> Any:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*path, index))


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Draw bytes with a stretch of them replaced."""
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 20)))
    return data[:start] + draw(st.binary(max_size=4)) + data[end:]


def read_answer(body: bytes, *, candidates: int = 1) -> None:
    """Take bytes as an answer in every way there is."""
    for flag in (True, False):
        events = events_of([body], streamed=flag, candidates=candidates)
        grammar.check(events)
        for event in events:
            if isinstance(event, Failed):
                assert isinstance(event.error, OaicompatError)
    streamed(ask(candidates, stream=True), [body])
    exchanged(ask(candidates, stream=True), [body[:7], body[7:]])
    whole(ask(candidates), body)


def read_request(body: bytes) -> None:
    with suppress(OaicompatError):
        chat.decode_request(body, Notes())
    with suppress(OaicompatError):
        oaicompat.openai_to_gemini(body)


@given(st.binary(max_size=60))
def test_law_5_any_bytes_as_a_request(body: bytes) -> None:
    read_request(body)


@given(odd)
def test_law_5_any_json_as_a_request(value: Any) -> None:
    read_request(dumped(value))


@given(chat_requests(), st.data())
def test_law_5_a_request_with_one_odd_value(request: Json, data: st.DataObject) -> None:
    read_request(dumped(data.draw(mutated(request, odd))))


@given(chat_requests(), st.data())
def test_law_5_a_request_with_damaged_bytes(request: Json, data: st.DataObject) -> None:
    read_request(data.draw(damaged(json.dumps(request, ensure_ascii=False).encode())))


@given(st.binary(max_size=60), st.booleans())
def test_law_5_any_bytes_as_an_answer(body: bytes, framed: bool) -> None:
    read_answer(b"data: " + body + b"\r\n\r\n" if framed else body)


@given(answer_like, st.booleans())
def test_law_5_any_json_as_an_answer(value: Any, framed: bool) -> None:
    body = dumped({"candidates": [value]} if framed else value)
    read_answer(body)
    read_answer(b"data: " + body + b"\n\n")


@given(gemini_streams(), st.data())
def test_law_5_an_answer_with_one_odd_value(stream: GeminiStream, data: st.DataObject) -> None:
    chunks = data.draw(mutated(stream.chunks, st.one_of(odd, answer_like)))
    body = b"".join(
        b"data: " + dumped(chunk) + b"\n\n"
        for chunk in (chunks if isinstance(chunks, list) else ())
    )
    read_answer(body, candidates=stream.candidates)
    read_answer(dumped(data.draw(mutated(stream.answer, answer_like))))


@given(gemini_streams(), st.data())
def test_law_5_an_answer_with_damaged_bytes(stream: GeminiStream, data: st.DataObject) -> None:
    read_answer(data.draw(damaged(stream.body)), candidates=stream.candidates)


def candidate(*parts: Json, **more: Any) -> Json:
    return {"candidates": [{"content": {"parts": list(parts)}, "finishReason": "STOP", **more}]}


@pytest.mark.parametrize(
    "answer",
    [
        candidate({"text": "x"}, index=-1),
        candidate({"text": "x"}, index=10**9),
        candidate({"text": "x"}, index=10**30),
        candidate({"inlineData": {"mimeType": "audio/L16", "data": "A"}}),
        candidate(*[{"inlineData": {"mimeType": "audio/L16", "data": "é="}}] * 2),
        candidate({"inlineData": {"mimeType": "audio/x-pcm", "data": "AAAA"}}),
        candidate(
            {
                "functionCall": {
                    "name": "f",
                    "partialArgs": [{"jsonPath": "$.a[" + "9" * 5000 + "]"}],
                }
            }
        ),
        candidate(
            {"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "$" + ".a" * 3000}]}}
        ),
        candidate(
            {"text": "x"}, logprobsResult={"chosenCandidates": [{"logProbability": "-Infinity"}]}
        ),
        candidate(
            {"text": "x"}, groundingMetadata={"groundingSupports": [{"segment": {"partIndex": -3}}]}
        ),
        {"candidates": [], "usageMetadata": 5},
        candidate({"toolCall": {"a": "\ud800"}}),
    ],
)
def test_law_5_answers_that_once_escaped(answer: Json) -> None:
    read_answer(dumped(answer))
    read_answer(b"data: " + dumped(answer) + b"\n\n")


def test_law_5_invalid_utf8_in_data_that_is_only_copied_does_not_reach_the_client() -> None:
    body = (
        b'{"candidates":[{"content":{"parts":[{"toolCall":{"a":"\xff"}}]},"finishReason":"STOP"}]}'
    )
    outcome = streamed(ask(stream=True), [b"data: " + body + b"\n\n"])
    assert outcome.error is not None
    outcome.sent.decode()


@given(odd)
def test_law_5_any_json_as_a_carrier(value: Any) -> None:
    message = {"role": "assistant", "content": "x", "extra_content": {"google": value}}
    again = {"role": "user", "content": "y"}
    read_request(dumped({"model": "m", "messages": [again, message, again]}))
