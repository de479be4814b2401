"""Input items to neutral turns.

One rule: consecutive items of the model are one turn, as the model made them, and every call has its output:
Responses knows no gaps, and says so in the words clients look for (openai-wire section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from oaicompat.dialects.parts import Content, media_parts, read, text_parts
from oaicompat.dialects.responses.forms import BY_ITEM, FORMS, arguments_of
from oaicompat.dialects.responses.schema import CodeOutput, Item, ShellOutput, kind_of
from oaicompat.dialects.responses.tools import read_all
from oaicompat.dialects.responses.turns import Turn
from oaicompat.dialects.tools import Tools
from oaicompat.errors import InvalidRequestError
from oaicompat.media import normalise, sniff
from oaicompat.messages import Media, Message, Text, Tool, ToolCall, ToolResult
from oaicompat.notes import Notes
from oaicompat.signatures import unseal
from oaicompat.wire import decode_part, sound
from oaicompat.wire_errors import clipped

_SUMMARY = "Summary of the conversation so far:\n\n"


class Reader:
    """Reads items in order.

    `tools` are those that items declared, `compacts` tells whether one asks for a summary. Knows the calls made
    so far and which of them wait for an output.
    """

    def __init__(self, notes: Notes) -> None:
        self.tools: list[Tool] = []
        self.compacts = False
        self._notes = notes
        self._messages: list[Message] = []
        self._turn: Turn | None = None
        self._turn_path = ""
        self._names: dict[str, str] = {}
        self._waiting: dict[str, None] = {}

    def remember(self, past: Sequence[Item], path: str) -> None:
        """Read what was said in earlier requests; what was noted of it was noted then."""
        notes, self._notes = self._notes, Notes()
        for item in past:
            self._read(item, path)
        self._end_turn()
        self._notes = notes

    def says(self, text: str) -> None:
        """Read an input that is one text of the user's."""
        self._messages.append(Message("user", (Text(text),), "input"))

    def read(self, items: Sequence[Item]) -> None:
        """Read the input; raises `InvalidRequestError` for outputs of calls that there are not."""
        for index, item in enumerate(items):
            self._read(item, f"input[{index}]")
            if self.compacts and index < len(items) - 1:
                where = f"input[{index}].type"
                message = f"Invalid value: '{where}': a compaction_trigger has to be the last item."
                raise InvalidRequestError(message, param=where, code="invalid_value")

    def messages(self) -> tuple[Message, ...]:
        """Return the conversation; raises `InvalidRequestError` for calls without an output."""
        self._end_turn()
        for call_id in self._waiting:
            raise _refused(f"No tool output found for function call {clipped(call_id)}.")
        return tuple(self._messages)

    def _read(self, item: Item, path: str) -> None:
        kind = kind_of(item)
        take = _TAKE.get(kind)
        if take is not None:
            take(self, item, path)
        else:
            inert = kind in _SAID_ALREADY
            reason = f"items of type '{clipped(kind)}' are not read back"
            self._notes.dropped(path, reason, inert=inert)

    def _speaks(self, path: str) -> Turn:
        """Return the turn of the model that an item belongs to."""
        if self._turn is None:
            self._turn, self._turn_path = Turn(self._notes), path
        return self._turn

    def _end_turn(self) -> None:
        if self._turn is not None and self._turn.parts:
            parts = tuple(self._turn.parts)
            self._messages.append(Message("assistant", parts, self._turn_path))
        self._turn = None

    def _message(self, item: Item, path: str) -> None:
        where = f"{path}.content"
        content: Content = decode_part(item.content, Content, where, self._notes)
        if item.role == "assistant":
            self._speaks(path).message(read(content, where, self._notes), where)
            return
        self._end_turn()
        if item.role in ("system", "developer"):
            texts = text_parts(content, where, self._notes)
            self._messages.append(Message("system", texts, path))
        else:
            parts = media_parts(content, where, self._notes)
            self._messages.append(Message("user", parts, path))

    def _reasoning(self, item: Item, path: str) -> None:
        summary = [part.text for part in item.summary or ()]
        self._speaks(path).reasoning(summary, item.encrypted_content, path)

    def _call(self, item: Item, path: str) -> None:
        custom = item.type == "custom_tool_call"
        name = _required(item.name, f"{path}.name")
        if item.namespace:
            name = f"{item.namespace}.{name}"
        arguments = item.input if custom else item.arguments
        if isinstance(arguments, dict):
            arguments = _checked(arguments, f"{path}.arguments").decode()
        self._add_call(item, name, arguments or "", path, custom=custom)

    def _formed_call(self, item: Item, path: str) -> None:
        if item.type == "tool_search_call" and item.execution != "client":
            self._notes.dropped(path, "the search was the server's own", inert=True)
            return
        form = BY_ITEM[item.type or ""]
        field = FORMS[form].field
        held = getattr(item, field)
        if not isinstance(held, dict):
            held = {}
        plain = msgspec.json.decode(_checked(held, f"{path}.{field}"))
        carried = self._speaks(path).arguments(item.call_id or item.id or "")
        self._add_call(item, form, arguments_of(form, plain, carried), path)

    def _add_call(
        self, item: Item, name: str, arguments: str, path: str, *, custom: bool = False
    ) -> None:
        call_id = _required(item.call_id or item.id, f"{path}.call_id")
        self._speaks(path).call(ToolCall(call_id, name, arguments, custom, path=path))
        self._names[call_id] = name
        self._waiting[call_id] = None

    def _output(self, item: Item, path: str) -> None:
        where = f"{path}.output"
        content: Content = decode_part(item.output, Content, where, self._notes)
        self._answer(item, media_parts(content, where, self._notes), path)

    def _patch_output(self, item: Item, path: str) -> None:
        text = decode_part(item.output, str | None, f"{path}.output", self._notes)
        said = {"status": item.status or "completed"} | ({"output": text} if text else {})
        self._answer(item, (Text(msgspec.json.encode(said).decode()),), path)

    def _shell_output(self, item: Item, path: str) -> None:
        outputs = decode_part(item.output, list[ShellOutput], f"{path}.output", self._notes) or []
        said = [
            {"stdout": each.stdout, "stderr": each.stderr}
            | ({"outcome": each.outcome} if each.outcome else {})
            for each in outputs
        ]
        text = _checked({"output": said}, f"{path}.output").decode()
        self._answer(item, (Text(text),), path)

    def _search_output(self, item: Item, path: str) -> None:
        where = f"{path}.tools"
        found = read_all(
            decode_part(item.tools, Tools, where, self._notes) or [], self._notes, where
        )
        self.tools += found
        if item.execution == "client" or item.call_id in self._names:
            names = [getattr(tool, "name", "") for tool in found]
            said = msgspec.json.encode({"tools": names}).decode()
            self._answer(item, (Text(said),), path)

    def _answer(self, item: Item, parts: tuple[Text | Media, ...], path: str) -> None:
        call_id = item.call_id or item.id or ""
        if call_id not in self._names:
            raise _refused(
                f"No tool call found for function call output with call_id {clipped(call_id)}."
            )
        self._end_turn()
        self._waiting.pop(call_id, None)
        result = ToolResult(call_id, parts, self._names[call_id], path)
        self._messages.append(Message("tool", (result,), path))

    def _more_tools(self, item: Item, path: str) -> None:
        where = f"{path}.tools"
        found = decode_part(item.tools, Tools, where, self._notes) or []
        self.tools += read_all(found, self._notes, where)

    def _code(self, item: Item, path: str) -> None:
        outputs = decode_part(item.outputs, list[CodeOutput], f"{path}.outputs", self._notes) or []
        logs = [each.logs for each in outputs if each.logs is not None]
        self._speaks(path).code(item.code or "", logs)

    def _image(self, item: Item, path: str) -> None:
        if not item.result:
            self._notes.dropped(path, "there is no image in it", inert=True)
            return
        where = f"{path}.result"
        data = normalise(item.result, where)
        image = Media(sniff(data) or "image/png", data, path=where)
        self._speaks(path).image(image, path)

    def _compaction(self, item: Item, path: str) -> None:
        sealed = unseal(item.encrypted_content or "")
        if sealed is None or not sealed.summary:
            where = f"{path}.encrypted_content"
            self._notes.dropped(where, "the summary is not from here, or damaged")
            return
        self._end_turn()
        self._messages.append(Message("user", (Text(f"{_SUMMARY}{sealed.summary}"),), path))

    def _trigger(self, item: Item, path: str) -> None:
        self.compacts = True


_TAKE: Mapping[str, Callable[[Reader, Item, str], None]] = {
    "message": Reader._message,
    "reasoning": Reader._reasoning,
    "function_call": Reader._call,
    "custom_tool_call": Reader._call,
    "local_shell_call": Reader._formed_call,
    "shell_call": Reader._formed_call,
    "apply_patch_call": Reader._formed_call,
    "tool_search_call": Reader._formed_call,
    "function_call_output": Reader._output,
    "custom_tool_call_output": Reader._output,
    "local_shell_call_output": Reader._output,
    "shell_call_output": Reader._shell_output,
    "apply_patch_call_output": Reader._patch_output,
    "tool_search_output": Reader._search_output,
    "additional_tools": Reader._more_tools,
    "code_interpreter_call": Reader._code,
    "image_generation_call": Reader._image,
    "compaction": Reader._compaction,
    "compaction_trigger": Reader._trigger,
}

_SAID_ALREADY = ("web_search_call",)
"""Items whose result stands in the answer's text."""


def _checked(value: Mapping[str, Any], path: str) -> bytes:
    """Return a value that holds untyped JSON as JSON; raises `InvalidRequestError` where that is not sound."""
    return bytes(sound(Raw(msgspec.json.encode(value)), path))


def _required(value: str | None, path: str) -> str:
    if not value:
        message = f"Missing required parameter: '{path}'."
        raise InvalidRequestError(message, param=path, code="missing_required_parameter")
    return value


def _refused(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="input")
