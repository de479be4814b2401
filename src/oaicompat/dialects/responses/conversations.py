"""The bodies of the calls on conversations: new ones, more items, metadata.

One rule: an item is kept as it was sent, completed to what a listing shows; one that no request could go on
from is refused when it comes, with the path of the field at fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from oaicompat.dialects.parts import Content, Wire
from oaicompat.dialects.responses.schema import Item, kind_of
from oaicompat.dialects.responses.stored import normalised
from oaicompat.errors import InvalidRequestError
from oaicompat.notes import Notes
from oaicompat.supplies import Item as StoredItem
from oaicompat.wire import decode_body, decode_part, given, sound
from oaicompat.wire_errors import clipped

MOST_ITEMS = 20
"""How many items one call may add (openai-wire section 4)."""

MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
"""The limits of metadata, as the API documents them."""

_CALL = ("call_id", "name")
_OUTPUT = ("call_id", "output")
_REQUIRED: Mapping[str, Sequence[str]] = {
    "message": ("role", "content"),
    "function_call": (*_CALL, "arguments"),
    "function_call_output": _OUTPUT,
    "custom_tool_call": (*_CALL, "input"),
    "custom_tool_call_output": _OUTPUT,
    "local_shell_call_output": ("output",),
    "shell_call_output": _OUTPUT,
    "apply_patch_call_output": ("call_id",),
    "computer_call_output": _OUTPUT,
    "compaction": ("encrypted_content",),
    **dict.fromkeys(
        (
            *("reasoning", "web_search_call", "file_search_call", "code_interpreter_call"),
            *("image_generation_call", "computer_call", "local_shell_call", "shell_call"),
            *("apply_patch_call", "tool_search_call", "tool_search_output", "additional_tools"),
            *("mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "mcp_call"),
            *("program", "program_output"),
        ),
        (),
    ),
}
"""The items a conversation may hold, each with the fields it cannot do without."""


class _Items(Wire, frozen=True):
    items: Annotated[list[Item], Meta(max_length=MOST_ITEMS)]


class _Conversation(Wire, frozen=True):
    items: Annotated[list[Item], Meta(max_length=MOST_ITEMS)] | None = None
    metadata: dict[str, str] | None = None


class _Metadata(Wire, frozen=True):
    metadata: dict[str, str] | None


class _Sent(Struct):
    items: Raw = Raw()


def read_conversation(body: bytes, token: str) -> tuple[tuple[StoredItem, ...], dict[str, str]]:
    """Return the items and the metadata of a new conversation; `token` makes ids of items unique.

    Raises `InvalidRequestError` naming `param`, as the other functions here.
    """
    wire = decode_body(body, _Conversation, Notes())
    return _kept(body, wire.items or (), token), _checked(wire.metadata)


def read_items(body: bytes, token: str) -> tuple[StoredItem, ...]:
    """Return the items that are to be added to a conversation."""
    return _kept(body, decode_body(body, _Items, Notes()).items, token)


def read_metadata(body: bytes) -> dict[str, str]:
    """Return what the metadata of a conversation is to be."""
    return _checked(decode_body(body, _Metadata, Notes()).metadata)


def _kept(body: bytes, items: Sequence[Item], token: str) -> tuple[StoredItem, ...]:
    for index, item in enumerate(items):
        _check(item, f"items[{index}]")
    sent = msgspec.json.decode(body, type=_Sent).items
    if not given(sent):
        return ()
    kept: dict[str, StoredItem] = {}
    for index, raw in enumerate(msgspec.json.decode(sent, type=list[Raw])):
        stored = normalised(_plain(raw, f"items[{index}]"), f"{token}_{index}")
        if stored.id in kept:
            raise InvalidRequestError(
                f"Duplicate item found with id {clipped(stored.id)}. Remove duplicate items and try again.",
                param=f"items[{index}].id",
                code="invalid_value",
            )
        kept[stored.id] = stored
    return tuple(kept.values())


def _plain(raw: Raw, path: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(sound(raw, path), type=dict[str, Any])
    except msgspec.ValidationError as error:
        message = f"Invalid value for '{path}': a number in it is out of range."
        raise InvalidRequestError(message, param=path, code="invalid_value") from error


def _check(item: Item, path: str) -> None:
    kind = kind_of(item)
    if kind not in _REQUIRED:
        raise InvalidRequestError(
            f"Invalid value: '{clipped(kind)}'. A conversation cannot hold such items.",
            param=f"{path}.type",
            code="invalid_value",
        )
    for name in _REQUIRED[kind]:
        if not _there(getattr(item, name)):
            raise InvalidRequestError(
                f"Missing required parameter: '{path}.{name}'.",
                param=f"{path}.{name}",
                code="missing_required_parameter",
            )
    if kind == "message":
        decode_part(item.content, Content, f"{path}.content", Notes())


def _there(value: Any) -> bool:
    return given(value) if isinstance(value, Raw) else value is not None


def _checked(metadata: Mapping[str, str] | None) -> dict[str, str]:
    pairs = dict(metadata or {})
    if len(pairs) > MOST_PAIRS:
        raise InvalidRequestError(
            f"Invalid 'metadata': object with too many properties. Expected an object with at most "
            f"{MOST_PAIRS} properties, but got an object with {len(pairs)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in pairs.items():
        _check_length("metadata", f"key '{clipped(key)}'", key, LONGEST_KEY)
        _check_length(f"metadata.{key}", "string", value, LONGEST_VALUE)
    return pairs


def _check_length(param: str, what: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise InvalidRequestError(
            f"Invalid '{param}': {what} too long. Expected a string with maximum length {longest}, "
            f"but got a string with length {len(text)} instead.",
            param=param,
            code="string_above_max_length",
        )
