"""One client request from body to answer, as a value a transport drives; no I/O.

The transport asks `needs` until it is empty, then for every call that is due: `begin_attempt`, send,
`receive_head`, `feed` each piece of the body, `close`; `calls` names what is due next and is empty when the
answer is whole; `conclude` gives what then is left. The first frame a call returns commits it: before, an
error may be answered with another attempt, which is encoded anew for its target and sees nothing of the one
that failed; afterwards a failure ends the answer in band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from oaicompat.affinity import conversation_key
from oaicompat.answering import Answering
from oaicompat.dialects import AnswerContext, AnswerOptions, Decoded, Keep, Pending
from oaicompat.dialects.registry import decode, find_dialect
from oaicompat.errors import OaicompatError, UnsupportedFeatureError
from oaicompat.events import Frame, Usage
from oaicompat.messages import Backend, Request
from oaicompat.models import BUILTIN, ModelMap
from oaicompat.notes import Note, Notes
from oaicompat.providers.gemini.candidate import Reading
from oaicompat.providers.gemini.counting import count_body
from oaicompat.providers.gemini.endpoints import Target, aimed, count_tokens_url, generate_url
from oaicompat.providers.gemini.profiles import profile
from oaicompat.providers.gemini.request import Encoded, EncodeOptions, encode_request
from oaicompat.strands import Strand
from oaicompat.supplies import NOTHING, Effect, Needs, Supplies, needs, supplied
from oaicompat.wire import as_bytes

CANDIDATES = 8
"""The most candidates one upstream call may be asked for (mappings 3)."""


class Options(Struct, frozen=True):
    """What a configuration changes: the dress of answers, additions to requests, who fetches media.

    `fetch_media` makes https media a need, so that the transport downloads them; `fast` copies plain text
    from upstream as the JSON it came as. `keep` tells which responses the transport can keep: none, those that
    are to be stored, or all.
    """

    answer: AnswerOptions = AnswerOptions()
    encode: EncodeOptions = EncodeOptions()
    fetch_media: bool = False
    fast: bool = True
    keep: Keep = ""


_DEFAULT_OPTIONS = Options()


class Call(Struct, frozen=True, gc=False):
    """One upstream call that is due; `model` is the upstream's name after mapping.

    Where it cannot serve, `begin_attempt` takes a target with one of the `fallbacks`, the first one first.
    """

    number: int
    model: str
    fallbacks: tuple[str, ...] = ()


class UpstreamRequest(Struct, frozen=True, gc=False):
    """One attempt, ready to send; the credential's headers are the transport's to add."""

    method: str
    url: str
    body: bytes


class Exchange:
    """One client request; see the module's text for how it is driven.

    `body` is bytes, text or a mapping; `created` Unix seconds; `new_id` returns a token unique to this answer
    (without it ids derive from the upstream's response id); `strict` refuses what would be dropped or
    approximated; `streaming` overrules what the body says; `backend` is the one the calls are likely for;
    `silent` gives an answer of nothing, without a call. A body that refers to stored things is decoded when
    they are supplied: until then `model` and `requested_model` are empty and `streaming` is not known. Raises
    `InvalidRequestError`, and `ValueError` for a dialect there is not.
    """

    def __init__(
        self,
        dialect: str,
        body: bytes | str | Mapping[str, Any],
        models: ModelMap = BUILTIN,
        created: int = 0,
        new_id: Callable[[], str] | None = None,
        strict: bool = False,
        streaming: bool | None = None,
        backend: Backend = "gemini",
        silent: bool = False,
        options: Options | None = None,
    ) -> None:
        self._dialect = find_dialect(dialect)
        self._options = options or _DEFAULT_OPTIONS
        self._strict = strict
        self._silent = silent
        self._backend: Backend = backend
        self._models = models
        self._decode_notes = Notes()
        self._source = body if type(body) is bytes else as_bytes(body)
        self._begun = (created, new_id, streaming)
        self._pending: Pending | None = None
        self._encodings: dict[tuple[Any, ...], tuple[Encoded, Notes]] | None = None
        decoded = decode(dialect, self._source, self._decode_notes, self._options.keep)
        if isinstance(decoded, Decoded):
            self._take(decoded)
            return
        self._pending = decoded
        self._answer_notes = Notes("answer")
        self._strands: list[Strand] = []
        self.model = self.requested_model = ""
        self.streaming = bool(streaming)

    def _take(self, decoded: Decoded) -> None:
        self._decoded = decoded
        self._request = request = decoded.request
        self.background = decoded.background
        if self._strict:
            _refuse(self._decode_notes)
        self._mapped = self._models.resolve(request.model)
        self.requested_model = request.model
        self._start(*self._begun)

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
        request = self._request
        self.model = self._mapped.model
        self.followed = request.stream if streaming is None else streaming
        self.streaming = self.followed or self.background
        self._token = new_id() if new_id else ""
        self._asked: frozenset[str] = frozenset()
        self._calls: list[Strand] = []
        self._answer_notes = Notes("answer")
        context = AnswerContext(
            request,
            self.requested_model,
            created,
            self._token,
            self._options.answer,
            self._answer_notes,
            self._source,
            self._decoded.memo,
        )
        self._strands = [] if self._silent else self._split(request.sampling.candidates or 1)
        self._answering = Answering(
            self._dialect, context, self._strands, self.streaming, self._decoded.kept
        )

    def _split(self, wanted: int) -> list[Strand]:
        """Spread the choices over calls: a model may refuse several candidates, and each call has a limit."""
        if wanted == 1:
            return [self._strand(0, 1)]
        size = CANDIDATES if profile(self.model, self._backend).multiple_candidates else 1
        if wanted > size:
            self._note_split(self._decode_notes)
        return [self._strand(first, min(size, wanted - first)) for first in range(0, wanted, size)]

    def _strand(self, first: int, candidates: int) -> Strand:
        return Strand(first, candidates, self.requested_model, self._request.spelling)

    def _note_split(self, notes: Notes) -> None:
        path = self._request.spelled("candidates")
        notes.rewritten(path, "sent as several upstream calls", inert=True)

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return every note so far: on the request as decoded, on its last attempts, on the answer."""
        found = self._decode_notes.found
        for strand in self._strands:
            if strand.notes is not None and strand.notes.found:
                found = found | strand.notes.found
        if self._answer_notes.found:
            found = found | self._answer_notes.found
        return tuple(found)

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """Return how the choices that are finished ended, in their order."""
        return tuple(reason for _, reason in sorted(self._answering.finishes.items()))

    @property
    def committed(self) -> bool:
        """Tell whether frames were returned, so that an error is told in band where the answer is a stream."""
        return self._pending is None and self._answering.committed

    @property
    def failed(self) -> OaicompatError | None:
        """Return the error that ended the answer."""
        return None if self._pending else self._answering.failed

    @property
    def usage(self) -> Usage | None:
        """Return what the answer cost so far, as far as it was told."""
        return None if self._pending else self._answering.usage

    def affinity(self, session: str = "") -> str:
        """Name the conversation of this request, as `conversation_key` does; not before it is decoded."""
        told, chat = self._decoded.told, self._dialect is find_dialect("chat")
        messages = self._request.messages
        return conversation_key(self._source, messages, session=session, system=chat, told=told)

    def needs(self) -> Needs:
        """Return what is wanted from outside and was not asked before."""
        if self._pending is not None:
            return self._pending.needs
        wanted = needs(self._request.messages, media=self._options.fetch_media)
        return wanted if wanted is NOTHING else wanted.without(self._asked)

    def supply(self, found: Supplies) -> None:
        """Take what was found; what is missing is not asked again.

        Raises `InvalidRequestError` where the request cannot do without.
        """
        if self._pending is not None:
            decoded = self._pending.complete(found)
            self._pending = None
            self._take(decoded)
            return
        wanted = self.needs()
        self._asked = self._asked.union(wanted.signatures, wanted.media)
        messages = supplied(self._request.messages, found)
        if messages != self._request.messages:
            self._request = replace(self._request, messages=messages)
            self._encodings = None

    def calls(self) -> tuple[Call, ...]:
        """Return the calls due now, each once, and none when the answer is whole; raises as `supply`."""
        if self._pending is not None:
            self.supply(Supplies())
        due = []
        for strand in self._strands:
            if strand.due:
                strand.due = False
                due.append(Call(len(self._calls), self.model, self._mapped.after(self.model)))
                self._calls.append(strand)
        return tuple(due)

    def begin_attempt(
        self, call: Call, target: Target, *, sentinel: bool = False
    ) -> UpstreamRequest:
        """Encode one attempt of a call for a target and forget what an earlier attempt left.

        `sentinel` replaces the signatures of the current turn by Google's documented placeholder. Raises
        `InvalidRequestError`, and `UnsupportedFeatureError` in strict mode.
        """
        strand = self._calls[call.number]
        if not target.model:
            target = aimed(target, call.model)
        encoded, notes = self._encoded(strand, target, sentinel)
        if self._strict:
            _refuse(notes)
        self.model = target.model
        if self._decoded.operation == "count":
            strand.begin(None, notes, self._answer_notes)
            body = count_body(encoded.body, target)
            return UpstreamRequest("POST", count_tokens_url(target), body)
        reading = Reading(
            self.streaming,
            target.backend,
            encoded.names,
            encoded.custom,
            self._token,
            strand.first,
            strand.candidates,
            self.requested_model,
            self._options.fast,
            encoded.served,
            self._request.spelling,
        )
        strand.begin(reading, notes, self._answer_notes)
        return UpstreamRequest("POST", generate_url(target, self.streaming), encoded.body)

    def _encoded(self, strand: Strand, target: Target, sentinel: bool) -> tuple[Encoded, Notes]:
        notes = Notes()
        if strand.candidates > 1:
            self._shrink(strand, target, notes)
        if self._encodings is not None:
            key = (strand.first, strand.candidates, strand.continuation, target, sentinel)
            if key in self._encodings:
                return self._encodings[key]
        encoded = encode_request(
            self._request_of(strand, notes) if strand.first else self._request,
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
        if profile(target.model, target.backend).multiple_candidates:
            return
        self._note_split(notes)
        others = range(strand.first + 1, strand.first + strand.candidates)
        strand.candidates = 1
        self._strands += [self._strand(first, 1) for first in others]

    def _request_of(self, strand: Strand, notes: Notes) -> Request:
        """Return the request of one call; calls that share a seed would all answer alike."""
        sampling = self._request.sampling
        if sampling.seed is None:
            return self._request
        notes.rewritten(self._request.spelled("seed"), "each upstream call has its own", inert=True)
        return replace(self._request, sampling=replace(sampling, seed=sampling.seed + strand.first))

    def receive_head(self, call: Call, status: int, headers: Mapping[str, str]) -> None:
        """Take the head of the upstream's answer; header names are lower case."""
        self._calls[call.number].receive_head(status, headers)

    def feed(self, call: Call, data: bytes) -> tuple[Frame, ...]:
        """Take bytes of the body; return the frames they complete.

        Raises the upstream's error where the call is not committed. Empty once the answer has failed.
        """
        strand = self._calls[call.number]
        events = strand.feed(data)
        return self._answering.take(call.number, strand, events) if events else ()

    def close(self, call: Call) -> tuple[Frame, ...]:
        """Take the end of the body; return the remaining frames of this call. Raises as `feed`."""
        strand = self._calls[call.number]
        if not self.streaming:
            return self._answering.collect(call.number, strand)
        return self._answering.take(call.number, strand, strand.close())

    def call_committed(self, call: Call) -> bool:
        """Tell whether frames of this call were returned, so that it cannot be tried again."""
        return call.number in self._answering.calls_committed

    def failure(self, call: Call) -> OaicompatError | None:
        """Return the error that ended the answer in band, if it was this call's."""
        return self._answering.failures.get(call.number)

    def announce(self) -> tuple[Frame, ...]:
        """Return frames that tell of an answer in the background before it begins; effects tell of it too."""
        return self._answering.announce()

    def conclude(self) -> tuple[Frame, ...]:
        """Return the frames that end an answer which is to be kept, or is silent; else there are none.

        They are to be sent after its effects were carried out; where that fails, `fail` takes them back.
        """
        return self._answering.conclude()

    def fail(self, error: OaicompatError) -> tuple[Frame, ...]:
        """End the answer with an error: in band after the first frame, as the reply's body before."""
        if self._pending is not None:
            return (Frame(self._dialect.encode_error(error)),)
        return self._answering.fail(error)

    def keepalive(self) -> tuple[Frame, ...]:
        """Return frames that keep the client waiting; only once the headers of a stream are out."""
        return self._answering.keepalive()

    def effects(self) -> tuple[Effect, ...]:
        """Return what is to be kept for later requests; each effect is returned once."""
        return () if self._pending else self._answering.effects()


def _refuse(notes: Notes) -> None:
    for note in notes:
        if note.refusable:
            raise UnsupportedFeatureError(f"{note.path}: {note.reason}", param=note.path)
