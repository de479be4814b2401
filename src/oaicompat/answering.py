"""What the events of an answer's calls become on their way to the client.

One rule: one opening, one ending and one sum of usage for all calls of an answer. Where the answer is to be
kept, its ending waits until `conclude`: what keeps it can fail, and then the client must not have been told.
"""

from __future__ import annotations

from msgspec import Struct

from oaicompat.dialects import AnswerContext, Dialect, Encoder
from oaicompat.errors import OaicompatError
from oaicompat.events import (
    UNOPENED,
    Completed,
    Delta,
    Event,
    Failed,
    Finished,
    Frame,
    Metered,
    Opened,
    PartStart,
    Response,
    Usage,
)
from oaicompat.messages import ToolCall
from oaicompat.strands import Strand
from oaicompat.supplies import Effect, RememberSignature


class Answering(Struct, eq=False):
    """The answer of one exchange; `strands` are its calls, a list that may still grow.

    `context` is what encoders are told; `held` says that the ending waits for `conclude`.
    """

    _dialect: Dialect
    _context: AnswerContext
    _strands: list[Strand]
    _streaming: bool
    _held: bool
    committed: bool = False
    failed: OaicompatError | None = None
    usage: Usage | None = None
    calls_committed: tuple[int, ...] = ()
    failures: dict[int, OaicompatError] = {}
    finishes: dict[int, str] = {}
    _encoder: Encoder | None = None
    _opened: bool = False
    _ending: tuple[Event, ...] = ()
    _answers: dict[int, Response] = {}
    _waiting: Response | None = None
    _signatures: tuple[Effect, ...] = ()

    def take(self, number: int, strand: Strand, events: list[Event]) -> tuple[Frame, ...]:
        """Take events of one call of a stream; return the frames they become.

        Raises the failure of a call that can be tried again.
        """
        if not events or self.failed is not None:
            return ()
        if len(events) > 1 or type(events[0]) is not Delta:
            events = self._watched(number, strand, events)
            if not events:
                return ()
        encoder = self._encoder or self._answer_encoder()
        frames = encoder.encode(events)
        if frames and number not in self.calls_committed:
            self._commit(number)
        return tuple(frames)

    def collect(self, number: int, strand: Strand) -> tuple[Frame, ...]:
        """Take the end of one call of an answer that is not streamed; return the answer once it is whole.

        Raises the failure of the call.
        """
        response = strand.answer()
        if response is None or self.failed is not None:
            return ()
        self._note_whole(strand.first, response)
        calls = len(self._strands)
        if calls > 1:
            self._answers[strand.first] = response
            if calls > len(self._answers):
                return ()
            response = self._joined()
        if self._held:
            self._waiting = response
            return ()
        self._commit(number)
        return (Frame(self._dialect.encode_response(response, self._context)),)

    def _commit(self, number: int) -> None:
        self.committed = True
        self.calls_committed += (number,)

    def announce(self) -> tuple[Frame, ...]:
        """Return frames that tell of the answer before there is any; a failure is then told in band."""
        frames = tuple(self._answer_encoder().announce())
        self.committed = self.committed or bool(frames)
        return frames

    def conclude(self) -> tuple[Frame, ...]:
        """Return the frames of an ending that waits, or of an answer that takes no call."""
        if self.failed is not None:
            return ()
        if not self._streaming:
            return self._conclude_whole()
        events, self._ending = self._ending, ()
        if not self._strands:
            events = (UNOPENED, Completed())
        if not events:
            return ()
        self.committed = True
        return tuple(self._answer_encoder().encode(events))

    def _conclude_whole(self) -> tuple[Frame, ...]:
        response, self._waiting = self._waiting, None
        if not self._strands:
            response = Response(())
        if response is None:
            return ()
        self.committed = True
        return (Frame(self._dialect.encode_response(response, self._context)),)

    def fail(self, error: OaicompatError) -> tuple[Frame, ...]:
        """Return the frames of a failure; an ending that `conclude` returned is taken back."""
        if self.failed is not None:
            return ()
        self.failed = error
        if self.committed and self._streaming:
            return tuple(self._answer_encoder().fail(error))
        self.committed = True
        return (Frame(self._dialect.encode_error(error)),)

    def keepalive(self) -> tuple[Frame, ...]:
        """Return frames that keep the client waiting."""
        return tuple(self._answer_encoder().keepalive()) if self._streaming else ()

    def effects(self) -> tuple[Effect, ...]:
        """Return what is to be kept; each effect is returned once."""
        kept = self._context.effects
        if not (self._signatures or kept):
            return ()
        effects = (*self._signatures, *kept)
        self._signatures = ()
        kept.clear()
        return effects

    def _watched(self, number: int, strand: Strand, events: list[Event]) -> list[Event]:
        """Note what passes, and keep to one opening and one ending for all calls of the answer."""
        last = events[-1]
        if type(last) is not Failed:
            return self._passed(strand, events)
        wanted = self._passed(strand, events[:-1])
        if not (wanted or number in self.calls_committed):
            raise last.error
        self.failed = self.failures[number] = last.error
        return [*wanted, last]

    def _passed(self, strand: Strand, events: list[Event]) -> list[Event]:
        """Take note of events; return those of the answer as a whole."""
        wanted: list[Event] = []
        for event in events:
            if type(event) is Delta:
                wanted.append(event)
            elif type(event) is Opened:
                if not self._opened:
                    wanted.append(event)
                self._opened = True
            elif type(event) is Metered:
                self._spend(event.usage)
            elif type(event) is Completed:
                strand.complete = True
                wanted += self._completed(event)
            else:
                self._note(event)
                wanted.append(event)
        return wanted

    def _completed(self, event: Completed) -> list[Event]:
        for strand in self._strands:
            if not strand.complete:
                return []
        ending: list[Event] = [Metered(self.usage), event] if self.usage else [event]
        if not self._held:
            return ending
        self._ending = tuple(ending)
        return []

    def _note(self, event: Event) -> None:
        if type(event) is Finished:
            self.finishes[event.choice] = event.reason
        elif type(event) is PartStart and type(event.part) is ToolCall:
            self._note_call(event.part)

    def _note_whole(self, first: int, response: Response) -> None:
        for number, choice in enumerate(response.choices, first):
            self.finishes[number] = choice.finish
            for part in choice.parts:
                if type(part) is ToolCall:
                    self._note_call(part)
        if response.usage is not None:
            self._spend(response.usage)

    def _note_call(self, call: ToolCall) -> None:
        if call.signature:
            self._signatures += (RememberSignature(call.id, call.signature),)

    def _spend(self, usage: Usage) -> None:
        self.usage = self.usage + usage if self.usage else usage

    def _joined(self) -> Response:
        """Return the answer of all calls, which opens as the one that was whole first."""
        first = next(iter(self._answers.values()))
        answers = [answer for _, answer in sorted(self._answers.items())]
        choices = tuple([choice for answer in answers for choice in answer.choices])
        return Response(choices, self.usage, first.response_id, first.model_version)

    def _answer_encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._dialect.encoder(self._context)
        return self._encoder
