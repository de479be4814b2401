"""What fuzzing begins with, and how one input becomes another.

One rule: everything follows from the seed, so that a run can be made again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from oaicompat.testing import chat_requests, gemini_streams, responses_requests

T = TypeVar("T")

_TOKENS = (
    b"null", b"true", b"-1", b"1e400", b"9" * 400, b'""', b"{}", b"[]", b"[[[[[[[[", b'{"a":' * 50, b"\\ud800",
    b"\\u0000", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"data: ", b"\r\n\r\n", b"\r", b": ", b"[DONE]", b"*",
    b'"thoughtSignature"', b'"functionCall"', b'"parts"', b'"role"', b'"type"', b'"$ref":"#"', b"'",
    b"[[credentials]]",
)  # fmt: skip
_SETTINGS = (
    b"[[credentials]]\nkey = 'k'\nweight = 2.5\npriority = 1\nmodels = ['gemini-*']\nproxy = 'http://u:p@h:1'\n",
    b"[[credentials]]\nkind = 'bearer'\nkey = 'k'\nproject = 'project-1'\nlocation = 'us-central1'\n",
    b"[server]\nhost = '0.0.0.0'\nport = 1\nallowed_hosts = ['a']\n[auth]\nmode = 'strict'\nkeys = ['k']\n",
    b"[models]\npreset = 'balanced'\n[models.aliases]\n'gpt-*' = ['a', 'b']\n[state]\nstore = 'memory'\n",
)
_ERRORS = (
    b'd{"error":{"code":429,"message":"Please retry in 48.9s.","status":"RESOURCE_EXHAUSTED","details":'
    b'[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"48s"}]}}',
    b"d<html><title>502</title></html>",
)


def corpus(start: int, count: int = 40) -> Mapping[str, Sequence[bytes]]:
    """Return inputs to begin with, by target."""
    chats = [json.dumps(each).encode() for each in _drawn(chat_requests(), start, count)]
    responses = [json.dumps(each).encode() for each in _drawn(responses_requests(), start, count)]
    streams = [each.body for each in _drawn(gemini_streams(), start, count)]
    whole = [b"[" + stream.replace(b"data: ", b"").strip() + b"]" for stream in streams]
    return {
        "chat": chats,
        "responses": responses,
        "compact": responses,
        "input-tokens": responses,
        "chat-stream": streams,
        "responses-stream": streams,
        "chat-answer": [*whole, *streams],
        "responses-answer": [*whole, *streams],
        "sse": streams,
        "errors": _ERRORS,
        "settings": _SETTINGS,
    }


def mutated(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return a neighbour of an input, some of it from another one."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(found) + 1)
        end = min(len(found), at + chance.choice((0, 1, 2, 8, 64)))
        match chance.randrange(5):
            case 0:
                found[at:end] = chance.choice(_TOKENS)
            case 1:
                found[at:end] = b""
            case 2:
                found[at:end] = bytes([chance.randrange(256)])
            case 3:
                start = chance.randrange(len(other) + 1)
                found[at:end] = other[start : start + chance.choice((4, 40, 400))]
            case _:
                found[at:at] = found[at:end] * chance.choice((1, 2, 30))
    return bytes(found[:200_000])


def _drawn(strategy: SearchStrategy[T], start: int, count: int) -> list[T]:
    found: list[T] = []

    @seed(start)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(value: T) -> None:
        found.append(value)

    draw()
    return found
