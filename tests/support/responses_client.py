"""A client of the Responses dialect: it reads streams as strictly as the SDKs do, and sends items back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any
from unittest.mock import patch

import pydantic
from tests.support.driving import HELLO, MODEL, Outcome, told
from tests.support.shared import checker, schemas

import oaicompat
from oaicompat import OaicompatError, Options
from oaicompat.mapper import sse_bytes

Json = dict[str, Any]

_ADAPTER = cache(pydantic.TypeAdapter)
"""Each type is compiled once, not once per body that is checked."""


def ask(**more: Any) -> Json:
    """Return a request."""
    return {"model": MODEL, "input": HELLO, **more}


def streamed(request: Json, pieces: Iterable[bytes], options: Options | None = None) -> Outcome:
    """Convert a streamed answer."""
    exchange = oaicompat.Exchange("responses", request, created=1, streaming=True, options=options)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    sent: list[bytes] = []
    try:
        sent.extend(sse_bytes(exchange.feed(call, piece)) for piece in pieces)
        sent.append(sse_bytes(exchange.close(call)))
    except OaicompatError as error:
        return Outcome(b"".join(sent), told(error))
    return Outcome(b"".join(sent))


def whole(request: Json, answer: Json | bytes) -> Outcome:
    """Convert a whole answer."""
    call = oaicompat.openai_to_gemini(request, dialect="responses")
    try:
        converted = oaicompat.gemini_to_openai(answer, call, created=1)
    except OaicompatError as error:
        return Outcome(b"", told(error))
    return Outcome(json.dumps(converted).encode())


def events(raw: bytes) -> list[Json]:
    """Return the events of a stream; every frame has its name, but for the last."""
    blocks = raw.split(b"\n\n")
    assert blocks[-1] == b""
    read = []
    for block in blocks[:-1]:
        name, _, data = block.partition(b"data: ")
        if data == b"[DONE]":
            assert name == b""
            continue
        event = json.loads(data)
        assert name == b"event: " + event["type"].encode() + b"\n"
        read.append(event)
    return read


def last(raw: bytes) -> Json:
    """Return the Response object that ends a stream."""
    response: Json = events(raw)[-1]["response"]
    return response


def follow_up(output: Sequence[Json], **more: Any) -> Json:
    """Return the next request of a client that was answered with these items.

    Every call gets an output, then the user goes on.
    """
    go_on = {"role": "user", "content": "go on"}
    return ask(input=[*HELLO, *output, *outputs(output), go_on], **more)


def outputs(output: Sequence[Json]) -> list[Json]:
    """Return an output for each call among these items."""
    return [
        {
            "type": f"{item['type'].replace('_search_call', '_search')}_output",
            "call_id": item["call_id"],
            **_RESULTS.get(item["type"], {"output": f"result {position}"}),
        }
        for position, item in enumerate(_calls(output))
    ]


_RESULTS: Json = {
    "shell_call": {
        "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
    },
    "apply_patch_call": {"status": "completed"},
    "tool_search_call": {"execution": "client", "tools": []},
}


def _calls(output: Sequence[Json]) -> list[Json]:
    return [item for item in output if "call_id" in item]


def findings(kind: str, raw: bytes, request: Json | None = None, *, sdk: bool = True) -> list[Any]:
    """Check a `response` or a `response-stream` by every rule there is; return what is wrong."""
    module = checker()
    report = module.Report()
    data = None
    if kind == "response":
        data = json.loads(raw)
        module.check_response_obj(report, schemas(), data, "body", True, request)
    else:
        module.check_response_stream(report, schemas(), raw, request, True)
    if sdk:
        with patch("pydantic.TypeAdapter", _ADAPTER):
            module.check_sdk(report, kind, raw, data)
    return list(report.items)
