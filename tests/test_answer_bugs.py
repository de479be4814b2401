"""Bugs other gateways had with answers, by their number in the mapping decisions; one test each.

What concerns requests alone (budgets, schemas, tool turns) has its tests beside the encoder.
"""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest
from tests.support import chat_client
from tests.support.driving import HELLO, ask, decoded, follow_up, streamed, whole

import oaicompat
from oaicompat import Exchange, OaicompatError, Target

Json = dict[str, Any]

NEWEST = "gemini-3.5-flash"
VERTEX = Target("vertex", project="some-project", model=NEWEST)
SENTINEL = "skip_thought_signature_validator"


def candidate(*parts: Json, **more: Any) -> Json:
    return {"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}


def chunk(*parts: Json, usage: Json | None = None, **more: Any) -> Json:
    found = {"candidates": [candidate(*parts, **more)], "responseId": "r1"}
    return found | ({"usageMetadata": usage} if usage is not None else {})


def end(reason: str = "STOP", **more: Any) -> Json:
    return {"candidates": [{"finishReason": reason, "index": 0, **more}], "responseId": "r1"}


def called(name: str, *, sign: str = "", **args: Any) -> Json:
    call: Json = {"functionCall": {"name": name, "args": args}}
    return call | ({"thoughtSignature": sign} if sign else {})


def sse(*chunks: Json) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\r\n\r\n" for each in chunks)


def stream_of(*chunks: Json, **request: Any) -> bytes:
    outcome = streamed(ask(stream=True, **request), [sse(*chunks)])
    assert outcome.error is None, outcome.error
    return outcome.sent


def streamed_answer(*chunks: Json, **request: Any) -> Json:
    return chat_client.accumulate(stream_of(*chunks, **request))


def streamed_choice(*chunks: Json, **request: Any) -> Json:
    (choice,) = streamed_answer(*chunks, **request)["choices"]
    found: Json = choice
    return found


def answer_to(answer: Json, **request: Any) -> Json:
    outcome = whole(ask(**request), answer)
    assert outcome.error is None, outcome.error
    found: Json = json.loads(outcome.sent)
    return found


def choice_of(answer: Json, **request: Any) -> Json:
    (choice,) = answer_to(answer, **request)["choices"]
    found: Json = choice
    return found


def deltas(raw: bytes, key: str) -> list[Any]:
    return [
        choice["delta"][key]
        for each in decoded(raw)
        for choice in each["choices"]
        if key in choice["delta"]
    ]


# A. Streamed calls and endings


def test_a1_calls_of_separate_chunks_have_indexes_and_ids_of_their_own() -> None:
    choice = streamed_choice(chunk(called("f", a=1)), chunk(called("f", a=2)), end())
    calls = choice["message"]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == ['{"a":1}', '{"a":2}']
    assert len({call["id"] for call in calls}) == 2


def test_a2_every_fragment_of_a_call_has_an_index() -> None:
    raw = stream_of(chunk(called("f"), called("g")), end())
    fragments = [each for delta in deltas(raw, "tool_calls") for each in delta]
    assert [each["index"] for each in fragments] == [0, 0, 1, 1]


@pytest.mark.parametrize("together", [True, False])
def test_a3_a_signature_is_on_the_call_it_came_with(together: bool) -> None:
    parts = [called("f", sign="c2ln"), called("g")]
    chunks = [chunk(*parts)] if together else [chunk(part) for part in parts]
    first, second = streamed_choice(*chunks, end())["message"]["tool_calls"]
    assert first["extra_content"]["google"]["thought_signature"] == "c2ln"
    assert "extra_content" not in second


def test_a3_a_signature_after_a_call_is_carried_in_its_own_place() -> None:
    late = chunk({"text": "", "thoughtSignature": "bGF0ZQ=="})
    message = streamed_choice(chunk(called("f")), late, end())["message"]
    body = oaicompat.openai_to_gemini(follow_up(message, model=NEWEST)).body
    assert body["contents"][1]["parts"][1] == {"text": "", "thoughtSignature": "bGF0ZQ=="}


def test_a4_a_stop_in_the_chunk_after_a_call_means_tool_calls() -> None:
    assert streamed_choice(chunk(called("f")), end())["finish_reason"] == "tool_calls"


def test_a5_a_reason_on_every_chunk_is_one_finish_at_the_end() -> None:
    texts = [chunk({"text": text}, finishReason="STOP") for text in "abc"]
    reasons = [each["choices"][0]["finish_reason"] for each in decoded(stream_of(*texts))]
    assert [reason for reason in reasons if reason] == ["stop"]
    assert reasons[-1] == "stop"


def test_a6_a_finish_beside_content_is_a_chunk_of_its_own() -> None:
    last = decoded(stream_of(chunk({"text": "x"}, finishReason="STOP")))[-1]["choices"][0]
    assert last["delta"] == {}
    assert last["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "call", [{"name": "f"}, {"name": "f", "args": None}, {"name": "f", "args": {}}]
)
def test_a7_no_arguments_are_an_empty_object(call: Json) -> None:
    choice = streamed_choice(chunk({"functionCall": call}), end())
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == "{}"


PIECES: list[tuple[str, list[Json], Json]] = [
    (
        "a string in pieces",
        [
            {
                "partialArgs": [{"jsonPath": "$.a", "stringValue": "x\n", "willContinue": True}],
                "willContinue": True,
            },
            {"partialArgs": [{"jsonPath": "$.a", "stringValue": "y"}], "willContinue": True},
            {},
        ],
        {"a": "x\ny"},
    ),
    (
        "nested values",
        [
            {"partialArgs": [{"jsonPath": "$.a.b[0].c", "numberValue": 1.5}], "willContinue": True},
            {"partialArgs": [{"jsonPath": "$.a.b[1]", "boolValue": False}], "willContinue": True},
            {"partialArgs": [{"jsonPath": "$.z", "nullValue": "NULL_VALUE"}]},
        ],
        {"a": {"b": [{"c": 1.5}, False]}, "z": None},
    ),
    ("nothing at all", [{}], {}),
    (
        "no end",
        [{"partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}], "willContinue": True}],
        {"a": "x"},
    ),
]


@pytest.mark.parametrize(
    ("pieces", "expected"), [each[1:] for each in PIECES], ids=[each[0] for each in PIECES]
)
def test_a8_argument_pieces_are_json_that_grows(pieces: list[Json], expected: Json) -> None:
    first = chunk({"functionCall": {"name": "f", "willContinue": True}})
    rest = [chunk({"functionCall": piece}) for piece in pieces]
    raw = stream_of(first, *rest, end())
    (call,) = chat_client.accumulate(raw)["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == expected


def test_a9_each_choice_of_a_stream_has_its_own_role_and_finish() -> None:
    both = {
        "candidates": [candidate({"text": "a"}), candidate(called("f"), index=1)],
        "responseId": "r",
    }
    ends = {"candidates": [{"finishReason": "STOP", "index": number} for number in (0, 1)]}
    first, second = streamed_answer(both, ends, n=2)["choices"]
    assert (first["finish_reason"], second["finish_reason"]) == ("stop", "tool_calls")
    assert first["message"]["role"] == second["message"]["role"] == "assistant"
    assert "tool_calls" not in first["message"]


def test_a10_a_stop_before_the_text_does_not_end_the_answer() -> None:
    choice = streamed_choice(end(), end(), chunk({"text": "late"}), end())
    assert choice["message"]["content"] == "late"


def test_a11_there_is_one_terminal_event() -> None:
    raw = stream_of(chunk({"text": "x"}, finishReason="STOP"), end())
    assert raw.count(b"data: [DONE]\n\n") == 1
    assert raw.endswith(b"data: [DONE]\n\n")


def test_a12_an_unreadable_event_is_an_error_and_no_success() -> None:
    outcome = streamed(
        ask(stream=True), [sse(chunk({"text": "x"})), b"data: {nonsense\r\n\r\n", sse(end())]
    )
    assert not chat_client.done(outcome.sent)
    assert (chat_client.failure(outcome.sent) or {})["code"] == "upstream_malformed"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_a13_an_event_may_be_split_and_joined_anywhere(size: int) -> None:
    body = sse(chunk({"text": "é"}), chunk({"text": "😀"}), end())
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    outcome = streamed(ask(stream=True), pieces)
    assert chat_client.accumulate(outcome.sent)["choices"][0]["message"]["content"] == "é😀"


def test_a14_an_upstream_error_before_the_first_byte_keeps_its_status() -> None:
    exchange = Exchange("chat", ask(stream=True))
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.receive_head(call, 503, {})
    assert exchange.feed(call, b'{"error":{"code":503,"status":"UNAVAILABLE","message":"x"}}') == ()
    with pytest.raises(OaicompatError) as raised:
        exchange.close(call)
    assert raised.value.status == 503
    assert not exchange.committed


def test_a15_a_stream_that_is_cut_ends_with_an_error() -> None:
    outcome = streamed(ask(stream=True), [sse(chunk({"text": "half a"}))])
    assert (chat_client.failure(outcome.sent) or {})["code"] == "upstream_incomplete"
    assert not chat_client.done(outcome.sent)


# D. Thinking and signatures

SIGNED: list[Json] = [
    called("f", sign="c2ln"),
    {"text": "", "thoughtSignature": "c2ln"},
    {"text": "x", "thoughtSignature": "c2ln"},
    {"text": "hm", "thought": True, "thoughtSignature": "c2ln"},
    {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}, "thoughtSignature": "c2ln"},
    {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "c2ln"},
]


@pytest.mark.parametrize("part", SIGNED, ids=range(len(SIGNED)))
def test_d49_a_signature_on_any_part_goes_back(part: Json) -> None:
    message = streamed_choice(chunk(part), end())["message"]
    body = oaicompat.openai_to_gemini(follow_up(message, model=NEWEST)).body
    assert body["contents"][1]["parts"] == [part]


def test_d50_signatures_of_neighbours_are_both_kept() -> None:
    tool = {
        "toolResponse": {"id": "1", "toolType": "X", "response": {}},
        "thoughtSignature": "b25l",
    }
    parts = [tool, called("f", sign="dHdv")]
    message = streamed_choice(*[chunk(part) for part in parts], end())["message"]
    body = oaicompat.openai_to_gemini(follow_up(message, model=NEWEST)).body
    assert body["contents"][1]["parts"] == parts


def test_d51_the_sentinel_is_on_the_first_of_parallel_calls_only() -> None:
    message = chat_client.strict_message(
        answer_to(chunk(called("f"), called("g"), finishReason="STOP"))
    )
    request = follow_up(message, model=NEWEST)
    del request["messages"][-1]
    parts = oaicompat.openai_to_gemini(request).body["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [SENTINEL, None]


def test_d52_a_signature_of_the_other_backend_is_replaced_with_a_note() -> None:
    call = oaicompat.openai_to_gemini({"model": NEWEST, "messages": HELLO}, target=VERTEX)
    answer = oaicompat.gemini_to_openai(chunk(called("f", sign="c2ln"), finishReason="STOP"), call)
    request = follow_up(chat_client.message_of(answer), model=NEWEST)
    del request["messages"][-1]
    again = oaicompat.openai_to_gemini(request)
    assert again.body["contents"][1]["parts"][0]["thoughtSignature"] == SENTINEL
    assert any("another backend" in note.reason for note in again.notes)


def test_d53_thoughts_are_not_content() -> None:
    message = streamed_choice(chunk({"text": "hm", "thought": True}), chunk({"text": "so"}), end())[
        "message"
    ]
    assert message["content"] == "so"
    assert message["reasoning_content"] == "hm"


def test_d56_hidden_thoughts_do_not_change_the_effort() -> None:
    shown = oaicompat.openai_to_gemini(ask(reasoning_effort="high")).body["generationConfig"]
    hidden = oaicompat.openai_to_gemini(ask(reasoning={"effort": "high", "exclude": True})).body
    assert shown["thinkingConfig"].pop("includeThoughts") is True
    assert hidden["generationConfig"] == shown


def test_d57_a_budget_spent_on_thinking_is_length_with_its_count() -> None:
    usage = {"promptTokenCount": 5, "thoughtsTokenCount": 60, "totalTokenCount": 65}
    answer = answer_to({**end("MAX_TOKENS"), "usageMetadata": usage})
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == ""
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 60


# E. Usage


def usage_of(*seen: Json) -> Json:
    chunks = [chunk({"text": "x"}, usage=each) for each in seen]
    raw = stream_of(*chunks, end(), stream_options={"include_usage": True})
    usage: Json = chat_client.accumulate(raw)["usage"]
    return usage


def test_e59_thoughts_are_part_of_the_completion() -> None:
    usage = usage_of({"promptTokenCount": 1, "candidatesTokenCount": 20, "thoughtsTokenCount": 300})
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (
        1,
        320,
        321,
    )


def test_e60_a_count_that_vanishes_keeps_its_last_value() -> None:
    usage = usage_of(
        {"promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 1},
        {"promptTokenCount": 10, "candidatesTokenCount": 7},
    )
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4
    assert usage["completion_tokens"] == 7


@pytest.mark.parametrize("asked", [True, False])
def test_e61_usage_comes_once_and_when_asked(asked: bool) -> None:
    counts = {"promptTokenCount": 1, "candidatesTokenCount": 1}
    options = {"stream_options": {"include_usage": True}} if asked else {}
    chunks = decoded(
        stream_of(chunk({"text": "x"}, usage=counts), chunk(usage=counts), end(), **options)
    )
    assert [bool(each.get("usage")) for each in chunks].count(True) == asked
    assert all(("usage" in each) == asked for each in chunks)
    if asked:
        assert chunks[-1]["choices"] == []


def test_e62_reasoning_tokens_are_a_number_without_reasoning() -> None:
    usage = usage_of({"promptTokenCount": 1, "candidatesTokenCount": 1})
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


def test_e63_the_prompt_of_a_tool_is_part_of_the_prompt() -> None:
    usage = usage_of(
        {"promptTokenCount": 10, "toolUsePromptTokenCount": 50, "candidatesTokenCount": 1}
    )
    assert (usage["prompt_tokens"], usage["total_tokens"]) == (60, 61)


def test_e64_an_answer_without_usage_is_an_answer() -> None:
    assert answer_to(chunk({"text": "x"}, finishReason="STOP"))["usage"]["total_tokens"] == 0


# F. Answers, blocking


@pytest.mark.parametrize(
    "reason",
    [
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "TOO_MANY_TOOL_CALLS",
        "MISSING_THOUGHT_SIGNATURE",
        "MALFORMED_RESPONSE",
    ],
)
def test_f65_a_malformed_call_is_an_error_with_its_message(reason: str) -> None:
    outcome = whole(ask(), end(reason, finishMessage="Bad call: f("))
    assert outcome.error is not None
    assert "Bad call: f(" in outcome.error[1]
    flowing = streamed(ask(stream=True), [sse(chunk({"text": "x"}), end(reason))])
    assert (chat_client.failure(flowing.sent) or {})["code"] == reason.lower()


@pytest.mark.parametrize("flowing", [True, False])
def test_f66_a_blocked_prompt_is_a_refusal(flowing: bool) -> None:
    blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
    choice = streamed_choice(blocked) if flowing else choice_of(blocked)
    assert choice["finish_reason"] == "content_filter"
    assert "PROHIBITED_CONTENT" in choice["message"]["refusal"]


def test_f67_text_before_a_safety_stop_is_kept() -> None:
    choice = streamed_choice(chunk({"text": "so far"}), end("SAFETY"))
    assert choice["message"]["content"] == "so far"
    assert choice["message"]["refusal"]
    assert choice["finish_reason"] == "content_filter"


def test_f68_no_candidates_can_be_tried_again_and_a_stop_without_parts_is_an_answer() -> None:
    exchange = Exchange("chat", ask())
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.receive_head(call, 200, {})
    exchange.feed(call, b'{"usageMetadata":{"promptTokenCount":1}}')
    with pytest.raises(oaicompat.UpstreamError) as raised:
        exchange.close(call)
    assert raised.value.retryable
    assert raised.value.cause == "empty"
    choice = choice_of(end())
    assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", "")


ODD_GROUNDING: list[Json] = [
    {},
    {"groundingChunks": [{}], "groundingSupports": [{"groundingChunkIndices": [0]}]},
    {
        "groundingChunks": [{"web": {"title": "t"}}],
        "groundingSupports": [{"groundingChunkIndices": [0]}],
    },
    {
        "groundingChunks": [{"web": {"uri": "https://a.b"}}],
        "groundingSupports": [{"groundingChunkIndices": [0, 7, -1]}],
    },
    {"groundingSupports": [{"segment": {"endIndex": 999}, "groundingChunkIndices": [0]}]},
]


@pytest.mark.parametrize("grounding", ODD_GROUNDING)
def test_f76_odd_grounding_does_not_cost_the_answer(grounding: Json) -> None:
    choice = streamed_choice(chunk({"text": "x"}), end(groundingMetadata=grounding))
    assert choice["message"]["content"] == "x"
    for annotation in choice["message"].get("annotations", ()):
        assert (
            annotation["url_citation"]["url"]
            == annotation["url_citation"]["title"]
            == "https://a.b"
        )


@pytest.mark.parametrize("text", ["Der Käse", "日本語のテキスト", "👩‍👩‍👧 family", "plain"])
@pytest.mark.parametrize("before", ["", "é ", "日本語のテキスト Der Käse plain 👩‍👩‍👧 family "])
def test_f77_offsets_cut_out_what_was_cited(before: str, text: str) -> None:
    said = f"{before}{text} 😀"
    start = len(before.encode())
    segment = {"startIndex": start, "endIndex": start + len(text.encode()), "text": text}
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a.b", "title": "t"}}],
        "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0]}],
    }
    choice = streamed_choice(
        chunk({"text": said[:3]}), chunk({"text": said[3:]}), end(groundingMetadata=grounding)
    )
    (annotation,) = choice["message"]["annotations"]
    cited = annotation["url_citation"]
    assert (cited["start_index"], cited["end_index"]) == (len(before), len(before) + len(text))


def test_f78_grounding_of_an_early_chunk_is_kept() -> None:
    grounding = {"groundingChunks": [{"web": {"uri": "https://a.b"}}], "webSearchQueries": ["q"]}
    message = streamed_choice(
        chunk({"text": "x"}, groundingMetadata=grounding), chunk({"text": "y"}), end()
    )["message"]
    assert message["extra_content"]["google"]["search"]["queries"] == ["q"]


def test_f79_several_results_of_one_code_are_kept_in_order() -> None:
    parts: list[Json] = [
        {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "2"}},
        {"text": "done"},
    ]
    message = choice_of(chunk(*parts, finishReason="STOP"))["message"]
    body = oaicompat.openai_to_gemini(follow_up(message, model=NEWEST)).body
    assert body["contents"][1]["parts"] == parts


def test_f80_an_image_is_an_item_of_its_own() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    message = streamed_choice(chunk({"text": "look"}, image), end())["message"]
    assert message["content"] == "look"
    assert message["images"][0]["image_url"]["url"] == "data:image/png;base64,iVBORw0KGgo="


def test_f81_two_texts_of_one_chunk_are_both_shown() -> None:
    assert streamed_choice(chunk({"text": "a"}, {"text": "b"}), end())["message"]["content"] == "ab"


def test_f82_an_answer_of_media_alone_and_empty_texts_go_back() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    message = streamed_choice(chunk({"text": ""}, image), chunk({"text": ""}), end())["message"]
    body = oaicompat.openai_to_gemini(follow_up(message, model=NEWEST)).body
    assert body["contents"][1]["parts"] == [image]


# Found here


def test_sound_is_wav_and_the_rate_is_the_providers() -> None:
    sound = {"inlineData": {"mimeType": "audio/L16;codec=pcm;rate=16000", "data": "AAEC"}}
    audio = {"modalities": ["audio"], "audio": {"voice": "Kore", "format": "wav"}}
    message = choice_of(chunk(sound, sound, finishReason="STOP"), **audio)["message"]
    data = b64decode(message["audio"]["data"])
    assert data[:4] == b"RIFF"
    assert int.from_bytes(data[24:28], "little") == 16_000
    assert data[44:] == bytes([0, 1, 2, 0, 1, 2])


def test_an_empty_streamed_answer_has_the_id_of_the_whole_one() -> None:
    assert streamed_answer(end())["id"] == answer_to(end())["id"] == "chatcmpl-r1"


def test_a_candidate_that_was_not_asked_for_is_not_shown() -> None:
    extra = {
        "candidates": [candidate({"text": "a"}), candidate({"text": "b"}, index=5)],
        "responseId": "r",
    }
    assert len(streamed_answer(extra, end())["choices"]) == 1


def test_a_candidate_that_never_came_is_no_stop() -> None:
    second = {
        "candidates": [candidate({"text": "b"}, index=1, finishReason="STOP")],
        "responseId": "r",
    }
    first, _ = streamed_answer(second, n=2)["choices"]
    assert first["finish_reason"] == "content_filter"


def test_one_malformed_choice_fails_before_the_others_are_ended() -> None:
    both = {
        "candidates": [
            {"finishReason": "STOP", "index": 0},
            {"finishReason": "MALFORMED_FUNCTION_CALL", "index": 1},
        ]
    }
    outcome = streamed(ask(2, stream=True), [sse(both)])
    assert outcome.sent == b""
    assert outcome.error is not None


def test_an_impossible_token_has_a_number() -> None:
    tokens = {"chosenCandidates": [{"token": "x", "logProbability": "-Infinity"}]}
    choice = choice_of(chunk({"text": "x"}, finishReason="STOP", logprobsResult=tokens))
    assert choice["logprobs"]["content"][0]["logprob"] == -9999.0


def test_details_of_signatures_are_numbered_without_gaps() -> None:
    parts = [{"text": "hm", "thought": True}, called("f", sign="YQ=="), called("g", sign="Yg==")]
    message = choice_of(chunk(*parts, finishReason="STOP"))["message"]
    assert [each["index"] for each in message["reasoning_details"]] == [0, 1]


def hops(*bodies: bytes, streaming: bool) -> tuple[Exchange, bytes]:
    """Drive an exchange on Vertex over the bodies of its hops."""
    request = {"model": "gemini-4-argon", "messages": HELLO, "stream": streaming}
    exchange = Exchange("chat", request, created=1)
    sent = b""
    waiting = list(bodies)
    while calls := exchange.calls():
        (call,) = calls
        exchange.begin_attempt(call, Target("vertex", project="some-project"))
        exchange.receive_head(call, 200, {})
        frames = exchange.feed(call, waiting.pop(0)) + exchange.close(call)
        sent += b"".join(frame.data + b"\n" for frame in frames)
    return exchange, sent


def hop(text: str, reason: str | None, token: str | None = None) -> Json:
    found = candidate({"text": text})
    found |= {"finishReason": reason} if reason else {}
    found |= {"continuationToken": token} if token else {}
    usage = {"promptTokenCount": 2, "candidatesTokenCount": 3, "totalTokenCount": 5}
    return {"candidates": [found], "responseId": "r1", "usageMetadata": usage}


def test_an_answer_that_goes_on_is_one_answer_and_its_costs_add_up() -> None:
    first, last = hop("a", "CONTINUATION", "dG9r"), hop("b", "STOP")
    _, sent = hops(json.dumps(first).encode(), json.dumps(last).encode(), streaming=False)
    answer = json.loads(sent)
    assert answer["choices"][0]["message"]["content"] == "ab"
    assert answer["usage"]["total_tokens"] == 10


def test_a_continued_answer_that_is_cut_does_not_stop() -> None:
    exchange, sent = hops(
        sse(hop("a", "CONTINUATION", "dG9r")), sse(hop("b", None)), streaming=True
    )
    assert exchange.failed is not None
    assert b"[DONE]" not in sent


def test_a_continuation_without_a_token_is_length() -> None:
    choice = choice_of(chunk({"text": "x"}, finishReason="CONTINUATION"))
    assert choice["finish_reason"] == "length"
