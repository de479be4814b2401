"""Laws 1 and 2: the cut of a stream changes nothing, and a stream says what the whole answer says."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from tests.support import chat_client
from tests.support.driving import Outcome, ask, decoded, events_of, exchanged, streamed, whole

from oaicompat import Options
from oaicompat.events import Event, Failed, Response, fold
from oaicompat.testing import (
    FRAMINGS,
    GeminiStream,
    cuts,
    frame,
    gemini_answers,
    gemini_streams,
)

streams = gemini_streams(gemini_answers(broken=True))


@given(streams, st.data())
def test_law_1_any_cut_of_the_stream_gives_the_same_bytes(
    stream: GeminiStream, data: st.DataObject
) -> None:
    request = ask(stream.candidates, stream=True, stream_options={"include_usage": True})
    once = streamed(request, [stream.body])
    cut = streamed(request, data.draw(cuts(stream.body)))
    assert cut.sent == once.sent
    assert cut.error == once.error


@given(streams)
def test_law_1_any_framing_of_the_stream_gives_the_same_bytes(stream: GeminiStream) -> None:
    request = ask(stream.candidates, stream=True)
    outcomes = {
        msgs
        for framing in FRAMINGS
        for msgs in [_comparable(streamed(request, [frame(stream.chunks, framing)]))]
    }
    assert len(outcomes) == 1


def _comparable(outcome: Outcome) -> tuple[bytes, object]:
    return outcome.sent, outcome.error


@given(streams)
def test_law_1_reads_that_end_with_a_chunk_give_the_same_bytes(stream: GeminiStream) -> None:
    request = ask(stream.candidates, stream=True)
    reads = [frame([chunk], "crlf") for chunk in stream.chunks]
    assert streamed(request, reads) == streamed(request, [b"".join(reads)])


@given(streams)
def test_law_2_the_events_of_both_ways_fold_to_the_same_answer(stream: GeminiStream) -> None:
    count = stream.candidates
    flowing = events_of([stream.body], candidates=count)
    at_once = events_of([stream.whole], streamed=False, candidates=count)
    assert _folded(flowing) == _folded(at_once)


def _folded(events: list[Event]) -> Response | tuple[str, str | None]:
    last = events[-1]
    if isinstance(last, Failed):
        return last.error.message, last.error.code
    return fold(events)


@given(streams)
def test_law_2_a_client_that_adds_up_the_chunks_has_the_whole_answer(stream: GeminiStream) -> None:
    count = stream.candidates
    sent = streamed(ask(count, stream=True, stream_options={"include_usage": True}), [stream.body])
    body = whole(ask(count), stream.whole)
    failure = chat_client.failure(sent.sent)
    if body.error is not None:
        said = sent.error[1] if sent.error else failure and failure["message"]
        assert said == body.error[1]
        return
    assert failure is None
    expected = json.loads(body.sent)
    expected.pop("service_tier", None)
    assert chat_client.normal(chat_client.accumulate(sent.sent)) == chat_client.normal(expected)


@given(streams, st.data())
def test_the_fast_lane_changes_nothing(stream: GeminiStream, data: st.DataObject) -> None:
    request = ask(stream.candidates, stream=True, stream_options={"include_usage": True})
    pieces = data.draw(cuts(stream.body))
    fast = exchanged(request, pieces)
    slow = exchanged(request, pieces, Options(fast=False))
    assert decoded(fast.sent) == decoded(slow.sent)
    assert fast.error == slow.error


_RAW_TEXTS = (
    rb'"a"',
    rb'"\ud83d\ude00"',
    rb'"\ud800"',
    rb'"x\udc00y"',
    rb'"\u2028\u0000\/\""',
    b'"\xff"',
    b'"\\\\"',
    b'""',
    b"null",
    '"é😀"'.encode(),
    b"5",
)


@given(st.lists(st.sampled_from(_RAW_TEXTS), min_size=1, max_size=6), st.booleans())
def test_the_fast_lane_takes_odd_texts_as_the_ordinary_way_does(
    raws: list[bytes], finished: bool
) -> None:
    chunks = [
        b'data: {"candidates":[{"content":{"parts":[{"text":%s}],"role":"model"},"index":0}],'
        b'"usageMetadata":{"promptTokenCount":%d},"responseId":"r"}\r\n\r\n' % (raw, number)
        for number, raw in enumerate([b'"start"', *raws])
    ]
    if finished:
        chunks.append(b'data: {"candidates":[{"finishReason":"STOP","index":0}]}\r\n\r\n')
    fast = exchanged(ask(stream=True), chunks)
    slow = exchanged(ask(stream=True), chunks, Options(fast=False))
    assert decoded(fast.sent) == decoded(slow.sent)
    assert fast.error == slow.error
    assert fast.sent.endswith(b"data: [DONE]\n\n") == slow.sent.endswith(b"data: [DONE]\n\n")
