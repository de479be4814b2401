"""What the events of an answer's calls become on their way to the client.

One rule: one opening, one ending and one sum of usage for all calls of an answer. Where the answer is to be
kept, its ending waits until `conclude`: what keeps it can fail, and then the client must not have been told.
"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakMethod

from oaicompat.dialects import AnswerContext, Dialect, Encoder
from oaicompat.errors import OaicompatError
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
from oaicompat.messages import ToolCall
from oaicompat.strands import Strand
from oaicompat.supplies import Effect, RememberSignature


class Answering:
    """The answer of one exchange; `strands` are its calls, a list that may still grow.

    `context` gives what encoders are told, once it is known: weakly, because it is the exchange's, which would
    else outlive its use with all that was sent. `held` says that the ending waits for `conclude`.
    """

    def __init__(
        self,
        dialect: Dialect,
        context: WeakMethod[Callable[[], AnswerContext]],
        strands: list[Strand],
        *,
        streaming: bool,
        held: bool,
    ) -> None:
        self.committed = False
        self.failed: OaicompatError | None = None
        self.usage: Usage | None = None
        self.calls_committed: set[int] = set()
        self.failures: dict[int, OaicompatError] = {}
        self.finishes: dict[int, str] = {}
        self._dialect = dialect
        self._make_context = context
        self._context: AnswerContext | None = None
        self._strands = strands
        self._streaming = streaming
        self._held = held
        self._ending: list[Event] = []
        self._encoder: Encoder | None = None
        self._folder = Folder()
        self._opened = False
        self._signatures: list[Effect] = []

    def take(self, number: int, strand: Strand, events: list[Event]) -> tuple[Frame, ...]:
        """Take events of one call; return the frames they become.

        Raises the failure of a call that can be tried again.
        """
        if not events or self.failed is not None:
            return ()
        if not self._streaming:
            return self._collect(number, strand, events)
        wanted = self._watched(number, strand, events)
        if not wanted:
            return ()
        frames = self._answer_encoder().encode(wanted)
        if frames:
            self.committed = True
            self.calls_committed.add(number)
        return tuple(frames)

    def announce(self) -> tuple[Frame, ...]:
        """Return frames that tell of the answer before there is any; a failure is then told in band."""
        frames = tuple(self._answer_encoder().announce())
        self.committed = self.committed or bool(frames)
        return frames

    def conclude(self) -> tuple[Frame, ...]:
        """Return the frames of an ending that waits, or of an answer that takes no call."""
        if self.failed is not None or not (self._ending or not self._strands):
            return ()
        events: list[Event] = self._ending or [Opened(), Completed()]
        self._ending = []
        self.committed = True
        if self._streaming:
            return tuple(self._answer_encoder().encode(events))
        self._folder.take(events)
        return self._whole()

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
        effects, self._signatures = self._signatures, []
        if self._context is not None and self._context.effects:
            effects = effects + self._context.effects
            self._context.effects.clear()
        return tuple(effects)

    def _watched(self, number: int, strand: Strand, events: list[Event]) -> list[Event]:
        """Note what passes, and keep to one opening and one ending for all calls of the answer."""
        last = events[-1]
        if type(last) is Delta and len(events) == 1:
            return events
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
                self.usage = self.usage + event.usage if self.usage else event.usage
            elif type(event) is Completed:
                strand.complete = True
                wanted += self._completed(event)
            else:
                self._note(event)
                wanted.append(event)
        return wanted

    def _note(self, event: Event) -> None:
        if type(event) is Finished:
            self.finishes[event.choice] = event.reason
        elif type(event) is PartStart and type(event.part) is ToolCall and event.part.signature:
            self._signatures.append(RememberSignature(event.part.id, event.part.signature))

    def _completed(self, event: Completed) -> list[Event]:
        for strand in self._strands:
            if not strand.complete:
                return []
        ending: list[Event] = [Metered(self.usage), event] if self.usage else [event]
        if not self._held:
            return ending
        self._ending = ending
        return []

    def _collect(self, number: int, strand: Strand, events: list[Event]) -> tuple[Frame, ...]:
        """Fold the events of an answer that is not streamed, each call's once it is whole."""
        if not strand.hold(events):
            return ()
        passed = self._passed(strand, strand.held)
        self._folder.take(passed)
        if not passed or type(passed[-1]) is not Completed:
            return ()
        self.committed = True
        self.calls_committed.add(number)
        return self._whole()

    def _whole(self) -> tuple[Frame, ...]:
        body = self._dialect.encode_response(self._folder.response(), self._answer_context())
        return (Frame(body),)

    def _answer_encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._dialect.encoder(self._answer_context())
        return self._encoder

    def _answer_context(self) -> AnswerContext:
        if self._context is None:
            make = self._make_context()
            assert make is not None
            self._context = make()
        return self._context
