"""The tools of a Responses request: those every dialect has, and those only this one has.

One rule: a tool that the client runs keeps its form (the declaration decides the item of a call), one that
nobody can serve is dropped with a note, and one whose calls would come back in a form no client of it knows is
a 400.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw
from msgspec.structs import replace

from oaicompat.dialects.responses.forms import FORMS
from oaicompat.dialects.tools import (
    Mode,
    ToolChoiceObject,
    ToolDefinition,
    ToolReference,
    Tools,
    hosted_kind,
    read_choice,
    read_tool,
)
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import CustomTool, FunctionTool, HostedTool, Tool, ToolChoice
from oaicompat.notes import Notes
from oaicompat.wire import decode_part, given, json_object

_COMPUTER = ("computer", "computer_use_preview")


def read_all(tools: Sequence[ToolDefinition], notes: Notes, path: str = "tools") -> list[Tool]:
    """Read a list of tools, those in namespaces among them; raises `InvalidRequestError`."""
    read: list[Tool] = []
    for index, tool in enumerate(tools):
        read += _read(tool, f"{path}[{index}]", notes)
    return read


def with_later(tools: tuple[Tool, ...], later: Sequence[Tool], notes: Notes) -> tuple[Tool, ...]:
    """Return the tools of a request and those that its input declares; a name counts where it comes first.

    What is declared otherwise later is noted, unless an earlier request did so.
    """
    if not later:
        return tools
    merged = list(tools)
    known = {tool.name: tool for tool in merged if not isinstance(tool, HostedTool)}
    for tool in later:
        if isinstance(tool, HostedTool):
            merged.append(tool)
        elif tool.name not in known:
            known[tool.name] = tool
            merged.append(tool)
        elif tool.path.startswith("input") and replace(known[tool.name], path=tool.path) != tool:
            notes.dropped(tool.path, "a tool of this name is declared before it")
    return tuple(merged)


def _read(tool: ToolDefinition, path: str, notes: Notes) -> list[Tool]:
    kind = tool.type
    if kind == "namespace":
        return _namespace(tool, path, notes)
    if kind is not None and kind in FORMS:
        return _formed(kind, tool, path, notes)
    if kind == "image_generation":
        notes.dropped(path, "the model makes images by itself where it can")
        return []
    if kind in _COMPUTER:
        message = f"Unsupported value: '{path}.type' does not support '{kind}' with this model."
        raise InvalidRequestError(message, param=f"{path}.type", code="unsupported_value")
    found = read_tool(tool, path, notes)
    return [] if found is None else [found]


def _namespace(tool: ToolDefinition, path: str, notes: Notes) -> list[Tool]:
    if not tool.name:
        message = f"Missing required parameter: '{path}.name'."
        raise InvalidRequestError(message, param=f"{path}.name", code="missing_required_parameter")
    inner: list[ToolDefinition] = decode_part(tool.tools, Tools, f"{path}.tools", notes) or []
    members: list[Tool] = []
    for member in read_all(inner, notes, f"{path}.tools"):
        if isinstance(member, HostedTool):
            members.append(member)
        else:
            members.append(qualified(member, tool.name))
    return _described(members, tool.description, path, notes)


def qualified(tool: FunctionTool | CustomTool, namespace: str) -> FunctionTool | CustomTool:
    """Return a tool under the name it has outside its namespace."""
    return replace(tool, name=f"{namespace}.{tool.name}", namespace=namespace)


def _described(members: list[Tool], description: str | None, path: str, notes: Notes) -> list[Tool]:
    """Tell the model what a namespace is for, which has no place of its own: with its first member."""
    for index, member in enumerate(members):
        if description and not isinstance(member, HostedTool):
            text = f"{description}\n\n{member.description or ''}".rstrip()
            members[index] = replace(member, description=text)
            notes.rewritten(f"{path}.description", "it stands with the first tool of the namespace")
            break
    return members


def _formed(kind: str, tool: ToolDefinition, path: str, notes: Notes) -> list[Tool]:
    if kind == "tool_search" and tool.execution != "client":
        notes.dropped(path, "all tools are known at once", inert=True)
        return []
    form = FORMS[kind]
    if given(tool.allowed_callers):
        notes.dropped(f"{path}.allowed_callers", "only the model itself calls", inert=True)
    _check_environment(tool, f"{path}.environment", notes)
    parameters = json_object(tool.parameters, f"{path}.parameters") or form.parameters
    description = tool.description or form.description
    return [FunctionTool(kind, description, parameters, False, path, form=kind)]


def _check_environment(tool: ToolDefinition, path: str, notes: Notes) -> None:
    environment = decode_part(tool.environment, dict[str, Raw], path, notes)
    if environment is None:
        return
    if bytes(environment.get("type", b"")) != b'"local"':
        message = f"Unsupported value: '{path}' has to be local."
        raise InvalidRequestError(message, param=path, code="unsupported_value")
    if given(environment.get("skills", Raw())):
        notes.dropped(f"{path}.skills", "the model is not told of skills")


_UNSERVED = frozenset({"mcp", "image_generation", "programmatic_tool_calling"})


def read_any_choice(
    choice: Mode | ToolChoiceObject | None, tools: Sequence[Tool], notes: Notes
) -> ToolChoice | None:
    """Read a tool choice in any of its forms; raises `InvalidRequestError` for a name that is not declared.

    A choice of tools that are not served leaves the others to choose from, and a note.
    """
    if not isinstance(choice, ToolChoiceObject):
        return read_choice(choice, tools, notes)
    if choice.type == "allowed_tools" and choice.tools is not None:
        served = [_referred(each, tools) for each in choice.tools if each.type not in _UNSERVED]
        if len(served) < len(choice.tools):
            notes.dropped("tool_choice.tools", "it names tools that are not served")
        if not served:
            return None
        return read_choice(replace(choice, tools=served), tools, notes)
    if choice.type in _UNSERVED:
        notes.dropped("tool_choice", f"tools of type '{choice.type}' are not served")
        return None
    named = _referred(choice, tools)
    return read_choice(replace(choice, name=named.name), tools, notes)


def _referred(reference: ToolReference, tools: Sequence[Tool]) -> ToolReference:
    """Return a reference with the name that the tool has here, where it has one of its own."""
    kind, name = reference.type, reference.name
    if name is None:
        plain = reference.function is None and reference.custom is None
        formed = kind if plain and not hosted_kind(kind) else None
        return replace(reference, name=formed) if formed in FORMS else reference
    declared = [tool for tool in tools if not isinstance(tool, HostedTool)]
    if any(tool.name == name for tool in declared):
        return reference
    bare = [tool.name for tool in declared if tool.name == f"{tool.namespace}.{name}"]
    return replace(reference, name=bare[0]) if len(bare) == 1 else reference
