"""Makes the smallest value that satisfies a schema, always the same one.

Serves both schema languages: JSON Schema (with `$ref`, `$defs`, `const`, `type` lists) and Google's
OpenAPI subset (upper-case types, `nullable`, `ref`/`defs`). The one rule: every property is filled in, each
array gets one item, and a reference that leads back to itself ends as soon as it may.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .status import JSON

_MAX_DEPTH = 24
_MIN_DEPTH = 6


def instance(schema: Any) -> Any:
    """Return a minimal value for `schema`; a schema that is no object admits anything, so None."""
    return _Maker(schema).make(schema, 0)


def _first_type(schema: JSON) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if str(name).lower() != "null"), "null")
    if isinstance(kind, str) and kind.upper() != "TYPE_UNSPECIFIED":
        return kind.lower()
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "string"


class _Maker:
    def __init__(self, root: Any) -> None:
        self.root = root

    def make(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return None
        schema = self.resolve(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        for keyword in ("anyOf", "oneOf"):
            if schema.get(keyword):
                return self.alternative(schema, keyword, depth)
        if schema.get("allOf"):
            schema = self.merged(schema)
        maker = _MAKERS.get(_first_type(schema), _Maker.nothing)
        return maker(self, schema, depth)

    def resolve(self, schema: JSON) -> JSON:
        for _ in range(_MAX_DEPTH):
            reference = schema.get("$ref", schema.get("ref"))
            if not isinstance(reference, str):
                return schema
            schema = self.lookup(reference) or {}
        return {}

    def lookup(self, reference: str) -> JSON | None:
        if reference in ("#", ""):
            return self.root if isinstance(self.root, dict) else None
        node: Any = self.root
        path = reference.removeprefix("#").strip("/").split("/")
        if len(path) == 1 and isinstance(node, dict):
            path = ["$defs" if "$defs" in node else "defs", path[0]]
        for step in path:
            name = step.replace("~1", "/").replace("~0", "~")
            node = node.get(name) if isinstance(node, dict) else None
        return node if isinstance(node, dict) else None

    def alternative(self, schema: JSON, keyword: str, depth: int) -> Any:
        choices = [choice for choice in schema[keyword] if isinstance(choice, dict)]
        flat = [choice for choice in choices if not self.is_nested(choice)]
        chosen = flat[0] if flat and depth > _MIN_DEPTH else choices[0] if choices else {}
        rest = {key: value for key, value in schema.items() if key != keyword}
        if "properties" in rest:
            return self.make(self.merged({**rest, "allOf": [chosen]}), depth)
        return self.make(chosen, depth + 1)

    def is_nested(self, schema: JSON) -> bool:
        return _first_type(self.resolve(schema)) in ("object", "array")

    def merged(self, schema: JSON) -> JSON:
        result: JSON = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            if not isinstance(part, dict):
                continue
            resolved = self.resolve(part)
            properties = {**result.get("properties", {}), **resolved.get("properties", {})}
            required = [*result.get("required", []), *resolved.get("required", [])]
            result = {**result, **resolved}
            if properties:
                result |= {"properties": properties, "required": required}
        return result

    def make_object(self, schema: JSON, depth: int) -> JSON:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        names = list(properties) + [name for name in required if name not in properties]
        if depth > _MIN_DEPTH:
            names = [name for name in names if name in required]
        return {name: self.make(properties.get(name, {}), depth + 1) for name in names}

    def array(self, schema: JSON, depth: int) -> list[Any]:
        prefix = schema.get("prefixItems") or []
        made = [self.make(item, depth + 1) for item in prefix]
        least, most = int(schema.get("minItems") or 0), schema.get("maxItems")
        wanted = max(least, 0 if depth > _MIN_DEPTH else 1)
        if most is not None:
            wanted = min(wanted, int(most))
        item = schema.get("items")
        while len(made) < wanted:
            made.append(self.make(item, depth + 1) if isinstance(item, dict) else "item")
        return made

    def string(self, schema: JSON, depth: int) -> str:
        known = _FORMATS.get(str(schema.get("format")))
        text = known or str(schema.get("title") or "text")
        least, most = int(schema.get("minLength") or 0), schema.get("maxLength")
        text = text.ljust(least, "x")
        return text if most is None else text[: int(most)]

    def number(self, schema: JSON, depth: int) -> int | float:
        return self.bounded(schema, 1)

    def integer(self, schema: JSON, depth: int) -> int:
        return math.ceil(self.bounded(schema, 1))

    def bounded(self, schema: JSON, start: int) -> int | float:
        low, high = schema.get("minimum"), schema.get("maximum")
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        step = schema.get("multipleOf") or 1
        value: int | float = step if start % step else start
        if above is not None and value <= above:
            value = (above // step + 1) * step
        if low is not None and value < low:
            value = math.ceil(low / step) * step
        if high is not None and value > high:
            value = high
        if below is not None and value >= below:
            value = below - step
        return value

    def boolean(self, schema: JSON, depth: int) -> bool:
        return True

    def nothing(self, schema: JSON, depth: int) -> None:
        return None


_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1S",
    "email": "someone@example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

_MAKERS: dict[str, Callable[[_Maker, JSON, int], Any]] = {
    "object": _Maker.make_object,
    "array": _Maker.array,
    "string": _Maker.string,
    "number": _Maker.number,
    "integer": _Maker.integer,
    "boolean": _Maker.boolean,
    "null": _Maker.nothing,
}
