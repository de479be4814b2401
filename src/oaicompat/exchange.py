"""One client request from body to answer, as a value a transport drives; no I/O.

The transport asks `needs` until it is empty, then for every call that is due: `begin_attempt`, send,
`receive_head`, `feed` each piece of the body, `close`; `calls` names what is due next and is empty when the
answer is whole. The first frame a call returns commits it: before, an error may be answered with another
attempt, which is encoded anew for its target and sees nothing of the one that failed; afterwards a failure
ends the answer in band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from oaicompat.dialects import AnswerContext, AnswerOptions, Dialect, Encoder, chat, responses
from oaicompat.errors import InvalidRequestError, OaicompatError, UnsupportedFeatureError
from oaicompat.events import (
    Completed,
    Delta,
    Event,
    Failed,
    Finished,
    Folder,
    Frame,
    Metered,
    Opened,
    PartStart,
    Usage,
)
from oaicompat.messages import Request, Signature, ToolCall
from oaicompat.models import BUILTIN, ModelMap
from oaicompat.notes import Note, Notes
from oaicompat.providers.gemini.candidate import Reading
from oaicompat.providers.gemini.endpoints import Target, generate_url
from oaicompat.providers.gemini.errors import decode_error
from oaicompat.providers.gemini.profiles import profile
from oaicompat.providers.gemini.request import Encoded, EncodeOptions, encode_request
from oaicompat.providers.gemini.response import Decoder
from oaicompat.supplies import Effect, Needs, RememberSignature, Supplies, needs, supplied
from oaicompat.wire import as_bytes

DIALECTS: Mapping[str, Dialect] = {"chat": chat}
"""Who answers, by the dialect of the route that was asked."""

ERROR_BODY = 64 * 1024
"""Bytes of an upstream error body that are read; the rest is of no use to anybody."""

CANDIDATES = 8
"""The most candidates one upstream call may be asked for (mappings 3)."""


class Options(Struct, frozen=True):
    """What a configuration changes: the dress of answers, additions to requests, who fetches media.

    `fetch_media` makes https media a need, so that the transport downloads them; `fast` copies plain text
    from upstream as the JSON it came as.
    """

    answer: AnswerOptions = AnswerOptions()
    encode: EncodeOptions = EncodeOptions()
    fetch_media: bool = False
    fast: bool = True


class Call(Struct, frozen=True):
    """One upstream call that is due; `model` is the upstream's name after mapping."""

    number: int
    model: str


class UpstreamRequest(Struct, frozen=True):
    """One attempt, ready to send; the credential's headers are the transport's to add."""

    method: str
    url: str
    body: bytes


class _Strand:
    """One upstream call and its continuations: which choices it answers, and where it stands."""

    def __init__(self, first: int, candidates: int) -> None:
        self.first = first
        self.candidates = candidates
        self.decoder: Decoder | None = None
        self.continuation: str | None = None
        self.held: list[Event] = []
        self.notes = Notes()
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.error_body = b""
        self.due = True
        self.committed = False
        self.complete = False


class Exchange:
    """One client request; see the module's text for how it is driven.

    `body` is bytes, text or a mapping; `created` Unix seconds; `new_id` returns a token unique to this answer
    (without it ids derive from the upstream's response id); `strict` refuses what would be dropped or
    approximated; `streaming` overrules what the body says. Raises `InvalidRequestError`.
    """

    def __init__(
        self,
        dialect: str,
        body: bytes | str | Mapping[str, Any],
        *,
        models: ModelMap = BUILTIN,
        created: int = 0,
        new_id: Callable[[], str] | None = None,
        strict: bool = False,
        streaming: bool | None = None,
        options: Options | None = None,
    ) -> None:
        self._dialect = DIALECTS[dialect]
        self._options = options or Options()
        self._strict = strict
        self._decode_notes = Notes()
        self._answer_notes = Notes("answer")
        self._request = _decode(self._dialect, as_bytes(body), self._decode_notes)
        self._refuse_strictly(self._decode_notes)
        self.requested_model = self._request.model
        self.model = models.resolve(self._request.model).model
        self.streaming = self._request.stream if streaming is None else streaming
        self.committed = False
        self.failed: OaicompatError | None = None
        self.finish_reasons: tuple[str, ...] = ()
        self.usage: Usage | None = None
        self._token = new_id() if new_id else ""
        self._created = created
        self._asked: set[str] = set()
        self._strands = self._split()
        self._calls: dict[int, _Strand] = {}
        self._encoder: Encoder | None = None
        self._folder = Folder()
        self._backend = "gemini"
        self._opened = False
        self._effects: list[Effect] = []

    def _refuse_strictly(self, notes: Notes) -> None:
        if not self._strict:
            return
        for note in notes:
            if note.refusable:
                raise UnsupportedFeatureError(f"{note.path}: {note.reason}", param=note.path)

    def _split(self) -> list[_Strand]:
        """Spread the choices over calls: a model may refuse several candidates, and each call has a limit."""
        wanted = self._request.sampling.candidates or 1
        several = profile(self.model, "gemini").multiple_candidates
        size = CANDIDATES if several else 1
        if wanted > size:
            self._decode_notes.rewritten(
                self._request.spelled("candidates"), "sent as several upstream calls", inert=True
            )
        return [_Strand(first, min(size, wanted - first)) for first in range(0, wanted, size)]

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return every note so far: on the request as decoded, on its last attempt, on the answer."""
        sources = (self._decode_notes, *(each.notes for each in self._strands), self._answer_notes)
        return tuple(dict.fromkeys(note for source in sources for note in source))

    def needs(self) -> Needs:
        """Return what is wanted from outside and was not asked before."""
        wanted = needs(self._request.messages, media=self._options.fetch_media)
        return wanted.without(self._asked)

    def supply(self, found: Supplies) -> None:
        """Take what was found; what is missing is not asked again."""
        wanted = self.needs()
        self._asked.update(wanted.signatures, wanted.media)
        messages = supplied(self._request.messages, found)
        self._request = replace(self._request, messages=messages)

    def calls(self) -> tuple[Call, ...]:
        """Return the calls that are due now; each is due once. Empty when the answer is whole."""
        due = []
        for strand in self._strands:
            if strand.due:
                strand.due = False
                call = Call(len(self._calls), self.model)
                self._calls[call.number] = strand
                due.append(call)
        return tuple(due)

    def begin_attempt(
        self, call: Call, target: Target, *, sentinel: bool = False
    ) -> UpstreamRequest:
        """Encode one attempt of a call for a target and forget what an earlier attempt left.

        `sentinel` replaces the signatures of the current turn by Google's documented placeholder. Raises
        `InvalidRequestError`, and `UnsupportedFeatureError` in strict mode.
        """
        strand = self._calls[call.number]
        model = target.model or call.model
        target = replace(target, model=model)
        notes = Notes()
        encoded = encode_request(
            self._request_of(strand, notes),
            target,
            notes,
            candidates=strand.candidates,
            sentinel=sentinel,
            continuation=strand.continuation,
            options=self._options.encode,
        )
        self._refuse_strictly(notes)
        strand.notes = notes
        self.model = model
        if not self.committed:
            self._backend = target.backend
        if strand.continuation is None or strand.decoder is None:
            strand.decoder = Decoder(self._reading(strand, target, encoded), self._answer_notes)
            strand.held = []
        else:
            strand.decoder.reopen()
        strand.status, strand.error_body = 200, b""
        return UpstreamRequest("POST", generate_url(target, self.streaming), encoded.body)

    def _reading(self, strand: _Strand, target: Target, encoded: Encoded) -> Reading:
        return Reading(
            streamed=self.streaming,
            backend=target.backend,
            names=encoded.names,
            custom=encoded.custom,
            token=self._token,
            first=strand.first,
            candidates=strand.candidates,
            model=self.requested_model,
            fast=self._options.fast,
            server_calls=b"mcp" in bytes(self._request.extra.get("tools", Raw())).lower(),
        )

    def _request_of(self, strand: _Strand, notes: Notes) -> Request:
        """Return the request of one call; calls that share a seed would all answer alike."""
        sampling = self._request.sampling
        if not strand.first or sampling.seed is None:
            return self._request
        notes.rewritten(self._request.spelled("seed"), "each upstream call has its own", inert=True)
        seeded = replace(sampling, seed=sampling.seed + strand.first)
        return replace(self._request, sampling=seeded)

    def receive_head(self, call: Call, status: int, headers: Mapping[str, str]) -> None:
        """Take the head of the upstream's answer; header names are lower case."""
        strand = self._calls[call.number]
        strand.status, strand.headers = status, headers

    def feed(self, call: Call, data: bytes) -> tuple[Frame, ...]:
        """Take bytes of the body; return the frames they complete.

        Raises the upstream's error where the call is not committed.
        """
        strand = self._calls[call.number]
        if strand.status >= 300:
            strand.error_body += data[: ERROR_BODY - len(strand.error_body)]
            return ()
        return self._forward(strand, _decoder(strand).feed(data))

    def close(self, call: Call) -> tuple[Frame, ...]:
        """Take the end of the body; return the remaining frames of this call. Raises as `feed`."""
        strand = self._calls[call.number]
        if strand.status >= 300:
            raise decode_error(
                strand.status, strand.headers, strand.error_body, model=self.requested_model
            )
        decoder = _decoder(strand)
        frames = self._forward(strand, decoder.close())
        if decoder.continuation is not None:
            strand.continuation = decoder.continuation
            strand.due = True
        return frames

    def call_committed(self, call: Call) -> bool:
        """Tell whether frames of this call were returned, so that it cannot be tried again."""
        return self._calls[call.number].committed

    def fail(self, error: OaicompatError) -> tuple[Frame, ...]:
        """End the answer with an error: in band after the first frame, as the reply's body before."""
        if self.failed is not None:
            return ()
        self.failed = error
        if self.committed and self.streaming:
            return tuple(self._answer_encoder().fail(error))
        self.committed = True
        return (Frame(self._dialect.encode_error(error)),)

    def keepalive(self) -> tuple[Frame, ...]:
        """Return frames that keep the client waiting; only once the headers of a stream are out."""
        return tuple(self._answer_encoder().keepalive())

    def effects(self) -> tuple[Effect, ...]:
        """Return what is to be kept for later requests; each effect is returned once."""
        effects, self._effects = tuple(self._effects), []
        return effects

    def _forward(self, strand: _Strand, events: list[Event]) -> tuple[Frame, ...]:
        if not events or self.failed is not None:
            return ()
        if not self.streaming:
            return self._collect(strand, events)
        frames: list[Frame] = []
        wanted = self._watched(strand, events)
        if wanted:
            frames = self._answer_encoder().encode(wanted)
        if frames:
            strand.committed = self.committed = True
        return tuple(frames)

    def _watched(self, strand: _Strand, events: list[Event]) -> list[Event]:
        """Note what passes, and keep to one opening and one ending for all calls of the answer."""
        if len(events) == 1 and type(events[0]) is Delta:
            return events
        wanted: list[Event] = []
        for event in events:
            if type(event) is Delta:
                wanted.append(event)
                continue
            if isinstance(event, Failed) and not (strand.committed or wanted):
                raise event.error
            if self._passes(strand, event):
                if isinstance(event, Completed) and self.usage is not None:
                    wanted.append(Metered(self.usage))
                wanted.append(event)
        return wanted

    def _passes(self, strand: _Strand, event: Event) -> bool:
        match event:
            case Opened():
                first, self._opened = not self._opened, True
                return first
            case PartStart(part=ToolCall(signature=Signature() as signature) as call):
                self._effects.append(RememberSignature(call.id, signature))
            case Finished():
                self.finish_reasons += (event.reason,)
            case Metered():
                self.usage = self.usage + event.usage if self.usage else event.usage
                return False
            case Failed():
                self.failed = event.error
            case Completed():
                strand.complete = True
                return all(each.complete for each in self._strands)
        return True

    def _collect(self, strand: _Strand, events: list[Event]) -> tuple[Frame, ...]:
        """Fold the events of an answer that is not streamed, each call's once it is whole."""
        last = events[-1]
        if isinstance(last, Failed):
            raise last.error
        strand.held.extend(events)
        if not isinstance(last, Completed):
            return ()
        whole = False
        for event in strand.held:
            if whole := self._passes(strand, event):
                self._folder.add(event)
        if not whole:
            return ()
        if self.usage is not None:
            self._folder.add(Metered(self.usage))
        strand.committed = self.committed = True
        body = self._dialect.encode_response(self._folder.response(), self._context())
        return (Frame(body),)

    def _answer_encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._dialect.encoder(self._context())
        return self._encoder

    def _context(self) -> AnswerContext:
        return AnswerContext(
            request=self._request,
            model=self.requested_model,
            created=self._created,
            token=self._token,
            backend=self._backend,
            options=self._options.answer,
            notes=self._answer_notes,
        )


def _decoder(strand: _Strand) -> Decoder:
    if strand.decoder is None:
        raise ValueError("begin_attempt comes before the answer")
    return strand.decoder


class _Shape(Struct):
    """What tells a Responses body from a chat body."""

    messages: Raw = Raw()
    input: Raw = Raw()
    instructions: Raw = Raw()


def _decode(dialect: Dialect, body: bytes, notes: Notes) -> Request:
    """Decode a body by its shape: a Responses body on the chat route is understood as one."""
    try:
        return dialect.decode_request(body, notes)
    except InvalidRequestError:
        if dialect is not chat or not _is_responses(body):
            raise
    return responses.decode_request(body, notes)


def _is_responses(body: bytes) -> bool:
    try:
        shape = msgspec.json.decode(body, type=_Shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return not shape.messages and bool(shape.input or shape.instructions)
