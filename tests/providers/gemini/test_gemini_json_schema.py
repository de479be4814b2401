"""Schemas: bytes that stay, the one rewrite, the named fallback, and the reported bugs 36-48."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oaicompat.errors import InvalidRequestError
from oaicompat.notes import Note, Notes
from oaicompat.providers.gemini.json_schema import Loss, prepare, to_openapi

PATH = "tools[0].function.parameters"


def prepared(schema: object) -> tuple[Any, list[Note]]:
    notes = Notes()
    raw = prepare(json.dumps(schema).encode(), PATH, notes)
    return json.loads(bytes(raw)), list(notes)


def compiled(schema: object) -> tuple[dict[str, Any], dict[str, str]]:
    out, losses = to_openapi(json.dumps(schema).encode())
    assert all(isinstance(loss, Loss) for loss in losses)
    return out, {loss.path: loss.reason for loss in losses}


UNTOUCHED = [
    b'{"type" : "object",\n "properties": {"z": {}, "a": {}, "m": {}}}',
    b'{"$schema":"x","$defs":{"N":{"$ref":"#/$defs/N"}},"$ref":"#/$defs/N"}',
    b'{"type":["string","null"],"pattern":"^a","uniqueItems":true,"exclusiveMinimum":1.0}',
    b'{"enum":[1,2,10000000000000000001,1e2,1.50]}',
    b'{"description":"say \\"const\\" aloud \\u00e9"}',
    b"true",
    b" false ",
    b"{}",
]


@pytest.mark.parametrize("schema", UNTOUCHED)
def test_a_schema_without_const_leaves_as_the_same_bytes(schema: bytes) -> None:
    notes = Notes()
    assert bytes(prepare(schema, PATH, notes)) == schema
    assert not len(notes)


def test_const_becomes_an_enum_of_one_at_its_place() -> None:
    schema = {"type": "object", "properties": {"kind": {"const": "a", "description": "k"}}}
    out, notes = prepared(schema)
    assert out["properties"]["kind"] == {"type": "string", "enum": ["a"], "description": "k"}
    assert [(note.path, note.action) for note in notes] == [
        (f"{PATH}.properties.kind.const", "rewritten")
    ]
    assert not any(note.refusable for note in notes)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"const":1}', {"type": "integer", "enum": [1]}),
        (b'{"const":1.0}', {"type": "number", "enum": [1.0]}),
        (b'{"const":true}', {"type": "boolean", "enum": [True]}),
        (b'{"const":null}', {"type": "null"}),
        (b'{"const":"x","type":"string"}', {"type": "string", "enum": ["x"]}),
        (b'{"enum":["x","y"],"const":"x"}', {"type": "string", "enum": ["x"]}),
        (b'{"const":"x","enum":["x","y"]}', {"type": "string", "enum": ["x"]}),
        (b'{"const":{"a":1}}', {"const": {"a": 1}}),
        (b'{"const":[1]}', {"const": [1]}),
        (b'{"anyOf":[{"const":1},{"items":{"const":2}}]}',
         {"anyOf": [{"type": "integer", "enum": [1]},
                    {"items": {"type": "integer", "enum": [2]}}]}),
        (b'{"items":[{"const":1}],"additionalProperties":{"not":{"const":2}}}',
         {"items": [{"type": "integer", "enum": [1]}],
          "additionalProperties": {"not": {"type": "integer", "enum": [2]}}}),
        (b'{"$defs":{"const":{"const":1}}}', {"$defs": {"const": {"type": "integer", "enum": [1]}}}),
    ],
)  # fmt: skip
def test_const_in_every_schema_position(before: bytes, after: object) -> None:
    assert json.loads(bytes(prepare(before, PATH, Notes()))) == after


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"const": {"type": "string"}}, "required": ["const"]},
        {"default": {"const": 1}},
        {"enum": ["const"], "x-data": {"const": 1}},
        {"examples": [{"const": 1}]},
        {"patternProperties": {"const": {"type": "string"}}},
    ],
)
def test_a_property_or_datum_named_const_stays(schema: object) -> None:
    assert prepared(schema) == (schema, [])


def test_rewriting_keeps_key_order_and_number_texts() -> None:
    schema = (
        b'{"z":{"a":1.50},"properties":{"z":{"maximum":1e2},"a":{"const":12345678901234567890}}}'
    )
    out = bytes(prepare(schema, PATH, Notes()))
    assert out == (
        b'{"z":{"a":1.50},"properties":{"z":{"maximum":1e2},'
        b'"a":{"type":"integer","enum":[12345678901234567890]}}}'
    )


@pytest.mark.parametrize("schema", [b"", b"null", b"[]", b'"x"', b"1", b"truest", b"const"])
def test_only_objects_and_booleans_are_schemas(schema: bytes) -> None:
    for function in (lambda: prepare(schema, PATH, Notes()), lambda: to_openapi(schema, PATH)):
        with pytest.raises(InvalidRequestError) as caught:
            function()
        assert caught.value.param == PATH
        assert caught.value.code == "invalid_function_parameters"
        assert caught.value.status == 400


@pytest.mark.parametrize("levels", [129, 1000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b'{"items":', b"}"), (b'{"anyOf":[', b"]}")])
def test_deep_schemas_are_refused(levels: int, opening: bytes, closing: bytes) -> None:
    schema = opening * levels + b'{"const":1}' + closing * levels
    for function in (lambda: prepare(schema, PATH, Notes()), lambda: to_openapi(schema, PATH)):
        with pytest.raises(InvalidRequestError, match="levels deep"):
            function()


def test_the_deepest_schema_that_is_served() -> None:
    schema = b'{"items":' * 127 + b'{"const":1}' + b"}" * 127
    assert b'"enum":[1]' in bytes(prepare(schema, PATH, Notes()))


def test_brackets_inside_strings_do_not_count() -> None:
    schema = json.dumps({"description": '{["\\' * 50_000}).encode()
    assert bytes(prepare(schema, PATH, Notes())) == schema


def test_too_many_nodes_are_refused() -> None:
    schema = b'{"anyOf":[' + b"{}," * 20_000 + b"{}]}"
    with pytest.raises(InvalidRequestError, match="more than 20000"):
        prepare(schema, PATH, Notes())


def test_an_unterminated_string_costs_linear_time() -> None:
    schema = b"{" * 2 + b'\\"' * 500_000 + b"{" * 200
    started = time.process_time()
    with pytest.raises(InvalidRequestError):
        to_openapi(schema, PATH)
    assert time.process_time() - started < 2


def test_bug_36_annotations_are_removed_from_the_subset() -> None:
    out, losses = compiled({"type": "string", "$comment": "c", "enumDescriptions": ["d"]})
    assert out == {"type": "string"}
    assert set(losses) == {"schema.$comment", "schema.enumDescriptions"}


def test_bug_37_numbers_in_a_string_enum_become_strings_and_are_reported() -> None:
    out, losses = compiled({"type": "string", "enum": [1, 2.5, "x"]})
    assert out == {"type": "string", "enum": ["1", "2.5", "x"]}
    assert "became strings" in losses["schema.enum"]


def test_bug_38_integer_enums_are_kept_in_the_json_schema_fields() -> None:
    schema = {"type": "integer", "enum": [1, 2, 3]}
    assert prepared(schema) == (schema, [])


def test_bug_39_a_nullable_object_keeps_its_properties() -> None:
    schema = {"type": ["object", "null"], "properties": {"a": {"type": "string"}}}
    assert prepared(schema)[0] == schema
    out, losses = compiled(schema)
    assert out["properties"] == {"a": {"type": "string"}}
    assert out["nullable"] is True
    assert out["type"] == "object"
    assert not losses


def test_bug_40_siblings_of_any_of_are_kept() -> None:
    schema = {
        "description": "d",
        "properties": {"a": {"type": "string"}},
        "anyOf": [{"required": ["a"]}, {"type": "object"}],
    }
    assert prepared(schema)[0] == schema
    out, _ = compiled(schema)
    assert out["description"] == "d"
    assert out["properties"] == {"a": {"type": "string"}}
    assert len(out["anyOf"]) == 2


NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}, "v": {"type": "string"}}}


def test_bug_41_a_circular_reference_is_cut() -> None:
    out, losses = compiled({"$ref": "#/$defs/N", "$defs": {"N": NODE}})
    assert out["properties"] == {"next": {"type": "object"}, "v": {"type": "string"}}
    assert "recursive" in losses["schema.properties.next.$ref"]


def test_bug_41_references_to_the_root_and_to_each_other_are_cut() -> None:
    out, losses = compiled({"type": "array", "items": {"$ref": "#"}})
    assert out["items"]["items"] == {"type": "array", "items": {"type": "object"}}
    assert losses
    out, losses = compiled({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}})
    assert losses


def test_bug_42_references_stay_in_the_json_schema_fields() -> None:
    schema = json.dumps({"$defs": {"N": NODE}, "$ref": "#/$defs/N"}).encode()
    assert bytes(prepare(schema, PATH, Notes())) == schema


KEYWORDS = (
    "additionalProperties", "title", "default", "const", "$ref", "type", "anyOf", "enum", "required",
    "properties", "items", "$defs", "allOf", "description", "nullable", "format", "$schema",
)  # fmt: skip


def test_bug_43_properties_named_like_keywords_are_kept() -> None:
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in KEYWORDS},
        "required": ["title", "additionalProperties"],
    }
    assert prepared(schema) == (schema, [])
    out, losses = compiled(schema)
    assert list(out["properties"]) == list(KEYWORDS)
    assert out["required"] == ["title", "additionalProperties"]
    assert not losses


def test_bug_44_unique_items_is_reported() -> None:
    schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    assert prepared(schema) == (schema, [])
    out, losses = compiled(schema)
    assert out == {"type": "array", "items": {"type": "string"}}
    assert set(losses) == {"schema.uniqueItems"}


def test_bug_45_a_list_of_types() -> None:
    assert compiled({"type": ["string", "null"]}) == ({"type": "string", "nullable": True}, {})
    out, losses = compiled({"type": ["string", "integer"], "maxLength": 3, "minimum": 1})
    assert out == {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "integer", "minimum": 1}]}
    assert not losses


def test_bug_46_title_goes_only_as_a_keyword() -> None:
    out, losses = compiled({"title": "T", "properties": {"title": {"type": "string"}}})
    assert out["properties"] == {"title": {"type": "string"}}
    assert "title" not in out
    assert set(losses) == {"schema.title"}


def test_bug_48_key_order() -> None:
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in "zam"}}
    assert list(prepared(schema)[0]["properties"]) == ["z", "a", "m"]
    out, _ = compiled(schema)
    assert list(out["properties"]) == ["z", "a", "m"]
    assert out["propertyOrdering"] == ["z", "a", "m"]


@pytest.mark.parametrize(
    ("schema", "expected", "lost"),
    [
        ({"oneOf": [{"type": "string"}, {"type": "number"}]},
         {"anyOf": [{"type": "string"}, {"type": "number"}]}, set()),
        ({"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}], "description": "d"},
         {"type": "string", "maxLength": 3, "description": "d", "nullable": True}, set()),
        ({"type": "string", "const": "a"}, {"type": "string", "enum": ["a"]}, set()),
        ({"enum": ["a", None]}, {"nullable": True, "type": "string", "enum": ["a"]}, set()),
        ({"type": "string", "enum": ["", "a"]}, {"type": "string", "enum": ["a"]}, {"schema.enum"}),
        ({"const": True}, {"type": "boolean"}, {"schema.const"}),
        ({"enum": [True, False]}, {"type": "boolean"}, set()),
        ({"type": "integer", "exclusiveMinimum": 0, "multipleOf": 2, "maximum": 9},
         {"type": "integer", "maximum": 9}, {"schema.exclusiveMinimum", "schema.multipleOf"}),
        ({"type": "string", "format": "email", "pattern": "a"},
         {"type": "string", "pattern": "a"}, {"schema.format"}),
        ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}, set()),
        ({"type": "object", "additionalProperties": False}, {"type": "object"},
         {"schema.additionalProperties"}),
        ({"type": "array"}, {"type": "array", "items": {"type": "object"}}, {"schema.items"}),
        ({"type": "array", "prefixItems": [{"type": "string"}]},
         {"type": "array", "items": {"anyOf": [{"type": "string"}]}}, {"schema.prefixItems"}),
        ({"type": "object", "properties": {}, "required": ["x"]},
         {"type": "object", "properties": {}}, {"schema.required"}),
        ({"allOf": [{"type": "string"}, {"maxLength": 3}]}, {"type": "string", "maxLength": 3}, set()),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, {"type": "string"},
         {"schema.allOf[1].type"}),
        ({"$ref": "http://elsewhere/x"}, {}, {"schema.$ref"}),
        ({"$ref": "#/$defs/none", "type": "string"}, {"type": "string"}, {"schema.$ref"}),
        (False, {}, {"schema"}),
        (True, {}, set()),
    ],
)  # fmt: skip
def test_the_fallback_compiler(schema: object, expected: object, lost: set[str]) -> None:
    out, losses = compiled(schema)
    assert out == expected
    assert set(losses) == lost


def test_all_of_joins_properties_and_required() -> None:
    out, losses = compiled(
        {
            "$defs": {"A": {"properties": {"a": {"type": "string"}}, "required": ["a"]}},
            "allOf": [{"$ref": "#/$defs/A"}],
            "properties": {"b": {"type": "string"}},
            "required": ["b"],
        }
    )
    assert set(out["properties"]) == {"a", "b"}
    assert set(out["required"]) == {"a", "b"}
    assert not losses


def test_what_stands_beside_a_reference_is_joined_with_it() -> None:
    out, losses = compiled(
        {
            "$defs": {"A": {"properties": {"a": {"type": "string"}}, "description": "target"}},
            "$ref": "#/$defs/A",
            "properties": {"b": {"type": "string"}},
            "description": "here",
        }
    )
    assert set(out["properties"]) == {"a", "b"}
    assert out["description"] == "here"
    assert not losses


def test_pointers_with_escapes_are_followed() -> None:
    schema = {"$defs": {"a/b~c d": {"type": "string"}}, "$ref": "#/$defs/a~1b~0c%20d"}
    assert compiled(schema) == ({"type": "string"}, {})


def _doubling(levels: int) -> dict[str, object]:
    definitions = {
        f"d{level}": {
            "properties": {side: {"$ref": f"#/$defs/d{level + 1}"} for side in ("left", "right")}
        }
        for level in range(levels)
    }
    return {"$defs": definitions, "$ref": "#/$defs/d0"}


ADVERSARIAL: dict[str, object] = {
    "doubling": _doubling(40),
    "wide target": {
        "$defs": {"k": {f"x{number}": 1 for number in range(9000)}},
        "anyOf": [{"$ref": "#/$defs/k"}] * 9000,
    },
    "enum target": {
        "$defs": {"k": {"enum": ["a"] * 20_000}},
        "anyOf": [{"$ref": "#/$defs/k"}] * 9000,
    },
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_expansion_ends_at_a_budget(name: str) -> None:
    started = time.process_time()
    with pytest.raises(InvalidRequestError, match="references are inlined"):
        to_openapi(json.dumps(ADVERSARIAL[name]).encode(), PATH)
    assert time.process_time() - started < 2


def test_recursion_through_all_of_is_cut() -> None:
    out, losses = compiled(
        {"$defs": {"k": {"allOf": [{"$ref": "#/$defs/k"}] * 9}}, "$ref": "#/$defs/k"}
    )
    assert out == {}
    assert losses


def test_long_chains_of_references_end() -> None:
    chain = {f"d{level}": {"$ref": f"#/$defs/d{level + 1}"} for level in range(2000)}
    out, losses = compiled({"$defs": chain, "$ref": "#/$defs/d0"})
    assert out == {"type": "object"}
    assert losses


_KEYS = st.sampled_from(
    [*KEYWORDS, "prefixItems", "oneOf", "propertyOrdering", "definitions", "minLength", "x"]
)
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
)
_REFERENCES = st.sampled_from(
    ["#", "#/$defs/x", "#/properties/x", "#/anyOf/0", "x", "object", "null"]
)
_ANYTHING = st.recursive(
    _LEAVES | _REFERENCES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_KEYS, _ANYTHING, max_size=5))
def test_any_object_is_compiled_or_refused(schema: dict[str, object]) -> None:
    text = msgspec.json.encode(schema)
    try:
        out, _ = to_openapi(text)
    except InvalidRequestError:
        return
    assert json.loads(msgspec.json.encode(out)) == out


@given(st.dictionaries(_KEYS, _ANYTHING, max_size=5))
def test_preparing_changes_nothing_but_const(schema: dict[str, object]) -> None:
    text = msgspec.json.encode(schema)
    notes = Notes()
    out = bytes(prepare(text, PATH, notes))
    if not len(notes):
        assert json.loads(out) == json.loads(text)
    assert bytes(prepare(out, PATH, Notes())) == out


@given(st.binary(max_size=40) | st.binary(max_size=30).map(lambda tail: b'{"const":' + tail))
def test_any_bytes_give_our_error_or_nothing(schema: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        prepare(schema, PATH, Notes())
    with contextlib.suppress(InvalidRequestError):
        to_openapi(schema, PATH)
