"""Laws 9 and 10 for Responses: data stays as it is, and nothing is invented."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.driving import HELLO
from tests.support.responses_client import ask, whole
from tests.support.responses_ledger import DEFAULTS

import oaicompat
from oaicompat import Exchange, MappedCall
from oaicompat.testing import gemini_answers, responses_requests
from oaicompat.testing.values import json_objects

Json = dict[str, Any]


def mapped(body: Json) -> MappedCall:
    return oaicompat.openai_to_gemini(body, dialect="responses")


@given(responses_requests())
def test_law_9_a_request_is_never_changed(request_body: Json) -> None:
    before = copy.deepcopy(request_body)
    mapped(request_body)
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
    exchange = Exchange("responses", request)
    (call,) = exchange.calls()
    return exchange.begin_attempt(call, oaicompat.GEMINI_API).body


def called(arguments: str, output: str = "done") -> list[Json]:
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": arguments}
    answer = {"type": "function_call_output", "call_id": "call_1", "output": output}
    return [*HELLO, call, answer]


@given(json_objects(), st.sampled_from(SPACINGS))
def test_law_9_arguments_and_results_go_upstream_byte_for_byte(value: Json, spacing: Json) -> None:
    text = json.dumps(value, **spacing)
    body = upstream_bytes(ask(input=called(text, text)))
    assert b'"args":' + text.encode() in body
    if '"$ref"' not in text:
        assert b'"response":' + text.encode() in body


@pytest.mark.parametrize(
    "number", ["1.0", "1e5", "-0", "12345678901234567890", "0.1000", "1E-7", "9007199254740993"]
)
def test_law_9_numbers_keep_their_spelling(number: str) -> None:
    arguments = f'{{"z":{number}, "a":[{number}]}}'
    assert arguments.encode() in upstream_bytes(ask(input=called(arguments)))


@given(json_objects(), st.sampled_from(SPACINGS))
def test_law_9_schemas_go_upstream_byte_for_byte(value: Json, spacing: Json) -> None:
    schema = json.dumps({"type": "object", "z": 1.0, "default": value, "a": "b"}, **spacing)
    if '"const"' in schema:
        return
    head = '{"model":"gemini-3.5-flash","input":"x",'
    tool = '"tools":[{"type":"function","name":"f","parameters":' + schema + "}]}"
    form = '"text":{"format":{"type":"json_schema","name":"f","schema":' + schema + "}}}"
    assert b'"parametersJsonSchema":' + schema.encode() in upstream_bytes((head + tool).encode())
    assert b'"responseJsonSchema":' + schema.encode() in upstream_bytes((head + form).encode())


@given(json_objects())
def test_law_9_arguments_reach_the_client_as_the_model_wrote_them(value: Json) -> None:
    text = json.dumps(value, separators=(",", ":"))
    part = '{"functionCall":{"name":"f","args":' + text + "}}"
    answer = '{"candidates":[{"content":{"parts":[' + part + ']},"finishReason":"STOP"}]}'
    (item,) = json.loads(whole(ask(), answer.encode()).sent)["output"]
    assert (item["type"], item["arguments"]) == ("function_call", text)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), st.booleans())
def test_law_9_texts_go_upstream_as_they_are(text: str, plain: bool) -> None:
    said = text if plain else [{"role": "user", "content": text}]
    body = json.loads(upstream_bytes(ask(input=said)))
    assert body == {"contents": [{"role": "user", "parts": [{"text": text}]}]}


@pytest.mark.parametrize("model", ["gpt-4o", "gemini-2.5-pro", "gemini-3.5-flash", "unheard-of"])
@pytest.mark.parametrize("said", ["hello", HELLO])
def test_law_10_a_bare_request_is_sent_bare(model: str, said: Any) -> None:
    call = mapped({"model": model, "input": said})
    assert call.body == {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    assert call.notes == ()


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_law_10_a_default_spelled_out_adds_nothing(name: str) -> None:
    call = mapped(ask(**{name: DEFAULTS[name]}))
    assert list(call.body) == ["contents"]
    assert [note for note in call.notes if note.refusable] == []
