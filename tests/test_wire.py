"""Typed decoding of bodies: the fast path, unknown fields, and OpenAI's words for what is wrong."""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Raw, Struct

from oaicompat.dialects import chat, responses
from oaicompat.errors import InvalidRequestError
from oaicompat.notes import Notes
from oaicompat.wire import DEPTH, as_bytes, decode_body, json_object, sound


class Leaf(Struct, forbid_unknown_fields=True):
    url: str
    detail: Literal["auto", "low"] | None = None


class TextNode(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    text: str


class LeafNode(Struct, tag_field="type", tag="leaf", forbid_unknown_fields=True):
    leaf: Leaf


class Body(Struct, forbid_unknown_fields=True):
    nodes: Annotated[list[TextNode | LeafNode], Meta(min_length=1, max_length=3)]
    name: str | None = None
    count: Annotated[int, Meta(ge=1, le=5)] | None = None
    heat: Annotated[float, Meta(ge=0, le=2)] | None = None
    labels: dict[str, str] | None = None
    schema: Raw = Raw()


def decode(body: bytes) -> tuple[Body, list[tuple[str, str, bool]]]:
    notes = Notes()
    decoded = decode_body(body, Body, notes, frozenset({"nodes"}))
    return decoded, [(note.path, note.action, note.inert) for note in notes]


def refused(body: bytes) -> InvalidRequestError:
    notes = Notes()
    with pytest.raises(InvalidRequestError) as caught:
        decode_body(body, Body, notes)
    assert caught.value.status == 400
    assert caught.value.type == "invalid_request_error"
    assert not list(notes)
    return caught.value


NODES = b'"nodes":[{"type":"text","text":"a"}]'


def test_a_body_of_known_fields_leaves_no_note() -> None:
    decoded, notes = decode(b"{" + NODES + b',"count":2}')
    assert decoded.count == 2
    assert notes == []


def test_unknown_fields_are_noted_at_every_level_in_the_clients_terms() -> None:
    body = b"""{"zip": 1, "nodes": [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"leaf": {"url": "u", "x": [1]}, "type": "leaf"}]}"""
    decoded, notes = decode(body)
    assert decoded.nodes == [TextNode("a"), LeafNode(Leaf("u"))]
    assert notes == [
        ("zip", "dropped", False),
        ("nodes[0].cache_control", "dropped", False),
        ("nodes[1].leaf.x", "dropped", False),
    ]


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    ),
    indent=st.none() | st.integers(0, 3),
)
def test_pruning_keeps_raw_values_byte_for_byte(value: Any, indent: int | None) -> None:
    schema = json.dumps(value, indent=indent).encode()
    decoded, notes = decode(b'{"gone":0,' + NODES + b', "schema" : ' + schema + b" }")
    assert bytes(decoded.schema) == schema
    assert notes == [("gone", "dropped", False)]


def test_the_text_undefined_is_an_absent_parameter_but_text_in_content() -> None:
    body = b'{"count":"[undefined]","nodes":[{"type":"text","text":"[undefined]"}]}'
    decoded, notes = decode(body)
    assert decoded.count is None
    assert decoded.nodes == [TextNode("[undefined]")]
    assert notes == [("count", "dropped", True)]


@pytest.mark.parametrize(
    ("body", "param", "code", "says"),
    [
        (
            b'{"name":"a"}',
            "nodes",
            "missing_required_parameter",
            "Missing required parameter: 'nodes'.",
        ),
        (
            b'{"nodes":[{"type":"leaf","leaf":{}}]}',
            "nodes[0].leaf.url",
            "missing_required_parameter",
            "Missing required parameter: 'nodes[0].leaf.url'.",
        ),
        (
            b'{"nodes":[{"type":"leaf","leaf":{"url":1}}]}',
            "nodes[0].leaf.url",
            "invalid_type",
            "Invalid type for 'nodes[0].leaf.url': expected a string, but got an integer instead.",
        ),
        (
            b'{"nodes":[{"type":"zip"}]}',
            "nodes[0].type",
            "invalid_value",
            "Invalid value: 'zip'. Supported values are: 'text' and 'leaf'.",
        ),
        (
            b'{"nodes":[{"type":"leaf","leaf":{"url":"u","detail":"hm"}}]}',
            "nodes[0].leaf.detail",
            "invalid_value",
            "Invalid value: 'hm'. Supported values are: 'auto' and 'low'.",
        ),
        (b'{"nodes":[{"type":null}]}', "nodes[0].type", "invalid_type", "expected a string"),
        (b'{"nodes":[{}]}', "nodes[0].type", "missing_required_parameter", "'nodes[0].type'"),
        (
            b"{" + NODES + b',"count":0}',
            "count",
            "integer_below_min_value",
            "Invalid 'count': integer below minimum value. "
            "Expected a value >= 1, but got 0 instead.",
        ),
        (b"{" + NODES + b',"count":6}', "count", "integer_above_max_value", "<= 5, but got 6"),
        (b"{" + NODES + b',"heat":-0.5}', "heat", "decimal_below_min_value", ">= 0, but got -0.5"),
        (b"{" + NODES + b',"heat":3}', "heat", "decimal_above_max_value", "<= 2, but got 3"),
        (
            b"{" + NODES + b',"count":1.5}',
            "count",
            "invalid_type",
            "expected an integer, but got a d",
        ),
        (
            b"{" + NODES + b',"count":1' + b"0" * 5000 + b"}",
            "count",
            "invalid_value",
            "out of range",
        ),
        (b"{" + NODES + b',"heat":1e999}', "heat", "invalid_value", "out of range"),
        (b'{"nodes":[]}', "nodes", "empty_array", "Invalid 'nodes': empty array."),
        (
            b'{"nodes":[' + b'{"type":"text","text":"a"},' * 3 + b'{"type":"text","text":"a"}]}',
            "nodes",
            "array_above_max_length",
            "Expected an array with maximum length 3, but got an array with length 4 instead.",
        ),
        (b"{" + NODES + b',"labels":{"a":1}}', "labels", "invalid_type", "expected a string"),
        (b"[1]", None, "invalid_type", "expected an object, but got an array"),
        (b"null", None, "invalid_type", "expected an object, but got null"),
        (b'{"zip":1,"name":2}', "name", "invalid_type", "expected a string"),
    ],
)
def test_type_errors_name_the_field_as_the_client_wrote_it(
    body: bytes, param: str | None, code: str, says: str
) -> None:
    error = refused(body)
    assert (error.param, error.code) == (param, code)
    assert says in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"name":',
        b'{"zip":[',
        b'{"name":"a"}x',
        b"\xef\xbb\xbf{}",
        b'{"name":NaN}',
        b'{"name":"\xff"}',
        b'{"name":"\\ud800"}',
        b'{"zip":"\\ud800\\u0000","name":"\\udc00"}',
        b'{"zip":' + b"[" * 100_000,
        b'{"zip":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"schema":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    ],
)
def test_what_is_not_json_is_refused_in_openais_words(body: bytes) -> None:
    error = refused(body)
    assert error.message.startswith("We could not parse the JSON body of your request.")


def test_what_errors_quote_of_the_client_is_clipped() -> None:
    error = refused(b'{"nodes":[{"type":"' + b"x" * 10_000 + b'"}]}')
    assert len(error.message) < 300


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (b"[" * DEPTH + b"]" * DEPTH, True),
        (b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1), False),
        (b'["' + b"[{" * 500 + b'\\"{{"]', True),
        (b"[" + b"{}," * 1000 + b"{}]", True),
        (b"[" + b"[]," * 200_000 + b"[]]", False),
        (b'"\\ud83d\\ude00"', True),
        (b'"\\ud83d"', False),
        (b'"\xff"', False),
        ('"é"'.encode(), True),
    ],
)
def test_raw_values_are_unicode_and_not_too_deep(value: bytes, good: bool) -> None:
    raw = Raw(value)
    if good:
        assert sound(raw, "x") is raw
    else:
        with pytest.raises(InvalidRequestError) as caught:
            sound(raw, "tools[0].parameters")
        assert caught.value.param == "tools[0].parameters"


def test_json_object_takes_objects_and_nothing() -> None:
    assert json_object(Raw(), "x") is None
    assert json_object(Raw(b"null"), "x") is None
    assert json_object(Raw(b"{}"), "x") == Raw(b"{}")
    with pytest.raises(InvalidRequestError, match="expected an object"):
        json_object(Raw(b"[]"), "x")


def test_mappings_are_encoded_and_never_changed() -> None:
    inner: dict[str, Any] = {"b": [1, {"c": None}]}
    body = MappingProxyType({"a": OrderedDict(inner)})
    assert as_bytes(body) == b'{"a":{"b":[1,{"c":null}]}}'
    assert inner == {"b": [1, {"c": None}]}
    assert as_bytes("é") == "é".encode()
    assert as_bytes(bytearray(b"{}")) == b"{}"


def _endless() -> dict[str, Any]:
    body: dict[str, Any] = {}
    body["a"] = body
    return body


@pytest.mark.parametrize(
    "body", ["\ud800", {"a": "\udc00"}, {"a": object()}, {(1,): 2}, _endless()], ids=str
)
def test_what_json_cannot_hold_is_refused(body: Any) -> None:
    with pytest.raises(InvalidRequestError):
        as_bytes(body)


KEYS = [
    *(
        "model",
        "messages",
        "role",
        "content",
        "type",
        "text",
        "tool_calls",
        "id",
        "function",
        "name",
    ),
    *("arguments", "tools", "tool_choice", "stop", "n", "google", "extra_content", "input"),
    *("call_id", "output", "parameters"),
]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["user", "assistant", "tool", "text", "function", "[undefined]", "{}"])
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=150, deadline=None)
@given(
    body=st.binary(max_size=60)
    | st.builds(
        lambda value, cut: json.dumps(value).encode()[: None if cut > 60 else cut],
        st.dictionaries(
            st.sampled_from(["model", "messages", "tools", "input", "tool_choice", "google"]),
            json_values,
        ),
        st.integers(0, 120),
    )
)
def test_arbitrary_bytes_raise_our_errors_or_nothing(body: bytes) -> None:
    for dialect in (chat, responses):
        with contextlib.suppress(InvalidRequestError):
            dialect.decode_request(body, Notes())


def test_a_message_of_ten_thousand_parts_is_refused() -> None:
    parts = [{"type": "text", "text": "a"}] * 10_000
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": parts}]})
    with pytest.raises(InvalidRequestError) as caught:
        chat.decode_request(body, Notes())
    assert (caught.value.param, caught.value.code) == (
        "messages[0].content",
        "array_above_max_length",
    )
