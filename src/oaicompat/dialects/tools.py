"""Tools and tool choices as OpenAI's dialects write them: nested, flat, and run by the provider.

Chat nests a function under its type, Responses does not, and clients send either on either route. One rule: a
tool is known by its type, never by its name, and a type nobody can serve is dropped with a note, because
clients declare tools they can do without.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from oaicompat.dialects.parts import Wire, note_caching
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import CustomTool, FunctionTool, HostedTool, Tool, ToolChoice
from oaicompat.notes import Notes
from oaicompat.wire import given, json_object, sound
from oaicompat.wire_errors import clipped

MOST_TOOLS = 512
"""How many tools one request may declare (reliability D9)."""

HOSTED_TYPES = {
    "google_search": "web_search",
    "googleSearch": "web_search",
    "code_interpreter": "code_execution",
    "code_execution": "code_execution",
    "codeExecution": "code_execution",
    "url_context": "url_context",
    "urlContext": "url_context",
    "google_maps": "maps",
    "googleMaps": "maps",
    "file_search": "file_search",
    "fileSearch": "file_search",
    "computer": "computer_use",
    "computer_use": "computer_use",
    "computer_use_preview": "computer_use",
    "computerUse": "computer_use",
}


class FunctionDefinition(Wire, frozen=True):
    """A function under `function`, or in the legacy list."""

    name: str
    description: str | None = None
    parameters: Raw = Raw()
    strict: bool | None = None
    cache_control: Raw = Raw()


class Grammar(Wire, frozen=True):
    """A grammar for free text."""

    definition: str | None = None
    syntax: Literal["lark", "regex"] | None = None


class CustomFormat(Wire, frozen=True):
    """The form of a custom tool's input; Responses writes the grammar flat."""

    type: Literal["text", "grammar"]
    grammar: Grammar | None = None
    definition: str | None = None
    syntax: Literal["lark", "regex"] | None = None


class CustomDefinition(Wire, frozen=True):
    """A custom tool under `custom`."""

    name: str
    description: str | None = None
    format: CustomFormat | None = None


class ToolDefinition(Wire, frozen=True):
    """A tool of any kind: which fields count is up to `type`."""

    type: str | None = None
    function: FunctionDefinition | None = None
    custom: CustomDefinition | None = None
    name: str | None = None
    description: str | None = None
    parameters: Raw = Raw()
    strict: bool | None = None
    format: CustomFormat | None = None
    cache_control: Raw = Raw()
    defer_loading: Raw = Raw()
    output_schema: Raw = Raw()
    search_context_size: Raw = Raw()
    user_location: Raw = Raw()
    filters: Raw = Raw()
    external_web_access: Raw = Raw()
    search_content_types: Raw = Raw()
    container: Raw = Raw()
    vector_store_ids: Raw = Raw()
    file_search_store_names: Raw = Raw()
    max_num_results: Raw = Raw()
    ranking_options: Raw = Raw()
    display_width: Raw = Raw()
    display_height: Raw = Raw()
    environment: Raw = Raw()
    tools: Raw = Raw()
    execution: Literal["client", "server"] | None = None
    allowed_callers: Raw = Raw()
    background: Raw = Raw()
    input_fidelity: Raw = Raw()
    input_image_mask: Raw = Raw()
    model: Raw = Raw()
    moderation: Raw = Raw()
    output_compression: Raw = Raw()
    output_format: Raw = Raw()
    partial_images: Raw = Raw()
    quality: Raw = Raw()
    size: Raw = Raw()
    action: Raw = Raw()
    server_label: Raw = Raw()
    server_url: Raw = Raw()
    server_description: Raw = Raw()
    connector_id: Raw = Raw()
    authorization: Raw = Raw()
    headers: Raw = Raw()
    allowed_tools: Raw = Raw()
    require_approval: Raw = Raw()
    tunnel_id: Raw = Raw()


_OPTIONS = (
    "search_context_size",
    "user_location",
    "filters",
    "external_web_access",
    "search_content_types",
    "container",
    "vector_store_ids",
    "file_search_store_names",
    "max_num_results",
    "ranking_options",
    "display_width",
    "display_height",
    "environment",
)

Tools = Annotated[list[ToolDefinition], Meta(max_length=MOST_TOOLS)]


Mode = Literal["none", "auto", "required"]


class Named(Wire, frozen=True):
    """The name of a tool."""

    name: str


class AllowedTools(Wire, frozen=True):
    """A choice among some of the declared tools."""

    mode: Literal["auto", "required"]
    tools: list[ToolReference]


class ToolReference(Wire, frozen=True):
    """A declared tool named in a choice, nested or flat."""

    type: str | None = None
    function: Named | None = None
    custom: Named | None = None
    name: str | None = None
    server_label: Raw = Raw()


class ToolChoiceObject(ToolReference, frozen=True):
    """A choice of one tool, or of several under `allowed_tools` (which Responses writes flat)."""

    allowed_tools: AllowedTools | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[ToolReference] | None = None


def hosted_kind(name: str | None) -> str | None:
    """Return which of the provider's own tools a tool type means."""
    if name is not None and name.startswith("web_search"):
        return "web_search"
    return HOSTED_TYPES.get(name or "")


def read_tools(tools: Sequence[ToolDefinition], notes: Notes, path: str = "tools") -> list[Tool]:
    """Read a list of tools; raises `InvalidRequestError` for one without a name or named twice."""
    read = []
    for index, tool in enumerate(tools):
        found = read_tool(tool, f"{path}[{index}]", notes)
        if found is not None:
            read.append(found)
    return read


def read_functions(functions: Sequence[FunctionDefinition], notes: Notes) -> list[Tool]:
    """Read the legacy list of functions."""
    return [
        _function(function, f"functions[{index}]", notes)
        for index, function in enumerate(functions)
    ]


def read_tool(tool: ToolDefinition, path: str, notes: Notes) -> Tool | None:
    """Read one tool; `None`, with a note, for a type nobody serves. Raises as `read_tools`."""
    kind = tool.type
    if tool.cache_control or tool.defer_loading or tool.output_schema or tool.allowed_callers:
        _note_inert(tool, path, notes)
    if kind == "function" or (kind is None and (tool.function or tool.name is not None)):
        if tool.function is not None:
            return _function(tool.function, f"{path}.function", notes)
        name = _name(tool.name, path)
        parameters = json_object(tool.parameters, f"{path}.parameters")
        return FunctionTool(name, tool.description, parameters, bool(tool.strict), path)
    if kind == "custom":
        return _custom(tool, path)
    hosted = hosted_kind(kind)
    if hosted is not None:
        return HostedTool(hosted, raw_options(tool, _OPTIONS, path), path)
    if kind is None:
        message = f"Missing required parameter: '{path}.type'."
        raise InvalidRequestError(message, param=f"{path}.type", code="missing_required_parameter")
    notes.dropped(path, f"tools of type '{clipped(kind)}' are not served")
    return None


def _note_inert(tool: ToolDefinition, path: str, notes: Notes) -> None:
    note_caching(tool, path, notes)
    if given(tool.defer_loading):
        notes.dropped(f"{path}.defer_loading", "all tools are loaded at once", inert=True)
    if given(tool.allowed_callers):
        notes.dropped(f"{path}.allowed_callers", "only the model itself calls", inert=True)
    if given(tool.output_schema):
        notes.dropped(f"{path}.output_schema", "the provider does not read it")


def _function(function: FunctionDefinition, path: str, notes: Notes) -> FunctionTool:
    if function.cache_control:
        note_caching(function, path, notes)
    parameters = json_object(function.parameters, f"{path}.parameters")
    name = _name(function.name, path)
    return FunctionTool(name, function.description, parameters, bool(function.strict), path)


def _custom(tool: ToolDefinition, path: str) -> CustomTool:
    custom = tool.custom
    if custom is None:
        custom = CustomDefinition(_name(tool.name, path), tool.description, tool.format)
    else:
        path = f"{path}.custom"
    grammar = custom.format
    if grammar is None or grammar.type == "text":
        return CustomTool(_name(custom.name, path), custom.description, path=path)
    nested = grammar.grammar or Grammar(grammar.definition, grammar.syntax)
    return CustomTool(
        _name(custom.name, path), custom.description, nested.syntax, nested.definition, path
    )


def _name(name: str | None, path: str) -> str:
    if name:
        return name
    message = f"Missing required parameter: '{path}.name'."
    raise InvalidRequestError(message, param=f"{path}.name", code="missing_required_parameter")


def raw_options(wire: Struct, names: Iterable[str], path: str) -> Raw | None:
    """Return the fields of `names` that the client sent as one JSON object, or `None` for none."""
    options = {
        name: sound(value, f"{path}.{name}")
        for name in names
        if given(value := getattr(wire, name))
    }
    return Raw(msgspec.json.encode(options)) if options else None


def distinct(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """Return the tools; raises `InvalidRequestError` where two have the same name."""
    seen = set()
    for tool in tools:
        if isinstance(tool, HostedTool):
            continue
        if tool.name in seen:
            message = f"Invalid '{tool.path}.name': a tool named '{clipped(tool.name)}' is declared twice."
            raise InvalidRequestError(message, param=f"{tool.path}.name", code="invalid_value")
        seen.add(tool.name)
    return tuple(tools)


def read_choice(
    choice: Mode | ToolChoiceObject | None,
    tools: Iterable[Tool],
    notes: Notes,
    path: str = "tool_choice",
) -> ToolChoice | None:
    """Read a tool choice in any of its forms.

    Raises `InvalidRequestError` with `param` `path` for a name that is not declared.
    """
    if choice is None:
        return None
    declared = {tool.kind if isinstance(tool, HostedTool) else tool.name for tool in tools}
    if isinstance(choice, str):
        return _plain_choice(choice, bool(declared), notes, path)
    mode: Mode = "required"
    chosen: Sequence[ToolReference] = (choice,)
    if choice.type == "allowed_tools":
        nested = choice.allowed_tools
        mode = (nested.mode if nested else choice.mode) or "auto"
        chosen = (nested.tools if nested else choice.tools) or ()
    names = tuple(dict.fromkeys([_referred(reference, path) for reference in chosen]))
    for name in names:
        if name not in declared:
            raise _bad_choice(
                f"Tool choice '{clipped(name)}' not found in 'tools' parameter.", path
            )
    if not names:
        raise _bad_choice(f"Invalid value for '{path}': it allows no tool.", path)
    return ToolChoice(mode, names, path)


def _plain_choice(mode: Mode, declared: bool, notes: Notes, path: str) -> ToolChoice | None:
    if declared:
        return ToolChoice(mode, path=path)
    if mode == "required":
        message = (
            f"Invalid value for '{path}': 'required' is only allowed when 'tools' are specified."
        )
        raise _bad_choice(message, path)
    notes.dropped(path, "there are no tools to choose from", inert=True)
    return None


def _referred(reference: ToolReference, path: str) -> str:
    nested = reference.function or reference.custom
    name = nested.name if nested else reference.name
    found = name or hosted_kind(reference.type)
    if not found:
        raise _bad_choice(f"Invalid value for '{path}': it names no tool.", path)
    return found


def _bad_choice(message: str, path: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=path, code="invalid_value")
