"""Input items to neutral turns.

One rule: consecutive items of the model are one turn, as the model made them, and every call has its output:
Responses knows no gaps, and says so in the words clients look for (openai-wire section 4).
"""

from __future__ import annotations

from collections.abc import Sequence

from oaicompat.dialects.parts import media_parts, read, split_images, text_parts
from oaicompat.dialects.responses.schema import Item
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import Message, Part, Text, ToolCall, ToolResult
from oaicompat.notes import Notes
from oaicompat.wire_errors import clipped

_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def read_items(items: Sequence[Item], notes: Notes) -> tuple[Message, ...]:
    """Read the conversation; raises `InvalidRequestError` for calls and outputs that do not match."""
    reader = _Reader(notes)
    for index, item in enumerate(items):
        reader.take(item, f"input[{index}]")
    return reader.finished()


def kind_of(item: Item) -> str:
    """Return the type of an item; messages and references may leave it out."""
    if item.type is not None:
        return item.type
    return "message" if item.role is not None else "item_reference"


class _Reader:
    """Reads items in order, knowing the calls made so far and which of them wait for an output."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.messages: list[Message] = []
        self.turn: list[Part] = []
        self.turn_path = ""
        self.names: dict[str, str] = {}
        self.waiting: dict[str, None] = {}

    def take(self, item: Item, path: str) -> None:
        kind = kind_of(item)
        if kind == "message":
            self._message(item, path)
        elif kind in _CALLS:
            self._add([self._call(item, kind == "custom_tool_call", path)], path)
        elif kind in _OUTPUTS:
            self._output(item, path)
        elif kind == "item_reference":
            raise self._unknown_item(item)
        elif kind == "reasoning":
            inert = not item.encrypted_content
            self.notes.dropped(path, "reasoning items are not read back", inert=inert)
        else:
            self.notes.dropped(path, f"items of type '{clipped(kind)}' are not read back")

    def finished(self) -> tuple[Message, ...]:
        self._end_turn()
        for call_id in self.waiting:
            raise _refused(f"No tool output found for function call {clipped(call_id)}.")
        return tuple(self.messages)

    def _add(self, parts: Sequence[Part], path: str) -> None:
        self.turn_path = self.turn_path or path
        self.turn += parts

    def _end_turn(self) -> None:
        if self.turn_path:
            self.messages.append(Message("assistant", tuple(self.turn), self.turn_path))
        self.turn, self.turn_path = [], ""

    def _message(self, item: Item, path: str) -> None:
        where = f"{path}.content"
        if item.role == "assistant":
            self._add(self._answer(item, where), path)
            return
        self._end_turn()
        if item.role in ("system", "developer"):
            texts = text_parts(item.content, where, self.notes)
            self.messages.append(Message("system", texts, path))
        else:
            parts = media_parts(item.content, where, self.notes)
            self.messages.append(Message("user", parts, path))

    def _answer(self, item: Item, path: str) -> list[Part]:
        parts: list[Part] = []
        for part in read(item.content, path, self.notes):
            if isinstance(part, Text):
                parts += split_images(part.text, path)
            else:
                parts.append(part)
        return parts

    def _call(self, item: Item, custom: bool, path: str) -> ToolCall:
        call_id = item.call_id or item.id
        for name, value in (("call_id", call_id), ("name", item.name)):
            if not value:
                missing = f"{path}.{name}"
                raise InvalidRequestError(
                    f"Missing required parameter: '{missing}'.",
                    param=missing,
                    code="missing_required_parameter",
                )
        called = ToolCall(
            call_id or "",
            item.name or "",
            (item.input if custom else item.arguments) or "",
            custom,
            path=path,
        )
        self.names[called.id] = called.name
        self.waiting[called.id] = None
        return called

    def _output(self, item: Item, path: str) -> None:
        call_id = item.call_id or ""
        if call_id not in self.names:
            raise _refused(
                f"No tool call found for function call output with call_id {clipped(call_id)}."
            )
        self._end_turn()
        self.waiting.pop(call_id, None)
        parts = media_parts(item.output, f"{path}.output", self.notes)
        result = ToolResult(call_id, parts, self.names[call_id], path)
        self.messages.append(Message("tool", (result,), path))

    def _unknown_item(self, item: Item) -> InvalidRequestError:
        return InvalidRequestError(
            f"Item with id '{clipped(item.id or '')}' not found. Items are not persisted when `store` is set"
            " to false. Try again with `store` set to true, or remove this item from your input.",
            status=404,
            param="input",
        )


def _refused(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="input")
