"""The mapper functions: one request or answer in, plain data out.

They are the exchange without a transport, for programs that make the upstream call themselves. A conversion
that several upstream calls are needed for stands in `bodies`; one that needs something from outside raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat.events import Frame
from oaicompat.exchange import Call, Exchange, UpstreamRequest
from oaicompat.models import BUILTIN, ModelMap
from oaicompat.notes import Note
from oaicompat.providers.gemini.endpoints import GEMINI_API, Target
from oaicompat.sse import comment, encode
from oaicompat.supplies import Supplies
from oaicompat.wire import as_bytes

Body = bytes | str | Mapping[str, Any]


class MappedCall:
    """An OpenAI request as Gemini takes it.

    `model` is the upstream model, `body` the request for it as plain data, `url` where it goes, `notes` what
    was not carried over exactly. `bodies` holds every upstream body where one request takes several.
    """

    def __init__(self, exchange: Exchange, target: Target) -> None:
        wanted = exchange.needs()
        if wanted.media:
            raise InvalidRequestError(f"{wanted.media[0]} has to be fetched first.")
        exchange.supply(Supplies())
        self._exchange = exchange
        self._target = target
        begun, started = self._again()
        self.model = begun.model
        self.url = started[0][1].url
        self.bodies: tuple[dict[str, Any], ...] = tuple(
            msgspec.json.decode(request.body) for _, request in started
        )
        self.notes: tuple[Note, ...] = begun.notes

    @property
    def body(self) -> dict[str, Any]:
        """Return the first, and nearly always only, upstream body."""
        return self.bodies[0]

    def _again(
        self,
        *,
        streaming: bool | None = None,
        created: int = 0,
        new_id: Callable[[], str] | None = None,
    ) -> tuple[Exchange, list[tuple[Call, UpstreamRequest]]]:
        exchange = self._exchange.again(created=created, new_id=new_id, streaming=streaming)
        return exchange, [
            (call, exchange.begin_attempt(call, self._target)) for call in exchange.calls()
        ]


class MappedStream:
    """A streamed Gemini answer on its way to the client's SSE bytes."""

    def __init__(self, call: MappedCall, created: int, new_id: Callable[[], str] | None) -> None:
        self._exchange, started = call._again(streaming=True, created=created, new_id=new_id)
        self._calls = [call for call, _ in started]

    @property
    def notes(self) -> tuple[Note, ...]:
        """Return what was not carried over exactly, in the request and so far in the answer."""
        return self._exchange.notes

    def feed(self, chunk: bytes, *, number: int = 0) -> bytes:
        """Take bytes of the upstream's body, cut anywhere; return the SSE bytes they complete.

        `number` tells which of `MappedCall.bodies` they answer. Raises `OaicompatError` where nothing was
        returned yet; a later failure is an error frame.
        """
        return sse_bytes(self._exchange.feed(self._calls[number], chunk))

    def close(self, *, number: int = 0) -> bytes:
        """Take the end of the upstream's body; return the last SSE bytes. Raises as `feed`."""
        frames = self._exchange.close(self._calls[number])
        if self._exchange.calls():
            frames += self._exchange.fail(_unfinished())
        return sse_bytes(frames)


def openai_to_gemini(
    body: Body, *, dialect: str = "chat", target: Target = GEMINI_API, models: ModelMap = BUILTIN
) -> MappedCall:
    """Convert an OpenAI request to a Gemini `generateContent` request.

    `body` is the request as bytes, text or a mapping, which is not changed. Raises `InvalidRequestError` with
    `param` where the request cannot be converted.
    """
    return MappedCall(Exchange(dialect, body, models=models), target)


def gemini_to_openai(
    answer: Body | Sequence[Body],
    call: MappedCall,
    *,
    created: int = 0,
    new_id: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Convert a whole Gemini answer to the answer OpenAI would give, as plain data.

    `answer` is a `GenerateContentResponse` as bytes, text or a mapping, or a list of them where `call.bodies`
    has several; `created` is Unix seconds. Raises `UpstreamError` for an error object, an answer that broke
    off, and one that cannot be read.
    """
    exchange, started = call._again(streaming=False, created=created, new_id=new_id)
    answers: Sequence[Body] = [answer] if isinstance(answer, bytes | str | Mapping) else answer
    if len(answers) != len(started):
        raise ValueError(f"{len(started)} upstream answers are needed, not {len(answers)}")
    frames: tuple[Frame, ...] = ()
    for (each, _), body in zip(started, answers, strict=True):
        exchange.feed(each, as_bytes(body))
        frames += exchange.close(each)
    if not frames:
        raise _unfinished()
    converted: dict[str, Any] = msgspec.json.decode(frames[0].data)
    return converted


def stream(
    call: MappedCall, *, created: int = 0, new_id: Callable[[], str] | None = None
) -> MappedStream:
    """Return a converter for a streamed Gemini answer to `call`: `feed` bytes, then `close`."""
    return MappedStream(call, created, new_id)


def _unfinished() -> OaicompatError:
    return OaicompatError(
        "The answer continues in a further upstream call; drive an Exchange to follow it.",
        status=502,
        code="upstream_incomplete",
    )


def sse_bytes(frames: Sequence[Frame]) -> bytes:
    """Frame what an exchange returned as server-sent events; data that begins with a colon is a comment."""
    if len(frames) < 2:
        return _frame_bytes(frames[0]) if frames else b""
    plain = [frame.data for frame in frames if not frame.name and frame.data[:1] != b":"]
    if len(plain) == len(frames):
        return b"data: " + b"\n\ndata: ".join(plain) + b"\n\n"
    return b"".join([_frame_bytes(frame) for frame in frames])


def _frame_bytes(frame: Frame) -> bytes:
    if frame.data[:1] == b":":
        return comment(frame.data[1:].strip().decode())
    if frame.name:
        return encode(frame.data, frame.name)
    return b"data: " + frame.data + b"\n\n"
