"""One client request from body to answer, as a value a transport drives; no I/O.

The transport asks `needs` until it is empty, then for every call that is due: `begin_attempt`, send,
`receive_head`, `feed` each piece of the body, `close`; `calls` names what is due next and is empty when the
answer is whole. The first frame a call returns commits it: before, an error may be answered with another
attempt, which is encoded anew for its target and sees nothing of the one that failed; afterwards a failure
ends the answer in band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from oaicompat.dialects import AnswerContext, AnswerOptions, Encoder
from oaicompat.dialects.registry import decode_request, find_dialect
from oaicompat.errors import OaicompatError, UnsupportedFeatureError
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
from oaicompat.messages import Backend, Request, Signature, ToolCall
from oaicompat.models import BUILTIN, ModelMap
from oaicompat.notes import Note, Notes
from oaicompat.providers.gemini.candidate import Reading
from oaicompat.providers.gemini.endpoints import Target, generate_url
from oaicompat.providers.gemini.parameters import client_parameter
from oaicompat.providers.gemini.profiles import profile
from oaicompat.providers.gemini.request import Encoded, EncodeOptions, encode_request
from oaicompat.strands import Strand, failure
from oaicompat.supplies import Effect, Needs, RememberSignature, Supplies, needs, supplied
from oaicompat.wire import as_bytes

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


class Exchange:
    """One client request; see the module's text for how it is driven.

    `body` is bytes, text or a mapping; `created` Unix seconds; `new_id` returns a token unique to this answer
    (without it ids derive from the upstream's response id); `strict` refuses what would be dropped or
    approximated; `streaming` overrules what the body says; `backend` is the one the calls are likely for.
    Raises `InvalidRequestError`, and `ValueError` for a dialect there is not.
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
        backend: Backend = "gemini",
        options: Options | None = None,
    ) -> None:
        self._dialect = find_dialect(dialect)
        self._options = options or Options()
        self._strict = strict
        self._decode_notes = Notes()
        self._source = as_bytes(body)
        self._request = decode_request(dialect, self._source, self._decode_notes)
        self._parameter = partial(client_parameter, spelling=self._request.spelling)
        self._refuse_strictly(self._decode_notes)
        self._backend: Backend = backend
        self._mapped = models.resolve(self._request.model).model
        self._encodings: dict[tuple[Any, ...], tuple[Encoded, Notes]] | None = None
        self.requested_model = self._request.model
        self._start(created, new_id, streaming)

    def again(
        self,
        *,
        created: int = 0,
        new_id: Callable[[], str] | None = None,
        streaming: bool | None = None,
    ) -> Exchange:
        """Return an exchange of the same request that has not begun, without converting it once more.

        From here on both keep what they encode, so that an attempt alike is not encoded twice.
        """
        if self._encodings is None:
            self._encodings = {}
        other = copy(self)
        other._start(created, new_id, streaming)
        return other

    def _start(
        self, created: int, new_id: Callable[[], str] | None, streaming: bool | None
    ) -> None:
        self.model = self._mapped
        self.streaming = self._request.stream if streaming is None else streaming
        self.committed = False
        self.failed: OaicompatError | None = None
        self.usage: Usage | None = None
        self._answer_notes = Notes("answer")
        self._token = new_id() if new_id else ""
        self._created = created
        self._asked: set[str] = set()
        self._strands = self._split()
        self._calls: dict[int, Strand] = {}
        self._committed: set[int] = set()
        self._failures: dict[int, OaicompatError] = {}
        self._finishes: dict[int, str] = {}
        self._encoder: Encoder | None = None
        self._folder = Folder()
        self._opened = False
        self._effects: list[Effect] = []

    def _refuse_strictly(self, notes: Notes) -> None:
        if not self._strict:
            return
        for note in notes:
            if note.refusable:
                raise UnsupportedFeatureError(f"{note.path}: {note.reason}", param=note.path)

    def _split(self) -> list[Strand]:
        """Spread the choices over calls: a model may refuse several candidates, and each call has a limit."""
        wanted = self._request.sampling.candidates or 1
        size = CANDIDATES if profile(self.model, self._backend).multiple_candidates else 1
        if wanted > size:
            self._note_split(self._decode_notes)
        return [self._strand(first, min(size, wanted - first)) for first in range(0, wanted, size)]

    def _strand(self, first: int, candidates: int) -> Strand:
        return Strand(first, candidates, self.requested_model, self._parameter)

    def _note_split(self, notes: Notes) -> None:
        path = self._request.spelled("candidates")
        notes.rewritten(path, "sent as several upstream calls", inert=True)

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return every note so far: on the request as decoded, on its last attempts, on the answer."""
        sources = (self._decode_notes, *(each.notes for each in self._strands), self._answer_notes)
        return tuple(dict.fromkeys(note for source in sources for note in source))

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """Return how the choices that are finished ended, in their order."""
        return tuple(reason for _, reason in sorted(self._finishes.items()))

    def needs(self) -> Needs:
        """Return what is wanted from outside and was not asked before."""
        wanted = needs(self._request.messages, media=self._options.fetch_media)
        return wanted.without(self._asked)

    def supply(self, found: Supplies) -> None:
        """Take what was found; what is missing is not asked again."""
        wanted = self.needs()
        self._asked.update(wanted.signatures, wanted.media)
        messages = supplied(self._request.messages, found)
        if messages != self._request.messages:
            self._request = replace(self._request, messages=messages)
            self._encodings = None

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
        target = replace(target, model=target.model or call.model)
        encoded, notes = self._encoded(strand, target, sentinel)
        self._refuse_strictly(notes)
        self.model = target.model
        strand.begin(self._reading(strand, target, encoded), notes, self._answer_notes)
        return UpstreamRequest("POST", generate_url(target, self.streaming), encoded.body)

    def _encoded(self, strand: Strand, target: Target, sentinel: bool) -> tuple[Encoded, Notes]:
        notes = Notes()
        self._shrink(strand, target, notes)
        key = (strand.first, strand.candidates, strand.continuation, target, sentinel)
        if self._encodings is not None and key in self._encodings:
            return self._encodings[key]
        encoded = encode_request(
            self._request_of(strand, notes),
            target,
            notes,
            candidates=strand.candidates,
            sentinel=sentinel,
            continuation=strand.continuation,
            options=self._options.encode,
        )
        if self._encodings is not None:
            self._encodings[key] = encoded, notes
        return encoded, notes

    def _shrink(self, strand: Strand, target: Target, notes: Notes) -> None:
        """Leave all but one choice to further calls where this target's model gives one at a time."""
        if strand.candidates == 1 or profile(target.model, target.backend).multiple_candidates:
            return
        self._note_split(notes)
        others = range(strand.first + 1, strand.first + strand.candidates)
        strand.candidates = 1
        self._strands += [self._strand(first, 1) for first in others]

    def _reading(self, strand: Strand, target: Target, encoded: Encoded) -> Reading:
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
            served=encoded.served,
            parameter=self._parameter,
        )

    def _request_of(self, strand: Strand, notes: Notes) -> Request:
        """Return the request of one call; calls that share a seed would all answer alike."""
        sampling = self._request.sampling
        if not strand.first or sampling.seed is None:
            return self._request
        notes.rewritten(self._request.spelled("seed"), "each upstream call has its own", inert=True)
        seeded = replace(sampling, seed=sampling.seed + strand.first)
        return replace(self._request, sampling=seeded)

    def receive_head(self, call: Call, status: int, headers: Mapping[str, str]) -> None:
        """Take the head of the upstream's answer; header names are lower case."""
        self._calls[call.number].receive_head(status, headers)

    def feed(self, call: Call, data: bytes) -> tuple[Frame, ...]:
        """Take bytes of the body; return the frames they complete.

        Raises the upstream's error where the call is not committed. Empty once the answer has failed.
        """
        return self._forward(call, self._calls[call.number].feed(data))

    def close(self, call: Call) -> tuple[Frame, ...]:
        """Take the end of the body; return the remaining frames of this call. Raises as `feed`."""
        return self._forward(call, self._calls[call.number].close())

    def call_committed(self, call: Call) -> bool:
        """Tell whether frames of this call were returned, so that it cannot be tried again."""
        return call.number in self._committed

    def failure(self, call: Call) -> OaicompatError | None:
        """Return the error that ended the answer in band, if it was this call's."""
        return self._failures.get(call.number)

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
        return tuple(self._answer_encoder().keepalive()) if self.streaming else ()

    def effects(self) -> tuple[Effect, ...]:
        """Return what is to be kept for later requests; each effect is returned once."""
        effects, self._effects = tuple(self._effects), []
        return effects

    def _forward(self, call: Call, events: list[Event]) -> tuple[Frame, ...]:
        if not events or self.failed is not None:
            return ()
        if not self.streaming:
            return self._collect(call, events)
        wanted = self._watched(call, events)
        frames = self._answer_encoder().encode(wanted) if wanted else []
        if frames:
            self.committed = True
            self._committed.add(call.number)
        return tuple(frames)

    def _watched(self, call: Call, events: list[Event]) -> list[Event]:
        """Note what passes, and keep to one opening and one ending for all calls of the answer."""
        if len(events) == 1 and type(events[0]) is Delta:
            return events
        strand = self._calls[call.number]
        failed = failure(events)
        whole = events if failed is None else events[:-1]
        wanted = [passed for event in whole for passed in self._passed(strand, event)]
        if failed is None:
            return wanted
        if not (wanted or self.call_committed(call)):
            raise failed
        self.failed = self._failures[call.number] = failed
        return [*wanted, Failed(failed)]

    def _passed(self, strand: Strand, event: Event) -> tuple[Event, ...]:
        """Take note of an event; return what of it belongs to the answer as a whole."""
        match event:
            case Opened():
                first, self._opened = not self._opened, True
                return (event,) if first else ()
            case PartStart(part=ToolCall(signature=Signature() as signature) as called):
                self._effects.append(RememberSignature(called.id, signature))
            case Finished():
                self._finishes[event.choice] = event.reason
            case Metered():
                self.usage = self.usage + event.usage if self.usage else event.usage
                return ()
            case Completed():
                strand.complete = True
                if not all(each.complete for each in self._strands):
                    return ()
                return (Metered(self.usage), event) if self.usage else (event,)
        return (event,)

    def _collect(self, call: Call, events: list[Event]) -> tuple[Frame, ...]:
        """Fold the events of an answer that is not streamed, each call's once it is whole."""
        strand = self._calls[call.number]
        if not strand.hold(events):
            return ()
        ended = False
        for event in strand.held:
            for passed in self._passed(strand, event):
                self._folder.add(passed)
                ended = isinstance(passed, Completed)
        if not ended:
            return ()
        self.committed = True
        self._committed.add(call.number)
        return (Frame(self._dialect.encode_response(self._folder.response(), self._context())),)

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
            options=self._options.answer,
            notes=self._answer_notes,
            source=self._source,
        )
