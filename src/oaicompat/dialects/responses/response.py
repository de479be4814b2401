"""Responses answers: the whole object, or the events that lead to it.

Grammar of a stream (openai-wire section 5): `response.created`, `response.in_progress`, the items one after the
other, the one terminal event, `[DONE]`. A failure closes what is open, then `error`, `response.failed` and
`[DONE]`. An answer that is not streamed is the last object of the same events, so the two cannot differ; one
that is to be kept leaves those events with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import assert_never

import msgspec

from oaicompat.dialects import AnswerContext
from oaicompat.dialects.responses.assembly import Assembly
from oaicompat.dialects.responses.compaction import Summary
from oaicompat.dialects.responses.envelope import DONE, Envelope
from oaicompat.dialects.responses.memo import memo_of
from oaicompat.dialects.responses.output import Data, encode_error, error_data
from oaicompat.dialects.responses.stored import stored_input
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
from oaicompat.supplies import Item, KeepResponse

__all__ = ["encode_error", "encode_response", "encoder"]

END = Frame(b"[DONE]")

_encode = msgspec.json.Encoder().encode


def encode_response(response: Response, context: AnswerContext) -> bytes:
    """Encode a whole answer as a Response object."""
    stream = StreamEncoder(context, quiet=not memo_of(context.memo).kept)
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
        self._memo = memo_of(context.memo)
        self._sink = Sink(quiet=quiet)
        self._envelope: Envelope | None = None
        self._assembly: Assembly | Summary = (
            Summary(self._sink, "", covers=True)
            if self._memo.compacts
            else Assembly(self._sink, context, "")
        )
        self._usage: Usage | None = None
        self._reason = "stop"
        self._ended = self._failed = False
        self._log: list[Frame] = []
        self._before_end = (0, 0)
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
        """Return the frames that close what is open and end the stream with an error.

        Those that ended it otherwise were not sent, and are taken back.
        """
        if self._failed:
            return []
        if self._ended:
            self._sink.sequence, logged = self._before_end
            del self._log[logged:]
        self._fail(error)
        return self._taken()

    def keepalive(self) -> list[Frame]:
        """Return a numbered event that keeps idle timers from firing; none before the stream began."""
        if self._envelope is not None and not self._ended:
            self._sink.emit("keepalive")
        return self._taken()

    def announce(self) -> list[Frame]:
        """Return the events of a response that waits for its turn, and leave it to be kept."""
        if not self._memo.background:
            return []
        envelope = self._begin("")
        queued = envelope.running("queued")
        self._tell("created", queued)
        self._tell("queued", queued)
        frames = self._taken()
        self._keep(running=True)
        return frames

    def _taken(self) -> list[Frame]:
        frames, self._sink.frames = self._sink.frames, []
        if self._memo.kept:
            self._log += frames
        return frames

    def _take(self, event: Event) -> None:
        if type(event) is Opened:
            self._open(event.response_id)
        elif type(event) is Metered:
            self._usage = event.usage
        elif type(event) is Completed:
            self._complete()
        elif type(event) is Failed:
            self._fail(event.error)
        elif type(event) is Delta:
            raise ValueError("a delta is encoded where it is read")
        elif event.choice:
            self._context.notes.dropped("choices", "a response has one answer")
        else:
            self._take_part(event)

    def _take_part(self, event: PartStart | PartEnd | Cited | Logprobs | Finished) -> None:
        if type(event) is PartStart:
            self._assembly.start(event.part)
        elif type(event) is PartEnd:
            self._assembly.end()
        elif type(event) is Cited:
            self._assembly.cite(event)
        elif type(event) is Logprobs:
            self._assembly.measure(event.tokens)
        elif type(event) is Finished:
            self._reason = event.reason
            self._assembly.finish("completed" if event.reason in DONE else "incomplete")
        else:
            assert_never(event)

    def _open(self, response_id: str) -> Envelope:
        envelope = self._envelope
        if envelope is None:
            envelope = self._begin(response_id)
            if not self._sink.quiet:
                self._tell("created", envelope.running())
        if not self._sink.quiet:
            self._tell("in_progress", envelope.running())
        return envelope

    def _begin(self, response_id: str) -> Envelope:
        token = self._context.token or response_id or "0"
        self._assembly.token = token
        self._envelope = Envelope(self._context, token)
        return self._envelope

    def _tell(self, what: str, response: Data) -> None:
        self.last = response
        self._sink.emit(f"response.{what}", response=response)

    def _complete(self) -> None:
        envelope = self._envelope or self._open("")
        tier = self._usage.service_tier if self._usage else None
        data = envelope.finished(self._assembly.items, self._usage, self._reason, tier)
        self._before_end = (self._sink.sequence, len(self._log) + len(self._sink.frames))
        self._tell(data["status"], data)
        self._end()

    def _fail(self, error: OaicompatError) -> None:
        envelope = self._envelope or self._open("")
        self._assembly.abandon()
        told = error_data(error)
        flat = {key: told[key] for key in ("code", "message", "param")}
        self._sink.emit("error", **flat, error=told)
        self._tell("failed", envelope.failed(self._assembly.items, self._usage, error))
        self._failed = True
        self._end()

    def _end(self) -> None:
        self._ended = True
        if not self._sink.quiet:
            self._sink.frames.append(END)
        if self._memo.kept:
            self._keep()

    def _keep(self, *, running: bool = False) -> None:
        """Leave the response, as it is now, to be kept."""
        memo, token = self._memo, self._assembly.token
        self._context.effects[:] = [
            KeepResponse(
                self.last["id"],
                self._context.created,
                _encode(self.last),
                stored_input(self._context.source, memo, token),
                tuple(Item(item["id"], _encode(item)) for item in self.last["output"]),
                memo.previous,
                memo.conversation,
                (*self._log, *self._sink.frames),
                memo.stored,
                running,
                self._failed,
            )
        ]
