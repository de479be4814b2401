"""Row B7: an upstream that is cut anywhere, seen by OpenAI's own client library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.support import faulty, raw
from tests.support.faulty import body_of, event, failure, replying
from tests.support.gateway import Gateway

from oaicompat_server.simulator import Close, Reset
from oaicompat_server.simulator.faults import Step

CUTS = 75
USAGE = {"promptTokenCount": 9, "candidatesTokenCount": 40, "totalTokenCount": 49}
PART = {"thought": True, "text": "let me see"}
CALL = {"functionCall": {"name": "look", "args": {"at": "the naïve 🙂"}}}
STREAM = body_of(
    [
        event(PART) | {"usageMetadata": USAGE},
        *(event({"text": f"Some words, number {number}. "}) for number in range(6)),
        event(CALL | {"thoughtSignature": "c2lnbmF0dXJl"}),
        event({"text": ""}, finishReason="STOP") | {"usageMetadata": USAGE},
    ],
    True,
)
WHOLE = body_of([event({"text": "Some words. " * 20}, finishReason="STOP")], False)


@pytest.fixture(scope="module", params=faulty.KINDS)
def served(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with faulty.faulty(request.param) as running:
        yield running


def cut(data: bytes, at: int, stream: bool) -> list[Step]:
    """Return a reply that is cut there: a length or chunks that do not end, by FIN or by RST."""
    ending = (Close(), Reset())[at % 2]
    if at % 3:
        return replying(data[:at], stream, ending)
    return replying(data[:at], stream, ending, framing="length", length=len(data))


def read(client: openai.OpenAI, path: str) -> list[str]:
    """Stream an answer to its end as programs do; return every way in which it was said to end well."""
    ends: list[str] = []
    if path == raw.CHAT:
        words: Any = [{"role": "user", "content": "x"}]
        for chunk in client.chat.completions.create(model="gpt-4o", messages=words, stream=True):
            ends += [each.finish_reason for each in chunk.choices if each.finish_reason]
    else:
        for each in client.responses.create(model="gpt-4o", input="x", store=False, stream=True):
            ends += [each.type] if each.type == "response.completed" else []
    return ends


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
def test_b7_a_stream_that_is_cut_anywhere_raises_in_the_client_library(
    served: Gateway, path: str
) -> None:
    """A stream cut at any byte, by FIN or RST, in any framing, ends as an error in OpenAI's library."""
    before = len(raw.calls(served))
    step = len(STREAM) / CUTS
    with (
        faulty.left_clean(served),
        openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as client,
    ):
        for number in range(CUTS):
            at = round(number * step)
            served.simulator.enqueue(cut(STREAM, at, True))
            ends: list[str] = []
            with contextlib.suppress(openai.APIError):
                ends = read(client, path)
                pytest.fail(f"cut at {at}, and it ended: {STREAM[:at][-60:]!r}")
            assert ends == [], at
    assert len(raw.calls(served)) == before + CUTS


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
def test_b7_a_stream_that_is_cut_says_so_in_its_bytes(served: Gateway, path: str) -> None:
    """A stream that is cut ends with an error event, without `stop`, `completed` or `[DONE]` on chat."""
    with faulty.left_clean(served):
        for at in range(1, len(STREAM), len(STREAM) // 40):
            served.simulator.enqueue(cut(STREAM, at, True))
            assert failure(faulty.tell(served, path, True))["type"] == "server_error", at


@faulty.shapes
@pytest.mark.parametrize("end", [Close(), Reset()], ids=["FIN", "RST"])
def test_b7_an_answer_that_lacks_only_its_last_chunk_is_cut(
    served: Gateway, path: str, stream: bool, end: Step
) -> None:
    """An answer of which all has come but the end of its framing is a failure as any other that is cut."""
    data = STREAM if stream else WHOLE
    failure(faulty.answers(served, replying(data, stream, end), path, stream))


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
def test_b7_a_whole_answer_that_is_cut_is_a_502(served: Gateway, path: str) -> None:
    """An answer that is not streamed and is cut at any byte is a 502, however much of it had come."""
    with faulty.left_clean(served):
        for at in range(0, len(WHOLE), len(WHOLE) // 40):
            served.simulator.enqueue(cut(WHOLE, at, False))
            told = faulty.tell(served, path, False)
            failure(told)
            assert told.reply.status == 502


def test_b7_what_is_cut_here_is_whole_otherwise(served: Gateway) -> None:
    """The answers that are cut in these tests end well when nobody cuts them."""
    for path, stream in faulty.SHAPES:
        served.simulator.enqueue(replying(STREAM if stream else WHOLE, stream))
        told = faulty.tell(served, path, stream)
        assert told.error is None
        assert told.ends
