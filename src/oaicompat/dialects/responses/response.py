"""Responses answers: the whole object, or the events that lead to it.

Grammar of a stream (openai-wire section 5): `response.created`, `response.in_progress`, the items one after the
other, the one terminal event, `[DONE]`. A failure closes what is open, then `error`, `response.failed` and
`[DONE]`. An answer that is not streamed is the last object of the same events, so the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from oaicompat.dialects import AnswerContext
from oaicompat.dialects.responses.assembly import Assembly
from oaicompat.dialects.responses.envelope import DONE, Envelope
from oaicompat.dialects.responses.output import Data, encode_error, error_data
from oaicompat.dialects.responses.writing import Sink
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
    Response,
    Usage,
)

__all__ = ["encode_error", "encode_response", "encoder"]

END = Frame(b"[DONE]")

_encode = msgspec.json.Encoder().encode


def encode_response(response: Response, context: AnswerContext) -> bytes:
    """Encode a whole answer as a Response object."""
    stream = StreamEncoder(context, quiet=True)
    stream.encode(_events(response))
    return _encode(stream.last)


def _events(response: Response) -> Iterator[Event]:
    yield Opened(response.response_id, response.model_version)
    for number, choice in enumerate(response.choices):
        for part in choice.parts:
            yield PartStart(number, part)
            yield PartEnd(number)
        if choice.logprobs:
            yield Logprobs(number, choice.logprobs)
        if choice.citations or choice.search:
            yield Cited(number, choice.citations, choice.search)
        yield Finished(number, choice.finish, choice.native)
    if response.usage is not None:
        yield Metered(response.usage)
    yield Completed()


def encoder(context: AnswerContext) -> StreamEncoder:
    """Return an encoder for one streamed answer."""
    return StreamEncoder(context)


class StreamEncoder:
    """Encodes the events of one answer; `last` is the newest Response object."""

    def __init__(self, context: AnswerContext, *, quiet: bool = False) -> None:
        self._context = context
        self._sink = Sink(quiet=quiet)
        self._envelope: Envelope | None = None
        self._assembly = Assembly(self._sink, context, "")
        self._usage: Usage | None = None
        self._reason = "stop"
        self._ended = False
        self.last: Data = {}

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """Return the frames of these events, in order."""
        for event in events:
            if type(event) is Delta:
                if not event.choice:
                    self._assembly.delta(event)
            else:
                self._take(event)
        return self._taken()

    def fail(self, error: OaicompatError) -> list[Frame]:
        """Return the frames that close what is open and end the stream with an error."""
        if not self._ended:
            self._fail(error)
        return self._taken()

    def keepalive(self) -> list[Frame]:
        """Return a numbered event that keeps idle timers from firing; none before the stream began."""
        if self._envelope is not None and not self._ended:
            self._sink.emit("keepalive")
        return self._taken()

    def _taken(self) -> list[Frame]:
        frames, self._sink.frames = self._sink.frames, []
        return frames

    def _take(self, event: Event) -> None:
        match event:
            case Opened():
                self._open(event.response_id)
            case Metered():
                self._usage = event.usage
            case Completed():
                self._complete()
            case Failed():
                self._fail(event.error)
            case Delta():
                raise ValueError("a delta is encoded where it is read")
            case _ if event.choice:
                self._context.notes.dropped("choices", "a response has one answer")
            case _:
                self._take_part(event)

    def _take_part(self, event: PartStart | PartEnd | Cited | Logprobs | Finished) -> None:
        match event:
            case PartStart():
                self._assembly.start(event.part)
            case PartEnd():
                self._assembly.end()
            case Cited():
                self._assembly.cite(event)
            case Logprobs():
                self._assembly.measure(event.tokens)
            case Finished():
                self._reason = event.reason
                self._assembly.finish("completed" if event.reason in DONE else "incomplete")

    def _open(self, response_id: str) -> Envelope:
        token = self._context.token or response_id or "0"
        self._assembly.token = token
        self._envelope = Envelope(self._context, token)
        self._tell("created", self._envelope.running())
        self._tell("in_progress", self._envelope.running())
        return self._envelope

    def _tell(self, what: str, response: Data) -> None:
        self.last = response
        self._sink.emit(f"response.{what}", response=response)

    def _complete(self) -> None:
        envelope = self._envelope or self._open("")
        tier = self._usage.service_tier if self._usage else None
        data = envelope.finished(self._assembly.items, self._usage, self._reason, tier)
        self._tell(data["status"], data)
        self._end()

    def _fail(self, error: OaicompatError) -> None:
        envelope = self._envelope or self._open("")
        self._assembly.abandon()
        told = error_data(error)
        flat = {key: told[key] for key in ("code", "message", "param")}
        self._sink.emit("error", **flat, error=told)
        self._tell("failed", envelope.failed(self._assembly.items, self._usage, error))
        self._end()

    def _end(self) -> None:
        self._ended = True
        if not self._sink.quiet:
            self._sink.frames.append(END)
