"""Reads a JSON body the way protobuf's JSON parser does: names, types, enums, one-of groups.

Owns `read_message`, which turns a body into its canonical form (lowerCamelCase names, upper-case enum names,
lists where lists belong, nothing that is null) or refuses it with the service's own texts. The one rule: it
knows only `tables`; what a value means is for the rule modules. Source: gemini-wire sections 2 and 6.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from .status import JSON, field_violations
from .tables import ENUMS, MESSAGES

_API = "type.googleapis.com/google.ai.generativelanguage.v1beta."
_VERTEX_API = "type.googleapis.com/google.cloud.aiplatform.v1beta1."
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_DURATION = re.compile(r"-?\d+(\.\d{1,9})?s")
_LIMITS = {"int32": 2**31, "int64": 2**63}
_PART_DATA = (
    "text",
    "inlineData",
    "functionCall",
    "functionResponse",
    "fileData",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
)
_ONE_OF: dict[str, tuple[str, ...]] = {
    "Part": _PART_DATA,
    "FunctionResponsePart": ("inlineData", "fileData"),
}

MISSING = object()


def snake(name: str) -> str:
    """Spell a lowerCamelCase name in snake_case, as error paths do."""
    return _CAPITAL.sub("_", name).lower()


class Field(msgspec.Struct, frozen=True):
    """One field of a message: canonical name, type, list or not, and the only backend that has it."""

    name: str
    type: str
    repeated: bool
    only: str


def _compile(fields: dict[str, str]) -> dict[str, Field]:
    table: dict[str, Field] = {}
    for name, spelled in fields.items():
        kind, _, only = spelled.partition(" ")
        field = Field(name, kind.removesuffix("[]"), kind.endswith("[]"), only)
        table[name] = field
        table[snake(name)] = field
    return table


_TABLES = {message: _compile(fields) for message, fields in MESSAGES.items()}


def read_message(message: str, body: Any, *, backend: str) -> JSON:
    """Return `body` as a canonical `message` of `backend` ("gemini" or "vertex").

    Raises:
        Refusal: a field is unknown or has the wrong type; all violations are listed, as the service does.
    """
    reader = _Reader(backend)
    if not isinstance(body, dict):
        reader.complain("", "Invalid JSON payload received. Root element must be a message.")
        raise field_violations(reader.violations)
    result = reader.message(message, body, "")
    if reader.violations:
        raise field_violations(reader.violations)
    return result


class _Reader:
    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.violations: list[tuple[str, str]] = []

    def complain(self, path: str, text: str) -> None:
        self.violations.append((path, text))

    def unknown(self, path: str, key: str, reason: str = "Cannot find field.") -> None:
        where = f" at '{path}'" if path else ""
        self.complain(path, f'Invalid JSON payload received. Unknown name "{key}"{where}: {reason}')

    def invalid(self, path: str, kind: str, value: Any) -> Any:
        shown = json.dumps(value, ensure_ascii=False)[:200]
        self.complain(path, f"Invalid value at '{path}' ({kind}), {shown}")
        return MISSING

    def message(self, name: str, body: JSON, path: str) -> JSON:
        table = _TABLES[name]
        group = _ONE_OF.get(name, ())
        result: JSON = {}
        taken = ""
        for key, value in body.items():
            field = table.get(key)
            if field is None or (field.only and field.only != self.backend):
                self.unknown(path, key)
                continue
            if value is None and field.type != "value":
                continue
            if field.name in group:
                if taken:
                    self.taken_twice(path, field.name)
                taken = field.name
            read = self.field(field, key, value, path)
            if read is not MISSING:
                result[field.name] = read
        return result

    def taken_twice(self, path: str, name: str) -> None:
        text = f"oneof field 'data' is already set. Cannot set '{name}'"
        self.complain(path, f"Invalid value at '{path}' (oneof), {text}")

    def field(self, field: Field, key: str, value: Any, path: str) -> Any:
        inner = f"{path}.{snake(field.name)}" if path else snake(field.name)
        if not field.repeated:
            if isinstance(value, list) and field.type not in ("value", "struct"):
                self.unknown(path, key, "Proto field is not repeating, cannot start list.")
                return MISSING
            return self.value(field.type, value, inner)
        items = value if isinstance(value, list) else [value]
        read = [self.value(field.type, item, f"{inner}[{at}]") for at, item in enumerate(items)]
        return [item for item in read if item is not MISSING]

    def value(self, kind: str, value: Any, path: str) -> Any:
        if kind.startswith("enum:"):
            return self.read_enum(kind[5:], value, path)
        if kind.startswith("map:"):
            return self.read_map(kind[4:], value, path)
        scalar = _SCALARS.get(kind)
        if scalar is not None:
            return scalar(self, value, path)
        if not isinstance(value, dict):
            return self.invalid(path, self.type_name(kind), value)
        return self.message(kind, value, path)

    def type_name(self, name: str) -> str:
        return (_API if self.backend == "gemini" else _VERTEX_API) + name

    def read_enum(self, name: str, value: Any, path: str) -> Any:
        names = ENUMS[name]
        if isinstance(value, str) and value.upper() in names:
            return value.upper()
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return names[value]
        return self.invalid(path, self.type_name(name), value)

    def read_map(self, kind: str, value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            return self.invalid(path, "Map", value)
        result: JSON = {}
        for at, (key, item) in enumerate(value.items()):
            read = self.value(kind, item, f"{path}[{at}].value")
            if read is not MISSING:
                result[key] = read
        return result

    def read_string(self, value: Any, path: str) -> Any:
        return value if isinstance(value, str) else self.invalid(path, "TYPE_STRING", value)

    def read_bool(self, value: Any, path: str) -> Any:
        return value if isinstance(value, bool) else self.invalid(path, "TYPE_BOOL", value)

    def read_integer(self, value: Any, path: str, kind: str) -> Any:
        number = self.number(value)
        if number is None or number != number // 1 or not -_LIMITS[kind] <= number < _LIMITS[kind]:
            return self.invalid(path, f"TYPE_{kind.upper()}", value)
        return int(number)

    def read_float(self, value: Any, path: str) -> Any:
        number = self.number(value)
        return self.invalid(path, "TYPE_FLOAT", value) if number is None else number

    @staticmethod
    def number(value: Any) -> int | float | None:
        if isinstance(value, str):
            try:
                value = msgspec.json.decode(value, type=int | float)
            except msgspec.MsgspecError:
                return None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def read_bytes(self, value: Any, path: str) -> Any:
        if not isinstance(value, str):
            return self.invalid(path, "TYPE_BYTES", value)
        if _BASE64.fullmatch(value) is None or len(value.rstrip("=")) % 4 == 1:
            shown = json.dumps(value[:200], ensure_ascii=False)
            text = f"Base64 decoding failed for {shown}"
            self.complain(path, f"Invalid value at '{path}' (TYPE_BYTES), {text}")
            return MISSING
        return value

    def read_duration(self, value: Any, path: str) -> Any:
        if isinstance(value, str) and _DURATION.fullmatch(value):
            return value
        return self.invalid(path, "type.googleapis.com/google.protobuf.Duration", value)

    def read_struct(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return value
        return self.invalid(path, "type.googleapis.com/google.protobuf.Struct", value)


_SCALARS: dict[str, Callable[[_Reader, Any, str], Any]] = {
    "string": _Reader.read_string,
    "bool": _Reader.read_bool,
    "int32": lambda reader, value, path: reader.read_integer(value, path, "int32"),
    "int64": lambda reader, value, path: reader.read_integer(value, path, "int64"),
    "float": _Reader.read_float,
    "bytes": _Reader.read_bytes,
    "duration": _Reader.read_duration,
    "struct": _Reader.read_struct,
    "value": lambda reader, value, path: value,
}
