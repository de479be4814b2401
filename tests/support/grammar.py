"""Checks a stream of events against the grammar of `oaicompat.events`."""

from __future__ import annotations

from collections.abc import Sequence

from oaicompat.events import (
    Cited,
    Completed,
    Delta,
    Event,
    Failed,
    Finished,
    Logprobs,
    Metered,
    Opened,
    PartEnd,
    PartStart,
)
from oaicompat.messages import Refusal, Text, Thought, ToolCall

_GROWING = (Text, Thought, Refusal, ToolCall)


class Grammar:
    """Follows one answer; every rule it breaks is an assertion that fails."""

    def __init__(self) -> None:
        self.opened = False
        self.ended = False
        self.metered = False
        self.open: dict[int, PartStart] = {}
        self.finished: set[int] = set()
        self.seen: set[int] = set()

    def take(self, event: Event) -> None:
        assert not self.ended, f"{event} after the terminal event"
        match event:
            case Opened():
                assert not self.opened, "opened twice"
                assert not self.seen, "opened after a part"
                self.opened = True
            case Failed():
                self.ended = True
            case Metered():
                assert not self.metered, "metered twice"
                self.metered = True
            case Completed():
                self._complete()
            case _:
                assert self.opened, f"{event} before the opening"
                assert not self.metered, f"{event} after the usage"
                self._take_choice(event)

    def _complete(self) -> None:
        assert self.opened, "completed without an opening"
        assert not self.open, "completed with an open part"
        assert self.finished, "completed without a choice"
        assert self.finished == self.seen, "a choice has no finish"
        assert self.finished == set(range(len(self.finished))), "a choice is missing"
        self.ended = True

    def _take_choice(
        self, event: PartStart | Delta | PartEnd | Cited | Logprobs | Finished
    ) -> None:
        number = event.choice
        self.seen.add(number)
        assert number not in self.finished, f"{event} after the finish"
        match event:
            case PartStart():
                assert number not in self.open, "a part within a part"
                self.open[number] = event
            case Delta():
                assert isinstance(self.open[number].part, _GROWING), "a whole part grows"
                assert event.decoded(), "an empty delta"
                assert not (event.raw and event.text), "a delta with two texts"
            case PartEnd():
                del self.open[number]
            case Finished():
                assert number not in self.open, "finished with an open part"
                self.finished.add(number)
            case Cited() | Logprobs():
                pass


def check(events: Sequence[Event]) -> None:
    """Check the events of one whole answer."""
    grammar = Grammar()
    for event in events:
        grammar.take(event)
    assert grammar.ended, "no terminal event"
