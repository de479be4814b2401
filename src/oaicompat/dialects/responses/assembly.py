"""The model's parts become output items, in the model's order.

One rule: what an item cannot hold travels sealed in the reasoning item beside it (signatures, the limits of
parts, what no item exists for): `after` for the item that follows, `before` for the one that came before,
`here` for what stands between them. An item stays open until the next part comes, because sources, log
probabilities and the results of code arrive late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from oaicompat.dialects import AnswerContext
from oaicompat.dialects.responses.forms import FORMS, call_data
from oaicompat.dialects.responses.output import (
    CODE_OUTPUTS,
    SOURCES,
    Data,
    annotation_data,
    image_data,
    logprob_data,
    search_data,
)
from oaicompat.dialects.responses.writing import (
    Item,
    Open,
    OpenCall,
    OpenCode,
    OpenMessage,
    OpenReasoning,
    Piece,
    Sink,
    joined,
)
from oaicompat.events import Cited, Delta, Search, TokenLogprob
from oaicompat.media import sniff
from oaicompat.messages import (
    Code,
    CodeResult,
    FunctionTool,
    HostedTool,
    Media,
    Part,
    Refusal,
    ServerTool,
    Signature,
    Text,
    Thought,
    ToolCall,
    ToolResult,
)
from oaicompat.signatures import Descriptor, Sealed, digest, seal

_CITED = "message.annotations"


class Assembly:
    """Builds the items of one answer; `items` are those that are whole."""

    def __init__(self, sink: Sink, context: AnswerContext, token: str) -> None:
        self.token = token
        self.items: list[Data] = []
        self._sink = sink
        self._context = context
        self._include = _include(context.source)
        self._tools = {
            tool.name: tool for tool in context.request.tools if not isinstance(tool, HostedTool)
        }
        self._part: Part | None = None
        self._open: Open | None = None
        self._forming = False
        self._formed: list[Piece] = []
        self._before: list[Descriptor] = []
        self._here: list[Descriptor] = []
        self._backend = ""
        self._shown = 0
        self._logprobs: list[TokenLogprob] = []
        self._cited: list[Cited] = []

    def start(self, part: Part) -> None:
        """Take the start of a part."""
        self._part = part
        self._forming = bool(self._form(part))
        match part:
            case Text():
                self._start_text(part)
            case Thought():
                self._start_thought(part)
            case Refusal():
                self._settle()
                self._open = OpenMessage(self._sink, *self._place("msg"), refusal=True)
                self._open.delta(part.text)
            case ToolCall():
                self._start_call(part)
            case Media():
                self._medium(part)
            case Code() | CodeResult():
                self._code(part)
            case ServerTool():
                self._keep(part)
            case ToolResult():
                pass
            case _:
                assert_never(part)

    def delta(self, event: Delta) -> None:
        """Take more of the open part."""
        if self._forming:
            self._formed.append(event.raw or event.text)
        elif self._open is not None and type(self._open) is not OpenCode:
            self._open.delta(event.text, event.raw)

    def end(self) -> None:
        """Take the end of the open part."""
        part, self._part = self._part, None
        match self._open, part:
            case OpenMessage() as message, Text() | Refusal():
                message.end_part(getattr(part, "signature", None))
            case OpenReasoning() as reasoning, Thought() if part.text or not part.signature:
                text = reasoning.end_part()
                self._here.append(self._described("thought", part.signature, text))
            case _, ToolCall() if self._form(part):
                self._emit_formed(part)
            case _:
                pass

    def cite(self, cited: Cited) -> None:
        """Take sources; they are told of when the text they belong to is closed."""
        self._cited.append(cited)

    def measure(self, tokens: Sequence[TokenLogprob]) -> None:
        """Take log probabilities of text."""
        self._logprobs.extend(tokens)

    def finish(self, status: str) -> None:
        """End the answer: the item that is open has this status."""
        message = self._open
        if isinstance(message, OpenMessage) and not message.refusal:
            self._end_text(message, status, last=True)
            self._open = None
        else:
            self._note_unplaced()
        self._settle(status=status)
        for cited in self._cited:
            if cited.search is not None:
                self._search(cited.search)

    def abandon(self) -> None:
        """Close what is open as incomplete."""
        if self._part is not None and not self._form(self._part):
            self.end()
        self._settle(status="incomplete")

    def _place(self, prefix: str) -> tuple[int, str]:
        index = len(self.items)
        return index, f"{prefix}_{self.token}_{index}"

    def _settle(self, after: Descriptor | None = None, status: str = "completed") -> None:
        """Close what is open and tell what is to be carried, so that another item may begin."""
        self._close(status)
        reasoning = self._open
        if not isinstance(reasoning, OpenReasoning):
            if not (self._before or self._here or after):
                return
            reasoning = OpenReasoning(self._sink, *self._place("rs"))
        sealed = Sealed(self._backend, self._before, self._here, after)
        self.items.append(reasoning.close(seal(sealed)))
        self._open = None
        self._before, self._here = [], []

    def _close(self, status: str = "completed") -> None:
        """Close what is open, unless it is reasoning, which can take more."""
        match self._open:
            case OpenMessage(refusal=True) as message:
                self.items.append(message.close("completed"))
            case OpenMessage() as message:
                self._end_text(message, status)
            case OpenCall() as call:
                self.items.append(call.close(status))
            case OpenCode() as code:
                self.items.append(code.close(status))
                self._before += [self._whole(part) for part in code.parts]
            case _:
                return
        self._open = None

    def _end_text(self, message: OpenMessage, status: str, *, last: bool = False) -> None:
        notes: list[Data] = []
        logprobs: list[Data] = []
        if last:
            notes = self._annotations(message)
            logprobs = [logprob_data(each) for each in self._logprobs]
            self._logprobs = []
        self.items.append(message.close(status, notes, logprobs))
        self._shown += len(message.text)
        slices = message.slices[message.known :]
        if any(signature for _, signature in slices):
            self._before += [self._described("text", s, text) for text, s in slices]

    def _annotations(self, message: OpenMessage) -> list[Data]:
        """Return the sources of this message's text; those of texts that are closed are lost."""
        start, end = message.start, message.start + len(message.text)
        found = []
        for citation in (each for cited in self._cited for each in cited.citations):
            if start <= citation.start <= citation.end <= end:
                found.append(annotation_data(citation, start))
            else:
                self._context.notes.dropped(_CITED, "its text was sent before the source was known")
        return found

    def _note_unplaced(self) -> None:
        if self._logprobs:
            self._context.notes.dropped("logprobs", "the last item is no text")
        if any(cited.citations for cited in self._cited):
            self._context.notes.dropped(_CITED, "the last item is no text")

    def _start_text(self, part: Text) -> None:
        message = self._open
        if isinstance(message, OpenMessage) and not message.refusal:
            message.delta(part.text)
        elif part.signature and not part.text:
            self._close()
            self._here.append(self._described("text", part.signature))
        else:
            after = None
            if part.signature:
                after = self._described("text", part.signature, part.text)
            self._settle(after)
            opened = OpenMessage(self._sink, *self._place("msg"), start=self._shown)
            opened.known = 1 if after else 0
            opened.delta(part.text)
            self._open = opened

    def _start_thought(self, part: Thought) -> None:
        self._close()
        if part.signature and not part.text:
            self._here.append(self._described("thought", part.signature))
            return
        if not isinstance(self._open, OpenReasoning):
            self._open = OpenReasoning(self._sink, *self._place("rs"))
        self._open.begin_part()
        self._open.delta(part.text)

    def _form(self, part: Part | None) -> str:
        tool = self._tools.get(part.name) if isinstance(part, ToolCall) else None
        return (tool.form if isinstance(tool, FunctionTool) else None) or ""

    def _start_call(self, call: ToolCall) -> None:
        if self._form(call):
            self._close()
            self._formed = [call.arguments]
            return
        after = None
        if call.signature or call.thought:
            after = self._described("call", call.signature, id=call.id, thought=call.thought)
        self._settle(after)
        self._open_call(call)

    def _open_call(self, call: ToolCall) -> None:
        tool = self._tools.get(call.name)
        namespace = (tool.namespace if tool else None) or ""
        name = call.name[len(namespace) + 1 :] if namespace else call.name
        place = self._place("ctc" if call.custom else "fc")
        opened = OpenCall(self._sink, *place, call, name, namespace)
        opened.delta(call.arguments)
        self._open = opened

    def _emit_formed(self, call: ToolCall) -> None:
        """Tell of a call whose item holds its arguments in a form of their own."""
        arguments = joined(self._formed)
        whole = msgspec.structs.replace(call, arguments=arguments)
        after = self._described(
            "call", call.signature, id=call.id, thought=call.thought, arguments=arguments
        )
        self._settle(after)
        form = self._form(call)
        index, item_id = self._place(FORMS[form].prefix)
        data = call_data(form, item_id, call.id, arguments, "completed")
        if data is None:
            self._open_call(whole)
            return
        item = Item(self._sink, index, item_id)
        item.added(data | {"status": "in_progress"})
        self.items.append(item.done(data))

    def _medium(self, part: Media) -> None:
        if not part.mime.startswith("image/") or not part.data:
            if part.mime.startswith("image/") or part.uri:
                self._keep(part)
            self._context.notes.dropped("output", "a medium that Responses has no item for")
            return
        after = None
        if part.signature or part.thought or sniff(part.data) != part.mime:
            after = self._described("media", part.signature, thought=part.thought, mime=part.mime)
        self._settle(after)
        item = Item(self._sink, *self._place("ig"))
        item.added(image_data(item.id, "in_progress", None))
        item.emit("image_generation_call.in_progress")
        item.emit("image_generation_call.generating")
        item.emit("image_generation_call.completed")
        self.items.append(item.done(image_data(item.id, "completed", part.data)))

    def _code(self, part: Code | CodeResult) -> None:
        if isinstance(part, Code):
            self._settle()
            self._open = OpenCode(
                self._sink,
                *self._place("ci"),
                part,
                f"cntr_{self.token}",
                outputs=CODE_OUTPUTS in self._include,
            )
        elif isinstance(self._open, OpenCode):
            self._open.parts.append(part)
        else:
            self._keep(part)

    def _search(self, search: Search) -> None:
        item = Item(self._sink, *self._place("ws"))
        sources = SOURCES in self._include
        item.added(search_data(item.id, "in_progress", None, sources=sources))
        for state in ("in_progress", "searching", "completed"):
            item.emit(f"web_search_call.{state}")
        self.items.append(item.done(search_data(item.id, "completed", search, sources=sources)))

    def _keep(self, part: CodeResult | ServerTool | Media) -> None:
        """Carry a part that there is no item for."""
        self._close()
        self._here.append(self._whole(part))

    def _whole(self, part: Code | CodeResult | ServerTool | Media) -> Descriptor:
        bare = msgspec.structs.replace(part, signature=None)
        return Descriptor("part", signature=self._value(part.signature), part=bare)

    def _described(
        self,
        kind: str,
        signature: Signature | None,
        text: str = "",
        *,
        id: str = "",
        thought: bool = False,
        mime: str = "",
        arguments: str = "",
    ) -> Descriptor:
        return Descriptor(
            kind,
            len(text),
            digest(text) if kind in ("text", "thought") else "",
            id,
            self._value(signature),
            thought,
            None,
            mime,
            arguments,
        )

    def _value(self, signature: Signature | None) -> str:
        if signature is None:
            return ""
        self._backend = signature.backend or self._backend
        return signature.value


_NOTHING: frozenset[str] = frozenset()


class _Include(msgspec.Struct):
    include: list[str] | None = None


def _include(source: bytes) -> frozenset[str]:
    if b'"include"' not in source and b"\\u" not in source:
        return _NOTHING
    try:
        return frozenset(msgspec.json.decode(source, type=_Include).include or ())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _NOTHING
