"""What the Open Responses specification demands of a Response object and of the events of a stream.

One rule: what the specification does not know is wrong here, whatever OpenAI's clients make of it. The shared
checker, where it is there, looks at everything as well.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support import responses_client
from tests.support.shared import CHECKER

Json = dict[str, Any]

NOT_NULL = frozenset({
    "id", "object", "created_at", "status", "model", "output", "tools", "tool_choice", "truncation",
    "parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs",
    "temperature", "store", "background", "service_tier", "metadata",
})  # fmt: skip
RESPONSE = NOT_NULL | {
    "completed_at", "incomplete_details", "previous_response_id", "instructions", "error", "reasoning", "usage",
    "max_output_tokens", "max_tool_calls", "safety_identifier", "prompt_cache_key",
}  # fmt: skip
STATUSES = ("queued", "in_progress", "completed", "failed", "incomplete", "cancelled")

_OPEN_LIST = "response/error/code:"
"""The SDK lists the codes that are published; the specification has any string."""

_PLACE = ("item_id", "output_index")
_PART = (*_PLACE, "content_index")
_SUMMARY = (*_PLACE, "summary_index")
_LIFE = ("created", "queued", "in_progress", "completed", "failed", "incomplete")
EVENTS: dict[str, tuple[str, ...]] = {
    **{f"response.{name}": ("response",) for name in _LIFE},
    "response.output_item.added": ("output_index", "item"),
    "response.output_item.done": ("output_index", "item"),
    "response.content_part.added": (*_PART, "part"),
    "response.content_part.done": (*_PART, "part"),
    "response.output_text.delta": (*_PART, "delta", "logprobs"),
    "response.output_text.done": (*_PART, "text", "logprobs"),
    "response.output_text.annotation.added": (*_PART, "annotation_index", "annotation"),
    "response.refusal.delta": (*_PART, "delta"),
    "response.refusal.done": (*_PART, "refusal"),
    "response.reasoning.delta": (*_PART, "delta"),
    "response.reasoning.done": (*_PART, "text"),
    "response.reasoning_summary_part.added": (*_SUMMARY, "part"),
    "response.reasoning_summary_part.done": (*_SUMMARY, "part"),
    "response.reasoning_summary_text.delta": (*_SUMMARY, "delta"),
    "response.reasoning_summary_text.done": (*_SUMMARY, "text"),
    "response.function_call_arguments.delta": (*_PLACE, "delta"),
    "response.function_call_arguments.done": (*_PLACE, "arguments"),
    "error": ("error",),
}
"""The 24 events of the specification, and what each must have beside its type and number."""

TERMINAL = ("response.completed", "response.failed", "response.incomplete")

ITEMS: dict[str, tuple[str, ...]] = {
    "message": ("id", "status", "role", "content"),
    "function_call": ("id", "status", "call_id", "name", "arguments"),
    "function_call_output": ("id", "status", "call_id", "output"),
    "reasoning": ("id", "summary"),
    "compaction": ("id", "encrypted_content"),
}
_PARTS = {
    "output_text": ("text", "annotations", "logprobs"),
    "refusal": ("refusal",),
    "summary_text": ("text",),
    "reasoning_text": ("text",),
}
_USAGE = (
    "input_tokens", "input_tokens_details", "output_tokens", "output_tokens_details", "total_tokens",
)  # fmt: skip


def check_response(response: Json) -> None:
    """Fail where a Response object is not what the specification promises."""
    assert set(response) >= RESPONSE, RESPONSE - set(response)
    assert [name for name in NOT_NULL if response[name] is None] == []
    assert response["object"] == "response"
    assert response["status"] in STATUSES
    assert type(response["created_at"]) is int
    assert response["text"]["format"]["type"] in ("text", "json_object", "json_schema")
    for name in ("top_p", "temperature", "presence_penalty", "frequency_penalty", "top_logprobs"):
        assert type(response[name]) in (int, float), name
    if response["reasoning"] is not None:
        assert set(response["reasoning"]) >= {"effort", "summary"}
    if response["error"] is not None:
        assert set(response["error"]) >= {"code", "message"}
    for tool in response["tools"]:
        if tool["type"] == "function":
            assert set(tool) >= {"name", "description", "parameters", "strict"}
    for item in response["output"]:
        check_item(item)
    _check_usage(response)


def _check_usage(response: Json) -> None:
    usage = response["usage"]
    if response["status"] == "completed":
        assert usage is not None
        assert type(response["completed_at"]) is int
    if usage is not None:
        assert set(usage) >= set(_USAGE)
        assert type(usage["input_tokens_details"]["cached_tokens"]) is int
        assert type(usage["output_tokens_details"]["reasoning_tokens"]) is int
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def check_item(item: Json) -> None:
    """Fail where an output item is none of the specification's."""
    kind = item["type"]
    assert kind in ITEMS, kind
    assert [name for name in ITEMS[kind] if item.get(name) is None] == []
    if kind == "message":
        for part in item["content"]:
            check_part(part)
    if kind == "reasoning":
        # Null fails there, though OpenAI's own schema allows it.
        assert type(item.get("encrypted_content", "")) is str
        for part in item["summary"]:
            check_part(part)
    if kind == "function_call":
        assert type(item["arguments"]) is str


def check_part(part: Json) -> None:
    """Fail where a part of an output item is none of the specification's."""
    assert part["type"] in _PARTS, part["type"]
    assert [name for name in _PARTS[part["type"]] if part.get(name) is None] == []


def check_event(event: Json) -> None:
    """Fail where an event is none of the specification's."""
    kind = event["type"]
    assert kind in EVENTS, kind
    assert [name for name in EVENTS[kind] if event.get(name) is None] == [], event
    match EVENTS[kind]:
        case ("response",):
            check_response(event["response"])
        case ("output_index", "item"):
            check_item(event["item"])
        case (*_, "part"):
            check_part(event["part"])
        case ("error",):
            assert set(event["error"]) >= {"type", "code", "message", "param"}


def whole(raw: bytes, request: Json) -> Json:
    """Check an answer that is not streamed; return it."""
    response: Json = json.loads(raw)
    check_response(response)
    _look("response", raw, request)
    return response


def streamed(raw: bytes, request: Json) -> list[Json]:
    """Check a stream; return its events."""
    assert raw.endswith(b"\n\ndata: [DONE]\n\n")
    assert raw.count(b"[DONE]") == 1
    events = responses_client.events(raw)
    for event in events:
        check_event(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert [e["type"] in TERMINAL for e in events] == [False] * (len(events) - 1) + [True]
    final = events[-1]["response"]
    assert events[-1]["type"] == f"response.{final['status']}"
    assert {event["response"]["id"] for event in events if "response" in event} == {final["id"]}
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == final["output"]
    _look("response-stream", raw, request)
    return events


def _look(kind: str, raw: bytes, request: Json) -> None:
    if not CHECKER.exists():
        return
    found = responses_client.findings(kind, raw, request)
    if wrong := [str(each) for each in found if not each[3].startswith(_OPEN_LIST)]:
        pytest.fail("\n".join(wrong), pytrace=False)
