"""Recorded exchanges with the real services, where they are there: requests, answers, raw streams."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from msgspec import Struct
from tests.support.shared import RECORDINGS

Json = dict[str, Any]

_PART_FIELDS = (
    "text",
    "inlineData",
    "functionCall",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
    "thought",
    "thoughtSignature",
)


class Recording(Struct, frozen=True):
    """One accepted generate call."""

    name: str
    backend: str
    streamed: bool
    request: Json
    body: bytes

    @property
    def candidates(self) -> int:
        """Return how many candidates were asked for."""
        config = self.request.get("generationConfig") or {}
        return config.get("candidateCount") or 1

    @property
    def chunks(self) -> list[Json]:
        """Return the answer's chunks as data."""
        if not self.streamed:
            return [json.loads(self.body)]
        lines = self.body.replace(b"\r\n", b"\n").split(b"\n")
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


@cache
def accepted() -> tuple[Recording, ...]:
    """Load every recorded generate call that was answered with 200."""
    if not RECORDINGS.exists():
        return ()
    loaded = (json.loads(path.read_text()) for path in sorted(RECORDINGS.glob("*.json")))
    names = [path.stem for path in sorted(RECORDINGS.glob("*.json"))]
    return tuple(
        _recording(name, data)
        for name, data in zip(names, loaded, strict=True)
        if data["status"] == 200 and _generates(data["endpoint"] or "generateContent")
    )


def _generates(endpoint: str) -> bool:
    return "enerateContent" in endpoint and "batch" not in endpoint


def _recording(name: str, data: Json) -> Recording:
    request = data.get("request")
    if not data["stream"]:
        body = json.dumps(data["response"]).encode()
    elif "sse" in data:
        body = data["sse"].encode()
    else:
        chunks = [json.dumps(chunk).encode() for chunk in data["response"]]
        body = b"".join(b"data: " + chunk + b"\r\n\r\n" for chunk in chunks)
    return Recording(
        name,
        data["backend"] or "gemini",
        bool(data["stream"]),
        request if isinstance(request, dict) else {},
        body,
    )


def normal(parts: list[Json]) -> list[Json]:
    """Bring a model turn into normal form: Gemini's names, nothing empty, texts joined."""
    normal: list[Json] = []
    for part in map(_normal_part, parts):
        if not part or part == {"text": ""} or part == {"text": "", "thought": True}:
            continue
        last = normal[-1] if normal else {}
        if _plain(part) and _plain(last) and part.get("thought") == last.get("thought"):
            normal[-1] = {**last, "text": last["text"] + part["text"]}
        else:
            normal.append(part)
    return normal


def _plain(part: Json) -> bool:
    return "text" in part and "thoughtSignature" not in part


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _normal_part(part: Json) -> Json:
    known = {_camel(key): value for key, value in part.items() if value not in (None, False)}
    found = {key: known[key] for key in _PART_FIELDS if key in known}
    for key in ("inlineData", "functionCall", "executableCode", "codeExecutionResult"):
        if key in found:
            found[key] = {
                _camel(name): value for name, value in found[key].items() if value is not None
            }
    if "functionCall" in found:
        found["functionCall"] = {"args": {}} | found["functionCall"]
    if "codeExecutionResult" in found:
        found["codeExecutionResult"] = {"output": ""} | found["codeExecutionResult"]
    if "thoughtSignature" in found and not set(found) - {"thoughtSignature", "thought"}:
        found["text"] = ""
    return found
