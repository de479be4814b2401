"""A chat client: reads a stream as OpenAI's own libraries do, and keeps a message for the next request.

Numbers and strings of deltas are added up, list entries go by their index, and whatever OpenAI's contract
forbids on the way is an assertion that fails.
"""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

_HEAD = ("id", "created", "model", "system_fingerprint")
_KNOWN = {"role", "content", "refusal", "tool_calls", "function_call"}
_KNOWN_IN_CALL = {"id", "type", "function", "custom"}


class StreamFailedError(Exception):
    """The stream ended with an error frame."""

    def __init__(self, error: Json, answer: Json) -> None:
        super().__init__(error["message"])
        self.error = error
        self.answer = answer


def payloads(raw: bytes) -> list[bytes]:
    """Split a stream into the data of its frames."""
    assert not raw or raw.endswith(b"\n\n"), "the last frame is cut"
    found = []
    for block in raw.split(b"\n\n")[:-1]:
        if block.startswith(b":"):
            continue
        assert block.startswith(b"data: "), block
        assert b"\n" not in block, block
        found.append(block[len(b"data: ") :])
    return found


def done(raw: bytes) -> bool:
    """Tell whether a stream ended with the success marker."""
    return b"[DONE]" in payloads(raw)


def failure(raw: bytes) -> Json | None:
    """Return the error a stream ended with, if it did."""
    frames = payloads(raw)
    last = json.loads(frames[-1]) if frames and frames[-1] != b"[DONE]" else {}
    error: Json | None = last.get("error")
    return error


def accumulate(raw: bytes) -> Json:
    """Read a whole stream; return what the same answer unstreamed would be.

    Raises `StreamFailedError` for one that ended with an error.
    """
    frames = payloads(raw)
    answer: Json = {"object": "chat.completion", "choices": []}
    done = False
    for payload in frames:
        assert not done, "a frame after [DONE]"
        if payload == b"[DONE]":
            done = True
            continue
        chunk = json.loads(payload)
        if "error" in chunk:
            raise StreamFailedError(chunk["error"], answer)
        _take(chunk, answer)
    assert done, "no [DONE]"
    return answer


def _take(chunk: Json, answer: Json) -> None:
    assert chunk["object"] == "chat.completion.chunk"
    for key in _HEAD:
        assert answer.setdefault(key, chunk[key]) == chunk[key], f"{key} changed"
    if chunk.get("usage") is not None:
        answer["usage"] = chunk["usage"]
    for part in chunk["choices"]:
        choices = answer["choices"]
        if part["index"] == len(choices):
            choices.append({"index": part["index"], "message": {}, "logprobs": None})
        choice = choices[part["index"]]
        assert "finish_reason" not in choice, "a chunk after the finish"
        _grow(choice["message"], part["delta"])
        if part.get("logprobs"):
            kept = choice["logprobs"] or {"content": [], "refusal": None}
            kept["content"] += part["logprobs"]["content"]
            choice["logprobs"] = kept
        if part["finish_reason"] is not None:
            choice["finish_reason"] = part["finish_reason"]
            choice["native_finish_reason"] = part.get("native_finish_reason")


def _grow(kept: Json, delta: Json) -> None:
    for key, value in delta.items():
        before = kept.get(key)
        if before is None or value is None:
            kept[key] = _started(value) if value is not None else before
        elif isinstance(value, str):
            kept[key] = before + value
        elif isinstance(value, dict):
            _grow(before, value)
        elif isinstance(value, list):
            _extend(before, value)


def _started(value: Any) -> Any:
    if isinstance(value, list):
        started: list[Any] = []
        _extend(started, value)
        return started
    return value


def _extend(kept: list[Any], entries: list[Any]) -> None:
    for entry in entries:
        index = entry.get("index") if isinstance(entry, dict) else None
        if index is None:
            kept.append(entry)
            continue
        assert index <= len(kept), "an index jumps"
        if index == len(kept):
            kept.append({})
        _grow(kept[index], {key: value for key, value in entry.items() if key != "index"})


def normal(answer: Json) -> Json:
    """Return an answer, streamed or not, without the differences OpenAI's contract makes between the two."""
    choices = []
    for choice in answer["choices"]:
        message = dict(choice["message"])
        message["content"] = message.get("content") or ""
        message["refusal"] = message.get("refusal") or None
        message["reasoning_content"] = message.get("reasoning_content") or ""
        message["annotations"] = message.get("annotations") or []
        for key in ("images", "reasoning_details"):
            message[key] = [
                {name: value for name, value in entry.items() if name != "index"}
                for entry in message.get(key) or []
            ]
        choices.append({**choice, "message": message})
    return {**answer, "choices": choices}


def message_of(answer: Json, choice: int = 0) -> Json:
    """Return the message a client keeps that keeps everything."""
    message: Json = json.loads(json.dumps(answer["choices"][choice]["message"]))
    return message


def strict_message(answer: Json, choice: int = 0) -> Json:
    """Return the message a client keeps that knows OpenAI's own fields and drops all others."""
    message = {
        key: value
        for key, value in message_of(answer, choice).items()
        if key in _KNOWN and value is not None
    }
    if "tool_calls" in message:
        message["tool_calls"] = [
            {key: value for key, value in call.items() if key in _KNOWN_IN_CALL}
            for call in message["tool_calls"]
        ]
    return message
