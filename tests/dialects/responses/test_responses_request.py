"""Responses-shaped bodies to the neutral form."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from oaicompat.dialects import responses
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    CustomTool,
    FunctionTool,
    HostedTool,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from oaicompat.notes import Note, Notes
from oaicompat.sampling import Sampling


def decode(**fields: Any) -> tuple[Request, list[Note]]:
    notes = Notes()
    body = {"model": "m", "input": "hi"} | fields
    return responses.decode_request(msgspec.json.encode(body), notes), list(notes)


def clean(**fields: Any) -> Request:
    request, notes = decode(**fields)
    assert notes == []
    return request


def noted(**fields: Any) -> list[tuple[str, str, bool]]:
    return [(note.path, note.action, note.inert) for note in decode(**fields)[1]]


def refused(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decode(**fields)
    return caught.value


CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
PATCH = {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "*** Begin"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "r"}
PATCHED = {
    "type": "custom_tool_call_output",
    "call_id": "c2",
    "output": [{"type": "input_text", "text": "x"}],
}


def test_a_string_beside_instructions_is_one_user_turn_after_them() -> None:
    assert clean(instructions="be brief").messages == (
        Message("system", (Text("be brief"),), "instructions"),
        Message("user", (Text("hi"),), "input"),
    )


def test_messages_with_and_without_type() -> None:
    read = clean(
        input=[
            {"role": "developer", "content": "d"},
            {
                "type": "message",
                "role": "user",
                "id": "x",
                "content": [
                    {"type": "input_text", "text": "t"},
                    {"type": "input_image", "image_url": "https://a.b/c.png"},
                ],
            },
            {"role": "assistant", "status": "completed", "content": "a"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "b"}],
            },
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        ]
    ).messages
    assert [message.role for message in read] == ["system", "user", "assistant"]
    assert [type(part) for part in read[1].parts] == [Text, Media]
    assert read[2].parts == (Text("a"), Text("b"), Refusal("no"))
    assert read[2].path == "input[2]"


def test_calls_of_one_turn_stay_together_and_outputs_answer_them() -> None:
    read = clean(
        input=[{"role": "assistant", "content": "a"}, CALL, PATCH, PATCHED, OUTPUT]
    ).messages
    assert read == (
        Message(
            "assistant",
            (
                Text("a"),
                ToolCall("c1", "f", '{"a":1}', path="input[1]"),
                ToolCall("c2", "patch", "*** Begin", True, path="input[2]"),
            ),
            "input[0]",
        ),
        Message("tool", (ToolResult("c2", (Text("x"),), "patch", "input[3]"),), "input[3]"),
        Message("tool", (ToolResult("c1", (Text("r"),), "f", "input[4]"),), "input[4]"),
    )


@pytest.mark.parametrize(
    ("items", "status", "says"),
    [
        ([OUTPUT], 400, "No tool call found for function call output with call_id c1."),
        ([CALL], 400, "No tool output found for function call c1."),
        ([{"type": "item_reference", "id": "rs_1"}], 404, "Item with id 'rs_1' not found."),
        ([{"id": "rs_1"}], 404, "Item with id 'rs_1' not found."),
    ],
)
def test_items_that_do_not_match_are_refused_in_openais_words(
    items: Any, status: int, says: str
) -> None:
    error = refused(input=items)
    assert (error.status, error.param, error.code) == (status, "input", None)
    assert error.message.startswith(says)


def test_items_not_read_back_are_noted() -> None:
    reasoning: dict[str, Any] = {"type": "reasoning", "id": "rs", "summary": [], "content": None}
    items = [
        {"role": "user", "content": "hi"},
        reasoning,
        reasoning | {"encrypted_content": "abc"},
        {
            "type": "web_search_call",
            "id": "ws",
            "status": "completed",
            "action": {"type": "search"},
        },
    ]
    assert noted(input=items) == [
        ("input[1]", "dropped", True),
        ("input[2].encrypted_content", "dropped", False),
        ("input[3]", "dropped", True),
    ]


def test_flat_tools_choice_and_format() -> None:
    request = clean(
        tools=[
            {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True},
            {
                "type": "custom",
                "name": "patch",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"},
            },
            {"type": "web_search", "external_web_access": False},
        ],
        tool_choice={"type": "function", "name": "f"},
        text={
            "format": {
                "type": "json_schema",
                "name": "n",
                "schema": {"type": "object"},
                "strict": True,
            }
        },
        parallel_tool_calls=True,
    )
    assert request.tools == (
        FunctionTool("f", None, msgspec.Raw(b'{"type":"object"}'), True, "tools[0]"),
        CustomTool("patch", None, "lark", "start: x", "tools[1]"),
        HostedTool("web_search", msgspec.Raw(b'{"external_web_access":false}'), "tools[2]"),
    )
    assert request.tool_choice == ToolChoice("required", ("f",))
    assert request.output == OutputFormat(
        "json_schema", msgspec.Raw(b'{"type":"object"}'), "n", True, "text.format"
    )
    assert request.parallel_tool_calls is True


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"reasoning": {"effort": "low"}}, Reasoning("low", None, "reasoning.effort")),
        (
            {"reasoning": {"effort": "low", "summary": "auto"}},
            Reasoning("low", True, "reasoning.effort"),
        ),
        ({"reasoning": {"summary": "detailed"}}, Reasoning(None, True, "reasoning.effort")),
        ({"reasoning": None}, None),
    ],
)
def test_thoughts_are_shown_only_where_a_summary_is_asked_for(
    fields: Any, expected: Reasoning | None
) -> None:
    assert clean(**fields).reasoning == expected


def test_parameters() -> None:
    request = clean(
        max_output_tokens=20, temperature=1, top_p=0.5, stream=True, text={}, include=[]
    )
    assert request.sampling == Sampling(temperature=1, top_p=0.5, max_output_tokens=20)
    assert request.stream
    wanted = clean(include=["message.output_text.logprobs"], top_logprobs=3).sampling
    assert wanted == Sampling(logprobs=True, top_logprobs=3)
    assert decode(top_logprobs=3)[0].sampling == Sampling()
    assert noted(top_logprobs=3) == [("top_logprobs", "dropped", True)]


@pytest.mark.parametrize(
    ("fields", "inert"),
    [
        ({"store": True}, False),
        ({"client_metadata": {"a": "b"}}, True),
        ({"prompt_cache_key": "k"}, True),
        ({"truncation": "auto"}, False),
        ({"truncation": "disabled"}, True),
    ],
)
def test_fields_without_effect_are_noted(fields: dict[str, Any], inert: bool) -> None:
    [name] = fields
    assert noted(**fields) == [(name, "dropped", inert)]


def test_verbosity_is_noted() -> None:
    assert noted(text={"verbosity": "low"}) == [("text.verbosity", "dropped", False)]
    assert noted(text={"verbosity": "medium"}) == [("text.verbosity", "dropped", True)]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "missing_required_parameter"),
        ({"previous_response_id": "resp_x"}, "previous_response_id", "previous_response_not_found"),
        ({"conversation": {"id": "conv_x"}}, "conversation", None),
        (
            {"input": [{"type": "function_call", "call_id": "c"}]},
            "input[0].name",
            "missing_required_parameter",
        ),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "invalid_value"),
        (
            {
                "input": [
                    {"role": "user", "content": [{"type": "input_image", "image_url": "file:///a"}]}
                ]
            },
            *("input[0].content[0].image_url", "invalid_image_url"),
        ),
    ],
)
def test_what_cannot_be_served_names_its_field(fields: Any, param: str, code: str) -> None:
    error = refused(**fields)
    assert (error.param, error.code) == (param, code)
