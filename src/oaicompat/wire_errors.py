"""Says what is wrong with a request body in OpenAI's words and in the client's terms.

One rule: `param` is the path the client would write (`messages[2].content[0].image_url.url`), and what the
message quotes of the client's values is clipped. Codes are those of openai-wire section 8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct, inspect

from oaicompat.errors import InvalidRequestError

LONGEST = 80

_UNPARSED = (
    "We could not parse the JSON body of your request. "
    "The API expects a JSON payload, but what was sent was not valid JSON: {}."
)
_STEP = r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]"
_KINDS = {
    "int": "an integer",
    "float": "a decimal",
    "str": "a string",
    "bool": "a boolean",
    "object": "an object",
    "array": "an array",
    "null": "null",
}


def clipped(text: str) -> str:
    """Return a text of the client's, short enough to quote."""
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def unreadable(error: Exception) -> InvalidRequestError:
    """Return the error for a body that is not JSON, or not Unicode, or nested too deeply."""
    match error:
        case RecursionError():
            reason = "it is nested too deeply"
        case UnicodeError():
            reason = "it is not valid UTF-8"
        case _:
            reason = str(error).removeprefix("JSON is malformed: ")
    return InvalidRequestError(_UNPARSED.format(reason))


class Shape(Struct):
    """What may stand at one place of a body: fields by the value of the tag, items, and allowed values."""

    tag: str | None = None
    structs: dict[str | None, dict[str, Shape | None]] = {}
    item: Shape | None = None
    values: tuple[str, ...] = ()

    def fields(self, level: Mapping[str, Raw]) -> Mapping[str, Shape | None] | None:
        """Return the fields of the struct this object is, or `None` where its tag tells no struct."""
        if self.tag is None:
            return self.structs.get(None)
        try:
            tag = msgspec.json.decode(level.get(self.tag, b"null"), type=str)
        except (msgspec.DecodeError, UnicodeError):
            return None
        return self.structs.get(tag)

    def step(self, name: str | None) -> Shape:
        """Return what may stand in a field, or in an item where there is no name."""
        if name is None:
            return self.item or Shape()
        if name == self.tag:
            return Shape(values=tuple(tag for tag in self.structs if tag is not None))
        found = (fields[name] for fields in self.structs.values() if name in fields)
        return next((shape for shape in found if shape is not None), Shape())


_shapes: dict[type[Any], Shape] = {}


def shape_of(kind: type[Any]) -> Shape:
    """Return the shape of a struct type; computed once."""
    shape = _shapes.get(kind)
    if shape is None:
        shape = _shapes.setdefault(kind, _shape(inspect.type_info(kind)))
    return shape


def _shape(info: inspect.Type) -> Shape:
    shape = Shape()
    match info:
        case inspect.Metadata():
            return _shape(info.type)
        case inspect.UnionType():
            for member in map(_shape, info.types):
                shape.tag = shape.tag or member.tag
                shape.structs |= member.structs
                shape.item = shape.item or member.item
                shape.values += member.values
        case inspect.StructType():
            fields = {field.encode_name: _useful(field.type) for field in info.fields}
            if info.tag_field is not None:
                shape.tag = info.tag_field
                fields[info.tag_field] = None
            shape.structs = {None if info.tag is None else str(info.tag): fields}
        case inspect.ListType():
            shape.item = _shape(info.item_type)
        case inspect.LiteralType():
            shape.values = tuple(str(value) for value in info.values)
        case _:
            pass
    return shape


def _useful(info: inspect.Type) -> Shape | None:
    shape = _shape(info)
    return shape if shape.structs or shape.item or shape.values else None


class _Fault(Struct):
    """A validation failure taken apart: msgspec's words, the client's path, and the way to the value."""

    what: str
    param: str
    steps: tuple[str | int | None, ...]
    body: bytes | Raw
    kind: type[Any]

    def value(self) -> Any:
        """Return what the client wrote there, or `None`."""
        found: Any = self.body
        try:
            for step in self.steps:
                level: Any = dict[str, Raw] if isinstance(step, str) else list[Raw]
                found = msgspec.json.decode(found, type=level)[step]
            return msgspec.json.decode(found)
        except (msgspec.DecodeError, UnicodeError, RecursionError, LookupError, TypeError):
            return None

    def supported(self) -> tuple[str, ...]:
        """Return the values that may stand there."""
        shape = shape_of(self.kind)
        for step in self.steps:
            shape = shape.step(step if isinstance(step, str) else None)
        return shape.values


def translated(
    error: msgspec.ValidationError, body: bytes | Raw, kind: type[Any]
) -> InvalidRequestError:
    """Return OpenAI's error for a body that is JSON but not a request."""
    what, at, path = str(error).rpartition(" - at `$")
    if not at:
        what, path = path, ""
    path = path.removesuffix("`")
    steps = tuple(
        name or (int(index) if index else None) for name, index in re.findall(_STEP, path)
    )
    fault = _Fault(what, path.removesuffix("[...]").lstrip("."), steps, body, kind)
    for pattern, refuse in _REFUSALS:
        found = re.match(pattern, what)
        if found:
            return refuse(fault, found)
    return _refused(fault, f"Invalid value for '{fault.param}': {clipped(what)}.", "invalid_value")


def _refused(fault: _Fault, message: str, code: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=fault.param or None, code=code)


def _missing(fault: _Fault, found: re.Match[str]) -> InvalidRequestError:
    name = f"{fault.param}.{found[1]}" if fault.param else found[1]
    fault.param = name
    return _refused(fault, f"Missing required parameter: '{name}'.", "missing_required_parameter")


def _out_of_bounds(fault: _Fault, found: re.Match[str]) -> InvalidRequestError:
    kind, sign, bound = found[1], found[2], found[3].removesuffix(".0")
    name = {"int": "integer", "float": "decimal"}.get(kind, kind)
    side, limit = ("below", "minimum") if sign == ">" else ("above", "maximum")
    message = (
        f"Invalid '{fault.param}': {name} {side} {limit} value. "
        f"Expected a value {sign}= {bound}, but got {_shown(fault.value())} instead."
    )
    return _refused(fault, message, f"{name}_{side}_{limit[:3]}_value")


def _bad_length(fault: _Fault, found: re.Match[str]) -> InvalidRequestError:
    kind = {"str": "string", "object": "object"}.get(found[1], "array")
    sign, bound = found[2], found[3]
    value = fault.value()
    length = len(value) if isinstance(value, (str, list, dict)) else 0
    if sign == ">" and not length:
        message = (
            f"Invalid '{fault.param}': empty {kind}. "
            f"Expected {_a(kind)} with minimum length {bound}, but got an empty {kind} instead."
        )
        return _refused(fault, message, f"empty_{kind}")
    side, limit, words = (
        ("below", "minimum", "too short") if sign == ">" else ("above", "maximum", "too long")
    )
    message = (
        f"Invalid '{fault.param}': {kind} {words}. Expected {_a(kind)} with {limit} length "
        f"{bound}, but got {_a(kind)} with length {length} instead."
    )
    return _refused(fault, message, f"{kind}_{side}_{limit[:3]}_length")


def _unsupported(fault: _Fault, found: re.Match[str]) -> InvalidRequestError:
    values = fault.supported()
    value = clipped(found[1].strip("'"))
    message = f"Invalid value: '{value}'."
    if values:
        message += f" Supported values are: {listed(values)}."
    return _refused(fault, message, "invalid_value")


def _mistyped(fault: _Fault, found: re.Match[str]) -> InvalidRequestError:
    names = [name for name in found[1].split(" | ") if name != "null" or found[1] == "null"]
    expected = " or ".join(_KINDS.get(name, name) for name in names)
    got = _KINDS.get(found[2] or "", "something else")
    if not fault.param:
        message = f"Invalid body: expected {expected}, but got {got} instead."
    else:
        message = f"Invalid type for '{fault.param}': expected {expected}, but got {got} instead."
    return _refused(fault, message, "invalid_type")


def _unknown(fault: _Fault, found: re.Match[str]) -> InvalidRequestError:
    name = clipped(f"{fault.param}.{found[1]}" if fault.param else found[1])
    fault.param = name
    return _refused(fault, f"Unknown parameter: '{name}'.", "unknown_parameter")


def listed(values: tuple[str, ...]) -> str:
    """Return allowed values as a sentence lists them."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _shown(value: Any) -> str:
    return clipped(msgspec.json.encode(value).decode())


_REFUSALS: tuple[tuple[str, Callable[[_Fault, re.Match[str]], InvalidRequestError]], ...] = (
    (r"(?s)Object missing required field `(.*)`\Z", _missing),
    (r"(?s)Object contains unknown field `(.*)`\Z", _unknown),
    (r"(?s)Invalid (?:enum )?value (.*)\Z", _unsupported),
    (r"Expected `(\w+)` of length ([<>])= (\d+)\Z", _bad_length),
    (r"Expected `(\w+)` ([<>])=? (\S+)\Z", _out_of_bounds),
    (r"Expected `([^`]*)`(?:, got `(\w+)`)?\Z", _mistyped),
)
