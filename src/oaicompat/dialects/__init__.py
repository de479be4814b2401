"""The dialects clients speak, one package each with the same files: `schema`, `request`, `response`.

A dialect turns a body into a neutral `Request` and events into its own answer, and knows nothing of
providers or of the other dialects. A package satisfies `Dialect` with plain functions; there is no base class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from msgspec import Struct, field

from oaicompat.errors import OaicompatError
from oaicompat.events import Event, Frame, Response
from oaicompat.messages import Request
from oaicompat.notes import Notes
from oaicompat.supplies import Effect, Needs, Supplies


class AnswerOptions(Struct, frozen=True):
    """How an answer is dressed where OpenAI's wire leaves a choice.

    `images`: as `message.images[]`, or as Markdown in the text; `code`: code the provider ran travels in the
    carrier only, or also as fenced text.
    """

    images: Literal["list", "markdown"] = "list"
    code: Literal["carrier", "fenced"] = "carrier"


Keep = Literal["", "stored", "all"]
"""Which responses a transport can keep: none, those that are to be stored, or all."""


class Decoded(Struct, frozen=True):
    """A request as decoded; `memo` is the dialect's own and comes back to it with the answer.

    `background` says that the client does not wait for the answer, `kept` that the answer leaves something to
    be kept; with the operation `count` the model only counts the request. `told` is what the body says of its
    conversation, as `affinity.told_by` reads it.
    """

    request: Request
    memo: object = None
    background: bool = False
    kept: bool = False
    operation: Literal["generate", "count"] = "generate"
    told: str = ""


class Pending(Protocol):
    """A request that refers to what is stored elsewhere."""

    @property
    def needs(self) -> Needs:
        """Return what is wanted."""
        ...

    def complete(self, found: Supplies) -> Decoded:
        """Finish decoding; raises `InvalidRequestError` for what was not found."""
        ...


class AnswerContext(Struct, frozen=True):
    """What an encoder knows besides the events.

    `token` is the unique part of the answer's id (empty: taken from the provider's response id), `created`
    Unix seconds, `model` the name the client asked for, `source` the body of the request, for what an answer
    repeats of it, `memo` what its decoder wants to know again. What the dialect cannot hold is reported to
    `notes`; what is to be kept is left in `effects`.
    """

    request: Request
    model: str
    created: int = 0
    token: str = ""
    options: AnswerOptions = AnswerOptions()
    notes: Notes = field(default_factory=lambda: Notes("answer"))
    source: bytes = b"{}"
    memo: object = None
    effects: list[Effect] = field(default_factory=list)


class Encoder(Protocol):
    """Encodes the events of one streamed answer; holds the state of that one stream."""

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """Return the frames for these events, `Completed` included (its frames end the stream)."""
        ...

    def fail(self, error: OaicompatError) -> list[Frame]:
        """Close what is open, then return the in-band error frames that end the stream.

        After `Completed` they take the place of the frames that ended it, which were not sent.
        """
        ...

    def keepalive(self) -> list[Frame]:
        """Return frames that keep the client's idle timer from firing."""
        ...

    def announce(self) -> list[Frame]:
        """Return frames that tell of an answer in the background before it begins, if the dialect has such."""
        ...


class Dialect(Protocol):
    """The functions a dialect package offers."""

    def decode(self, body: bytes, notes: Notes, keep: Keep) -> Decoded | Pending:
        """Decode a request body; raises `InvalidRequestError` naming `param`."""
        ...

    def encoder(self, context: AnswerContext) -> Encoder:
        """Return an encoder for one streamed answer."""
        ...

    def encode_response(self, response: Response, context: AnswerContext) -> bytes:
        """Encode a whole answer as the body of a reply."""
        ...

    def encode_error(self, error: OaicompatError) -> bytes:
        """Encode an error as the body of a reply."""
        ...
