"""Drives conversions in tests: one request, the bytes an upstream answers with, and what a client gets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

import oaicompat
from oaicompat import OaicompatError, Options
from oaicompat.events import Event
from oaicompat.mapper import sse_bytes
from oaicompat.notes import Notes
from oaicompat.providers.gemini.candidate import Reading
from oaicompat.providers.gemini.response import Decoder

Json = dict[str, Any]

MODEL = "gemini-2.5-flash"
"""A model that takes several candidates in one call."""

HELLO: list[Json] = [{"role": "user", "content": "hello"}]


class Outcome(Struct, frozen=True):
    """What a client was sent, and the error that was raised, if one was."""

    sent: bytes
    error: tuple[str, str, int, str | None] | None = None


def ask(candidates: int = 1, **more: Any) -> Json:
    """Return a request for so many answers."""
    several = {"n": candidates} if candidates > 1 else {}
    return {"model": MODEL, "messages": HELLO, **several, **more}


def told(error: OaicompatError) -> tuple[str, str, int, str | None]:
    return type(error).__name__, error.message, error.status, error.code


def streamed(request: Json, pieces: Iterable[bytes]) -> Outcome:
    """Convert a streamed answer with the mapper functions."""
    converter = oaicompat.stream(oaicompat.openai_to_gemini(request), created=1)
    sent: list[bytes] = []
    try:
        sent.extend(converter.feed(piece) for piece in pieces)
        sent.append(converter.close())
    except OaicompatError as error:
        return Outcome(b"".join(sent), told(error))
    return Outcome(b"".join(sent))


def whole(request: Json, answer: Json | bytes) -> Outcome:
    """Convert a whole answer with the mapper functions."""
    call = oaicompat.openai_to_gemini(request)
    try:
        converted = oaicompat.gemini_to_openai(answer, call, created=1)
    except OaicompatError as error:
        return Outcome(b"", told(error))
    return Outcome(json.dumps(converted).encode())


def exchanged(request: Json, pieces: Iterable[bytes], options: Options | None = None) -> Outcome:
    """Drive an exchange of one upstream call over these bytes."""
    exchange = oaicompat.Exchange("chat", request, created=1, options=options)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.receive_head(call, 200, {})
    sent: list[bytes] = []
    try:
        for piece in pieces:
            sent.append(sse_bytes(exchange.feed(call, piece)))
        sent.append(sse_bytes(exchange.close(call)))
    except OaicompatError as error:
        return Outcome(b"".join(sent), told(error))
    return Outcome(b"".join(sent))


def events_of(
    pieces: Iterable[bytes], *, streamed: bool = True, candidates: int = 1, fast: bool = True
) -> list[Event]:
    """Decode an answer to events."""
    reading = Reading(streamed=streamed, candidates=candidates, fast=fast)
    decoder = Decoder(reading, Notes("answer"))
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close()


def decoded(raw: bytes) -> list[Any]:
    """Return the frames of a stream as data."""
    blocks = [block for block in raw.split(b"\n\n") if block.startswith(b"data: {")]
    return [msgspec.json.decode(block[len(b"data: ") :]) for block in blocks]


def follow_up(message: Json, *, model: str, results: Sequence[Json] = (), **more: Any) -> Json:
    """Return the next request of a client that was answered with `message`.

    Every call gets a result, then the user goes on.
    """
    calls = message.get("tool_calls") or ()
    given = results or [
        {"role": "tool", "tool_call_id": call["id"], "content": f"result {position}"}
        for position, call in enumerate(calls)
    ]
    return {
        "model": model,
        "messages": [*HELLO, message, *given, {"role": "user", "content": "go on"}],
        **more,
    }
