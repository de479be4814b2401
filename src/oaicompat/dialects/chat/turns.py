"""Chat messages to neutral turns, with every call and its result brought together.

One rule: a turn of the model comes back as the model made it. The carrier on the message restores it whole;
without one the parts stand in the order chat implies (text, images, calls) and signatures are looked for in
each place a client may have kept them (mappings section 1.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from oaicompat import signatures
from oaicompat.dialects.chat.schema import (
    AssistantMessage,
    ChatMessage,
    DeveloperMessage,
    SystemMessage,
    ToolCallItem,
    ToolMessage,
    UserMessage,
)
from oaicompat.dialects.chat.signed import IN_ID, bare, explicit, signed
from oaicompat.dialects.parts import (
    Content,
    linked,
    media_parts,
    note_caching,
    read,
    split_images,
    text_parts,
)
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    MINTED,
    Media,
    Message,
    Part,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from oaicompat.notes import Notes
from oaicompat.wire import given, sound
from oaicompat.wire_errors import clipped

_SPEAKERS: Mapping[type[ChatMessage], Role] = {
    UserMessage: "user",
    SystemMessage: "system",
    DeveloperMessage: "system",
}
PATHS = tuple([f"messages[{index}]" for index in range(64)])
"""The paths of the first messages, made once."""
_PAST = "thoughts of earlier turns go back only with their carrier"


def read_messages(messages: Sequence[ChatMessage], notes: Notes) -> tuple[Message, ...]:
    """Read the conversation; raises `InvalidRequestError` naming the message at fault."""
    return _Reader(notes).messages(messages)


class _Calls:
    """The calls of one turn of the model, and which of them wait for a result; every question is O(1)."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self._calls: list[ToolCall] = []
        self._waiting: dict[str | None, deque[str]] | None = None
        self._answered: set[str] = set()

    def add(self, call: ToolCall) -> None:
        self.names[call.id] = call.name
        self._calls.append(call)
        self._waiting = None

    def first(self, name: str | None = None) -> str | None:
        """Return the id of the first call that waits, of those to one function where `name` is given."""
        if self._waiting is None:
            self._waiting = {None: deque(call.id for call in self._calls)}
            for call in self._calls:
                self._waiting.setdefault(call.name, deque()).append(call.id)
        waiting = self._waiting.get(name)
        while waiting and waiting[0] in self._answered:
            waiting.popleft()
        return waiting[0] if waiting else None

    def answer(self, call_id: str) -> str:
        """Mark a call as answered; return its function's name."""
        self._answered.add(call_id)
        return self.names[call_id]


_NO_CALLS = _Calls()


class _Reader(Struct):
    """Reads messages in order, knowing the calls that may be answered now: those of the last model turn."""

    notes: Notes
    calls: _Calls = _NO_CALLS
    speaking: bool = False

    def messages(self, messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
        read = []
        for index, message in enumerate(messages):
            path = PATHS[index] if index < len(PATHS) else f"messages[{index}]"
            if message.cache_control:
                note_caching(message, path, self.notes)
            role = _SPEAKERS.get(type(message))
            if role is None:
                read.append(self._of_turn(index, message, path))
                continue
            self.speaking = False
            if message.name:
                self._note_name(path)
            content = message.content
            if type(content) is str:
                read.append(Message(role, (Text(content),), path))
            else:
                read_parts = text_parts if role == "system" else media_parts
                parts = read_parts(content, f"{path}.content", self.notes)
                read.append(Message(role, parts, path))
        return tuple(read)

    def _of_turn(self, index: int, message: ChatMessage, path: str) -> Message:
        """Read what the model said, or the result of a call."""
        if type(message) is AssistantMessage:
            if message.name:
                self._note_name(path)
            parts = self._assistant(index, message, path)
            self._spoke(parts)
            return Message("assistant", parts, path)
        self.speaking = False
        if type(message) is ToolMessage:
            call_id, name = self._answered(message.tool_call_id, path)
            return self._result(call_id, name or message.name, message.content, path)
        call_id, legacy = self._legacy_answered(message.name, path)
        return self._result(call_id, legacy, message.content, path)

    def _spoke(self, parts: Sequence[Part]) -> None:
        """Take what the model said: neighbouring messages are one turn, and empty ones are none."""
        if parts and not self.speaking:
            self.calls = _NO_CALLS
            self.speaking = True
        for part in parts:
            if type(part) is ToolCall:
                if self.calls is _NO_CALLS:
                    self.calls = _Calls()
                self.calls.add(part)

    def _note_name(self, path: str) -> None:
        self.notes.dropped(f"{path}.name", "the provider does not tell speakers apart")

    def _result(self, call_id: str, name: str | None, content: Content, path: str) -> Message:
        parts: tuple[Text | Media, ...]
        if isinstance(content, str):
            parts = (Text(content),)
        else:
            parts = media_parts(content, f"{path}.content", self.notes)
        return Message("tool", (ToolResult(call_id, parts, name, path),), path)

    def _answered(self, given_id: str | None, path: str) -> tuple[str, str | None]:
        """Find the call a result belongs to; some clients send empty ids, which pair by position."""
        call_id = given_id or ""
        if IN_ID in call_id:
            call_id = call_id.partition(IN_ID)[0]
        call_id = call_id or self.calls.first() or ""
        if call_id not in self.calls.names:
            message = (
                "Invalid parameter: messages with role 'tool' must answer one of the 'tool_calls' of the "
                f"assistant's turn before them; '{clipped(call_id)}' is none of them."
            )
            raise InvalidRequestError(message, param=f"{path}.tool_call_id", code="invalid_value")
        return call_id, self.calls.answer(call_id)

    def _legacy_answered(self, name: str | None, path: str) -> tuple[str, str]:
        if not name:
            message = f"Missing required parameter: '{path}.name'."
            raise InvalidRequestError(
                message, param=f"{path}.name", code="missing_required_parameter"
            )
        call_id = self.calls.first(name)
        if call_id is not None:
            return call_id, self.calls.answer(call_id)
        message = (
            "Invalid parameter: messages with role 'function' must answer a 'function_call' of the "
            f"assistant's turn before them; '{clipped(name)}' was not called."
        )
        raise InvalidRequestError(message, param=f"{path}.name", code="invalid_value")

    def _assistant(self, index: int, message: AssistantMessage, path: str) -> tuple[Part, ...]:
        calls: list[ToolCall] = []
        if message.tool_calls or message.function_call:
            calls = self._calls(index, message, path)
        content = self._content(message, path) if message.content else []
        if bare(message):
            return (*content, *calls)
        content += self._beside(content, message, path)
        images = self._images(message, path)
        restored = self._restored(message, content, calls, images, path)
        if restored is not None:
            refusals = [part for part in content if isinstance(part, Refusal)]
            return (*restored, *refusals)
        self._note_thoughts(message, path)
        return tuple(signed([*content, *images, *calls], message))

    def _content(self, message: AssistantMessage, path: str) -> list[Part]:
        """Return the visible parts in order; an empty text beside calls is a client's way to say none."""
        parts: list[Part] = []
        for part in read(message.content, f"{path}.content", self.notes):
            if isinstance(part, Text):
                if part.text:
                    parts += split_images(part.text, f"{path}.content", self.notes)
            else:
                parts.append(part)
        return parts

    def _beside(
        self, content: Sequence[Part], message: AssistantMessage, path: str
    ) -> tuple[Part, ...]:
        """Return what stands in place of content: a refusal, or what was spoken."""
        if message.refusal:
            return (Refusal(message.refusal),)
        if message.audio is not None and not content:
            return (self._transcript(message, path),)
        return ()

    def _transcript(self, message: AssistantMessage, path: str) -> Text:
        transcript = message.audio.transcript if message.audio else None
        if not transcript:
            text = f"Unsupported parameter: '{path}.audio.id': earlier speech is not kept here."
            raise InvalidRequestError(text, param=f"{path}.audio.id", code="unsupported_parameter")
        self.notes.approximated(f"{path}.audio", "earlier speech goes back as its transcript")
        return Text(transcript)

    def _images(self, message: AssistantMessage, path: str) -> list[Media]:
        images = []
        for index, image in enumerate(message.images or ()):
            where = f"{path}.images[{index}].image_url"
            if isinstance(image.image_url, str):
                images.append(linked(image.image_url, where))
            else:
                images.append(linked(image.image_url.url, f"{where}.url"))
        return images

    def _calls(self, index: int, message: AssistantMessage, path: str) -> list[ToolCall]:
        calls = []
        for position, item in enumerate(message.tool_calls or ()):
            if item.cache_control:
                note_caching(item, f"{path}.tool_calls[{position}]", self.notes)
            call = _call(item, f"{path}.tool_calls[{position}]")
            if not call.id:
                call = replace(call, id=f"{MINTED}{index}_{position}")
            calls.append(call)
        legacy = message.function_call
        if legacy is not None and not calls:
            minted = f"{MINTED}{index}_0"
            where = f"{path}.function_call"
            calls.append(ToolCall(minted, legacy.name, legacy.arguments or "", path=where))
        return calls

    def _restored(
        self,
        message: AssistantMessage,
        content: Sequence[Part],
        calls: Sequence[ToolCall],
        images: Sequence[Media],
        path: str,
    ) -> tuple[Part, ...] | None:
        extra = message.extra_content
        if extra is None or not given(extra.google):
            return None
        text = message.content
        if not isinstance(text, str):
            text = "".join(part.text for part in content if isinstance(part, Text))
        return signatures.restore(
            sound(extra.google, f"{path}.extra_content.google"),
            content=text,
            reasoning=message.reasoning_content or message.reasoning or "",
            calls=calls,
            images=[*(part for part in content if isinstance(part, Media)), *images],
            path=path,
            notes=self.notes,
        )

    def _note_thoughts(self, message: AssistantMessage, path: str) -> None:
        for name in ("reasoning_content", "reasoning"):
            if getattr(message, name):
                self.notes.dropped(f"{path}.{name}", _PAST, inert=True)
        for index, detail in enumerate(message.reasoning_details or ()):
            if detail.text or detail.summary:
                self.notes.dropped(f"{path}.reasoning_details[{index}]", _PAST, inert=True)
        for index, block in enumerate(message.thinking_blocks or ()):
            if block.thinking:
                self.notes.dropped(f"{path}.thinking_blocks[{index}]", _PAST, inert=True)


def _call(item: ToolCallItem, path: str) -> ToolCall:
    """Read a call; one without an id has an empty one."""
    call_id = item.id or ""
    if IN_ID in call_id:
        call_id = call_id.partition(IN_ID)[0]
    signature = explicit(item)
    if item.custom is not None:
        name, text = item.custom.name, item.custom.input
        return ToolCall(call_id, name, text or "", True, signature=signature, path=path)
    if item.function is None:
        message = f"Missing required parameter: '{path}.function'."
        raise InvalidRequestError(
            message, param=f"{path}.function", code="missing_required_parameter"
        )
    name, arguments = item.function.name, item.function.arguments
    return ToolCall(call_id, name, arguments or "", signature=signature, path=path)
