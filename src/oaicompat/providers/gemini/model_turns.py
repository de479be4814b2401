"""The model's turns in history: its calls, and the signatures on them.

One rule: a signature goes back on the part it came on, to the backend that made it, and where the service
demands one that is lost, only the first call of a step gets Google's documented stand-in. Sources:
gemini-wire section 3 "Thought signatures", mappings 1.1 and D.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import MINTED, Code, CodeResult, Message, ServerTool, Thought, ToolCall
from oaicompat.notes import Notes
from oaicompat.providers.gemini.context import EMPTY_OBJECT, Context, json_object
from oaicompat.providers.gemini.parts import encode_part, usable_signature
from oaicompat.providers.gemini.schema import FunctionCall, Part
from oaicompat.providers.gemini.tool_turns import SentCall

SENTINEL = "skip_thought_signature_validator"


class ModelTurn:
    """What the model said between two user turns; `current` tells whether its signatures are checked."""

    __slots__ = ("calls", "current", "ids", "parts", "path")

    def __init__(self, current: bool) -> None:
        self.current = current
        self.path = ""
        self.parts: list[Part] = []
        self.calls: list[SentCall] = []
        self.ids: set[str] = set()

    def add(self, message: Message, context: Context) -> None:
        path = self.path = message.path
        resign = context.sentinel and self.current
        for part in message.parts:
            if type(part) is ToolCall:
                self.parts.append(self._call(part, path, context))
            elif type(part) is Thought and not _is_ours(part, message):
                context.notes.dropped(
                    path, "reasoning that did not come from this service", inert=True
                )
            elif (encoded := encode_part(part, path, context, resign=resign)) is not None:
                self.parts.append(encoded)

    def _call(self, call: ToolCall, path: str, context: Context) -> Part:
        wire_id = self._wire_id(call, context)
        resign = context.sentinel and self.current
        signature = None
        if call.signature is not None:
            signature = usable_signature(call.signature, call.path or path, context, resign=resign)
        first = not self.calls
        if signature is None and first and self.current and context.profile.signatures_required:
            signature = SENTINEL
        self.calls.append(SentCall(call, wire_id))
        name = context.upstream_name(call.name)
        sent = FunctionCall(name, encode_arguments(call, context.notes), wire_id or None)
        if signature is None and not call.thought:
            return Part(function_call=sent)
        return Part(function_call=sent, thought=call.thought or None, thought_signature=signature)

    def _wire_id(self, call: ToolCall, context: Context) -> str:
        """Return the id to tell the service: ids we minted, or that a turn has twice, stay here."""
        if not context.profile.native_ids or call.id.startswith(MINTED) or call.id in self.ids:
            return ""
        self.ids.add(call.id)
        return call.id


def _is_ours(thought: Thought, message: Message) -> bool:
    """Tell whether a thought is one the service gave: it, or its turn, shows traces of the service."""
    return thought.signature is not None or any(
        isinstance(part, Code | CodeResult | ServerTool)
        or getattr(part, "signature", None) is not None
        for part in message.parts
    )


def encode_arguments(call: ToolCall, notes: Notes) -> Raw:
    """Return a call's arguments as the JSON object Gemini takes.

    Arguments travel as the bytes the client sent, after one validating decode; none at all are `{}`
    (mappings B24). The text of a free-text tool is its one property. What is not one JSON object, as an
    answer that was cut leaves it, is kept whole under `_raw` with a note: an agent cannot change its history.
    """
    if call.custom:
        return _wrapped("input", call)
    if not call.arguments or call.arguments.isspace():
        return EMPTY_OBJECT
    arguments = json_object(call.arguments)
    if arguments is not None:
        return arguments
    notes.approximated(call.path, "the arguments are not one JSON object; sent as text under _raw")
    return _wrapped("_raw", call)


def _wrapped(name: str, call: ToolCall) -> Raw:
    try:
        return Raw(msgspec.json.encode({name: call.arguments}))
    except UnicodeEncodeError:
        raise InvalidRequestError(
            "The arguments of a call hold text that is not valid Unicode.", param=call.path or None
        ) from None
