"""Writes answers as the service's JSON: streamed chunks, the folded unary body, usage, framing.

The one rule: the unary body is the fold of the streamed events. Usage is always consistent: total = prompt +
candidates + thoughts + tool use (true of every recording; gemini-wire section 4).
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import msgspec

from .answers import Answer, Event, Scene
from .status import JSON

_ESCAPES = ((b"<", b"003c"), (b">", b"003e"), (b"&", b"0026"), (b"'", b"0027"), (b"=", b"003d"))
_MEDIA_TOKENS = 258
_THOUGHT_TOKENS = 24
_CREATED = "2026-01-31T12:00:00.000000Z"


def encode(body: Any, *, pretty: bool = True) -> bytes:
    """Return JSON bytes with the service's escapes for `< > & ' =`, indented unless told otherwise."""
    data = msgspec.json.encode(body)
    for plain, code in _ESCAPES:
        if plain in data:
            data = data.replace(plain, b"\\u" + code)
    return msgspec.json.format(data, indent=2) if pretty else data


def tokens(text: str) -> int:
    """Estimate the tokens of a text: four characters each, at least one unless it is empty."""
    return -(-len(text) // 4)


def prompt_tokens(request: JSON) -> int:
    """Estimate the tokens of a canonical request."""
    contents = list(request.get("contents") or [])
    if request.get("systemInstruction"):
        contents.append(request["systemInstruction"])
    total = sum(_part_tokens(part) for item in contents for part in item.get("parts") or [])
    for tool in request.get("tools") or []:
        total += tokens(msgspec.json.encode(tool).decode())
    return max(1, total)


def _part_tokens(part: JSON) -> int:
    if "text" in part:
        return tokens(part["text"])
    if "inlineData" in part or "fileData" in part:
        return _MEDIA_TOKENS
    return tokens(msgspec.json.encode(part).decode())


def stream_bodies(scene: Scene, answer: Answer, serial: int) -> list[JSON]:
    """Return the chunks of a streamed answer."""
    events: list[Event | None] = [*answer.events] or [None]
    counted = 0
    bodies = []
    for at, event in enumerate(events):
        counted += _event_tokens(event)
        body: JSON = {}
        _add_candidates(body, scene, answer, [event] if event else [])
        last = at == len(events) - 1
        body["usageMetadata"] = _stream_usage(scene, answer, counted, first=at == 0, last=last)
        bodies.append(_finished(body, scene, serial))
    return bodies


def unary_body(scene: Scene, answer: Answer, serial: int) -> JSON:
    """Return the answer as one body: the fold of its events."""
    folded = _fold(answer.events)
    body: JSON = {}
    _add_candidates(body, scene, answer, folded)
    counted = sum(_event_tokens(event) for event in answer.events)
    body["usageMetadata"] = _usage(scene, answer, counted)
    return _finished(body, scene, serial)


def _add_candidates(body: JSON, scene: Scene, answer: Answer, events: list[Event]) -> None:
    if answer.prompt_feedback is not None:
        body["promptFeedback"] = answer.prompt_feedback
    elif not answer.without_candidates:
        body["candidates"] = [_candidate(scene, event) for event in events]


def _candidate(scene: Scene, event: Event) -> JSON:
    content: JSON = {} if event.parts is None else {"role": "model"}
    if event.parts:
        content = {"parts": event.parts, "role": "model"}
    candidate: JSON = {"content": content}
    if event.finish is not None:
        candidate["finishReason"] = event.finish
    if event.index or not scene.target.vertex:
        candidate["index"] = event.index
    return candidate | event.extra


def _finished(body: JSON, scene: Scene, serial: int) -> JSON:
    body["modelVersion"] = scene.target.model.name
    mark = hashlib.sha256(f"response {serial}".encode()).digest()[:16]
    body["responseId"] = base64.urlsafe_b64encode(mark).decode().rstrip("=")
    if scene.target.vertex:
        body["createTime"] = _CREATED
    return body


def _fold(events: list[Event]) -> list[Event]:
    folded: dict[int, Event] = {}
    for event in events:
        known = folded.get(event.index, Event(None, index=event.index))
        parts = known.parts
        if event.parts is not None:
            parts = _joined([*(parts or []), *event.parts])
        folded[event.index] = Event(
            parts, event.finish or known.finish, event.index, known.extra | event.extra
        )
    return [folded[index] for index in sorted(folded)]


def _joined(parts: list[JSON]) -> list[JSON]:
    """Join neighbouring text as the unary service does; a signature on empty text joins its text."""
    joined: list[JSON] = []
    for part in parts:
        last = joined[-1] if joined else None
        if part == {"text": ""}:
            continue
        if last is not None and _is_open_text(last) and _is_same_kind(last, part):
            joined[-1] = {**last, **part, "text": last["text"] + part["text"]}
        else:
            joined.append(part)
    return joined


def _is_open_text(part: JSON) -> bool:
    return "text" in part and "thoughtSignature" not in part


def _is_same_kind(last: JSON, part: JSON) -> bool:
    return "text" in part and last.get("thought") == part.get("thought")


def _event_tokens(event: Event | None) -> int:
    if event is None:
        return 0
    return sum(
        0 if part.get("thought") or part.get("text") == "" else _part_tokens(_unsigned(part))
        for part in event.parts or []
    )


def _unsigned(part: JSON) -> JSON:
    return {key: value for key, value in part.items() if key != "thoughtSignature"}


def _usage(scene: Scene, answer: Answer, counted: int) -> JSON:
    prompt = prompt_tokens(scene.request)
    thoughts = _THOUGHT_TOKENS if scene.thinks else 0
    if answer.thought_tokens is not None:
        thoughts = answer.thought_tokens
    blocked = answer.prompt_feedback is not None or answer.without_candidates
    usage: JSON = {"promptTokenCount": prompt}
    if blocked:
        thoughts = 0
    if counted:
        usage["candidatesTokenCount"] = counted
    usage["totalTokenCount"] = prompt + counted + thoughts + answer.tool_tokens
    usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": prompt}]
    if scene.request.get("cachedContent"):
        usage["cachedContentTokenCount"] = prompt
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    if answer.tool_tokens:
        usage["toolUsePromptTokenCount"] = answer.tool_tokens
    return usage | _tier(scene)


def _tier(scene: Scene) -> JSON:
    return {"trafficType": "ON_DEMAND"} if scene.target.vertex else {"serviceTier": "standard"}


def _stream_usage(scene: Scene, answer: Answer, counted: int, *, first: bool, last: bool) -> JSON:
    if last:
        return _usage(scene, answer, counted)
    if scene.target.vertex:
        return _tier(scene)
    usage = _usage(scene, answer, counted)
    if first and "candidatesTokenCount" in usage:
        usage["totalTokenCount"] -= usage.pop("candidatesTokenCount")
    return usage
