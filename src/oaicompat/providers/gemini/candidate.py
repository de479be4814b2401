"""One candidate on its way: its parts, classified once, in the model's order.

A text or thought part continues the one before it unless either carries a signature; every other part is
whole, but for arguments that Vertex streams in pieces. Plain text, nearly all of what a model says, is copied
as the JSON string it came as.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from oaicompat.events import (
    Cited,
    Delta,
    Event,
    Finished,
    Logprobs,
    PartEnd,
    PartStart,
    TokenLogprob,
)
from oaicompat.messages import (
    MINTED,
    Part,
    Refusal,
    ServerTool,
    Signature,
    Text,
    Thought,
    ToolCall,
)
from oaicompat.notes import Notes
from oaicompat.providers.gemini.answer_parts import compact, media, provider_part, verbatim
from oaicompat.providers.gemini.answer_schema import (
    AnswerPart,
    Candidate,
    FunctionCall,
    GenerateContentResponse,
    LogprobsCandidate,
    LogprobsResult,
)
from oaicompat.providers.gemini.finish import Ending, ending, name
from oaicompat.providers.gemini.grounding import Sources
from oaicompat.providers.gemini.parameters import CHAT
from oaicompat.providers.gemini.partial_args import GrowingArguments

_decode_logprobs = msgspec.json.Decoder(LogprobsResult | None).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_EMPTY = b'""'
_NOTHING = (_EMPTY, b"null")
_IMPOSSIBLE = -9999.0


class Reading(Struct, frozen=True, gc=False):
    """What is known of the call whose answer is read.

    `names` maps upstream tool names to the client's and `custom` holds the client's names of free-text tools;
    `token` makes call ids unique (empty: the response id does); `first` is the number of the first choice and
    `candidates` how many were asked for; `model` is the client's name of it, for errors. `fast` lets text be
    copied as the JSON it came as; `spelling` maps neutral names of parameters to the client's.
    `served` is set where the provider runs functions itself (MCP): the upstream names of those that are the
    client's to run.
    """

    streamed: bool = True
    backend: str = "gemini"
    names: Mapping[str, str] = {}
    custom: frozenset[str] = frozenset()
    token: str = ""
    first: int = 0
    candidates: int = 1
    model: str = ""
    fast: bool = True
    served: frozenset[str] | None = None
    spelling: Mapping[str, str] = CHAT


class CandidateDecoder:
    """Decodes the chunks of one candidate; appends to the caller's list of events."""

    __slots__ = (
        "_arguments",
        "_calls",
        "_finish",
        "_message",
        "_notes",
        "_number",
        "_open",
        "_raw",
        "_reading",
        "_shown",
        "_sources",
        "_texts",
        "token",
    )

    def __init__(self, number: int, reading: Reading, notes: Notes, token: str) -> None:
        self._number = number
        self._reading = reading
        self._raw = reading.fast and reading.streamed
        self._notes = notes
        self.token = token
        self._open: type[Text] | type[Thought] | None = None
        self._arguments: _StreamedCall | None = None
        self._texts: list[list[bytes]] = []
        self._calls = 0
        self._shown = False
        self._finish: str | None = None
        self._message: str | None = None
        self._sources: Sources | None = None

    @property
    def native(self) -> str | None:
        """Return the last finish reason seen."""
        return self._finish

    def take(self, candidate: Candidate, events: list[Event]) -> None:
        """Take one chunk of the candidate; raises `msgspec.DecodeError` where it is not well formed."""
        content = candidate.content
        if content is not None and content.parts is not None:
            for part in content.parts:
                text = part.text
                if text and not part.thought and not part.thought_signature:
                    self._text(bytes(text), Text, events)
                else:
                    self._part(part, events)
        if candidate.finish_reason is not None:
            self._finish = name(candidate.finish_reason)
            self._message = candidate.finish_message or self._message
        if (
            candidate.grounding_metadata
            or candidate.citation_metadata
            or candidate.url_context_metadata
        ):
            self._cite(candidate)
        if candidate.logprobs_result:
            self._logprobs(candidate.logprobs_result, events)

    def _cite(self, candidate: Candidate) -> None:
        if self._sources is None:
            self._sources = Sources()
        if candidate.grounding_metadata:
            self._sources.add_grounding(candidate.grounding_metadata)
        if candidate.citation_metadata:
            self._sources.add_citations(candidate.citation_metadata)
        if candidate.url_context_metadata:
            self._sources.add_pages(candidate.url_context_metadata)

    def reopen(self) -> None:
        """Forget how the body ended, which another one continues."""
        self._finish = self._message = None

    def ending(self) -> Ending:
        """Decide how the candidate ended; raises `UpstreamError` where its end is no end."""
        return ending(self._finish, self._message, shown=self._shown, calls=self._calls > 0)

    def finish(self, how: Ending, events: list[Event]) -> None:
        """End the candidate so, with its sources and the provider's refusal where there is one."""
        self._end_part(events)
        if self._sources:
            found = self._sources.citations(self._visible())
            events.append(Cited(self._number, found, self._sources.search()))
        if how.refusal:
            self._whole(Refusal(how.refusal), events)
        events.append(Finished(self._number, how.reason, self._finish or ""))

    def _visible(self) -> list[str]:
        return ["".join(map(_decode_string, pieces)) for pieces in self._texts]

    def _text(self, raw: bytes, kind: type[Text] | type[Thought], events: list[Event]) -> None:
        if raw in _NOTHING:
            return
        text = _decode_string(raw)
        if self._open is not kind or self._arguments is not None:
            self._end_part(events)
            self._open = kind
            events.append(PartStart(self._number, kind("")))
            if kind is Text:
                self._shown = True
                self._texts.append([])
        if kind is Text:
            self._texts[-1].append(raw)
        events.append(Delta(self._number, "", raw) if self._raw else Delta(self._number, text))

    def open_text(self) -> tuple[int, list[bytes]]:
        """Return the choice, and the pieces of its text that is open, to be added to."""
        return self._number, self._texts[-1]

    def _part(self, part: AnswerPart, events: list[Event]) -> None:
        signature = self._signature(part)
        if part.function_call is not None:
            self._call(part.function_call, part, events)
        elif part.inline_data is not None or part.file_data is not None:
            self._shown = True
            self._whole(media(part, signature), events)
        elif (whole := provider_part(part, signature)) is not None:
            self._whole(whole, events)
        elif part.text and signature is None:
            self._text(bytes(part.text), Thought, events)
        elif part.text or signature is not None:
            self._signed_text(part, signature, events)
        else:
            self._notes.dropped("candidates.content.parts", "a part of an unknown kind")

    def _signed_text(
        self, part: AnswerPart, signature: Signature | None, events: list[Event]
    ) -> None:
        raw = bytes(part.text) or b'""'
        text = "" if raw == b"null" else _decode_string(raw)
        if not part.thought and text:
            self._shown = True
        if not part.thought:
            self._texts.append([raw if text else b'""'])
        self._whole((Thought if part.thought else Text)(text, signature), events)

    def _signature(self, part: AnswerPart) -> Signature | None:
        if not part.thought_signature:
            return None
        return Signature(part.thought_signature, self._reading.backend)

    def _whole(self, part: Part, events: list[Event]) -> None:
        self._end_part(events)
        events.append(PartStart(self._number, part))
        events.append(PartEnd(self._number))

    def _end_part(self, events: list[Event]) -> None:
        if self._arguments is not None:
            self._arguments.close(events)
            self._arguments = None
        elif self._open is not None:
            events.append(PartEnd(self._number))
        self._open = None

    def _call(self, call: FunctionCall, part: AnswerPart, events: list[Event]) -> None:
        if not call.name:
            if self._arguments is not None:
                self._arguments.take(call, events)
                if not call.will_continue:
                    self._end_part(events)
            return
        served = self._reading.served
        if served is not None and call.name not in served:
            run_by_provider = ServerTool(
                "functionCall", verbatim(call), bool(part.thought), self._signature(part)
            )
            self._whole(run_by_provider, events)
            return
        self._end_part(events)
        begun = self._begun(call, part)
        self._calls += 1
        if call.will_continue or call.partial_args:
            self._arguments = _StreamedCall(self._number, begun, events)
            self._arguments.take(call, events)
            if not call.will_continue:
                self._end_part(events)
        else:
            self._whole(_with_arguments(begun, compact(call.args)), events)

    def _begun(self, call: FunctionCall, part: AnswerPart) -> ToolCall:
        called = self._reading.names.get(call.name or "", call.name or "")
        return ToolCall(
            call.id or f"{MINTED}{self.token}_{self._number}_{self._calls}",
            called,
            "",
            custom=called in self._reading.custom,
            thought=bool(part.thought),
            signature=self._signature(part),
        )

    def _logprobs(self, raw: Raw, events: list[Event]) -> None:
        found = _decode_logprobs(raw)
        if found is None or not found.chosen_candidates:
            return
        likeliest = found.top_candidates or []
        tokens = []
        for position, chosen in enumerate(found.chosen_candidates):
            top = (likeliest[position].candidates or []) if position < len(likeliest) else []
            alternatives = tuple((each.token or "", _logprob(each)) for each in top)
            tokens.append(TokenLogprob(chosen.token or "", _logprob(chosen), alternatives))
        events.append(Logprobs(self._number, tuple(tokens)))


def _logprob(candidate: LogprobsCandidate) -> float:
    """Return a log probability; minus infinity, a word in Gemini's JSON, is a number for OpenAI."""
    value = candidate.log_probability
    return _IMPOSSIBLE if isinstance(value, str) else value or 0.0


class _StreamedCall:
    """A call whose arguments come in pieces; those of a free-text tool are held until they are whole."""

    def __init__(self, number: int, call: ToolCall, events: list[Event]) -> None:
        self._number = number
        self._call = call
        self._arguments = GrowingArguments()
        self._held = ""
        if not call.custom:
            events.append(PartStart(number, call))

    def take(self, call: FunctionCall, events: list[Event]) -> None:
        for piece in call.partial_args or ():
            self._grow(self._arguments.add(piece), events)

    def _grow(self, text: str, events: list[Event]) -> None:
        if self._call.custom:
            self._held += text
        elif text:
            events.append(Delta(self._number, text))

    def close(self, events: list[Event]) -> None:
        self._grow(self._arguments.close(), events)
        if self._call.custom:
            events.append(PartStart(self._number, _with_arguments(self._call, self._held)))
        events.append(PartEnd(self._number))


def plain_text(chunk: GenerateContentResponse) -> bytes | None:
    """Return the text of a chunk that holds one piece of plain text and nothing else of note."""
    candidates = chunk.candidates
    if candidates is None or len(candidates) != 1 or chunk.prompt_feedback is not None:
        return None
    candidate = candidates[0]
    content = candidate.content
    if candidate.finish_reason is not None or candidate.index or _remarkable(candidate):
        return None
    if content is None or content.parts is None or len(content.parts) != 1:
        return None
    part = content.parts[0]
    if part.thought is not None or part.thought_signature is not None:
        return None
    text = bytes(part.text)
    return None if not text or text in _NOTHING else text


def _remarkable(candidate: Candidate) -> bool:
    return bool(
        candidate.grounding_metadata
        or candidate.citation_metadata
        or candidate.url_context_metadata
        or candidate.logprobs_result
        or candidate.continuation_token
    )


def _with_arguments(call: ToolCall, arguments: str) -> ToolCall:
    """Return the call with its arguments; those of a free-text tool are the text in their one property."""
    if call.custom:
        wrapped = _decode_object(arguments).get("input")
        if wrapped is not None and bytes(wrapped).startswith(b'"'):
            arguments = _decode_string(wrapped)
    return msgspec.structs.replace(call, arguments=arguments)
