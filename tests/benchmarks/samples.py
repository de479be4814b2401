"""The traffic that the benchmarks carry, in the sizes of real clients: a chat turn, an agent in mid-task."""

from __future__ import annotations

import json
from typing import Any

TEXT = " the quick brown fox jumps over the lazy dog, twice,"

CHUNK: dict[str, Any] = {
    "candidates": [{"content": {"parts": [{"text": TEXT}], "role": "model"}, "index": 0}],
    "usageMetadata": {
        "promptTokenCount": 12,
        "candidatesTokenCount": 34,
        "totalTokenCount": 68,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}],
        "thoughtsTokenCount": 22,
    },
    "modelVersion": "gemini-2.5-flash",
    "responseId": "abcdefghijklmnop",
}

LAST = {
    **CHUNK,
    "candidates": [
        {"content": {"parts": [{"text": "."}], "role": "model"}, "index": 0, "finishReason": "STOP"}
    ],
}

ANSWER = {
    **CHUNK,
    "candidates": [
        {
            "content": {"parts": [{"text": TEXT * 14}], "role": "model"},
            "index": 0,
            "finishReason": "STOP",
        }
    ],
}


def event(chunk: dict[str, Any]) -> bytes:
    """Frame a chunk as the Gemini API does."""
    return b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n"


def small_request(*, stream: bool = False) -> bytes:
    """Return a chat request of one turn."""
    body = {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": "Say something about foxes."},
        ],
        "temperature": 0.2,
        "stream": stream,
    }
    return json.dumps(body).encode()


def small_response_request(*, stream: bool, store: bool) -> bytes:
    """Return the same request as Responses has it."""
    body = {
        "model": "gpt-4o",
        "instructions": "You are helpful.",
        "input": "Say something about foxes.",
        "temperature": 0.2,
        "stream": stream,
        "store": store,
    }
    return json.dumps(body).encode()


def agent_request() -> bytes:
    """Return the request of a coding agent in mid-task: 50 messages, 30 tools, about 120 KB."""
    schema = {
        "type": "object",
        "properties": {
            f"argument_{number}": {"type": "string", "description": "What it does. " * 6}
            for number in range(8)
        },
        "required": ["argument_0"],
        "additionalProperties": False,
    }
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"tool_{number}",
                "description": "Reads, writes and moves things about. " * 8,
                "parameters": schema,
            },
        }
        for number in range(30)
    ]
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Work carefully. " * 300}]
    for number in range(16):
        call = {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": "tool_1", "arguments": json.dumps({"argument_0": "x" * 400})},
        }
        messages += [
            {"role": "user", "content": "Go on, please. " * 20},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": "line of output\n" * 130},
        ]
    messages.append({"role": "user", "content": "And now?"})
    return json.dumps({"model": "gpt-4o", "messages": messages, "tools": tools}).encode()
