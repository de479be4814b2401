"""Goldens at the four seams: one folder per case, from the client's request to the client's answer.

`request.json` and `chunks.jsonl` (the upstream's chunks without their framing) are written by hand, and so is
`case.json` where a case wants another backend; everything else is expectation, and `--update` rewrites it.
An answer's seam starts from the stored result of the one before, so that a change shows where it was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from oaicompat import GEMINI_API, OaicompatError, Target
from oaicompat.dialects import AnswerContext, AnswerOptions, chat, responses
from oaicompat.events import Event, Failed, fold
from oaicompat.mapper import sse_bytes
from oaicompat.messages import Request
from oaicompat.models import BUILTIN
from oaicompat.notes import Note, Notes
from oaicompat.providers.gemini.candidate import Reading
from oaicompat.providers.gemini.endpoints import generate_url
from oaicompat.providers.gemini.request import encode_request
from oaicompat.providers.gemini.response import Decoder

Json = dict[str, Any]

CASES = sorted(path.parent for path in (Path(__file__).parent / "goldens").glob("*/*/request.json"))
TARGETS = {"gemini": GEMINI_API, "vertex": Target("vertex", project="some-project")}
DIALECTS = {"chat": chat, "responses": responses}


def over(*dialects: str) -> pytest.MarkDecorator:
    """Parametrise over the cases that are answered in these dialects, which their folders name."""
    chosen = [case for case in CASES if case.parent.name in dialects]
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=f"{case.parent.name}-{case.name}") for case in chosen]
    )


cases = over("chat", "responses")
chat_cases = over("chat")
responses_cases = over("responses")

_OPAQUE = ("parameters", "schema", "options", "extra", "data", "args", "response")


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """`case.json`: what a case differs in, and why it is there."""

    about: str = ""
    backend: str = "gemini"
    shape: str = ""
    unframed_error: bool = False
    images: str = "list"
    code: str = "carrier"


def settings_of(case: Path) -> Settings:
    path = case / "case.json"
    found = msgspec.json.decode(path.read_bytes(), type=Settings) if path.exists() else Settings()
    return found if found.shape else msgspec.structs.replace(found, shape=case.parent.name)


def bare(value: Any) -> Any:
    """Leave out what says nothing: nulls and empty raw texts, but not in the client's own data."""
    if isinstance(value, list):
        return [bare(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: inner if key in _OPAQUE else bare(inner)
        for key, inner in value.items()
        if inner is not None and not (key == "raw" and inner == "")
    }


def plain(value: Any) -> Any:
    return bare(json.loads(msgspec.json.encode(value, enc_hook=_error_data)))


def _error_data(value: Any) -> Any:
    assert isinstance(value, OaicompatError)
    fields = ("message", "status", "type", "code", "param", "retryable", "cause")
    return {name: getattr(value, name, None) for name in fields}


def _error(kind: type, value: Any) -> Any:
    assert kind is OaicompatError
    known = {key: value[key] for key in ("status", "type", "code", "param") if key in value}
    return OaicompatError(value["message"], **known)


def noted(notes: Iterable[Note]) -> list[str]:
    return [f"{note.path}: {note.action}: {note.reason}" for note in notes]


def compare(path: Path, found: str, update: bool) -> None:
    if update:
        path.write_text(found)
    assert found == path.read_text(), f"{path.name} differs; look, then run with --update"


def as_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def test_there_are_cases() -> None:
    assert len(CASES) >= 25


@cases
def test_1_request_to_neutral(case: Path, update: bool) -> None:
    notes = Notes()
    decode = DIALECTS[settings_of(case).shape].decode_request
    request = plain(decode((case / "request.json").read_bytes(), notes))
    request = {key: value for key, value in request.items() if value not in ([], {}, False)}
    found = {"request": request, "notes": noted(notes)}
    compare(case / "neutral.json", as_text(found), update)


def neutral(case: Path) -> Request:
    """Return the request that the first seam pins; optional raw JSON cannot be decoded from its golden."""
    decode = DIALECTS[settings_of(case).shape].decode_request
    request: Request = decode((case / "request.json").read_bytes(), Notes())
    return request


def target_of(case: Path, request: Request) -> Target:
    model = BUILTIN.resolve(request.model).model
    return msgspec.structs.replace(TARGETS[settings_of(case).backend], model=model)


@cases
def test_2_neutral_to_gemini(case: Path, update: bool) -> None:
    notes = Notes()
    request = neutral(case)
    target = target_of(case, request)
    encoded = encode_request(request, target, notes)
    found = {
        "url": generate_url(target, request.stream),
        "body": json.loads(encoded.body),
        "names": dict(encoded.names),
        "custom": sorted(encoded.custom),
        "notes": noted(notes),
    }
    compare(case / "gemini.json", as_text(found), update)


class Sent(msgspec.Struct):
    body: Raw
    names: dict[str, str]
    custom: frozenset[str]


def bodies(case: Path, *, unframed_error: bool) -> list[bytes]:
    """Return the upstream bodies: one, or one for each hop of an answer that goes on."""
    found = []
    for path in sorted(case.glob("chunks*.jsonl")):
        body = b""
        for line in path.read_bytes().splitlines():
            raw = unframed_error and line.startswith(b'{"error"')
            body += msgspec.json.format(line) + b"\n" if raw else b"data: " + line + b"\r\n\r\n"
        found.append(body)
    return found


@cases
def test_3_gemini_to_events(case: Path, update: bool) -> None:
    settings, request = settings_of(case), neutral(case)
    sent = msgspec.json.decode((case / "gemini.json").read_bytes(), type=Sent)
    reading = Reading(
        backend=settings.backend,
        names=sent.names,
        custom=sent.custom,
        candidates=request.sampling.candidates or 1,
        model=request.model,
        fast=False,
    )
    notes = Notes("answer")
    decoder = Decoder(reading, notes)
    events: list[Event] = []
    for number, body in enumerate(bodies(case, unframed_error=settings.unframed_error)):
        if number:
            assert decoder.continuation is not None
            decoder = decoder.resumed()
        events += decoder.feed(body) + decoder.close()
    assert list(notes) == []
    lines = [json.dumps(plain(event), ensure_ascii=False) + "\n" for event in events]
    compare(case / "events.jsonl", "".join(lines), update)


def events_of(case: Path) -> list[Event]:
    decode = msgspec.json.Decoder(Event, dec_hook=_error).decode
    return [decode(line) for line in (case / "events.jsonl").read_bytes().splitlines()]


def context(case: Path) -> AnswerContext:
    settings, request = settings_of(case), neutral(case)
    options = msgspec.convert({"images": settings.images, "code": settings.code}, AnswerOptions)
    source = (case / "request.json").read_bytes()
    return AnswerContext(request, request.model, created=1, options=options, source=source)


@chat_cases
def test_4_events_to_chat_stream(case: Path, update: bool) -> None:
    frames = chat.encoder(context(case)).encode(events_of(case))
    compare(case / "chat.sse", sse_bytes(frames).decode(), update)


@chat_cases
def test_4_events_to_chat_body(case: Path, update: bool) -> None:
    events = events_of(case)
    last = events[-1]
    if isinstance(last, Failed):
        body = chat.encode_error(last.error)
    else:
        body = chat.encode_response(fold(events), context(case))
    compare(case / "chat.json", as_text(json.loads(body)), update)


@responses_cases
def test_4_events_to_responses_stream(case: Path, update: bool) -> None:
    frames = responses.encoder(context(case)).encode(events_of(case))
    compare(case / "responses.sse", sse_bytes(frames).decode(), update)


@responses_cases
def test_4_events_to_responses_body(case: Path, update: bool) -> None:
    events = events_of(case)
    last = events[-1]
    if isinstance(last, Failed):
        body = responses.encode_error(last.error)
    else:
        body = responses.encode_response(fold(events), context(case))
    compare(case / "responses.json", as_text(json.loads(body)), update)
