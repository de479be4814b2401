"""The items of a streamed answer while they are open, and the events that tell of them.

Grammar, per item (openai-wire section 5): `output_item.added` with nothing in it, what fills it,
`output_item.done` with all of it. One item is open at a time; its id and index never change. A quiet sink makes
the same items and no events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from oaicompat.dialects.responses.output import (
    Data,
    code_data,
    message_data,
    reasoning_data,
    refusal_part,
    summary_part,
    text_part,
)
from oaicompat.events import Frame
from oaicompat.messages import Code, CodeResult, Signature, ToolCall

_encode = msgspec.json.Encoder().encode
_decode_string = msgspec.json.Decoder(str).decode

Piece = bytes | str


class Sink:
    """Numbers events and collects their frames; a quiet one collects nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.frames: list[Frame] = []
        self.sequence = 0

    def emit(self, kind: str, **fields: Any) -> None:
        """Add one event."""
        if not self.quiet:
            data = {"type": kind, "sequence_number": self.sequence, **fields}
            self.frames.append(Frame(_encode(data), kind, self.sequence))
            self.sequence += 1

    def emit_delta(self, kind: str, head: bytes, value: bytes, tail: bytes) -> None:
        """Add one delta whose JSON is put together: what stands before its text, the text, what follows."""
        number = self.sequence
        data = b'%b%b%b,"sequence_number":%d}' % (head, value, tail, number)
        self.frames.append(Frame(data, kind, number))
        self.sequence = number + 1


class Item:
    """What every open item has: its place in the output, and its events."""

    def __init__(self, sink: Sink, index: int, item_id: str) -> None:
        self.sink = sink
        self.index = index
        self.id = item_id

    def added(self, data: Data) -> None:
        """Tell that the item begins."""
        self.sink.emit("response.output_item.added", output_index=self.index, item=data)

    def done(self, data: Data) -> Data:
        """Tell that the item is whole, and return it."""
        self.sink.emit("response.output_item.done", output_index=self.index, item=data)
        return data

    def emit(self, kind: str, **fields: Any) -> None:
        """Tell of something within the item."""
        if not self.sink.quiet:
            self.sink.emit(f"response.{kind}", item_id=self.id, output_index=self.index, **fields)


class Growing(Item):
    """An item with one text that grows, in events of the type `kind` + `.delta`."""

    def __init__(self, sink: Sink, index: int, item_id: str) -> None:
        super().__init__(sink, index, item_id)
        self.pieces: list[Piece] = []
        self._kind = ""
        self._head = self._tail = b""

    def grows(self, kind: str, tail: bytes = b"", **fields: Any) -> None:
        """Begin a text."""
        self._kind = f"response.{kind}.delta"
        self._tail = tail
        head = {"type": self._kind, "item_id": self.id, "output_index": self.index, **fields}
        self._head = _encode(head)[:-1] + b',"delta":'
        self.pieces = []

    def delta(self, text: str, raw: bytes = b"") -> None:
        """Add text, given as such or as its JSON."""
        if not (text or raw):
            return
        self.pieces.append(raw or text)
        if not self.sink.quiet:
            self.sink.emit_delta(self._kind, self._head, raw or _encode(text), self._tail)

    def grown(self) -> str:
        """Return the text that came since it began, or since this was asked last."""
        text = joined(self.pieces)
        self.pieces = []
        return text


def joined(pieces: Sequence[Piece]) -> str:
    """Return the text of pieces, some of which are JSON strings."""
    return "".join([p if isinstance(p, str) else _decode_string(p) for p in pieces])


class OpenMessage(Growing):
    """A message with one part: text, or a refusal.

    `slices` are the texts of the model's parts it is made of, each with its signature; the first `known` of
    them were described before the message. `start` is where its text begins in all text of the answer.
    """

    def __init__(
        self, sink: Sink, index: int, item_id: str, *, refusal: bool = False, start: int = 0
    ) -> None:
        super().__init__(sink, index, item_id)
        self.refusal = refusal
        self.start = start
        self.slices: list[tuple[str, Signature | None]] = []
        self.known = 0
        self.added(message_data(item_id, "in_progress", []))
        self.emit("content_part.added", content_index=0, part=self._part(""))
        if refusal:
            self.grows("refusal", content_index=0)
        else:
            self.grows("output_text", b',"logprobs":[]', content_index=0)

    def _part(self, text: str, notes: Sequence[Data] = (), logs: Sequence[Data] = ()) -> Data:
        return refusal_part(text) if self.refusal else text_part(text, notes, logs)

    def end_part(self, signature: Signature | None) -> None:
        """Take the end of one part of the model's."""
        self.slices.append((self.grown(), signature))

    @property
    def text(self) -> str:
        """Return the whole text; the parts must have ended."""
        return "".join([text for text, _ in self.slices])

    def close(self, status: str, notes: Sequence[Data] = (), logs: Sequence[Data] = ()) -> Data:
        """End the message, with the annotations and log probabilities of its text."""
        text = self.text
        for number, note in enumerate(notes):
            self.emit(
                "output_text.annotation.added",
                content_index=0,
                annotation_index=number,
                annotation=note,
            )
        if self.refusal:
            self.emit("refusal.done", content_index=0, refusal=text)
        else:
            self.emit("output_text.done", content_index=0, text=text, logprobs=list(logs))
        part = self._part(text, notes, logs)
        self.emit("content_part.done", content_index=0, part=part)
        return self.done(message_data(self.id, status, [part]))


class OpenReasoning(Growing):
    """A reasoning item; each thought of the model is a part of its summary."""

    def __init__(self, sink: Sink, index: int, item_id: str) -> None:
        super().__init__(sink, index, item_id)
        self.summary: list[Data] = []
        self.added(reasoning_data(item_id, [], ""))

    def begin_part(self) -> None:
        """Begin a part of the summary."""
        number = len(self.summary)
        self.emit("reasoning_summary_part.added", summary_index=number, part=summary_part(""))
        self.grows("reasoning_summary_text", summary_index=number)

    def end_part(self) -> str:
        """End a part of the summary, and return its text."""
        text, number = self.grown(), len(self.summary)
        self.emit("reasoning_summary_text.done", summary_index=number, text=text)
        part = summary_part(text)
        self.emit("reasoning_summary_part.done", summary_index=number, part=part)
        self.summary.append(part)
        return text

    def close(self, encrypted: str) -> Data:
        """End the item with what it carries."""
        return self.done(reasoning_data(self.id, self.summary, encrypted))


class OpenCall(Growing):
    """A call of a function, or of a tool that takes free text."""

    def __init__(
        self, sink: Sink, index: int, item_id: str, call: ToolCall, name: str, namespace: str
    ) -> None:
        super().__init__(sink, index, item_id)
        self._call = call
        self._name = name
        self._namespace = namespace
        self.added(self._data("in_progress", ""))
        self.grows("custom_tool_call_input" if call.custom else "function_call_arguments")

    def _data(self, status: str, arguments: str) -> Data:
        custom = self._call.custom
        data: Data = {
            "type": "custom_tool_call" if custom else "function_call",
            "id": self.id,
            "call_id": self._call.id,
            "name": self._name,
            "input" if custom else "arguments": arguments,
            "status": status,
        }
        return data | {"namespace": self._namespace} if self._namespace else data

    def close(self, status: str) -> Data:
        """End the call."""
        arguments = self.grown()
        if self._call.custom:
            self.emit("custom_tool_call_input.done", input=arguments)
        else:
            self.emit("function_call_arguments.done", arguments=arguments, name=self._name)
        return self.done(self._data(status, arguments))


class OpenCode(Growing):
    """Code the provider ran; the results that follow it belong to it."""

    def __init__(
        self, sink: Sink, index: int, item_id: str, code: Code, container: str, *, outputs: bool
    ) -> None:
        super().__init__(sink, index, item_id)
        self.parts: list[Code | CodeResult] = [code]
        self._container = container
        self._outputs = outputs
        self.added(code_data(item_id, "in_progress", container, "", None))
        self.emit("code_interpreter_call.in_progress")
        self.grows("code_interpreter_call_code")
        self.delta(code.code)
        self.emit("code_interpreter_call_code.done", code=code.code)
        self.emit("code_interpreter_call.interpreting")

    def close(self, status: str) -> Data:
        """End the item."""
        self.emit("code_interpreter_call.completed")
        logs = [part.output for part in self.parts if isinstance(part, CodeResult)]
        code = self.grown()
        outputs = logs if self._outputs else None
        return self.done(code_data(self.id, status, self._container, code, outputs))


Open = OpenMessage | OpenReasoning | OpenCall | OpenCode
