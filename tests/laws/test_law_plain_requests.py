"""A plain chat request is read in a short way, which changes cost and never the outcome."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oaicompat
from oaicompat.dialects import chat
from oaicompat.dialects.chat.plain import LONGEST, read_plain
from oaicompat.notes import Notes
from oaicompat.testing import chat_requests

_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_IMAGE = f"See ![it](data:image/png;base64,{_PNG})."
# What may be otherwise: where, the field, its values.
_ODDITIES: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("body", "model", ("", None, 5, "[undefined]", "models/gemini-2.5-pro")),
    ("body", "temperature", (0, 2, 2.5, None, "1", True, "[undefined]")),
    ("body", "top_p", (0.5, -1)),
    ("body", "top_k", (40, 0)),
    ("body", "n", (1, 2, None, 0)),
    ("body", "seed", (2**70, -1)),
    ("body", "presence_penalty", (1.5, 3)),
    ("body", "max_tokens", (5, 7, 0, None)),
    ("body", "max_completion_tokens", (5, 0, None)),
    ("body", "max_output_tokens", (5,)),
    ("body", "logprobs", (True, False)),
    ("body", "top_logprobs", (2, 0, None)),
    ("body", "stream", (True, False, None, 1)),
    ("body", "stream_options", ({}, {"include_usage": True}, {"include_usage": None}, None)),
    ("body", "stream_options", ({"include_obfuscation": False}, {"other": 1}, [])),
    ("body", "stop", ("a", ["a"], None)),
    ("body", "tools", ([], None)),
    ("body", "user", ("u", None)),
    ("body", "store", (False,)),
    ("body", "reasoning_effort", ("low",)),
    ("body", "messages", ([], None, "text")),
    ("body", "newField", (None, 1)),
    ("message", "role", ("system", "developer", "assistant", "tool", "function", "x", None)),
    ("message", "content", ("", None, [], [{"type": "text", "text": "a"}], _IMAGE, 5)),
    ("message", "name", ("n", "", None)),
    ("message", "cache_control", ({}, None)),
    ("message", "refusal", (None, "no")),
    ("message", "tool_calls", ([], None)),
)
_ODD = tuple((where, name, value) for where, name, values in _ODDITIES for value in values)
_TEXTS = (rb'"a"', rb'"\ud83d\ude00"', rb'"\ud800"', b'"\xff"', b'"\xed\xa0\x80"', '"é"'.encode())


def odd_body(odd: Iterable[tuple[str, str, Any]], text: bytes = _TEXTS[0], at: int = 1) -> bytes:
    """Return the body of a plain request, but for what is odd about it or its message at `at`."""
    messages = [
        {"role": role, "content": "@" if number == at else "hello"}
        for number, role in enumerate(("system", "user", "assistant", "user"))
    ]
    body: dict[str, Any] = {"model": "gpt-4o", "temperature": 0.5, "messages": messages}
    for where, name, value in odd:
        {"message": messages[at], "body": body}[where][name] = value
    return json.dumps(body).encode().replace(b'"@"', text)


def check(body: bytes) -> None:
    """Compare the short way with the ordinary one."""
    plain = read_plain(body)
    if plain is None:
        return
    notes = Notes()
    assert plain == chat.decode_request(body, notes)
    assert not notes.found


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("odd", _ODD, ids=lambda odd: f"{odd[1]}-{str(odd[2])[:20]}")
def test_the_short_way_takes_an_oddity_as_the_ordinary_way_does(
    odd: tuple[str, str, Any], at: int
) -> None:
    check(odd_body([odd], at=at))


@pytest.mark.parametrize("most", [5, 7])
def test_the_short_way_takes_two_limits_as_the_ordinary_way_does(most: int) -> None:
    check(odd_body([("body", "max_tokens", 5), ("body", "max_completion_tokens", most)]))


@pytest.mark.parametrize("text", _TEXTS)
def test_the_short_way_takes_odd_texts_as_the_ordinary_way_does(text: bytes) -> None:
    check(odd_body([], text))


@given(
    st.lists(st.sampled_from(_ODD), max_size=4),
    st.sampled_from(_TEXTS),
    st.integers(0, 3),
    st.sampled_from((None, None, None, -1)),
)
def test_the_short_way_takes_odd_bodies_as_the_ordinary_way_does(
    odd: list[tuple[str, str, Any]], text: bytes, at: int, end: int | None
) -> None:
    check(odd_body(odd, text, at)[:end])


@given(chat_requests())
def test_the_short_way_reads_any_request_as_the_ordinary_way_does(body: dict[str, Any]) -> None:
    check(json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","messages":[{"role":"user","content":"b"}],"model":"c"}',
        b'{"model":"a","messages":[{"role":"user","content":"b","role":"system"}]}',
        b'{"model":"a","messages":[{"content":"b","role":"user","content":"c"}]}',
        b' {"model" : "a" , "messages":[{"role":"user","content":"b"}] } ',
    ],
)
def test_the_short_way_reads_json_as_the_ordinary_way_does(body: bytes) -> None:
    check(body)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"max_tokens": 5, "top_p": 1, "n": 1, "seed": 3, "presence_penalty": 0},
        {"max_completion_tokens": 5, "stream": False},
    ],
)
def test_an_ordinary_request_takes_the_short_way(more: dict[str, Any]) -> None:
    body = json.dumps(json.loads(odd_body([])) | more).encode()
    assert read_plain(body) is not None
    check(body)


def test_a_long_conversation_does_not_take_the_short_way() -> None:
    message = {"role": "user", "content": "a"}
    many = json.dumps({"model": "m", "messages": [message] * 64}).encode()
    assert read_plain(many) is not None
    assert read_plain(json.dumps({"model": "m", "messages": [message] * 65}).encode()) is None
    long = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a" * LONGEST}]})
    assert read_plain(long.encode()) is None


_DEEP = b'{"model":"a","messages":[{"x":%s,"role":"user","content":"b"}]}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"","messages":[{"role":"user","content":"a"}]}',
        # The tag is looked for behind what is nested deeper than the parser goes.
        _DEEP % (b"[" * 3000 + b"]" * 3000),
    ],
)
def test_what_the_short_way_leaves_is_refused_in_the_same_words(body: bytes) -> None:
    assert read_plain(body) is None
    with pytest.raises(oaicompat.InvalidRequestError) as refused:
        oaicompat.Exchange("chat", body)
    with pytest.raises(oaicompat.InvalidRequestError) as expected:
        chat.decode_request(body, Notes())
    assert str(refused.value) == str(expected.value)
