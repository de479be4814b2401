"""The public names as a typed program uses them: checked by mypy and pyright, never run.

One rule: nothing is cast or ignored here. What this page cannot express, users cannot either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, assert_type

import oaicompat
from oaicompat import (
    BUILTIN,
    GEMINI_API,
    PRESETS,
    AnswerOptions,
    AuthenticationError,
    Call,
    Exchange,
    Frame,
    InvalidRequestError,
    KeepResponse,
    MappedCall,
    MappedStream,
    ModelMap,
    ModelNotFoundError,
    Needs,
    Note,
    Notes,
    OaicompatError,
    Options,
    PoolExhaustedError,
    RememberSignature,
    RetryPolicy,
    Supplies,
    Target,
    UnsupportedFeatureError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamRequest,
)
from oaicompat.providers.gemini.endpoints import headers
from oaicompat.retry import GiveUp, Retry
from oaicompat.sse import Decoder, encode

version: str = oaicompat.__version__


def map_one(body: bytes | str | Mapping[str, Any], answer: bytes) -> dict[str, Any]:
    call = oaicompat.openai_to_gemini(body, dialect="chat", target=GEMINI_API, models=BUILTIN)
    assert_type(call, MappedCall)
    url: str = call.url
    assert_type(call.model + url, str)
    assert_type(call.body, dict[str, Any])
    assert_type(call.bodies, tuple[dict[str, Any], ...])
    assert_type(call.notes, tuple[Note, ...])
    reply = oaicompat.gemini_to_openai(answer, call, created=1, new_id=lambda: "x")
    return assert_type(reply, dict[str, Any])


def map_stream(call: MappedCall, chunks: Iterable[bytes]) -> Iterator[bytes]:
    stream = oaicompat.stream(call, created=1, new_id=lambda: "x")
    assert_type(stream, MappedStream)
    for chunk in chunks:
        yield stream.feed(chunk, number=0)
    yield stream.close()


def tell(notes: Iterable[Note]) -> list[str]:
    return [
        f"{note.path} {note.action} {note.reason}"
        for note in notes
        if note.side == "request" and not note.inert and note.refusable
    ]


def drive(body: bytes, target: Target, secret: str) -> Iterator[bytes]:
    options = Options(answer=AnswerOptions(images="markdown", code="fenced"), fetch_media=True)
    exchange = Exchange(
        "chat",
        body,
        models=ModelMap({"gpt-4o": "gemini-2.5-pro"}, default="gemini-2.5-flash"),
        created=1,
        new_id=lambda: "x",
        strict=True,
        options=options,
    )
    while needs := exchange.needs():
        assert_type(needs, Needs)
        exchange.supply(Supplies(media=dict.fromkeys(needs.media, ("image/png", "AAAA"))))
    try:
        while calls := exchange.calls():
            for call in calls:
                yield from attempt(exchange, call, target, secret)
    except OaicompatError as error:
        yield from framed(exchange.fail(error))
    assert_type(exchange.streaming, bool)
    assert_type(exchange.committed, bool)
    assert_type(exchange.requested_model, str)
    assert_type(exchange.model, str)
    assert_type(exchange.finish_reasons, tuple[str, ...])
    assert_type(exchange.notes, tuple[Note, ...])
    spent: int = exchange.usage.total if exchange.usage else 0
    for effect in exchange.effects():
        assert_type(effect, RememberSignature | KeepResponse)
    yield from framed(exchange.keepalive() if spent else ())


def attempt(exchange: Exchange, call: Call, target: Target, secret: str) -> Iterator[bytes]:
    request = exchange.begin_attempt(call, target, sentinel=False)
    assert_type(request, UpstreamRequest)
    wire: tuple[str, str, bytes] = (request.method, request.url, request.body)
    lines: tuple[tuple[str, str], ...] = headers(target, secret)
    exchange.receive_head(call, 200, dict(lines))
    yield from framed(exchange.feed(call, wire[2]))
    yield from framed(exchange.close(call))
    assert_type(exchange.call_committed(call), bool)
    assert_type((call.number, call.model), tuple[int, str])


def framed(frames: Iterable[Frame]) -> Iterator[bytes]:
    for frame in frames:
        assert_type(frame.sequence, int)
        yield encode(frame.data, frame.name or None)


def events(data: bytes) -> list[bytes]:
    decoder = Decoder()
    return [*decoder.feed(data), *decoder.close()]


def blame(error: OaicompatError) -> tuple[int, str, str | None, str | None, float | None]:
    match error:
        case UnsupportedFeatureError() | InvalidRequestError() | AuthenticationError():
            whose = "client"
        case ModelNotFoundError() | PoolExhaustedError() | UpstreamProtocolError():
            whose = "upstream"
        case UpstreamError(retryable=True, cause=cause):
            whose = cause
        case _:
            whose = error.message
    return error.status, whose, error.code, error.param, error.retry_after


def wait(error: UpstreamError) -> float | None:
    policy = RetryPolicy(attempts=3)
    decision = policy.decide(1, error, others=True, budget=10.0, jitter=0.5, earlier=[])
    match decision:
        case Retry(delay=delay):
            return delay
        case GiveUp():
            return None


def configure() -> ModelMap:
    preset: Mapping[str, str] = PRESETS["balanced"]
    models = ModelMap({**preset, "mine": "gemini-2.5-pro"})
    assert_type(models.resolve("mine").model, str)
    return models


def note_it() -> Notes:
    notes = Notes("answer")
    notes.dropped("a.b", "why", inert=True)
    return notes


def places() -> list[Target]:
    return [
        GEMINI_API,
        Target(base_url="http://127.0.0.1:8046"),
        Target(backend="vertex", project="my-project", location="us-central1"),
        Target(backend="vertex", express=True),
    ]
