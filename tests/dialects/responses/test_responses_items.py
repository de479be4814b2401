"""Items and tools that only Responses has, in both directions."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.support import responses_client as client

import oaicompat
from oaicompat.dialects import AnswerContext, responses
from oaicompat.errors import InvalidRequestError, OaicompatError, UpstreamError
from oaicompat.events import Opened, PartStart
from oaicompat.messages import FunctionTool, Request, Text, Thought
from oaicompat.notes import Notes
from oaicompat.signatures import Descriptor, Sealed, seal, unseal

Json = dict[str, Any]

NEWEST = "gemini-3.5-flash"
FORMED = [
    ("local_shell", {"command": ["ls", "-l"]}, "local_shell_call", "action"),
    ("shell", {"commands": ["pwd"], "timeout_ms": 5}, "shell_call", "action"),
    ("apply_patch", {"type": "delete_file", "path": "a"}, "apply_patch_call", "operation"),
    ("tool_search", {"query": "x"}, "tool_search_call", "arguments"),
]


def answered(parts: list[Json], **more: Any) -> list[Json]:
    answer = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    outcome = client.whole(client.ask(model=NEWEST, **more), {**answer, "responseId": "r"})
    assert outcome.error is None
    output: list[Json] = json.loads(outcome.sent)["output"]
    return output


def read(items: list[Json], **more: Any) -> tuple[Request, list[str]]:
    notes = Notes()
    body = client.ask(input=items, **more)
    request = responses.decode_request(msgspec.json.encode(body), notes)
    return request, [note.path for note in notes]


@pytest.mark.parametrize(("kind", "arguments", "item", "field"), FORMED)
def test_the_declaration_decides_the_form_of_a_call(
    kind: str, arguments: Json, item: str, field: str
) -> None:
    part = {"functionCall": {"name": kind, "args": arguments}}
    tool = {"type": kind} | ({"execution": "client"} if kind == "tool_search" else {})
    (reasoning, call) = answered([part], tools=[tool])
    assert reasoning["type"] == "reasoning"
    assert call["type"] == item
    assert call[field].items() >= arguments.items()
    (plain,) = answered([part], tools=[{"type": "function", "name": kind}])
    assert plain["type"] == "function_call"


@pytest.mark.parametrize(("kind", "arguments", "item", "field"), FORMED)
def test_a_call_in_its_own_form_goes_back_as_the_model_made_it(
    kind: str, arguments: Json, item: str, field: str
) -> None:
    part = {"functionCall": {"name": kind, "args": arguments}, "thoughtSignature": "c2ln"}
    tool = {"type": kind} | ({"execution": "client"} if kind == "tool_search" else {})
    output = answered([part], tools=[tool])
    result: Json = {"call_id": output[-1]["call_id"], "output": "done"}
    if kind == "shell":
        result["output"] = [{"stdout": "/", "stderr": "", "outcome": {"type": "timeout"}}]
    if kind == "tool_search":
        result = {**result, "output": None, "execution": "client", "tools": []}
    name = "tool_search_output" if kind == "tool_search" else f"{item}_output"
    request = client.ask(
        model=NEWEST,
        input=[{"role": "user", "content": "x"}, *output, {"type": name, **result}],
        tools=[tool],
    )
    call = oaicompat.openai_to_gemini(request, dialect="responses")
    assert call.body["contents"][1]["parts"] == [part]
    assert call.body["contents"][2]["parts"][0]["functionResponse"]["name"] == kind


def test_arguments_that_do_not_fit_the_form_are_a_function_call() -> None:
    part = {"functionCall": {"name": "shell", "args": {"command": "ls"}}}
    call = answered([part], tools=[{"type": "shell"}])[-1]
    assert (call["type"], call["name"], call["arguments"]) == (
        "function_call",
        "shell",
        '{"command":"ls"}',
    )


def test_a_changed_item_is_believed() -> None:
    part = {"functionCall": {"name": "local_shell", "args": {"command": ["ls"]}}}
    output = answered([part], tools=[{"type": "local_shell"}])
    output[-1]["action"]["command"] = ["pwd"]
    result = {"type": "local_shell_call_output", "id": output[-1]["call_id"], "output": "/"}
    request, _ = read([*output, result])
    (call,) = request.messages[0].parts
    assert getattr(call, "arguments", None) == '{"command":["pwd"]}'


def test_a_function_in_a_namespace_keeps_both_names() -> None:
    tools = [
        {"type": "namespace", "name": "a", "tools": [{"type": "function", "name": "f"}]},
        {"type": "namespace", "name": "b", "tools": [{"type": "custom", "name": "f"}]},
        {"type": "function", "name": "f"},
    ]
    names = ("a.f", "b.f", "f")
    parts = [{"functionCall": {"name": name, "args": {"input": "x"}}} for name in names]
    output = answered(parts, tools=tools)
    assert [(item["type"], item.get("namespace"), item["name"]) for item in output] == [
        ("function_call", "a", "f"),
        ("custom_tool_call", "b", "f"),
        ("function_call", None, "f"),
    ]
    request = client.follow_up(output, model=NEWEST, tools=tools)
    body = oaicompat.openai_to_gemini(request, dialect="responses").body
    assert [part["functionCall"]["name"] for part in body["contents"][1]["parts"]] == list(names)


def test_items_declare_tools_of_their_own() -> None:
    later = {"type": "function", "name": "late"}
    items: list[Json] = [
        {"type": "additional_tools", "role": "developer", "tools": [later, later]},
        {"role": "user", "content": "x"},
    ]
    request, _ = read(items, tools=[{"type": "function", "name": "early"}])
    assert request.tools == (
        FunctionTool("early", path="tools[0]"),
        FunctionTool("late", path="input[0].tools[0]"),
    )


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"type": "function", "name": "g"}, ("n.g",)),
        ({"type": "shell"}, ("shell",)),
        ({"type": "web_search"}, ("web_search",)),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "mcp", "server_label": "s"}, {"type": "function", "name": "g"}],
            },
            ("n.g",),
        ),
        ({"type": "mcp", "server_label": "s"}, None),
    ],
)
def test_choices(choice: Json, names: tuple[str, ...] | None) -> None:
    tools = [
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g"}]},
        {"type": "shell"},
        {"type": "web_search"},
    ]
    request, _ = read([{"role": "user", "content": "x"}], tools=tools, tool_choice=choice)
    assert (request.tool_choice and request.tool_choice.names) == names


def test_a_summary_sealed_here_is_read_and_another_is_noted() -> None:
    sealed = seal(Sealed(summary="they met"))
    items = [{"type": "compaction", "encrypted_content": text} for text in (sealed, "gAAAA")]
    request, noted = read([*items, {"role": "user", "content": "x"}])
    (first, _) = request.messages
    assert isinstance(first.parts[0], Text)
    assert first.parts[0].text.endswith("they met")
    assert noted == ["input[1].encrypted_content"]


@pytest.mark.parametrize(
    "text", ["", "oaic1.", "oaic1.AAAA", "oaic2.AAAA", "oaic1.é", seal(Sealed("gemini"))[:-3]]
)
def test_what_was_not_sealed_here_is_not_unsealed(text: str) -> None:
    assert unseal(text) is None


def test_sealed_content_is_what_it_was() -> None:
    content = Sealed("vertex", [Descriptor("text", 3)], [Descriptor("thought")], None, "é")
    assert unseal(seal(content)) == content


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"max_output_tokens": 15}, "max_output_tokens", "integer_below_min_value"),
        ({"tools": [{"type": "computer"}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [{"type": "namespace"}]}, "tools[0].name", "missing_required_parameter"),
        (
            {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}]},
            "tools[0].tools[0].name",
            "missing_required_parameter",
        ),
        (
            {"input": [{"type": "compaction_trigger"}, {"role": "user", "content": "x"}]},
            "input[0].type",
            "invalid_value",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]},
            "input[0].content[0].text",
            "invalid_type",
        ),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content", "invalid_type"),
    ],
)
def test_refusals_name_the_field(fields: Json, param: str, code: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read(**{"items": [{"role": "user", "content": "x"}], **_renamed(fields)})
    assert (caught.value.param, caught.value.code) == (param, code)
    assert f"'{param}'" in caught.value.message or code == "integer_below_min_value"


def _renamed(fields: Json) -> Json:
    return {("items" if name == "input" else name): value for name, value in fields.items()}


def test_an_upstream_refusal_names_the_fields_of_this_dialect() -> None:
    body = {"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}}
    body["error"]["details"] = [{"fieldViolations": [{"field": "contents[0].parts"}]}]
    exchange = oaicompat.Exchange("responses", client.ask())
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.receive_head(call, 400, {})
    exchange.feed(call, json.dumps(body).encode())
    with pytest.raises(UpstreamError) as caught:
        exchange.close(call)
    assert caught.value.param == "input"


def test_a_chat_body_is_answered_as_a_response() -> None:
    request = {"model": NEWEST, "messages": [{"role": "user", "content": "x"}], "n": 1}
    call = oaicompat.openai_to_gemini(request, dialect="responses")
    assert call.notes == ()
    answer = {"candidates": [{"content": {"parts": [{"text": "y"}]}, "finishReason": "STOP"}]}
    assert oaicompat.gemini_to_openai(answer, call)["object"] == "response"


def test_keepalives_are_numbered_and_only_come_within_the_stream() -> None:
    encoder = responses.encoder(AnswerContext(Request("m", ()), "m"))
    assert encoder.keepalive() == []
    encoder.encode([Opened("r")])
    (frame,) = encoder.keepalive()
    assert (frame.name, frame.sequence) == ("keepalive", 2)
    assert json.loads(frame.data) == {"type": "keepalive", "sequence_number": 2}


def test_a_failure_closes_what_is_open_and_ends_the_stream_once() -> None:
    encoder = responses.encoder(AnswerContext(Request("m", ()), "m"))
    encoder.encode([Opened("r"), PartStart(0, Thought("hm"))])
    frames = encoder.fail(OaicompatError("gone", code="odd"))
    assert [frame.name for frame in frames] == [
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "error",
        "response.failed",
        "",
    ]
    assert encoder.fail(OaicompatError("again")) == []
    assert encoder.keepalive() == []


def test_calls_and_images_made_while_thinking_come_back_as_such() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}, "thought": True}
    parts = [{"functionCall": {"name": "f", "args": {}}, "thought": True}, image]
    request = client.follow_up(answered(parts), model=NEWEST)
    body = oaicompat.openai_to_gemini(request, dialect="responses").body
    assert body["contents"][1]["parts"][0] == parts[0]
