"""Tools and tool choice.

One rule: a declaration is built from what Gemini knows, never copied from the client's object (mappings B27,
B28), and a combination the model is known to refuse is the client's 400, naming the field: nothing is lost
in silence. Sources: peers 1.2, gemini-wire section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import CustomTool, Declared, FunctionTool, HostedTool, ToolChoice
from oaicompat.notes import Note, Notes
from oaicompat.providers.gemini.context import Context
from oaicompat.providers.gemini.hosted_tools import encode_hosted
from oaicompat.providers.gemini.json_schema import prepare, to_openapi
from oaicompat.providers.gemini.schema import (
    FunctionCallingConfig,
    FunctionDeclaration,
    Tool,
    ToolConfig,
)

Function = FunctionTool | CustomTool
Mode = Literal["AUTO", "ANY", "NONE", "VALIDATED"]

# Bounds what the memory of plain schemas can hold, at 4 MB.
_REMEMBERED_BYTES = 8192
_FREE_TEXT = b'{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}'


class EncodedTools(Struct, frozen=True):
    """What goes into the body."""

    tools: tuple[Tool, ...] = ()
    config: ToolConfig | None = None


NO_TOOLS = EncodedTools()
"""What a request without tools has."""


class Selection(Struct, frozen=True):
    """The tools that may be used at all, after the choice."""

    functions: Sequence[Function]
    hosted: Sequence[HostedTool]
    choice: ToolChoice | None


def encode_tools(context: Context, *, built_ins: bool = False) -> EncodedTools:
    """Encode the tools and the choice among them.

    `built_ins` tells that `extra_body.google` brings tools which the service runs. Raises
    `InvalidRequestError` for unknown names, for names declared twice, for schemas that are no schemas, and
    for combinations that the model refuses.
    """
    selection = _selected(context)
    if not selection.functions and not selection.hosted:
        _note_idle_choice(selection.choice, context)
        return NO_TOOLS
    tools: list[Tool] = []
    if selection.functions:
        tools.append(Tool(_declarations(selection.functions, context)))
    tools += encode_hosted(selection.hosted, context)
    combined = bool(selection.functions) and (built_ins or bool(selection.hosted))
    _check_combination(combined, context)
    return EncodedTools(tuple(tools), _config(selection, combined, context))


def _declarations(
    functions: Sequence[Function], context: Context
) -> Sequence[FunctionDeclaration] | Raw:
    tools, json_schema = context.request.tools, context.profile.json_schema
    if isinstance(tools, Declared) and len(functions) == len(tools.names) and not context.names:
        encoded, notes = _remembered(_Same(tools), json_schema)
        context.notes.extend(notes)
        return encoded
    return [
        _declaration(each, context.upstream_name(each.name), json_schema, context.notes)
        for each in functions
    ]


class _Same:
    """Tools, told from others by which object they are."""

    __slots__ = ("tools",)

    def __init__(self, tools: Declared) -> None:
        self.tools = tools

    def __hash__(self) -> int:
        return id(self.tools)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.tools is other.tools


@lru_cache(maxsize=64)
def _remembered(same: _Same, json_schema: bool) -> tuple[Raw, tuple[Note, ...]]:
    """Return the declarations of all functions as JSON, and the notes on them."""
    notes = Notes()
    declarations = [
        _declaration(tool, tool.name, json_schema, notes)
        for tool in same.tools
        if not isinstance(tool, HostedTool)
    ]
    return Raw(msgspec.json.encode(declarations)), tuple(notes)


def _note_idle_choice(choice: ToolChoice | None, context: Context) -> None:
    if choice is not None and choice.mode == "required":
        context.notes.dropped(choice.path, "there is no tool to call")


def _selected(context: Context) -> Selection:
    request = context.request
    functions = [tool for tool in request.tools if not isinstance(tool, HostedTool)]
    hosted = [tool for tool in request.tools if isinstance(tool, HostedTool)]
    if not isinstance(request.tools, Declared):
        _check_names(functions)
    choice = request.tool_choice
    if functions and not context.profile.functions:
        for tool in functions:
            context.notes.dropped(tool.path, "this model takes no functions")
        functions = []
    if choice is None:
        return Selection(functions, hosted, None)
    if choice.mode == "none":
        unusable = request.output is not None and not context.profile.tools_with_json
        return Selection([] if unusable else functions, [], choice)
    if choice.names:
        return _restricted(functions, hosted, choice, context)
    return Selection(functions, hosted, choice)


def _restricted(
    functions: Sequence[Function],
    hosted: Sequence[HostedTool],
    choice: ToolChoice,
    context: Context,
) -> Selection:
    """Keep what the choice names. In mode ANY the declarations stay and the names travel instead."""
    wanted = frozenset(choice.names)
    known = {tool.name for tool in context.request.tools if not isinstance(tool, HostedTool)}
    unknown = wanted - known - {tool.kind for tool in hosted}
    if unknown:
        raise InvalidRequestError(
            f"Tool choice {min(unknown)[:64]!r} not found in 'tools' parameter.", param=choice.path
        )
    chosen = [tool for tool in functions if tool.name in wanted]
    chosen_hosted = [tool for tool in hosted if tool.kind in wanted - known]
    if choice.mode == "required" and chosen and not chosen_hosted:
        return Selection(functions, (), choice)
    return Selection(chosen, chosen_hosted, choice)


def _check_names(functions: Sequence[Function]) -> None:
    seen: set[str] = set()
    for tool in functions:
        if tool.name in seen:
            raise InvalidRequestError(
                f"Tool names must be unique; {tool.name[:64]!r} occurs twice.",
                param=tool.path or "tools",
            )
        seen.add(tool.name)


def _check_combination(combined: bool, context: Context) -> None:
    profile, output = context.profile, context.request.output
    if combined and profile.builtin_with_functions == "no":
        raise InvalidRequestError(
            "This model cannot use functions together with tools that the service runs "
            "(web search, code execution, ...).",
            code="unsupported_value",
            param="tools",
        )
    if output is not None and not profile.tools_with_json:
        raise InvalidRequestError(
            "This model cannot answer in a JSON format while tools are given.",
            code="unsupported_value",
            param=output.path,
        )


def _declaration(tool: Function, name: str, json_schema: bool, notes: Notes) -> FunctionDeclaration:
    if isinstance(tool, CustomTool):
        return _schemed(name, _described(tool, notes), _FREE_TEXT, tool.path, json_schema, notes)
    schema = b"null" if tool.parameters is None else bytes(tool.parameters)
    if schema == b"null":
        return FunctionDeclaration(name, tool.description)
    return _schemed(name, tool.description, schema, tool.path, json_schema, notes)


def _schemed(
    name: str, description: str | None, schema: bytes, path: str, json_schema: bool, notes: Notes
) -> FunctionDeclaration:
    where = f"{path}.parameters"
    if json_schema:
        plain = len(schema) <= _REMEMBERED_BYTES and _is_plain(schema)
        prepared = Raw(schema) if plain else prepare(schema, where, notes)
        return FunctionDeclaration(name, description, parameters_json_schema=prepared)
    return FunctionDeclaration(name, description, parameters=compiled(schema, where, notes))


@lru_cache(maxsize=512)
def _is_plain(schema: bytes) -> bool:
    """Tell whether a schema goes out as it came; agents send the same ones with every request."""
    notes = Notes()
    try:
        return bytes(prepare(schema, "", notes)) == schema and not len(notes)
    except InvalidRequestError:
        return False


def compiled(schema: bytes, path: str, notes: Notes) -> Raw:
    """Compile a schema for a model without the JSON Schema fields, and note what was lost."""
    value, losses = to_openapi(schema, path)
    for loss in losses:
        notes.dropped(loss.path, loss.reason, inert=loss.inert)
    return Raw(msgspec.json.encode(value))


def _described(tool: CustomTool, notes: Notes) -> str | None:
    """Describe a free-text tool, its grammar included, since nothing upstream enforces one."""
    if not tool.grammar:
        return tool.description
    notes.approximated(tool.path, "the grammar is described to the model, not enforced")
    rule = f"The input must match this {tool.syntax or 'lark'} grammar:\n{tool.grammar}"
    return f"{tool.description}\n\n{rule}" if tool.description else rule


def _config(selection: Selection, combined: bool, context: Context) -> ToolConfig | None:
    circulates = combined and context.profile.builtin_with_functions == "flag"
    calling = _calling(selection, combined, context) if selection.functions else None
    if not selection.functions and selection.choice and selection.choice.mode == "required":
        context.notes.approximated(
            selection.choice.path, "the use of a tool that the service runs cannot be required"
        )
    if context.request.parallel_tool_calls is False and selection.functions:
        context.notes.approximated(
            context.request.spelled("parallel_tool_calls"), "parallel calls cannot be switched off"
        )
    if calling is None and not circulates:
        return None
    return ToolConfig(
        function_calling_config=calling,
        include_server_side_tool_invocations=True if circulates else None,
    )


def _calling(
    selection: Selection, combined: bool, context: Context
) -> FunctionCallingConfig | None:
    choice = selection.choice
    match choice.mode if choice else "auto":
        case "none":
            return FunctionCallingConfig("NONE")
        case "required" if choice and not (choice.names and selection.hosted):
            names = tuple([context.upstream_name(name) for name in choice.names])
            return FunctionCallingConfig("ANY", names)
        case "required" if choice:
            context.notes.approximated(
                choice.path, "functions and tools that the service runs cannot be required together"
            )
        case _:
            pass
    mode = _automatic(selection, combined, context)
    return None if mode is None else FunctionCallingConfig(mode)


def _automatic(selection: Selection, combined: bool, context: Context) -> Mode | None:
    """Choose between AUTO, which is the default and not sent, and VALIDATED."""
    strict = [
        tool for tool in selection.functions if isinstance(tool, FunctionTool) and tool.strict
    ]
    if (strict or combined) and context.profile.validated_mode:
        return "VALIDATED"
    for tool in strict:
        context.notes.approximated(f"{tool.path}.strict", "this model does not enforce schemas")
    explicit = selection.choice is not None and selection.choice.mode == "auto"
    return "AUTO" if explicit else None
