"""`extra_body.google`: what Google's own OpenAI endpoint takes there, and Gemini's other body fields.

One rule: what the client spelled out in Gemini's terms wins over what it said in OpenAI's, with a note, and a
name that is not a documented field of the body is noted, not sent. Names are taken in snake and in camel
case; values are the client's data and stay as they are. Sources: peers 2.8, gemini-wire section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import Request
from oaicompat.notes import Notes
from oaicompat.providers.gemini.context import Context
from oaicompat.providers.gemini.schema import (
    GenerateContentRequest,
    GenerationConfig,
    ToolConfig,
)
from oaicompat.providers.gemini.thinking import Explicit

Fields = Mapping[str, Raw]


def _fields(struct: type[Struct]) -> dict[str, str]:
    return dict(zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True))


# Several candidates are several choices, and how many there are is the dialect's to know.
_GENERATION = {
    name: field for name, field in _fields(GenerationConfig).items() if name != "candidateCount"
}
_TOOL_CONFIG = _fields(ToolConfig)
# Body fields that are taken whole, and the one backend that knows them ("" for both).
_WHOLE = {
    "safetySettings": "",
    "labels": "",
    "serviceTier": "gemini",
    "store": "gemini",
    "modelArmorConfig": "vertex",
}


class Extras(Struct, frozen=True):
    """The pass-through of one request, sorted by where it goes; keys are Gemini's, in camel case.

    `served` is set where the provider runs functions itself (MCP): the functions declared beside it.
    """

    whole: dict[str, Raw] = {}
    generation: dict[str, Raw] = {}
    tool_config: dict[str, Raw] = {}
    tools: tuple[Raw, ...] = ()
    built_ins: bool = False
    served: frozenset[str] | None = None
    cached_content: str | None = None
    thinking: Explicit | None = None
    prefix: str = "extra_body.google"


NOTHING = Extras()


class _Declared(Struct):
    """A function that is declared in the pass-through."""

    name: str = ""


class _Declaring(Struct):
    """What a tool of the pass-through declares, in either spelling."""

    camel: list[_Declared] = msgspec.field(name="functionDeclarations", default_factory=list)
    snake: list[_Declared] = msgspec.field(name="function_declarations", default_factory=list)

    @property
    def declarations(self) -> list[_Declared]:
        return [*self.camel, *self.snake]


def read_extras(request: Request, notes: Notes, backend: str) -> Extras:
    """Sort the pass-through of a request.

    Raises `InvalidRequestError`, param the field's path, for a value whose form cannot be merged.
    """
    if not request.extra:
        return NOTHING
    reader = _Reader(request.spelling.get("extra", NOTHING.prefix), notes, backend)
    for name, value in request.extra.items():
        if bytes(value) != b"null":
            reader.take(name, camel(name), value)
    return reader.extras()


def camel(name: str) -> str:
    """Spell a field as Gemini's JSON does."""
    first, *rest = name.split("_")
    return first + "".join(each[:1].upper() + each[1:] for each in rest)


class _Reader:
    """Takes one field after another."""

    def __init__(self, prefix: str, notes: Notes, backend: str) -> None:
        self.prefix = prefix
        self.notes = notes
        self.backend = backend
        self.found: dict[str, Any] = {"prefix": prefix, "whole": {}, "generation": {}}

    def extras(self) -> Extras:
        return Extras(**self.found)

    def take(self, name: str, key: str, value: Raw) -> None:
        path = f"{self.prefix}.{name}"
        handler = _HANDLERS.get(key)
        if handler is not None:
            handler(self, path, value)
        elif key in _GENERATION:
            self.found["generation"][key] = value
        elif key not in _WHOLE:
            self.notes.dropped(path, "not a field that can be passed through")
        elif _WHOLE[key] not in ("", self.backend):
            self.notes.dropped(path, "this backend does not know the field")
        else:
            self.found["whole"][key] = value

    def take_thinking(self, path: str, value: Raw) -> None:
        fields = {camel(key): field for key, field in _object(path, value).items()}
        self.found["thinking"] = Explicit(
            {key: field for key, field in fields.items() if bytes(field) != b"null"}, path
        )

    def take_generation(self, path: str, value: Raw) -> None:
        for name, field in _object(path, value).items():
            key = camel(name)
            if key == "thinkingConfig":
                self.take_thinking(f"{path}.{name}", field)
            elif key in _GENERATION:
                self.found["generation"][key] = field
            else:
                self.notes.dropped(f"{path}.{name}", "not a field of generationConfig")

    def take_tool_config(self, path: str, value: Raw) -> None:
        fields: dict[str, Raw] = {}
        for name, field in _object(path, value).items():
            if camel(name) in _TOOL_CONFIG:
                fields[camel(name)] = field
            else:
                self.notes.dropped(f"{path}.{name}", "not a field of toolConfig")
        self.found["tool_config"] = fields

    def take_tools(self, path: str, value: Raw) -> None:
        tools = _decoded(path, value, list[Raw], "a list")
        self.found["tools"] = tuple(tools)
        fields = {
            camel(key): value
            for index, tool in enumerate(tools)
            for key, value in _object(f"{path}[{index}]", tool).items()
        }
        self.found["built_ins"] = bool(fields.keys() - {"functionDeclarations"})
        if "mcpServers" in fields:
            self.found["served"] = frozenset(
                declared.name
                for tool in tools
                for declared in _decoded(path, tool, _Declaring, "a list of tools").declarations
            )

    def take_cached_content(self, path: str, value: Raw) -> None:
        self.found["cached_content"] = _decoded(path, value, str, "a string")

    def take_marker(self, path: str, value: Raw) -> None:
        self.notes.dropped(path, "thoughts come in reasoning_content, not between tags")


_HANDLERS: Mapping[str, Callable[[_Reader, str, Raw], None]] = {
    "thinkingConfig": _Reader.take_thinking,
    "generationConfig": _Reader.take_generation,
    "toolConfig": _Reader.take_tool_config,
    "tools": _Reader.take_tools,
    "cachedContent": _Reader.take_cached_content,
    "thoughtTagMarker": _Reader.take_marker,
}


def _object(path: str, value: Raw) -> dict[str, Raw]:
    found: dict[str, Raw] = _decoded(path, value, dict[str, Raw], "an object")
    return found


def _decoded(path: str, value: Raw, kind: Any, name: str) -> Any:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise InvalidRequestError(
            f"Invalid type for '{path}': expected {name}.", code="invalid_type", param=path
        ) from None


def merge(body: GenerateContentRequest, extras: Extras, context: Context) -> GenerateContentRequest:
    """Merge the pass-through into a body.

    Raises `InvalidRequestError` for a cached content beside what it must hold itself: system instructions,
    tools and their config (gemini-wire section 3 "cachedContent").
    """
    body = replace(body, tools=(*body.tools, *extras.tools))
    body = _with_tool_config(body, extras, context)
    if extras.generation:
        body = replace(body, generation_config=_with_generation(body, extras, context))
    if extras.cached_content is not None:
        body = _with_cache(body, extras)
    names = _fields(GenerateContentRequest)
    for key in extras.whole:
        if getattr(body, names[key]) is not None and key != "safetySettings":
            _note_override(context, extras, key)
    return replace(body, **{names[key]: value for key, value in extras.whole.items()})


def _note_override(context: Context, extras: Extras, key: str) -> None:
    context.notes.rewritten(f"{extras.prefix}.{key}", "overrides the parameter of the same meaning")


def _with_tool_config(
    body: GenerateContentRequest, extras: Extras, context: Context
) -> GenerateContentRequest:
    if not extras.tool_config:
        return body
    config = body.tool_config or ToolConfig()
    for key in extras.tool_config:
        if getattr(config, _TOOL_CONFIG[key]) is not None:
            _note_override(context, extras, key)
    fields = {_TOOL_CONFIG[key]: value for key, value in extras.tool_config.items()}
    return replace(body, tool_config=replace(config, **fields))


def _with_generation(
    body: GenerateContentRequest, extras: Extras, context: Context
) -> dict[str, Raw]:
    given = msgspec.json.decode(
        msgspec.json.encode(body.generation_config or {}), type=dict[str, Raw]
    )
    for key, value in extras.generation.items():
        if key in given and bytes(given[key]) != bytes(value):
            _note_override(context, extras, key)
    return {**given, **extras.generation}


def _with_cache(body: GenerateContentRequest, extras: Extras) -> GenerateContentRequest:
    held = {
        "system messages": body.system_instruction,
        "tools": body.tools,
        "tool_choice": body.tool_config,
    }
    for name, value in held.items():
        if value:
            raise InvalidRequestError(
                f"Cached content cannot be combined with {name}: they belong into the cache.",
                param=f"{extras.prefix}.cached_content",
            )
    return replace(body, cached_content=extras.cached_content)
