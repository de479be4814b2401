"""Law 5 for Responses requests: whatever comes in, only our own errors come out."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.responses_ledger import BASE, RESPONSES

import oaicompat
from oaicompat import OaicompatError
from oaicompat.testing import responses_requests

Json = dict[str, Any]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(("", "\ud800", "[undefined]", "a" * 300, "oaic1.AAAA", "data:,")),
)
odd = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


DIALECTS = ("responses", "responses/compact", "responses/input_tokens")
SAID = {"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}
ANSWER = json.dumps({"candidates": [SAID], "totalTokens": 3}).encode()


def converse(body: bytes, *dialects: str) -> None:
    """Take a body to the end of its answer, as each of these dialects."""
    for dialect in dialects or DIALECTS:
        with suppress(OaicompatError):
            exchange = oaicompat.Exchange(dialect, body, streaming=False)
            while exchange.needs():
                exchange.supply(oaicompat.Supplies())
            for call in exchange.calls():
                exchange.begin_attempt(call, oaicompat.GEMINI_API)
                exchange.receive_head(call, 200, {})
                exchange.feed(call, ANSWER)
                exchange.close(call)


def places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


@given(st.binary(max_size=60))
def test_law_5_any_bytes_as_a_request(body: bytes) -> None:
    converse(body)


@given(odd)
def test_law_5_any_json_as_a_request(value: Any) -> None:
    converse(dumped(value))


@pytest.mark.parametrize("row", RESPONSES, ids=[row.name for row in RESPONSES])
@given(data=st.data())
def test_law_5_a_request_with_one_odd_value(row: Any, data: st.DataObject) -> None:
    request = json.loads(json.dumps(BASE | row.fields))
    *steps, last = data.draw(st.sampled_from([path for path in places(request) if path]))
    at = request
    for step in steps:
        at = at[step]
    at[last] = data.draw(odd)
    converse(dumped(request), "responses")


@given(responses_requests(stored=True, refused=True), st.data())
def test_law_5_a_drawn_request_with_one_odd_value(request: Any, data: st.DataObject) -> None:
    *steps, last = data.draw(st.sampled_from([path for path in places(request) if path]))
    at = request
    for step in steps:
        at = at[step]
    at[last] = data.draw(odd)
    converse(dumped(request))


@given(odd)
def test_law_5_any_json_as_sealed_content(value: Any) -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": value}
    summary = {"type": "compaction", "encrypted_content": value}
    user = {"role": "user", "content": "x"}
    converse(dumped({"model": "m", "input": [user, item, summary, user]}))


SHELL = b'{"type":"shell_call","call_id":"c","action":{"commands":["ls"],"x":%s}}'
OUTPUT = b'{"type":"shell_call_output","call_id":"c","output":[{"stdout":"","outcome":{"a":%s}}]}'
CALL = b'{"type":"function_call","call_id":"c","name":"f","arguments":{"a":%s}}'


@pytest.mark.parametrize("value", [b'"\xff"', b'"\\ud800"', b"[" * 500 + b"]" * 500])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_law_5_untyped_values_of_items_are_the_clients_400(place: int, value: bytes) -> None:
    values = [value if place == number else b"1" for number in range(3)]
    call = (CALL % values[2]) if place == 2 else SHELL % values[0]
    body = b'{"model":"m","input":[%s,%s]}' % (call, OUTPUT % values[1])
    with pytest.raises(OaicompatError) as caught:
        oaicompat.openai_to_gemini(body, dialect="responses")
    assert caught.value.status == 400
