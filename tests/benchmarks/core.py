"""Conversion alone: what a chunk, an answer and a request cost beside the plainest typed msgspec code."""

from __future__ import annotations

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct
from tests.benchmarks import samples

import oaicompat


class _Part(Struct, gc=False):
    text: str = ""


class _Content(Struct, gc=False, frozen=True):
    parts: list[_Part] = []


class _Candidate(Struct, gc=False, rename="camel"):
    content: _Content = _Content()
    finish_reason: str | None = None


class _Usage(Struct, gc=False, rename="camel", frozen=True):
    prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0


class _Answer(Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] = []
    usage_metadata: _Usage = _Usage()
    model_version: str = ""
    response_id: str = ""


_PREFIX = (
    b'data: {"id":"chatcmpl-abcdefghijklmnop","object":"chat.completion.chunk","created":1,'
    b'"model":"gpt-4o","choices":[{"index":0,"delta":{"content":'
)
_SUFFIX = b'},"logprobs":null,"finish_reason":null}]}\n\n'
_REPEATS = 25
_decode = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


def plain_chunk(payload: bytes) -> bytes:
    """Convert a chunk as directly as typed msgspec can."""
    return _PREFIX + _encode(_decode(payload).candidates[0].content.parts[0].text) + _SUFFIX


def plain_answer(body: bytes) -> bytes:
    """Convert a whole answer as directly as typed msgspec can."""
    answer = _decode(body)
    usage = answer.usage_metadata
    output = usage.candidates_token_count + usage.thoughts_token_count
    message = {"role": "assistant", "content": answer.candidates[0].content.parts[0].text}
    return _encode(
        {
            "id": "chatcmpl-" + answer.response_id,
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": usage.prompt_token_count,
                "completion_tokens": output,
                "total_tokens": usage.prompt_token_count + output,
            },
        }
    )


def plain_request(body: bytes) -> bytes:
    """Convert a request as directly as dictionaries can, tool schemas walked."""
    data = msgspec.json.decode(body)
    contents = []
    for message in data["messages"]:
        parts = [{"text": message.get("content") or ""}]
        for call in message.get("tool_calls") or ():
            function = call["function"]
            args = msgspec.json.decode(function["arguments"])
            parts.append({"functionCall": {"name": function["name"], "args": args}})
        contents.append({"role": message["role"], "parts": parts})
    declared = [
        {
            "name": tool["function"]["name"],
            "description": tool["function"]["description"],
            "parameters": _walked(tool["function"]["parameters"]),
        }
        for tool in data.get("tools", ())
    ]
    return _encode({"contents": contents, "tools": [{"functionDeclarations": declared}]})


def _walked(schema: object) -> object:
    match schema:
        case dict():
            return {key: _walked(value) for key, value in schema.items()}
        case list():
            return [_walked(value) for value in schema]
        case _:
            return schema


def _least(*works: tuple[Callable[[], object], int]) -> list[float]:
    """Return the least seconds of CPU of each, taken in turn: a busy moment then meets them all."""
    taken = [
        [
            timeit.timeit(work, number=number, timer=time.process_time) / number
            for work, number in works
        ]
        for _ in range(_REPEATS)
    ]
    return [min(each) for each in zip(*taken, strict=True)]


def _stream() -> Callable[[bytes], bytes]:
    call = oaicompat.openai_to_gemini(samples.small_request(stream=True))
    stream = oaicompat.stream(call)
    stream.feed(samples.event(samples.CHUNK))
    return stream.feed


def _cold_import() -> float:
    """Time the import in a new interpreter whose bytecode is compiled, as an installed package's is."""
    code = "import time; t = time.perf_counter(); import oaicompat; print(time.perf_counter() - t)"
    environment = {
        key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"
    }
    with tempfile.TemporaryDirectory() as compiled:
        environment["PYTHONPYCACHEPREFIX"] = compiled
        command = [sys.executable, "-c", code]
        runs = [
            float(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
            for _ in range(8)
        ]
    return min(runs[1:])


def figures() -> Iterator[tuple[str, str, float, float]]:
    """Yield (budget's number or "", name, seconds, seconds of the plainest code)."""
    event = samples.event(samples.CHUNK)
    payload, burst = event[6:-4], event * 100
    single, stream = _stream(), _stream()
    one, many, plain = _least(
        (lambda: single(event), 2_000),
        (lambda: stream(burst), 25),
        (lambda: plain_chunk(payload), 10_000),
    )
    yield "6a", "chunk, alone in its read", one, plain
    yield "6b", "chunk, 100 in a read", many / 100, plain
    answer = json.dumps(samples.ANSWER).encode()
    call = oaicompat.openai_to_gemini(samples.small_request())
    answered, asked, mapped, plain = _least(
        (lambda: _answered(answer), 100),
        (_asked, 150),
        (lambda: oaicompat.gemini_to_openai(answer, call), 150),
        (lambda: plain_answer(answer), 4_000),
    )
    yield "7a", "whole answer", answered - asked, plain
    yield "", "whole answer, by the mapper", mapped, plain
    for number, name, body, times, plain_times in (
        ("7b", "small request", samples.small_request(), 150, 4_000),
        ("7c", "request of an agent", samples.agent_request(), 15, 20),
    ):
        sent, plain = _least(
            (functools.partial(_sent, body), times),
            (functools.partial(plain_request, body), plain_times),
        )
        yield number, name, sent, plain


def measure(rounds: int) -> dict[str, list[float]]:
    """Print the conversions and return the figures of budgets 6, 7 and 9."""
    results: dict[str, list[float]] = {}
    print(f"\n{'conversion':<28}{'µs':>10}{'plain µs':>10}{'ratio':>8}")
    taken = [list(figures()) for _ in range(rounds)]
    for each in zip(*taken, strict=True):
        number, name, *_ = each[0]
        ratios = [seconds / plain for _, _, seconds, plain in each]
        if number:
            results[number] = ratios
        seconds, plain = (statistics.median(one[at] for one in each) for at in (2, 3))
        ratio = statistics.median(ratios)
        print(f"{name:<28}{seconds * 1e6:>10.2f}{plain * 1e6:>10.2f}{ratio:>8.2f}")
    results["9"] = [_cold_import() * 1e3 for _ in range(rounds)]
    print(f"{'import oaicompat, cold':<28}{statistics.median(results['9']) * 1e3:>10.0f}")
    return results


def _sent(body: bytes) -> bytes:
    exchange = oaicompat.Exchange("chat", body)
    (call,) = exchange.calls()
    return exchange.begin_attempt(call, oaicompat.GEMINI_API).body


_SMALL = samples.small_request()


def _asked() -> tuple[oaicompat.Exchange, oaicompat.Call]:
    exchange = oaicompat.Exchange("chat", _SMALL)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    return exchange, call


def _answered(answer: bytes) -> bytes:
    exchange, call = _asked()
    exchange.receive_head(call, 200, {})
    exchange.feed(call, answer)
    return exchange.close(call)[0].data
