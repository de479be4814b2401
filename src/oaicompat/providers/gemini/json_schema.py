"""Make a client's JSON Schema fit for Gemini's JSON Schema fields.

One rule: a schema is data. It leaves as the bytes that came, except for a closed list of rewrites that are
proven to be needed, and those touch only schema positions, never a property that is named like a keyword.
Models without the JSON field get the lossy compiler of `openapi_schema`, which reports what it lost.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from oaicompat.errors import InvalidRequestError
from oaicompat.notes import Notes
from oaicompat.providers.gemini.openapi_schema import Loss, compile_schema

__all__ = ["MAXIMUM_DEPTH", "MAXIMUM_NODES", "Loss", "prepare", "to_openapi"]

MAXIMUM_DEPTH = 128
MAXIMUM_NODES = 20_000

_SCHEMA_MAPS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)
_SCHEMA_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_SCHEMAS = frozenset(
    {
        "items",
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_CONST = b'"const"'

# An unterminated string matches to the end, which keeps the scan linear on any input.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


def prepare(schema: bytes, path: str, notes: Notes) -> Raw:
    """Return the schema to send as `parametersJsonSchema` or `responseJsonSchema`.

    `schema` is JSON text, `path` the client's name of the field. The only rewrite is `const`, which the
    service ignores, into an `enum` of one (peers 1.3); object key order and untouched parts stay as they
    are. Raises `InvalidRequestError` (code `invalid_function_parameters`, param `path`) for anything but
    an object or a boolean, and beyond 128 levels or 20,000 objects and lists.
    """
    text = bytes(schema)
    _check(text, path)
    if _CONST not in text or text.lstrip()[:1] != b"{":
        return Raw(text)
    return _rewrite(Raw(text), path, notes)


def to_openapi(schema: bytes, path: str = "schema") -> tuple[dict[str, object], tuple[Loss, ...]]:
    """Compile a schema to the OpenAPI subset of `parameters` and `responseSchema`.

    The fallback for models whose profile lacks `json_schema`. Local references are inlined (a cycle is cut),
    everything outside the subset is dropped; the second value names each loss with its path. Raises
    `InvalidRequestError` as `prepare` does, also when inlining exceeds the limits.
    """
    text = bytes(schema)
    _check(text, path)
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise refused(path, "it is not valid JSON") from None
    compiled = compile_schema(value, path, MAXIMUM_NODES)
    if compiled is None:
        raise refused(
            path, f"it has more than {MAXIMUM_NODES} parts once its references are inlined"
        )
    return compiled


def refused(path: str, why: str) -> InvalidRequestError:
    """Build the error for a schema that cannot be served."""
    return InvalidRequestError(
        f"Invalid schema for '{path}': {why}.", code="invalid_function_parameters", param=path
    )


def _check(text: bytes, path: str) -> None:
    start = text.strip()
    if start not in (b"true", b"false") and start[:1] != b"{":
        raise refused(path, "a JSON Schema is an object or a boolean")
    opened = text.count(b"{") + text.count(b"[")
    if opened > MAXIMUM_DEPTH:
        _measure(text, path)


def _measure(text: bytes, path: str) -> None:
    depth = nodes = 0
    for token in _TOKEN.finditer(text):
        match text[token.start()]:
            case 0x7B | 0x5B:
                depth += 1
                nodes += 1
                if depth > MAXIMUM_DEPTH:
                    raise refused(path, f"it is nested more than {MAXIMUM_DEPTH} levels deep")
                if nodes > MAXIMUM_NODES:
                    raise refused(path, f"it has more than {MAXIMUM_NODES} objects and lists")
            case 0x7D | 0x5D:
                depth -= 1
            case _:
                pass


def _rewrite(schema: Raw, path: str, notes: Notes) -> Raw:
    """Rewrite `const` in one schema and in those below it; every value not concerned stays raw."""
    if _CONST not in bytes(schema) or bytes(schema).lstrip()[:1] != b"{":
        return schema
    members = _members(schema, path)
    written: dict[str, Raw] = {}
    for key, value in members.items():
        here = f"{path}.{key}"
        if key == "const":
            written.update(_without_const(value, members, here, notes))
        elif key in _SCHEMA_MAPS and _opens(value, b"{"):
            entries = _members(value, here)
            written[key] = _joined(
                {name: _rewrite(one, f"{here}.{name}", notes) for name, one in entries.items()}
            )
        elif key in _SCHEMA_LISTS and _opens(value, b"["):
            schemas = _elements(value, here)
            written[key] = _joined(
                [_rewrite(one, f"{here}[{index}]", notes) for index, one in enumerate(schemas)]
            )
        elif key in _SCHEMAS:
            written[key] = _rewrite(value, here, notes)
        elif not (key == "enum" and "enum" in written):
            written[key] = value
    return _joined(written)


def _without_const(value: Raw, members: dict[str, Raw], path: str, notes: Notes) -> dict[str, Raw]:
    """Spell one constant with keywords that the service enforces.

    Objects and lists stay a `const`: no enum of them is known to be accepted. Null is a type, because enum
    members are strings and numbers (gemini-wire section 3, "Schemas").
    """
    kind = _json_type(value)
    if kind is None:
        return {"const": value}
    typed = {} if "type" in members else {"type": Raw(f'"{kind}"'.encode())}
    if kind == "null":
        notes.rewritten(path, "const null became type null", inert=True)
        return {"type": Raw(b'"null"')}
    notes.rewritten(path, "const became an enum of one", inert=True)
    return {**typed, "enum": Raw(b"[" + bytes(value) + b"]")}


def _json_type(value: Raw) -> str | None:
    text = bytes(value).strip()
    match text[:1]:
        case b'"':
            return "string"
        case b"{" | b"[":
            return None
        case b"t" | b"f":
            return "boolean"
        case b"n":
            return "null"
        case _:
            return "number" if any(mark in text for mark in (b".", b"e", b"E")) else "integer"


def _opens(value: Raw, bracket: bytes) -> bool:
    return bytes(value).lstrip()[:1] == bracket and _CONST in bytes(value)


def _members(schema: Raw, path: str) -> dict[str, Raw]:
    try:
        return msgspec.json.decode(schema, type=dict[str, Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise refused(path, "it is not valid JSON") from None


def _elements(schemas: Raw, path: str) -> list[Raw]:
    try:
        return msgspec.json.decode(schemas, type=list[Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise refused(path, "it is not valid JSON") from None


def _joined(value: dict[str, Raw] | list[Raw]) -> Raw:
    return Raw(msgspec.json.encode(value))
