"""Chat answers as chunks; as a whole they are in `completion`.

Chunk grammar, per choice (openai-wire section 2): one chunk with the role; content, reasoning, images and call
fragments in the model's order; what rides along (annotations, the carrier) in one delta; then an empty delta
with the one finish reason. Choices first appear in index order. After all of them one usage chunk if it was
asked for, then `[DONE]`. A failure ends the stream with an error frame and without `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

import msgspec

from oaicompat.dialects import AnswerContext
from oaicompat.dialects.chat.completion import encode_response
from oaicompat.dialects.chat.message import (
    Data,
    annotations_data,
    audio_data,
    call_data,
    encode_error,
    extensions,
    finish_reason,
    image_data,
    is_audio,
    logprobs_data,
    shown,
    usage_data,
)
from oaicompat.errors import OaicompatError
from oaicompat.events import (
    Cited,
    Completed,
    Delta,
    Event,
    Failed,
    Finished,
    Frame,
    Logprobs,
    Metered,
    Opened,
    PartEnd,
    PartStart,
    Search,
    Usage,
    grown,
)
from oaicompat.messages import (
    Code,
    CodeResult,
    Media,
    Part,
    Refusal,
    ServerTool,
    Text,
    Thought,
    ToolCall,
    ToolResult,
)

__all__ = ["encode_error", "encode_response", "encoder"]

DONE = Frame(b"[DONE]")
KEEPALIVE = Frame(b": keep-alive")

_encode = msgspec.json.Encoder().encode
_decode_string = msgspec.json.Decoder(str).decode


def encoder(context: AnswerContext) -> StreamEncoder:
    """Return an encoder for one streamed chat answer."""
    return StreamEncoder(context)


class _Stream:
    """One choice of a stream: what was sent, and the parts as they grow."""

    __slots__ = (
        "calls",
        "images",
        "open",
        "parts",
        "pieces",
        "prefix",
        "search",
        "sounds",
        "suffix",
    )

    def __init__(self) -> None:
        self.open: Part | None = None
        self.pieces: list[bytes | str] = []
        self.parts: list[Part] = []
        self.calls = 0
        self.images = 0
        self.sounds: list[Media] = []
        self.search: Search | None = None
        self.prefix = b""
        self.suffix = b""

    def end_part(self) -> None:
        if self.open is not None:
            texts = (
                each if isinstance(each, str) else _decode_string(each) for each in self.pieces
            )
            self.parts.append(grown(self.open, "".join(texts)))
        self.open = None
        self.pieces = []


class StreamEncoder:
    """Encodes the events of one streamed chat answer."""

    def __init__(self, context: AnswerContext) -> None:
        self._context = context
        self._choices: list[_Stream] = []
        self._usage = Usage()
        self._head = b""
        self._tail = b',"usage":null}' if context.request.include_usage else b"}"
        self._plain_end = b'},"logprobs":null,"finish_reason":null}]' + self._tail
        self._open_head(Opened())

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """Return the frames of these events, in order."""
        frames: list[Frame] = []
        for event in events:
            if type(event) is Delta:
                stream = self._choices[event.choice]
                stream.pieces.append(event.raw or event.text)
                if stream.prefix:
                    value = event.raw or _encode(event.text)
                    frames.append(Frame(stream.prefix + value + stream.suffix))
            else:
                self._take(event, frames)
        return frames

    def fail(self, error: OaicompatError) -> list[Frame]:
        """Return the error frame that ends the stream."""
        return [Frame(encode_error(error))]

    def keepalive(self) -> list[Frame]:
        """Return a comment, which every client skips."""
        return [KEEPALIVE]

    def announce(self) -> list[Frame]:
        """Return nothing: a completion is not made in the background."""
        return []

    def _take(self, event: Event, frames: list[Frame]) -> None:
        match event:
            case Opened():
                self._open_head(event)
            case Metered():
                self._usage = event.usage
            case Completed():
                frames.extend(self._complete())
            case Failed():
                frames.extend(self.fail(event.error))
            case Delta():
                raise ValueError("a delta is encoded where it is read")
            case _:
                self._take_choice(event, frames)

    def _take_choice(
        self, event: PartStart | PartEnd | Cited | Logprobs | Finished, frames: list[Frame]
    ) -> None:
        first = event.part if isinstance(event, PartStart) else None
        stream = self._stream(event.choice, first, frames)
        match event:
            case PartStart():
                self._start_part(stream, event, frames)
            case PartEnd():
                stream.end_part()
            case Finished():
                self._finish(stream, event, frames)
            case Logprobs():
                frames.append(self._chunk(event.choice, {}, logprobs=logprobs_data(event.tokens)))
            case Cited():
                self._cite(stream, event, frames)
            case _:
                assert_never(event)

    def _open_head(self, opened: Opened) -> None:
        context = self._context
        head: Data = {
            "id": f"chatcmpl-{context.token or opened.response_id or '0'}",
            "object": "chat.completion.chunk",
            "created": context.created,
            "model": context.model,
            "system_fingerprint": opened.model_version or None,
        }
        self._head = _encode(head)[:-1] + b',"choices":['

    def _chunk(
        self,
        choice: int,
        delta: Data,
        *,
        finish: str | None = None,
        native: str = "",
        logprobs: Data | None = None,
    ) -> Frame:
        data: Data = {
            "index": choice,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish,
        }
        if native:
            data["native_finish_reason"] = native
        return Frame(self._head + _encode(data) + b"]" + self._tail)

    def _stream(self, choice: int, first: Part | None, frames: list[Frame]) -> _Stream:
        """Return the choice's state; on first sight send its role, and that of every choice before it."""
        while len(self._choices) <= choice:
            number = len(self._choices)
            self._choices.append(_Stream())
            tools_first = isinstance(first, ToolCall) and number == choice
            content = None if tools_first else ""
            frames.append(
                self._chunk(number, {"role": "assistant", "content": content, "refusal": None})
            )
        return self._choices[choice]

    def _start_part(self, stream: _Stream, event: PartStart, frames: list[Frame]) -> None:
        part, choice = event.part, event.choice
        stream.open = part
        match part:
            case Text() | Thought() | Refusal():
                self._start_text(stream, part, choice, frames)
            case ToolCall():
                self._start_call(stream, part, choice, frames)
            case Media() if not shown(part, self._context.options):
                self._medium(stream, part, choice, frames)
            case Media() | Code() | CodeResult():
                if text := shown(part, self._context.options):
                    frames.append(self._chunk(choice, {"content": text}))
            case ServerTool() | ToolResult():
                pass
            case _:
                assert_never(part)

    def _start_text(
        self, stream: _Stream, part: Text | Thought | Refusal, choice: int, frames: list[Frame]
    ) -> None:
        key = _TEXT_KEYS[type(part)]
        stream.prefix = self._head + b'{"index":%d,"delta":{"%s":' % (choice, key)
        stream.suffix = self._plain_end
        if part.text:
            frames.append(Frame(stream.prefix + _encode(part.text) + stream.suffix))

    def _start_call(
        self, stream: _Stream, call: ToolCall, choice: int, frames: list[Frame]
    ) -> None:
        if self._context.request.legacy_functions:
            self._start_function(stream, call, choice, frames)
            return
        index = stream.calls
        stream.calls += 1
        opening: Data = {"index": index} | call_data(call, call.arguments if call.custom else "")
        frames.append(self._chunk(choice, {"tool_calls": [opening]}))
        stream.prefix = self._head + (
            b'{"index":%d,"delta":{"tool_calls":[{"index":%d,"function":{"arguments":'
            % (choice, index)
        )
        stream.suffix = b"}}]" + self._plain_end
        if call.arguments and not call.custom:
            frames.append(Frame(stream.prefix + _encode(call.arguments) + stream.suffix))

    def _start_function(
        self, stream: _Stream, call: ToolCall, choice: int, frames: list[Frame]
    ) -> None:
        stream.calls += 1
        if stream.calls > 1:
            stream.prefix = b""
            self._context.notes.dropped(
                "choices.message.function_call", "the legacy form holds one call"
            )
            return
        opening = {"name": call.name, "arguments": call.arguments}
        frames.append(self._chunk(choice, {"function_call": opening}))
        stream.prefix = self._head + (
            b'{"index":%d,"delta":{"function_call":{"arguments":' % choice
        )
        stream.suffix = b"}" + self._plain_end

    def _medium(self, stream: _Stream, part: Media, choice: int, frames: list[Frame]) -> None:
        if is_audio(part):
            stream.sounds.append(part)
            return
        frames.append(self._chunk(choice, {"images": [image_data(part, stream.images)]}))
        stream.images += 1

    def _cite(self, stream: _Stream, event: Cited, frames: list[Frame]) -> None:
        stream.search = event.search or stream.search
        if event.citations:
            annotations = annotations_data(event.citations)
            frames.append(self._chunk(event.choice, {"annotations": annotations}))

    def _finish(self, stream: _Stream, event: Finished, frames: list[Frame]) -> None:
        if stream.sounds:
            frames.append(
                self._chunk(event.choice, {"audio": audio_data(stream.sounds, self._context)})
            )
        if last := extensions(stream.parts, stream.search, self._context):
            frames.append(self._chunk(event.choice, last))
        reason = finish_reason(event.reason, self._context)
        frames.append(self._chunk(event.choice, {}, finish=reason, native=event.native))

    def _complete(self) -> list[Frame]:
        if not self._context.request.include_usage:
            return [DONE]
        usage = b'],"usage":' + _encode(usage_data(self._usage)) + b"}"
        return [Frame(self._head + usage), DONE]


_TEXT_KEYS: dict[type[Text] | type[Thought] | type[Refusal], bytes] = {
    Text: b"content",
    Thought: b"reasoning_content",
    Refusal: b"refusal",
}
