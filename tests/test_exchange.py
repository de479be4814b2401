"""The exchange as a transport drives it: attempts, several calls, continuations, needs and effects."""

from __future__ import annotations

import json
from typing import Any

import pytest

import oaicompat
from oaicompat import AnswerOptions, Call, Exchange, Options, RememberSignature, Supplies, Target
from oaicompat.errors import OaicompatError, UpstreamError
from oaicompat.messages import Signature
from oaicompat.models import ModelMap

GEMINI = oaicompat.GEMINI_API
VERTEX = Target(backend="vertex", project="a-project", location="global")


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": "hi"}], **fields}


def answer(*parts: dict[str, Any], finish: str | None = "STOP", **fields: Any) -> bytes:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}
    return json.dumps({"candidates": [candidate | fields], "responseId": "r1"}).encode()


def event(*parts: dict[str, Any], finish: str | None = None, **fields: Any) -> bytes:
    return b"data: " + answer(*parts, finish=finish, **fields) + b"\r\n\r\n"


def begun(exchange: Exchange, target: Target = GEMINI) -> tuple[Call, dict[str, Any]]:
    (call,) = exchange.calls()
    return call, json.loads(exchange.begin_attempt(call, target).body)


def whole(exchange: Exchange, call: Call, data: bytes) -> dict[str, Any]:
    exchange.feed(call, data)
    (frame,) = exchange.close(call)
    found: dict[str, Any] = json.loads(frame.data)
    return found


def texts(frames: tuple[oaicompat.Frame, ...]) -> str:
    found = ""
    for frame in frames:
        if frame.data.startswith(b"{"):
            for choice in json.loads(frame.data).get("choices", ()):
                found += choice["delta"].get("content") or ""
    return found


def test_each_attempt_is_encoded_for_its_target() -> None:
    exchange = Exchange("chat", body(reasoning_effort="low"))
    call, first = begun(exchange)
    assert first["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 1024
    request = exchange.begin_attempt(call, Target(model="gemini-3-flash-preview"))
    second = json.loads(request.body)["generationConfig"]["thinkingConfig"]
    assert second["thinkingLevel"].lower() == "low"
    assert "gemini-3-flash-preview" in request.url
    assert exchange.model == "gemini-3-flash-preview"


def test_a_failed_attempt_leaves_nothing_behind() -> None:
    exchange = Exchange("chat", body())
    call, _ = begun(exchange)
    exchange.receive_head(call, 503, {})
    exchange.feed(call, b'{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}')
    with pytest.raises(UpstreamError):
        exchange.close(call)
    exchange.begin_attempt(call, GEMINI)
    exchange.receive_head(call, 200, {})
    assert whole(exchange, call, answer({"text": "ok"}))["choices"][0]["message"]["content"] == "ok"


def failure(exchange: Exchange, call: Call, status: int, headers: dict[str, str]) -> Any:
    """Return what there is to know of the error that an attempt fails with."""
    exchange.begin_attempt(call, GEMINI)
    exchange.receive_head(call, status, headers)
    said = {"code": status, "message": f"said {status}", "status": f"STATUS_{status}"}
    exchange.feed(call, json.dumps({"error": said}).encode())
    with pytest.raises(UpstreamError) as raised:
        exchange.close(call)
    error = raised.value
    return error.upstream_status, error.code, error.message, error.retry_after


def test_each_error_of_a_call_is_its_own() -> None:
    exchange = Exchange("chat", body())
    (call,) = exchange.calls()
    later, sooner = {"retry-after": "9"}, {"retry-after": "3"}
    for status, headers in ((503, later), (429, {}), (418, {}), (503, sooner)):
        alone = Exchange("chat", body())
        (only,) = alone.calls()
        assert failure(exchange, call, status, headers) == failure(alone, only, status, headers)
    exchange.begin_attempt(call, GEMINI)
    exchange.receive_head(call, 200, {})
    assert whole(exchange, call, answer({"text": "a"}))["choices"][0]["message"]["content"] == "a"


@pytest.mark.parametrize("stream", [False, True])
def test_a_hop_that_fails_leaves_nothing_behind(stream: bool) -> None:
    thought, done = {"text": "think", "thought": True}, {"text": "answer"}
    exchange = Exchange("chat", body(stream=stream))
    send = event if stream else answer
    call, _ = begun(exchange)
    frames = exchange.feed(call, send(thought, finish="CONTINUATION", continuationToken="dG9r"))
    frames += exchange.close(call)
    hop, sent = begun(exchange)
    assert sent["continuationToken"] == "dG9r"
    assert not exchange.call_committed(hop)
    exchange.receive_head(hop, 503, {})
    with pytest.raises(UpstreamError):
        exchange.close(hop)
    exchange.begin_attempt(hop, GEMINI)
    if not stream:
        exchange.feed(hop, answer({"text": "cut"}, finish=None))
        with pytest.raises(UpstreamError):
            exchange.close(hop)
        exchange.begin_attempt(hop, GEMINI)
        message = whole(exchange, hop, answer(done))["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == ("answer", "think")
    else:
        frames += exchange.feed(hop, event(done, finish="STOP")) + exchange.close(hop)
        assert texts(frames) == "answer"
        assert frames[-1].data == b"[DONE]"
    assert exchange.calls() == ()


def test_usage_is_summed_over_hops() -> None:
    exchange = Exchange("chat", body())
    counted = {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 3}}
    call, _ = begun(exchange)
    first = json.loads(answer({"text": "a"}, finish="CONTINUATION", continuationToken="dG9r"))
    exchange.feed(call, json.dumps(first | counted).encode())
    exchange.close(call)
    hop, _ = begun(exchange)
    usage = whole(exchange, hop, json.dumps(json.loads(answer({"text": "b"})) | counted).encode())[
        "usage"
    ]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (10, 6)


def test_choices_of_a_model_that_gives_one_are_several_calls() -> None:
    exchange = Exchange("chat", body(model="gemini-3-flash", n=3, seed=7))
    calls = exchange.calls()
    sent = [json.loads(exchange.begin_attempt(call, GEMINI).body) for call in calls]
    assert [each["generationConfig"] for each in sent] == [{"seed": 7}, {"seed": 8}, {"seed": 9}]
    for call, text in zip(reversed(calls), "cba", strict=True):
        exchange.feed(call, answer({"text": text}))
        frames = exchange.close(call)
    choices = json.loads(frames[0].data)["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["a", "b", "c"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert any(note.path == "n" and note.inert for note in exchange.notes)


def test_more_choices_than_one_call_gives_are_several_calls() -> None:
    exchange = Exchange("chat", body(n=10))
    sent = [json.loads(exchange.begin_attempt(call, GEMINI).body) for call in exchange.calls()]
    assert [each["generationConfig"]["candidateCount"] for each in sent] == [8, 2]


def test_a_fallback_that_gives_one_choice_leaves_the_others_to_further_calls() -> None:
    exchange = Exchange("chat", body(n=3))
    (call,) = exchange.calls()
    fallback = Target(model="gemini-3-flash-preview")
    sent = json.loads(exchange.begin_attempt(call, fallback).body)
    assert "generationConfig" not in sent
    exchange.feed(call, answer({"text": "a"}))
    assert exchange.close(call) == ()
    rest = exchange.calls()
    assert len(rest) == 2
    for each in rest:
        exchange.begin_attempt(each, fallback)
        exchange.feed(each, answer({"text": "x"}))
        frames = exchange.close(each)
    assert [c["index"] for c in json.loads(frames[0].data)["choices"]] == [0, 1, 2]


CHAIN = ModelMap({"chain": ["gemini-2.5-flash", "gemini-3-flash-preview", "gemini-2.5-pro"]})


def test_a_call_names_its_fallbacks() -> None:
    exchange = Exchange("chat", body(model="chain"), models=CHAIN)
    (call,) = exchange.calls()
    assert call.model == exchange.model == "gemini-2.5-flash"
    assert call.fallbacks == ("gemini-3-flash-preview", "gemini-2.5-pro")
    assert Exchange("chat", body(), models=CHAIN).calls()[0].fallbacks == ()


def test_a_fallback_is_encoded_for_what_it_is_and_is_the_model_from_then_on() -> None:
    exchange = Exchange("chat", body(model="chain", reasoning_effort="low"), models=CHAIN)
    call, first = begun(exchange)
    assert "thinkingBudget" in first["generationConfig"]["thinkingConfig"]
    request = exchange.begin_attempt(call, Target(model=call.fallbacks[0]))
    assert "gemini-3-flash-preview" in request.url
    second = json.loads(request.body)["generationConfig"]["thinkingConfig"]
    assert "thinkingBudget" not in second
    assert exchange.model == "gemini-3-flash-preview"
    found = whole(exchange, call, answer({"text": "hi"}))
    assert found["model"] == exchange.requested_model == "chain"


def test_further_calls_begin_with_the_model_that_served() -> None:
    exchange = Exchange("chat", body(model="chain", n=2), models=CHAIN)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, Target(model="gemini-3-flash-preview"))
    exchange.feed(call, answer({"text": "a"}))
    assert exchange.close(call) == ()
    (rest,) = exchange.calls()
    assert (rest.model, rest.fallbacks) == ("gemini-3-flash-preview", ("gemini-2.5-pro",))


def test_an_exchange_begun_again_begins_with_the_first_model() -> None:
    exchange = Exchange("chat", body(model="chain"), models=CHAIN)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, Target(model=call.fallbacks[1]))
    (again,) = exchange.again().calls()
    assert again == Call(0, call.model, call.fallbacks)


def test_choices_of_a_stream_open_in_order_whoever_answers_first() -> None:
    exchange = Exchange("chat", body(model="gemini-3-flash", n=2, stream=True))
    first, second = exchange.calls()
    for call in (first, second):
        exchange.begin_attempt(call, GEMINI)
    frames = exchange.feed(second, event({"text": "b"}, finish="STOP"))
    assert [json.loads(frame.data)["choices"][0]["index"] for frame in frames] == [0, 1, 1]
    assert exchange.call_committed(second)
    assert not exchange.call_committed(first)
    exchange.close(second)
    frames = exchange.feed(first, event({"text": "a"}, finish="STOP")) + exchange.close(first)
    assert frames[-1].data == b"[DONE]"
    assert exchange.finish_reasons == ("stop", "stop")


def test_the_failure_of_one_call_is_not_anothers() -> None:
    exchange = Exchange("chat", body(model="gemini-3-flash", n=2, stream=True))
    first, second = exchange.calls()
    for call in (first, second):
        exchange.begin_attempt(call, GEMINI)
    exchange.feed(first, event({"text": "a"}))
    error = b'data: {"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED"}}\n\n'
    (frame,) = exchange.feed(first, error)
    assert json.loads(frame.data)["error"]["code"] == "rate_limit_exceeded"
    assert exchange.feed(second, event({"text": "b"}, finish="STOP")) == ()
    assert exchange.close(second) == ()
    assert exchange.failure(first) is exchange.failed
    assert exchange.failure(second) is None
    assert exchange.fail(OaicompatError("late")) == ()


def test_an_error_before_the_first_frame_is_a_body_and_after_it_a_frame() -> None:
    exchange = Exchange("chat", body(stream=True))
    call, _ = begun(exchange)
    (frame,) = exchange.fail(UpstreamError("gone", status=502))
    assert json.loads(frame.data)["error"]["message"] == "gone"
    exchange = Exchange("chat", body(stream=True))
    call, _ = begun(exchange)
    exchange.feed(call, event({"text": "a"}))
    with_error = exchange.fail(UpstreamError("gone", status=502))
    assert [set(json.loads(frame.data)) for frame in with_error] == [{"error"}]


def test_only_streams_are_kept_alive() -> None:
    assert Exchange("chat", body(stream=True)).keepalive()[0].data.startswith(b":")
    assert Exchange("chat", body()).keepalive() == ()


def test_missing_signatures_are_needed_once_and_kept_after_the_answer() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    exchange = Exchange("chat", body(model="gemini-3-flash", messages=messages))
    assert exchange.needs().signatures == ("call_1",)
    exchange.supply(Supplies(signatures={"call_1": Signature("c2ln", "gemini")}))
    assert not exchange.needs()
    started, sent = begun(exchange)
    assert sent["contents"][1]["parts"][0]["thoughtSignature"] == "c2ln"
    called = {"functionCall": {"id": "n1", "name": "f", "args": {}}, "thoughtSignature": "bmV3"}
    whole(exchange, started, answer(called))
    (effect,) = exchange.effects()
    assert effect == RememberSignature("n1", Signature("bmV3", "gemini"))
    assert exchange.effects() == ()


def test_a_signature_that_nobody_has_is_asked_for_once() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ]
    exchange = Exchange("chat", body(model="gemini-3-flash", messages=messages))
    exchange.supply(Supplies())
    assert not exchange.needs()
    _, sent = begun(exchange)
    part = sent["contents"][1]["parts"][0]
    assert part["thoughtSignature"] == "skip_thought_signature_validator"


def test_media_are_needed_only_where_the_transport_fetches() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://e.com/a.png"}}
    asked = body(messages=[{"role": "user", "content": [image]}])
    assert not Exchange("chat", asked).needs()
    exchange = Exchange("chat", asked, options=Options(fetch_media=True))
    assert exchange.needs().media == ("https://e.com/a.png",)
    exchange.supply(Supplies(media={"https://e.com/a.png": ("image/png", "aGk=")}))
    _, sent = begun(exchange)
    assert sent["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}}
    ]


def test_signatures_of_several_backends_keep_their_own() -> None:
    exchange = Exchange("chat", body(model="gemini-3-flash", n=2))
    signed = {"text": "a", "thoughtSignature": "c2ln"}
    for call, target in zip(exchange.calls(), (GEMINI, VERTEX), strict=True):
        exchange.begin_attempt(call, target)
        exchange.feed(call, answer(signed))
        frames = exchange.close(call)
    choices = json.loads(frames[0].data)["choices"]
    tags = [choice["message"]["extra_content"]["google"]["backend"] for choice in choices]
    assert tags == ["gemini", "vertex"]


def test_images_and_code_may_stand_in_the_text() -> None:
    options = Options(answer=AnswerOptions(images="markdown", code="fenced"))
    exchange = Exchange("chat", body(), options=options)
    call, _ = begun(exchange)
    parts = (
        {"executableCode": {"language": "PYTHON", "code": "1+1"}},
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
    )
    message = whole(exchange, call, answer(*parts))["choices"][0]["message"]
    assert message["content"] == "\n```python\n1+1\n```\n![image](data:image/png;base64,aGk=)"
    assert "images" not in message


def test_tools_the_provider_runs_do_not_hide_the_clients_own() -> None:
    tools = [{"type": "function", "function": {"name": "mine"}}]
    passed = [{"functionDeclarations": [{"name": "mcp_read"}]}]
    for google, ran in (
        ({"tools": passed}, ()),
        ({"tools": [*passed, {"mcpServers": []}]}, ("theirs",)),
    ):
        asked = body(model="gemini-3-flash", tools=tools, extra_body={"google": google})
        exchange = Exchange("chat", asked)
        call, _ = begun(exchange)
        called = [{"functionCall": {"name": name}} for name in ("mine", "mcp_read", "theirs")]
        message = whole(exchange, call, answer(*called))["choices"][0]["message"]
        names = [each["function"]["name"] for each in message["tool_calls"]]
        assert [name for name in ("mine", "mcp_read", "theirs") if name not in names] == list(ran)


@pytest.mark.parametrize("absent", [None, []])
def test_a_responses_body_is_known_though_it_has_empty_messages(absent: Any) -> None:
    exchange = Exchange("chat", {"model": "gpt-4o", "messages": absent, "input": "hi"})
    _, sent = begun(exchange)
    assert sent["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]


def test_an_unknown_dialect_is_told() -> None:
    with pytest.raises(ValueError, match="chat"):
        Exchange("telex", body())


SECRET = "AIzaSyA1234567890abcdefghijklmnopqrstuv"


@pytest.mark.parametrize(
    "given",
    [
        {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": SECRET * 60}]},
        {"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": SECRET * 60}},
        {"error": {"code": 400, "message": SECRET * 60, "status": "INVALID_ARGUMENT"}},
    ],
)
def test_upstream_texts_reach_nobody_unscrubbed(given: dict[str, Any]) -> None:
    exchange = Exchange("chat", body())
    call, _ = begun(exchange)
    try:
        shown = json.dumps(whole(exchange, call, json.dumps(given).encode()))
    except OaicompatError as error:
        shown = error.message
    assert SECRET not in shown
    assert len(shown) < 1500


def test_a_number_of_candidates_that_is_passed_through_is_noted_and_not_sent() -> None:
    google = {"generation_config": {"candidate_count": 3, "top_k": 4}}
    exchange = Exchange("chat", body(extra_body={"google": google}))
    _, sent = begun(exchange)
    assert sent["generationConfig"] == {"topK": 4}
    path = "extra_body.google.generation_config.candidate_count"
    assert [(note.path, note.action) for note in exchange.notes] == [(path, "dropped")]
