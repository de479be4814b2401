"""Compile JSON Schema to the OpenAPI subset that Gemini's oldest schema fields take.

One rule: what the subset cannot say is dropped and reported as a `Loss`, never dropped in silence. Work is
bounded: a reference inside itself is cut, nesting ends at 32 levels, and inlining stops at a node budget.
The subset is the `Schema` column of gemini-wire section 3, without what only Vertex AI knows.
"""

from __future__ import annotations

from typing import TypeAlias
from urllib.parse import unquote

from msgspec import Struct

Schema: TypeAlias = dict[str, object]

DEEPEST = 32
_KEYWORDS_PER_NODE = 16

_KEPT = frozenset(
    {
        "description",
        "nullable",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "example",
        "default",
    }
)
_HANDLED = frozenset(
    {"$ref", "allOf", "anyOf", "oneOf", "const", "enum", "type", "format", "propertyOrdering"}
    | {"properties", "required", "items", "prefixItems"}
)
_INLINED = frozenset({"$defs", "definitions"})
_MAPS = _INLINED | {"properties"}
_ANNOTATIONS = frozenset({"$schema", "$id", "$comment", "$anchor", "title", "examples"})
_FORMATS = frozenset({"enum", "date-time", "float", "double", "int32", "int64"})
_OF_TYPE = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format", "enum"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "minProperties", "maxProperties"}),
    "number": frozenset({"minimum", "maximum"}),
    "integer": frozenset({"minimum", "maximum"}),
    "boolean": frozenset[str](),
}
_TYPED = frozenset().union(*_OF_TYPE.values())
_OPEN: Schema = {"type": "object"}


class Loss(Struct, frozen=True):
    """One thing the subset cannot say: where it stood, and why it is gone.

    `inert` marks annotations, which constrain nothing.
    """

    path: str
    reason: str
    inert: bool = False


class _TooLarge(Exception):
    """Ends a compilation whose node budget is used up; never leaves this module."""


class _Compilation:
    """The state of one run: the document, its losses, and how many nodes may still be made."""

    __slots__ = ("_losses", "_nodes", "root")

    def __init__(self, root: object, nodes: int) -> None:
        self.root = root
        self._losses: dict[Loss, None] = {}
        self._nodes = nodes

    def spend(self, keywords: int) -> None:
        """Pay for one node; a node with very many keywords counts for several."""
        self._nodes -= 1 + keywords // _KEYWORDS_PER_NODE
        if self._nodes < 0:
            raise _TooLarge

    def lose(self, path: str, reason: str, *, inert: bool = False) -> None:
        self._losses[Loss(path, reason, inert)] = None

    @property
    def losses(self) -> tuple[Loss, ...]:
        return tuple(self._losses)


class _Place(Struct, frozen=True):
    """Where the walk stands: the path to report, the depth, and the references being followed."""

    path: str
    depth: int = 0
    references: tuple[str, ...] = ()

    def under(self, key: str) -> _Place:
        return _Place(f"{self.path}{key}", self.depth + 1, self.references)

    def through(self, reference: str) -> _Place:
        return _Place(self.path, self.depth + 1, (*self.references, reference))


def compile_schema(schema: object, path: str, nodes: int) -> tuple[Schema, tuple[Loss, ...]] | None:
    """Compile a decoded JSON Schema; None when it needs more than `nodes` nodes.

    The input is not changed and shares no container with the output. Losses are listed once, in order.
    """
    run = _Compilation(schema, nodes)
    try:
        compiled = _compile(run, schema, _Place(path))
    except _TooLarge:
        return None
    return compiled, run.losses


def _compile(run: _Compilation, schema: object, place: _Place) -> Schema:
    run.spend(len(schema) if isinstance(schema, dict) else 0)
    if not isinstance(schema, dict):
        if schema is not True:
            run.lose(place.path, "only an object can be said here; anything is accepted instead")
        return {}
    if place.depth > DEEPEST:
        run.lose(place.path, f"nested more than {DEEPEST} levels deep; an open object instead")
        return dict(_OPEN)
    if "$ref" in schema:
        return _follow(run, schema, place)
    merged = _merge_all(run, schema, place)
    if isinstance(merged.get("type"), list):
        merged = _split_types(run, merged, place)
    return _write(run, merged, place)


def _follow(run: _Compilation, schema: Schema, place: _Place) -> Schema:
    """Inline a local reference; what stands beside it is joined with the target."""
    reference = str(schema["$ref"])
    target = _target(run.root, reference)
    merged = {key: value for key, value in schema.items() if key != "$ref"}
    if not isinstance(target, dict):
        run.lose(f"{place.path}.$ref", "the reference leads to no schema in this document")
        return _compile(run, merged, place.through(reference))
    if reference in place.references:
        run.lose(f"{place.path}.$ref", "a recursive reference is cut")
        return _cut(target)
    run.spend(len(target))
    for key, value in target.items():
        merged[key] = _both(run, key, merged[key], value, place) if key in merged else value
    return _compile(run, merged, place.through(reference))


def _cut(target: Schema) -> Schema:
    stump: Schema = {"type": "object"}
    if target.get("type") == "array":
        stump = {"type": "array", "items": {"type": "object"}}
    if isinstance(description := target.get("description"), str):
        stump["description"] = description
    return stump


def _target(root: object, reference: str) -> object:
    """Resolve a JSON pointer; None when it is not local or leads nowhere."""
    if not reference.startswith("#"):
        return None
    found = root
    for step in reference[1:].split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isascii() and name.isdigit() and len(name) < 6:
            found = found[int(name)] if int(name) < len(found) else None
        else:
            return None
    return found


def _merge_all(run: _Compilation, schema: Schema, place: _Place) -> Schema:
    """Merge `allOf` into the schema where the members do not disagree."""
    branches = schema.get("allOf")
    if not isinstance(branches, list):
        return schema
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for index, branch in enumerate(branches):
        here = place.under(f".allOf[{index}]")
        run.spend(len(branch) if isinstance(branch, dict) else 0)
        if here.depth > DEEPEST:
            run.lose(here.path, f"nested more than {DEEPEST} levels deep")
            continue
        resolved = _resolve_branch(run, branch, here)
        for key, value in resolved.items():
            merged[key] = _both(run, key, merged[key], value, here) if key in merged else value
    return merged


def _resolve_branch(run: _Compilation, branch: object, place: _Place) -> Schema:
    """Give the plain schema behind one member of `allOf`."""
    seen: set[str] = set()
    while isinstance(branch, dict) and isinstance(reference := branch.get("$ref"), str):
        target = _target(run.root, reference)
        if reference in seen or reference in place.references or not isinstance(target, dict):
            run.lose(f"{place.path}.$ref", "a reference that is recursive or leads nowhere is cut")
            target = {}
        seen.add(reference)
        place = place.through(reference)
        branch = {**target, **{key: value for key, value in branch.items() if key != "$ref"}}
    if not isinstance(branch, dict):
        return {}
    if place.depth > DEEPEST:
        run.lose(place.path, f"nested more than {DEEPEST} levels deep")
        return {}
    return _merge_all(run, branch, place)


def _both(run: _Compilation, key: str, first: object, second: object, place: _Place) -> object:
    """Join the two values of one keyword; the first wins a disagreement."""
    if first == second or key in _ANNOTATIONS or key == "description":
        return first
    if key == "required" and isinstance(first, list) and isinstance(second, list):
        return list(dict.fromkeys(name for name in first + second if isinstance(name, str)))
    if key in _MAPS and isinstance(first, dict) and isinstance(second, dict):
        for name in second:
            if name in first and first[name] != second[name]:
                run.lose(f"{place.path}.{key}.{name}", "disagrees with what it is combined with")
        return {**first, **{name: value for name, value in second.items() if name not in first}}
    run.lose(f"{place.path}.{key}", "disagrees with what it is combined with")
    return first


def _split_types(run: _Compilation, schema: Schema, place: _Place) -> Schema:
    """Turn a list of types into one nullable type, or into `anyOf` with one type each."""
    listed = schema["type"]
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    nullable: Schema = {"nullable": True} if "null" in names else {}
    types = [name for name in names if name in _OF_TYPE]
    rest = {key: value for key, value in schema.items() if key != "type"}
    if len(types) < 2:
        return {**({"type": types[0]} if types else {}), **rest, **nullable}
    branches: list[object] = [
        {"type": name, **{key: value for key, value in rest.items() if key in _OF_TYPE[name]}}
        for name in types
    ]
    if "anyOf" in rest or "oneOf" in rest:
        run.lose(f"{place.path}.type", "a list of types beside anyOf")
        return {**rest, **nullable}
    shared = {key: value for key, value in rest.items() if key not in _TYPED}
    return {**shared, "anyOf": branches, **nullable}


def _write(run: _Compilation, schema: Schema, place: _Place) -> Schema:
    written: Schema = {}
    if isinstance(schema.get("type"), str):
        _write_type(schema, written)
    for key, value in schema.items():
        if key in _KEPT:
            written[key] = value
        elif key not in _HANDLED and key not in _INLINED:
            run.lose(f"{place.path}.{key}", "not in the subset", inert=key in _ANNOTATIONS)
    _write_format(run, schema, written, place)
    _write_enum(run, schema, written, place)
    _write_properties(run, schema, written, place)
    _write_items(run, schema, written, place)
    return _write_choices(run, schema, written, place)


def _write_type(schema: Schema, written: Schema) -> None:
    if schema["type"] == "null":
        written["nullable"] = True
    else:
        written["type"] = schema["type"]


def _write_format(run: _Compilation, schema: Schema, written: Schema, place: _Place) -> None:
    if "format" not in schema:
        return
    if isinstance(schema["format"], str) and schema["format"] in _FORMATS:
        written["format"] = schema["format"]
    else:
        run.lose(f"{place.path}.format", "not a format the service knows")


def _write_enum(run: _Compilation, schema: Schema, written: Schema, place: _Place) -> None:
    """Write an enum of non-empty strings, the only ones the subset has."""
    key = "const" if "const" in schema else "enum"
    values = [schema["const"]] if key == "const" else schema.get("enum")
    if not isinstance(values, list):
        return
    run.spend(len(values))
    here = f"{place.path}.{key}"
    if None in values:
        written["nullable"] = True
    sayable = [value for value in values if value not in ("", None) and _is_scalar(value)]
    if len(sayable) + values.count(None) < len(values):
        run.lose(here, "an empty string, an object or a list cannot be an enum value")
    if not sayable:
        return
    if all(isinstance(value, bool) for value in sayable):
        written["type"] = "boolean"
        if len(sayable) < 2:
            run.lose(here, "a boolean cannot be limited to one value")
        return
    if not all(isinstance(value, str) for value in sayable):
        run.lose(here, "enum values that are not strings became strings")
    written["type"] = "string"
    written["enum"] = [_text(value) for value in sayable]


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | bool | int | float)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _write_properties(run: _Compilation, schema: Schema, written: Schema, place: _Place) -> None:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        if "required" in schema:
            run.lose(f"{place.path}.required", "no properties are declared")
        return
    written.setdefault("type", "object")
    written["properties"] = {
        name: _compile(run, value, place.under(f".properties.{name}"))
        for name, value in properties.items()
    }
    if properties:
        written["propertyOrdering"] = _ordering(schema.get("propertyOrdering"), properties)
    required = schema.get("required")
    if isinstance(required, list):
        known = [name for name in required if isinstance(name, str) and name in properties]
        if len(known) != len(required):
            run.lose(f"{place.path}.required", "names a property that is not declared")
        if known:
            written["required"] = known


def _ordering(given: object, properties: Schema) -> list[str]:
    asked = given if isinstance(given, list) else []
    first = [name for name in asked if isinstance(name, str) and name in properties]
    return list(dict.fromkeys([*first, *properties]))


def _write_items(run: _Compilation, schema: Schema, written: Schema, place: _Place) -> None:
    items = schema.get("items")
    positions = items if isinstance(items, list) else schema.get("prefixItems")
    if isinstance(positions, list):
        run.lose(f"{place.path}.prefixItems", "the order of item types cannot be said")
        branches = [
            _compile(run, one, place.under(f".prefixItems[{index}]"))
            for index, one in enumerate(positions)
        ]
        written["items"] = {"anyOf": branches} if branches else dict(_OPEN)
    elif isinstance(items, dict):
        written["items"] = _compile(run, items, place.under(".items")) or dict(_OPEN)
    elif written.get("type") == "array":
        run.lose(f"{place.path}.items", "the service wants an item type; open objects instead")
        written["items"] = dict(_OPEN)


def _write_choices(run: _Compilation, schema: Schema, written: Schema, place: _Place) -> Schema:
    """Write `anyOf` (or `oneOf`, which the service reads as anyOf) and fold a null branch away."""
    key = "anyOf" if isinstance(schema.get("anyOf"), list) else "oneOf"
    choices = schema.get(key)
    if not isinstance(choices, list):
        return written
    if key == "anyOf" and "oneOf" in schema:
        run.lose(f"{place.path}.oneOf", "stands beside anyOf")
    branches: list[Schema] = []
    for index, choice in enumerate(choices):
        if isinstance(choice, dict) and choice.get("type") == "null":
            written["nullable"] = True
        else:
            branches.append(_compile(run, choice, place.under(f".{key}[{index}]")))
    if len(branches) == 1 and not (
        written.keys() & branches[0].keys() - {"description", "nullable"}
    ):
        return {**branches[0], **written}
    if branches:
        written["anyOf"] = branches
    return written
