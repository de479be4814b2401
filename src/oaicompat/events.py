"""What a provider says, as a stream of events, and the answer they fold to.

Grammar, per answer:

    Opened (PartStart Delta* PartEnd | Logprobs | Cited)* Finished* Metered? Completed
    Opened? ... Failed

Parts of different choices may interleave; within one choice one part is open at a time, and one `Finished`
comes per choice, after all its parts. `Completed` or `Failed` is the one terminal event. Every encoder,
streamed or not, reads these events, so a part is classified once, in the provider's decoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, assert_never, final

import msgspec
from msgspec import Struct

from oaicompat.errors import OaicompatError
from oaicompat.messages import Part, Refusal, Text, Thought, ToolCall

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

_decode_string = msgspec.json.Decoder(str).decode


@final
class Opened(Struct, frozen=True, tag=True, gc=False):
    """The provider began to answer: its own id and the exact model version, where it tells them."""

    response_id: str = ""
    model_version: str = ""


UNOPENED = Opened()
"""The opening of an answer whose provider told nothing of itself."""


@final
class PartStart(Struct, frozen=True, tag=True, gc=False):
    """A part begins. Text, thoughts and arguments may grow by `Delta`; every other kind is whole already."""

    choice: int
    part: Part


@final
class Delta(Struct, frozen=True, tag=True, gc=False):
    """More of the choice's open part.

    `raw` is the provider's own JSON string, quotes included, where it may be copied as it stands.
    """

    choice: int
    text: str = ""
    raw: bytes = b""

    def decoded(self) -> str:
        """Return the text, whichever way it travels."""
        return _decode_string(self.raw) if self.raw else self.text


@final
class PartEnd(Struct, frozen=True, tag=True, gc=False):
    """The choice's open part is complete."""

    choice: int


class Citation(Struct, frozen=True):
    """A source for `[start, end)` of the choice's visible text, counted in code points."""

    start: int
    end: int
    url: str
    title: str


class Search(Struct, frozen=True):
    """What the provider searched for, and every source it looked at as (url, title)."""

    queries: tuple[str, ...]
    sources: tuple[tuple[str, str], ...] = ()


@final
class Cited(Struct, frozen=True, tag=True, gc=False):
    """Sources of the choice's text, and the searches behind them."""

    choice: int
    citations: tuple[Citation, ...]
    search: Search | None = None


class TokenLogprob(Struct, frozen=True):
    """One chosen token, its natural-log probability, and the likeliest alternatives as (token, logprob)."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@final
class Logprobs(Struct, frozen=True, tag=True, gc=False):
    """Token probabilities of text of this choice."""

    choice: int
    tokens: tuple[TokenLogprob, ...]


@final
class Finished(Struct, frozen=True, tag=True, gc=False):
    """The choice is complete: the reason from OpenAI's closed set, and the provider's own word for it."""

    choice: int
    reason: FinishReason
    native: str = ""


class Usage(Struct, frozen=True, gc=False):
    """Token counts. `cached` is part of `input`; `reasoning` is part of `output`; details are by modality."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    tool_use: int = 0
    input_details: dict[str, int] = {}
    output_details: dict[str, int] = {}
    service_tier: str | None = None

    @property
    def total(self) -> int:
        """Return input plus output."""
        return self.input + self.output

    def __add__(self, other: Usage) -> Usage:
        """Add the counts of another call of the same exchange."""
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.cached + other.cached,
            self.reasoning + other.reasoning,
            self.tool_use + other.tool_use,
            _added(self.input_details, other.input_details),
            _added(self.output_details, other.output_details),
            self.service_tier or other.service_tier,
        )


def _added(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    return {key: left.get(key, 0) + right.get(key, 0) for key in left | right}


@final
class Metered(Struct, frozen=True, tag=True, gc=False):
    """The usage of the whole answer."""

    usage: Usage


@final
class Completed(Struct, frozen=True, tag=True, gc=False):
    """The answer is whole."""


@final
class Failed(Struct, frozen=True, tag=True):
    """The answer cannot be completed."""

    error: OaicompatError


Event = (
    Opened
    | PartStart
    | Delta
    | PartEnd
    | Cited
    | Logprobs
    | Finished
    | Metered
    | Completed
    | Failed
)


class Choice(Struct, frozen=True, gc=False):
    """One finished candidate."""

    parts: tuple[Part, ...]
    finish: FinishReason
    native: str = ""
    citations: tuple[Citation, ...] = ()
    search: Search | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


class Response(Struct, frozen=True, gc=False):
    """A whole answer."""

    choices: tuple[Choice, ...]
    usage: Usage | None = None
    response_id: str = ""
    model_version: str = ""


class _Growing:
    """A choice under construction."""

    __slots__ = ("citations", "finish", "logprobs", "open", "parts", "pieces", "search")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.open: Part | None = None
        self.pieces: list[str] = []
        self.finish: Finished | None = None
        self.citations: tuple[Citation, ...] = ()
        self.search: Search | None = None
        self.logprobs: list[TokenLogprob] = []

    def add(self, event: PartStart | Delta | PartEnd | Cited | Logprobs | Finished) -> None:
        # Types are compared, here and wherever all events pass: `isinstance` and `match` cost four times as
        # much for each type that it is not.
        if type(event) is Delta:
            self.pieces.append(event.decoded())
        elif type(event) is PartStart:
            self.open = event.part
        elif type(event) is PartEnd:
            self.end_part()
        elif type(event) is Finished:
            self.finish = event
        elif type(event) is Logprobs:
            self.logprobs += event.tokens
        elif type(event) is Cited:
            self.citations += event.citations
            self.search = event.search or self.search
        else:
            assert_never(event)

    def end_part(self) -> None:
        if self.open is not None:
            self.parts.append(grown(self.open, "".join(self.pieces)))
        self.open = None
        self.pieces = []

    def choice(self, index: int) -> Choice:
        if self.finish is None:
            raise ValueError(f"choice {index} has no finish")
        return Choice(
            tuple(self.parts),
            self.finish.reason,
            self.finish.native,
            self.citations,
            self.search,
            tuple(self.logprobs),
        )


def grown(part: Part, more: str) -> Part:
    """Return a part with the text of its deltas added."""
    if not more:
        return part
    match part:
        case Text() | Thought() | Refusal():
            return msgspec.structs.replace(part, text=part.text + more)
        case ToolCall():
            return msgspec.structs.replace(part, arguments=part.arguments + more)
        case _:
            raise ValueError(f"a {type(part).__name__} part does not grow")


class Folder:
    """Folds events into a `Response`."""

    def __init__(self) -> None:
        self._choices: dict[int, _Growing] = {}
        self._opened = UNOPENED
        self._usage: Usage | None = None

    def take(self, events: Iterable[Event]) -> None:
        """Take the next events; raises the error of a `Failed` one."""
        for event in events:
            if type(event) is Opened:
                self._opened = event
            elif type(event) is Metered:
                self._usage = event.usage
            elif type(event) is Failed:
                raise event.error
            elif type(event) is not Completed:
                choice = self._choices.get(event.choice)
                if choice is None:
                    choice = self._choices[event.choice] = _Growing()
                choice.add(event)

    def response(self) -> Response:
        """Return the answer; the events taken must have been complete."""
        choices = sorted(self._choices.items())
        return Response(
            tuple([choice.choice(index) for index, choice in choices]),
            self._usage,
            self._opened.response_id,
            self._opened.model_version,
        )


def fold(events: Iterable[Event]) -> Response:
    """Fold the events of one complete answer into a `Response`; raises the error of a `Failed` event."""
    folder = Folder()
    folder.take(events)
    return folder.response()


class Frame(Struct, frozen=True, gc=False):
    """One unit of a dialect's answer, unframed: SSE, WebSocket text and stored replay frame it differently.

    `name` is the SSE event name (empty: none), `sequence` the dialect's own number or -1, `data` the payload
    without newlines. The one frame of an answer that is not streamed is the whole body.
    """

    data: bytes
    name: str = ""
    sequence: int = -1
