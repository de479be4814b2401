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


class AnswerOptions(Struct, frozen=True):
    """How an answer is dressed where OpenAI's wire leaves a choice.

    `images`: as `message.images[]`, or as Markdown in the text; `code`: code the provider ran travels in the
    carrier only, or also as fenced text.
    """

    images: Literal["list", "markdown"] = "list"
    code: Literal["carrier", "fenced"] = "carrier"


class AnswerContext(Struct, frozen=True):
    """What an encoder knows besides the events.

    `token` is the unique part of the answer's id (empty: taken from the provider's response id), `created`
    Unix seconds, `model` the name the client asked for, `source` the body of the request, for what an answer
    repeats of it. What the dialect cannot hold is reported to `notes`.
    """

    request: Request
    model: str
    created: int = 0
    token: str = ""
    options: AnswerOptions = AnswerOptions()
    notes: Notes = field(default_factory=lambda: Notes("answer"))
    source: bytes = b"{}"


class Encoder(Protocol):
    """Encodes the events of one streamed answer; holds the state of that one stream."""

    def encode(self, events: Iterable[Event]) -> list[Frame]:
        """Return the frames for these events, `Completed` included (its frames end the stream)."""
        ...

    def fail(self, error: OaicompatError) -> list[Frame]:
        """Close what is open, then return the in-band error frames that end the stream."""
        ...

    def keepalive(self) -> list[Frame]:
        """Return frames that keep the client's idle timer from firing."""
        ...


class Dialect(Protocol):
    """The functions a dialect package offers."""

    def decode_request(self, body: bytes, notes: Notes) -> Request:
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
