"""What a request continues and what its answer leaves, with a store that is a dictionary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.driving import MODEL
from tests.support.responses_client import findings

import oaicompat
from oaicompat import Exchange, InvalidRequestError, Item, KeepResponse, Options, Supplies, Target
from oaicompat.dialects import Keep
from oaicompat.errors import OaicompatError, UpstreamError
from oaicompat.mapper import sse_bytes

Json = dict[str, Any]
CALLED = {"functionCall": {"id": "n1", "name": "look", "args": {"at": "sky"}}}
NOTHING = Supplies()
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}


def chunk(*parts: Json, finish: str | None = "STOP") -> bytes:
    candidate = {"content": {"parts": list(parts)}, "finishReason": finish}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2}
    return json.dumps({"candidates": [candidate], "usageMetadata": usage}).encode()


def begin(body: Json, found: Supplies = NOTHING, keep: Keep = "stored", **more: Any) -> Exchange:
    exchange = Exchange(
        more.pop("dialect", "responses"),
        {"model": MODEL, **body},
        created=7,
        new_id=lambda: "new",
        options=Options(keep=keep),
        **more,
    )
    while exchange.needs():
        exchange.supply(found)
    return exchange


def sent(exchange: Exchange) -> Json:
    (call,) = exchange.calls()
    body: Json = json.loads(exchange.begin_attempt(call, oaicompat.GEMINI_API).body)
    return body


def answered(exchange: Exchange, *parts: Json, finish: str = "STOP") -> tuple[Json, KeepResponse]:
    """Drive a whole answer; return the reply's body and what it leaves."""
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    assert exchange.feed(call, chunk(*parts, finish=finish)) == ()
    assert exchange.close(call) == ()
    exchange.effects()
    (frame,) = exchange.conclude()
    (effect,) = exchange.effects()
    assert isinstance(effect, KeepResponse)
    return json.loads(frame.data), effect


def stored(*items: Json) -> tuple[Item, ...]:
    return tuple(Item(item.get("id", "x"), json.dumps(item).encode()) for item in items)


def texts(body: Json) -> list[tuple[str, str]]:
    return [
        (content["role"], part.get("text", ""))
        for content in body["contents"]
        for part in content["parts"]
    ]


def test_what_an_answer_leaves_is_all_of_it() -> None:
    reply, kept = answered(begin({"input": "Hello", "instructions": "Be kind."}), {"text": "Hi."})
    assert kept.id == reply["id"] == "resp_new"
    assert (reply["store"], kept.store, kept.created) == (True, True, 7)
    assert json.loads(kept.body) == reply
    (said,) = [json.loads(item.body) for item in kept.input]
    assert said == {
        "id": "msg_new_in0",
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "Hello"}],
    }
    assert [json.loads(item.body) for item in kept.output] == reply["output"]
    assert [item.id for item in kept.output] == [item["id"] for item in reply["output"]]
    assert findings("response-stream", sse_bytes(kept.frames)) == []
    assert json.loads(kept.frames[-2].data)["response"] == reply


def test_a_stream_ends_only_when_it_was_kept() -> None:
    exchange = begin({"input": "Hello", "stream": True})
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    frames = [
        *exchange.feed(call, b"data: " + chunk({"text": "Hi."}) + b"\n\n"),
        *exchange.close(call),
    ]
    assert frames[-1].name == "response.output_item.done"
    assert exchange.calls() == ()
    assert exchange.effects() == ()
    ending = exchange.conclude()
    assert [frame.name for frame in ending] == ["response.completed", ""]
    (kept,) = exchange.effects()
    assert isinstance(kept, KeepResponse)
    assert kept.frames == (*frames, *ending)
    assert findings("response-stream", sse_bytes(kept.frames)) == []
    assert exchange.conclude() == ()


def test_an_ending_that_could_not_be_kept_is_taken_back() -> None:
    exchange = begin({"input": "Hello", "stream": True})
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    frames = [*exchange.feed(call, b"data: " + chunk({"text": "Hi."}) + b"\n\n")]
    frames += exchange.close(call)
    assert exchange.conclude()
    frames += exchange.fail(OaicompatError("The disk is full.", status=503))
    assert [frame.name for frame in frames[-3:]] == ["error", "response.failed", ""]
    assert findings("response-stream", sse_bytes(frames)) == []
    (kept,) = exchange.effects()
    assert isinstance(kept, KeepResponse)
    assert kept.failed
    assert kept.frames == tuple(frames)
    assert exchange.fail(OaicompatError("again")) == ()


@pytest.mark.parametrize(
    ("body", "keep", "store"),
    [
        ({"store": False}, "stored", None),
        ({"store": False}, "all", False),
        ({"store": None}, "stored", True),
        ({}, "", None),
        ({"store": False, "conversation": "conv_1"}, "stored", False),
    ],
)
def test_store_says_whether_it_is_kept(body: Json, keep: Keep, store: bool | None) -> None:
    exchange = begin({"input": "x", **body}, Supplies(conversations={"conv_1": ()}), keep)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.feed(call, chunk({"text": "y"}))
    frames = exchange.close(call) + exchange.conclude()
    assert json.loads(frames[0].data)["store"] is bool(store)
    kept = [effect.store for effect in exchange.effects() if isinstance(effect, KeepResponse)]
    assert kept == ([] if store is None else [store])


def test_storing_where_there_is_no_store_is_noted() -> None:
    call = oaicompat.openai_to_gemini(
        {"model": MODEL, "input": "x", "store": True, "background": True}, dialect="responses"
    )
    assert [note.path for note in call.notes] == ["store", "background"]


def test_a_response_goes_on_from_another() -> None:
    past = stored(
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "two", "annotations": []}],
        },
    )  # fmt: skip
    exchange = begin(
        {"input": "three", "previous_response_id": "resp_1"},
        Supplies(responses={"resp_1": past}),
    )
    assert texts(sent(exchange)) == [("user", "one"), ("model", "two"), ("user", "three")]
    assert exchange.notes == ()


def test_what_an_answer_continued_is_told_but_not_kept_again() -> None:
    found = Supplies(responses={"resp_1": stored({"role": "user", "content": "one"})})
    reply, kept = answered(
        begin({"input": "two", "previous_response_id": "resp_1"}, found), {"text": "x"}
    )
    assert reply["previous_response_id"] == kept.previous == "resp_1"
    assert len(kept.input) == 1


def test_instructions_are_not_inherited() -> None:
    found = Supplies(responses={"resp_1": stored({"role": "user", "content": "one"})})
    body = sent(
        begin({"input": "two", "previous_response_id": "resp_1", "instructions": "new"}, found)
    )
    assert body["systemInstruction"]["parts"] == [{"text": "new"}]


def test_signatures_survive_in_what_is_stored() -> None:
    signed = {**CALLED, "thoughtSignature": "c2ln"}
    _, kept = answered(begin({"input": "x", "tools": [LOOK], "model": "gemini-3.5-flash"}), signed)
    answer = {"type": "function_call_output", "call_id": "n1", "output": "blue"}
    follow = begin(
        {"input": [answer], "tools": [LOOK], "previous_response_id": kept.id, "model": "gemini-3.5-flash"},
        Supplies(responses={kept.id: (*kept.input, *kept.output)}),
    )  # fmt: skip
    body = sent(follow)
    assert body["contents"][1]["parts"] == [signed]


@pytest.mark.parametrize(
    ("body", "status", "param", "code", "message"),
    [
        (
            {"previous_response_id": "resp_x"},
            400,
            "previous_response_id",
            "previous_response_not_found",
            "Previous response with id 'resp_x' not found.",
        ),
        ({"conversation": "conv_x"}, 404, "conversation", None, "Conversation with id 'conv_x' not found."),
        ({"conversation": {"id": "conv_x"}}, 404, "conversation", None, "Conversation with id 'conv_x'"),
        (
            {"conversation": "conv_x", "previous_response_id": "resp_x"},
            400,
            "previous_response_id",
            "mutually_exclusive_parameters",
            "Mutually exclusive parameters",
        ),
        (
            {"input": [{"type": "item_reference", "id": "rs_x"}]},
            404,
            "input",
            None,
            "Item with id 'rs_x' not found. Items are not persisted when `store` is set to false. Try again "
            "with `store` set to true, or remove this item from your input.",
        ),
        ({"input": [{"id": "rs_x"}]}, 404, "input", None, "Item with id 'rs_x' not found."),
        ({"background": True, "store": False}, 400, "background", "invalid_value", "Background mode"),
    ],
)  # fmt: skip
def test_what_is_not_there(
    body: Json, status: int, param: str, code: str | None, message: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        begin({"input": "x", **body})
    error = caught.value
    assert (error.status, error.param, error.code) == (status, param, code)
    assert error.message.startswith(message)


@pytest.mark.parametrize(
    ("past", "input", "message"),
    [
        (
            [{"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}],
            "and now?",
            "No tool output found for function call c1.",
        ),
        (
            [{"role": "user", "content": "x"}],
            [{"type": "function_call_output", "call_id": "c2", "output": "y"}],
            "No tool call found for function call output with call_id c2.",
        ),
    ],
)
def test_calls_and_outputs_match_over_requests(past: list[Json], input: Any, message: str) -> None:
    found = Supplies(responses={"resp_1": stored(*past)})
    with pytest.raises(InvalidRequestError) as caught:
        begin({"input": input, "previous_response_id": "resp_1", "tools": [LOOK]}, found)
    assert (caught.value.message, caught.value.param) == (message, "input")


def test_an_item_reference_stands_for_the_item() -> None:
    said = {"type": "message", "id": "msg_9", "role": "assistant", "content": "earlier"}
    items: Mapping[str, Item] = {"msg_9": stored(said)[0]}
    body = {
        "input": [
            {"role": "user", "content": "a"},
            {"type": "item_reference", "id": "msg_9"},
            {"role": "user", "content": "b"},
        ]
    }
    exchange = begin(body, Supplies(items=items))
    _, kept = answered(exchange, {"text": "c"})
    assert kept.input[1] == items["msg_9"]
    assert texts(sent(begin(body, Supplies(items=items)))) == [
        ("user", "a"),
        ("model", "earlier"),
        ("user", "b"),
    ]


def test_a_conversation_goes_on() -> None:
    found = Supplies(conversations={"conv_1": stored({"role": "user", "content": "one"})})
    reply, kept = answered(begin({"input": "two", "conversation": "conv_1"}, found), {"text": "x"})
    assert reply["conversation"] == {"id": "conv_1"}
    assert kept.conversation == "conv_1"
    assert [json.loads(item.body)["content"][0]["text"] for item in kept.input] == ["two"]


def test_a_background_response_is_told_of_before_it_begins() -> None:
    exchange = begin({"input": "x", "background": True})
    assert (exchange.background, exchange.followed, exchange.streaming) == (True, False, True)
    frames = [*exchange.announce()]
    assert [frame.name for frame in frames] == ["response.created", "response.queued"]
    (begun,) = exchange.effects()
    assert isinstance(begun, KeepResponse)
    assert begun.running
    assert json.loads(begun.body)["status"] == "queued"
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    frames += exchange.feed(call, b"data: " + chunk({"text": "Hi."}) + b"\n\n")
    frames += exchange.close(call)
    frames += exchange.conclude()
    (whole,) = exchange.effects()
    assert isinstance(whole, KeepResponse)
    assert whole.frames == tuple(frames)
    assert (whole.running, json.loads(whole.body)["status"]) == (False, "completed")
    assert [frame.sequence for frame in frames[:-1]] == list(range(len(frames) - 1))
    assert frames[2].name == "response.in_progress"


def test_a_background_response_fails_in_band() -> None:
    exchange = begin({"input": "x", "background": True})
    exchange.announce()
    exchange.effects()
    frames = exchange.fail(OaicompatError("no", status=503))
    assert [frame.name for frame in frames] == ["error", "response.failed", ""]
    (kept,) = exchange.effects()
    assert isinstance(kept, KeepResponse)
    assert kept.failed


def test_a_silent_answer_takes_no_call() -> None:
    exchange = begin({"input": "x", "stream": True}, keep="all", silent=True)
    assert exchange.calls() == ()
    frames = exchange.conclude()
    assert [frame.name for frame in frames] == [
        "response.created",
        "response.in_progress",
        "response.completed",
        "",
    ]
    (kept,) = exchange.effects()
    assert isinstance(kept, KeepResponse)
    assert (len(kept.input), kept.output) == (1, ())
    assert findings("response-stream", sse_bytes(frames)) == []


def test_what_came_in_as_chat_is_not_kept() -> None:
    exchange = begin({"messages": [{"role": "user", "content": "x"}]})
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.feed(call, chunk({"text": "y"}))
    (frame,) = exchange.close(call)
    assert json.loads(frame.data)["store"] is False
    assert exchange.effects() == ()


def test_a_trigger_compacts_what_came_before() -> None:
    talk = [
        {"role": "user", "content": "My dog is called Rex."},
        {"role": "assistant", "content": "Noted."},
    ]
    exchange = begin({"input": [*talk, {"type": "compaction_trigger"}], "tools": [LOOK]}, keep="")
    body = sent(exchange)
    assert texts(body)[:2] == [("user", "My dog is called Rex."), ("model", "Noted.")]
    assert len(texts(body)) == 3
    assert body["toolConfig"]["functionCallingConfig"]["mode"] == "NONE"
    exchange = begin({"input": [*talk, {"type": "compaction_trigger"}], "stream": True}, keep="")
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    thought = {"text": "hm", "thought": True}
    frames = exchange.feed(call, b"data: " + chunk(thought, {"text": "Rex."}) + b"\n\n")
    frames += exchange.close(call)
    assert findings("response-stream", sse_bytes(frames)) == []
    (item,) = json.loads(frames[-2].data)["response"]["output"]
    assert item["type"] == "compaction"
    go_on = begin({"input": [item, {"role": "user", "content": "Who?"}]})
    (_, summary), (_, asked) = texts(sent(go_on))
    assert summary.endswith("Rex.")
    assert asked == "Who?"


def test_a_stored_conversation_is_read_from_its_summary_on() -> None:
    talk = [{"role": "user", "content": "long"}, {"type": "compaction_trigger"}]
    _, kept = answered(begin({"input": talk}), {"text": "short"})
    assert [json.loads(item.body)["content"][0]["text"] for item in kept.input] == ["long"]
    follow = begin(
        {"input": "next", "previous_response_id": kept.id},
        Supplies(responses={kept.id: (*kept.input, *kept.output)}),
    )
    said = [text for _, text in texts(sent(follow))]
    assert "long" not in said
    assert said[0].endswith("short")


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer_without_a_summary_is_an_error(streaming: bool) -> None:
    body = {"input": [{"role": "user", "content": "x"}, {"type": "compaction_trigger"}]}
    exchange = begin(body, keep="", streaming=streaming)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    data = chunk({"text": "half"}, finish="MAX_TOKENS")
    data = b"data: " + data + b"\n\n" if streaming else data
    exchange.feed(call, data)
    with pytest.raises(UpstreamError, match="no whole summary"):
        exchange.close(call)


def test_compact_keeps_what_the_user_said() -> None:
    said = {"type": "message", "id": "msg_1", "role": "user", "content": "one"}
    past = stored(said, {"type": "message", "role": "assistant", "content": "two"})
    exchange = begin(
        {"input": "three", "previous_response_id": "resp_1", "stream": True},
        Supplies(responses={"resp_1": past}),
        dialect="responses/compact",
    )
    assert exchange.streaming is False
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.feed(call, chunk({"text": "short"}))
    (frame,) = exchange.close(call)
    reply = json.loads(frame.data)
    assert (reply["id"], reply["object"], reply["created_at"]) == (
        "resp_new",
        "response.compaction",
        7,
    )
    assert [item["type"] for item in reply["output"]] == ["message", "message", "compaction"]
    assert [item["id"] for item in reply["output"]] == ["msg_1", "msg_new_in0", "cmp_new_0"]
    assert reply["usage"]["total_tokens"] == 5
    body = sent(begin({"input": [*reply["output"], {"role": "user", "content": "four"}]}))
    lines = [text for _, text in texts(body)]
    assert (lines[0], lines[1], lines[3]) == ("one", "three", "four")
    assert lines[2].endswith("short")


def test_compact_needs_a_model() -> None:
    with pytest.raises(InvalidRequestError):
        Exchange("responses/compact", {"input": "x"})


@pytest.mark.parametrize("backend", ["gemini", "vertex"])
def test_input_tokens_are_counted(backend: Any) -> None:
    body = {"input": "x", "instructions": "y", "tools": [LOOK], "stream": True}
    exchange = begin(body, dialect="responses/input_tokens")
    (call,) = exchange.calls()
    target = Target(backend=backend, project="a-project" if backend == "vertex" else "")
    request = exchange.begin_attempt(call, target)
    assert request.url.endswith(":countTokens")
    asked = json.loads(request.body)
    if backend == "gemini":
        assert asked["generateContentRequest"]["model"] == f"models/{exchange.model}"
        asked = asked["generateContentRequest"]
    assert {"contents", "systemInstruction", "tools"} <= set(asked)
    exchange.feed(call, b'{"totalTokens": 31}')
    (frame,) = exchange.close(call)
    assert json.loads(frame.data) == {"object": "response.input_tokens", "input_tokens": 31}


def test_a_count_that_cannot_be_read_is_the_upstreams_fault() -> None:
    exchange = begin({"input": "x"}, dialect="responses/input_tokens")
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.feed(call, b"<html>")
    with pytest.raises(UpstreamError):
        exchange.close(call)


def test_regression_what_was_never_supplied_is_told_as_missing() -> None:
    body = {"model": "gpt-5", "input": "hi", "previous_response_id": "resp_1"}
    exchange = Exchange("responses", body)
    assert exchange.notes == ()
    with pytest.raises(InvalidRequestError) as caught:
        exchange.calls()
    assert caught.value.param == "previous_response_id"
