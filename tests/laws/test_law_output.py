"""Laws 6 and 7: what goes out is what OpenAI would send, and events follow their grammar."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from tests.support import grammar
from tests.support.driving import ask, events_of, streamed, whole
from tests.support.shared import findings, needs_checker

from oaicompat.testing import GeminiStream, cuts, gemini_answers, gemini_streams

streams = gemini_streams(gemini_answers(broken=True))


@needs_checker
@given(streams, st.booleans())
def test_law_6_a_stream_is_one_openai_would_send(stream: GeminiStream, usage: bool) -> None:
    request = ask(stream.candidates, stream=True, stream_options={"include_usage": usage})
    outcome = streamed(request, [stream.body])
    if outcome.sent:
        assert findings("chat-stream", outcome.sent, request) == []


@needs_checker
@given(streams)
def test_law_6_a_body_is_one_openai_would_send(stream: GeminiStream) -> None:
    request = ask(stream.candidates)
    outcome = whole(request, stream.whole)
    if outcome.error is None:
        assert findings("chat", outcome.sent, request) == []


@given(streams, st.data(), st.booleans())
def test_law_7_events_follow_their_grammar(
    stream: GeminiStream, data: st.DataObject, fast: bool
) -> None:
    pieces = data.draw(cuts(stream.body))
    grammar.check(events_of(pieces, candidates=stream.candidates, fast=fast))


@given(streams, st.data())
def test_law_7_events_of_a_cut_stream_follow_their_grammar(
    stream: GeminiStream, data: st.DataObject
) -> None:
    end = data.draw(st.integers(0, len(stream.body)))
    grammar.check(events_of([stream.body[:end]], candidates=stream.candidates))


@given(gemini_answers(broken=True))
def test_law_7_events_of_a_whole_answer_follow_their_grammar(answer: dict[str, object]) -> None:
    body = json.dumps(answer).encode()
    grammar.check(events_of([body], streamed=False, candidates=3))
