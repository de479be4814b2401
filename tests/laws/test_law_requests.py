"""Laws 4, 9 and 10: nothing a client asks for vanishes, its data stays as it is, and nothing is invented."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.driving import HELLO, ask, whole
from tests.support.shared import findings, needs_checker

import oaicompat
from oaicompat import Exchange, InvalidRequestError, MappedCall, Note, UnsupportedFeatureError
from oaicompat.testing import chat_requests, gemini_answers
from oaicompat.testing.values import json_objects

Json = dict[str, Any]
Path = tuple[str | int, ...]

ELSEWHERE = {
    "stream_options.include_usage": "it shapes the answer",
    "audio.format": "it shapes the answer",
    "response_format.json_schema.name": "OpenAI demands it, and nothing shows it",
}
"""Fields that are heeded without a trace in the upstream's body."""

WORDS = {
    "type": "a tag that other fields tell as well",
    "strict": "one mode holds for all tools, and a forced call keeps to its schema anyway",
}
"""Names of fields whose value may change without effect."""

PART_OF = {"top_logprobs": "logprobs"}
"""Fields that go with another, whose note speaks for both."""

DEFAULTS: dict[str, Any] = {
    "n": 1,
    "stream": False,
    "logprobs": False,
    "parallel_tool_calls": True,
    "service_tier": "auto",
    "response_format": {"type": "text"},
    "metadata": {},
}
"""Values that ask for what happens anyway."""


@given(chat_requests())
def test_every_generated_request_is_served(request_body: Json) -> None:
    call = oaicompat.openai_to_gemini(request_body)
    assert call.bodies


@needs_checker
@given(chat_requests())
def test_every_generated_request_is_valid_for_openai(request_body: Json) -> None:
    assert findings("chat-request", json.dumps(request_body).encode()) == []


def spelled(path: Path) -> str:
    """Spell a path as notes do."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def covered(path: str, notes: tuple[Note, ...]) -> bool:
    """Tell whether a note speaks of a field, or of something it is in or that is in it."""
    known = {path, PART_OF.get(path, path)}
    return any(
        each.startswith(note.path) or note.path.startswith(each) for each in known for note in notes
    )


def outcome(call: MappedCall) -> tuple[Any, ...]:
    return call.bodies, call.url, call.notes


@given(chat_requests(), st.data())
def test_law_4_a_field_that_is_left_out_is_missed(request_body: Json, data: st.DataObject) -> None:
    optional = sorted(set(request_body) - {"model", "messages"})
    if not optional:
        return
    name = data.draw(st.sampled_from(optional))
    if request_body[name] == DEFAULTS.get(name, ...) or name == "stream_options":
        return
    call = oaicompat.openai_to_gemini(request_body)
    if covered(name, call.notes):
        return
    without = {key: value for key, value in request_body.items() if key != name}
    try:
        less = oaicompat.openai_to_gemini(without)
    except InvalidRequestError:
        return
    assert outcome(less) != outcome(call), name


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path


def altered(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return (
                value + 1 if value < 1 else value - 0.5 if isinstance(value, float) else value + 1
            )
        case str():
            return value + "a"
        case _:
            return "a"


@given(chat_requests(), st.data())
def test_law_4_a_value_that_changes_is_noticed(request_body: Json, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(list(leaves(request_body))))
    where = spelled(path)
    call = oaicompat.openai_to_gemini(request_body)
    if path[-1] in WORDS or where in ELSEWHERE or covered(where, call.notes):
        return
    changed = copy.deepcopy(request_body)
    at: Any = changed
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = altered(at[path[-1]])
    try:
        other = oaicompat.openai_to_gemini(changed)
    except oaicompat.OaicompatError:
        return
    assert outcome(other) != outcome(call), where


@given(chat_requests())
def test_law_4_strict_mode_refuses_what_would_be_lost_by_name(request_body: Json) -> None:
    refusable = [
        note.path for note in oaicompat.openai_to_gemini(request_body).notes if note.refusable
    ]
    try:
        exchange = Exchange("chat", request_body, strict=True)
        for call in exchange.calls():
            exchange.begin_attempt(call, oaicompat.GEMINI_API)
    except UnsupportedFeatureError as error:
        refused = error
    else:
        assert refusable == []
        return
    assert refused.param in refusable
    assert refused.status == 400


def test_law_4_strict_mode_serves_what_is_carried_over_exactly() -> None:
    exchange = Exchange("chat", ask(temperature=0.5, user="me"), strict=True)
    (call,) = exchange.calls()
    assert exchange.begin_attempt(call, oaicompat.GEMINI_API).body


@given(gemini_answers(max_candidates=1, blocked=False))
def test_law_4_notes_on_the_answer_never_refuse(answer: Json) -> None:
    request = {**ask(), "functions": [{"name": "f"}]}
    exchange = Exchange("chat", request, strict=True)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.receive_head(call, 200, {})
    exchange.feed(call, json.dumps(answer).encode())
    (frame,) = exchange.close(call)
    assert json.loads(frame.data)["choices"]


@given(chat_requests())
def test_law_9_a_request_is_never_changed(request_body: Json) -> None:
    before = copy.deepcopy(request_body)
    oaicompat.openai_to_gemini(request_body)
    assert request_body == before
    assert json.dumps(request_body) == json.dumps(before)


@given(gemini_answers(max_candidates=1))
def test_law_9_an_answer_is_never_changed(answer: Json) -> None:
    before = copy.deepcopy(answer)
    whole(ask(), answer)
    assert answer == before


SPACINGS: list[Json] = [
    {"separators": (" ,  ", " :\t")},
    {"indent": 3},
    {"ensure_ascii": False},
    {"separators": (",", ":")},
]


def upstream_bytes(request: Json | bytes) -> bytes:
    exchange = Exchange("chat", request)
    (call,) = exchange.calls()
    return exchange.begin_attempt(call, oaicompat.GEMINI_API).body


@given(json_objects(), st.sampled_from(SPACINGS))
def test_law_9_arguments_and_results_go_upstream_byte_for_byte(value: Json, spacing: Json) -> None:
    text = json.dumps(value, **spacing)
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": text}}
    messages = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": text},
    ]
    body = upstream_bytes(ask(messages=messages))
    assert b'"args":' + text.encode() in body
    if '"$ref"' not in text:
        assert b'"response":' + text.encode() in body


@pytest.mark.parametrize(
    "number", ["1.0", "1e5", "-0", "12345678901234567890", "0.1000", "1E-7", "9007199254740993"]
)
def test_law_9_numbers_keep_their_spelling(number: str) -> None:
    arguments = f'{{"z":{number}, "a":[{number}]}}'
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [*HELLO, {"role": "assistant", "tool_calls": [call]}]
    assert arguments.encode() in upstream_bytes(ask(messages=messages))


@given(json_objects(), st.sampled_from(SPACINGS))
def test_law_9_schemas_go_upstream_byte_for_byte(value: Json, spacing: Json) -> None:
    schema = json.dumps({"type": "object", "z": 1.0, "default": value, "a": "b"}, **spacing)
    if '"const"' in schema:
        return
    head = '{"model":"gemini-3.5-flash","messages":[{"role":"user","content":"x"}],'
    tool = '"tools":[{"type":"function","function":{"name":"f","parameters":' + schema + "}}]}"
    form = '"type":"json_schema","json_schema":{"name":"f","schema":' + schema + "}"
    form = '"response_format":{' + form + "}}"
    assert b'"parametersJsonSchema":' + schema.encode() in upstream_bytes((head + tool).encode())
    assert b'"responseJsonSchema":' + schema.encode() in upstream_bytes((head + form).encode())


@given(json_objects())
def test_law_9_arguments_reach_the_client_as_the_model_wrote_them(value: Json) -> None:
    text = json.dumps(value, separators=(",", ":"))
    part = '{"functionCall":{"name":"f","args":' + text + "}}"
    answer = '{"candidates":[{"content":{"parts":[' + part + ']},"finishReason":"STOP"}]}'
    message = json.loads(whole(ask(), answer.encode()).sent)["choices"][0]["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == text


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_law_9_texts_go_upstream_as_they_are(text: str) -> None:
    body = json.loads(upstream_bytes(ask(messages=[{"role": "user", "content": text}])))
    assert body == {"contents": [{"role": "user", "parts": [{"text": text}]}]}


@pytest.mark.parametrize("model", ["gpt-4o", "gemini-2.5-pro", "gemini-3.5-flash", "unheard-of"])
def test_law_10_a_bare_request_is_sent_bare(model: str) -> None:
    call = oaicompat.openai_to_gemini({"model": model, "messages": HELLO})
    assert call.body == {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    assert call.notes == ()


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_law_10_a_default_spelled_out_adds_nothing(name: str) -> None:
    call = oaicompat.openai_to_gemini(ask(**{name: DEFAULTS[name]}))
    assert list(call.body) == ["contents"]
