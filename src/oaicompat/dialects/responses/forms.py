"""Tools that OpenAI gives a form of their own and the client runs: shells, patches, the search for tools.

The model is told of each as an ordinary function whose arguments are what the item holds. One rule: the
declaration decides the form of a call, never its name, and a call whose arguments do not fit the form goes out
as the function call it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

Data = dict[str, Any]


class LocalShell(Struct, frozen=True):
    """What `local_shell` runs."""

    command: list[str]
    env: dict[str, str] = {}
    timeout_ms: int | None = None
    working_directory: str | None = None
    user: str | None = None


class Shell(Struct, frozen=True):
    """What `shell` runs."""

    commands: list[str]
    timeout_ms: int | None = None
    max_output_length: int | None = None


class Patch(Struct, frozen=True):
    """What `apply_patch` does to one file."""

    type: Literal["create_file", "update_file", "delete_file"]
    path: str
    diff: str | None = None


class Form(Struct, frozen=True):
    """One form: the type and prefix of its items, where they hold the arguments, and what the model is told."""

    item: str
    prefix: str
    field: str
    build: Callable[[str], Data | None]
    description: str
    parameters: Raw
    beside: Mapping[str, Any] = {}


def _local_shell(arguments: str) -> Data | None:
    action = _decoded(arguments, LocalShell)
    return None if action is None else {"type": "exec", **msgspec.structs.asdict(action)}


def _shell(arguments: str) -> Data | None:
    action = _decoded(arguments, Shell)
    return None if action is None else msgspec.structs.asdict(action)


def _patch(arguments: str) -> Data | None:
    operation = _decoded(arguments, Patch)
    if operation is None or (operation.diff is None) != (operation.type == "delete_file"):
        return None
    return {k: v for k, v in msgspec.structs.asdict(operation).items() if v is not None}


def _search(arguments: str) -> Data | None:
    found: Data | None = _decoded(arguments, dict[str, Any])
    return found


def _decoded(arguments: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(arguments, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _schema(required: str, **properties: Any) -> Raw:
    schema = {"type": "object", "properties": properties, "required": required.split()}
    return Raw(msgspec.json.encode(schema))


_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_MILLISECONDS = {"type": "integer", "description": "milliseconds"}

FORMS: Mapping[str, Form] = {
    "local_shell": Form(
        "local_shell_call",
        "lsh",
        "action",
        _local_shell,
        "Runs one command on the user's machine and returns its output.",
        _schema(
            "command",
            command=_TEXTS | {"description": "The program and its arguments."},
            env={"type": "object", "additionalProperties": _TEXT},
            timeout_ms=_MILLISECONDS,
            working_directory=_TEXT,
            user=_TEXT,
        ),
    ),
    "shell": Form(
        "shell_call",
        "sh",
        "action",
        _shell,
        "Runs shell commands and returns what each wrote and how it ended.",
        _schema(
            "commands",
            commands=_TEXTS | {"description": "Shell commands."},
            timeout_ms=_MILLISECONDS,
            max_output_length={"type": "integer", "description": "characters"},
        ),
        {"environment": None},
    ),
    "apply_patch": Form(
        "apply_patch_call",
        "apc",
        "operation",
        _patch,
        "Creates, updates or deletes one file; the diff is in the V4A format, and absent for a deletion.",
        _schema(
            "type path",
            type={"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
            path=_TEXT,
            diff=_TEXT,
        ),
    ),
    "tool_search": Form(
        "tool_search_call",
        "tsc",
        "arguments",
        _search,
        "Finds further tools by what they do.",
        _schema("query", query=_TEXT),
        {"execution": "client"},
    ),
}

BY_ITEM: Mapping[str, str] = {form.item: name for name, form in FORMS.items()}
"""Which form an item of history has."""

_PATCH_STATUS = {"incomplete": "completed"}


def call_data(form: str, item_id: str, call_id: str, arguments: str, status: str) -> Data | None:
    """Return the item of a call, or `None` where its arguments do not fit the form."""
    shape = FORMS[form]
    found = shape.build(arguments)
    if found is None:
        return None
    if form == "apply_patch":
        status = _PATCH_STATUS.get(status, status)
    data: Data = {"type": shape.item, "id": item_id, "call_id": call_id, "status": status}
    return {**data, shape.field: found, **shape.beside}


def arguments_of(form: str, held: Mapping[str, Any], carried: str) -> str:
    """Return a call's arguments from what its item holds; those carried along, where the item is theirs."""
    if carried and FORMS[form].build(carried) == held:
        return carried
    given = {
        key: value
        for key, value in held.items()
        if value is not None and (form, key, value) != ("local_shell", "env", {})
    }
    if form == "local_shell":
        given.pop("type", None)
    return msgspec.json.encode(given).decode()
