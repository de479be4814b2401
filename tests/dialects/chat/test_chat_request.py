"""Chat requests: parameters, tools, and the form of the answer."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from oaicompat.dialects import chat
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    AudioOutput,
    CustomTool,
    FunctionTool,
    HostedTool,
    Message,
    OutputFormat,
    Reasoning,
    Request,
    Text,
    ToolChoice,
)
from oaicompat.notes import Note, Notes
from oaicompat.sampling import Sampling

USER = {"role": "user", "content": "hi"}
F = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
G = {"type": "function", "name": "g"}


def decode(**fields: Any) -> tuple[Request, list[Note]]:
    notes = Notes()
    body = {"model": "m", "messages": [USER]} | fields
    return chat.decode_request(msgspec.json.encode(body), notes), list(notes)


def clean(**fields: Any) -> Request:
    request, notes = decode(**fields)
    assert notes == []
    return request


def noted(**fields: Any) -> list[tuple[str, str, bool]]:
    return [(note.path, note.action, note.inert) for note in decode(**fields)[1]]


def refused(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decode(**fields)
    assert caught.value.status == 400
    return caught.value


def test_a_minimal_request_says_nothing_the_client_did_not() -> None:
    request = clean()
    message = Message("user", (Text("hi"),), "messages[0]")
    assert msgspec.structs.replace(request, spelling={}) == Request("m", (message,))


def test_scalar_parameters_reach_the_request_under_their_neutral_names() -> None:
    request = clean(
        temperature=0, top_p=0, top_k=3, n=2, seed=0, presence_penalty=-1, frequency_penalty=1
    )
    assert request.sampling == Sampling(
        temperature=0,
        top_p=0,
        top_k=3,
        candidates=2,
        seed=0,
        presence_penalty=-1,
        frequency_penalty=1,
    )
    assert request.spelled("candidates") == "n"


def test_null_is_absent_everywhere() -> None:
    names = (
        "temperature top_p n seed stop stream stream_options tools tool_choice functions modalities"
        " function_call response_format max_tokens max_completion_tokens audio metadata user store"
        " logit_bias prediction verbosity reasoning_effort reasoning service_tier web_search_options"
        " parallel_tool_calls logprobs top_logprobs extra_body google instructions moderation"
    )
    assert clean(**dict.fromkeys(names.split())) == clean()


@pytest.mark.parametrize(
    ("fields", "limit", "spelled", "notes"),
    [
        ({"max_tokens": 7}, 7, "max_tokens", []),
        ({"max_completion_tokens": 8}, 8, "max_completion_tokens", []),
        ({"max_output_tokens": 9}, 9, "max_output_tokens", []),
        ({"max_tokens": 8, "max_completion_tokens": 8}, 8, "max_completion_tokens", []),
        (
            {"max_tokens": 7, "max_completion_tokens": 8},
            8,
            "max_completion_tokens",
            [("max_tokens", "dropped", False)],
        ),
    ],
)
def test_the_newer_name_of_the_token_limit_wins(
    fields: dict[str, int], limit: int, spelled: str, notes: list[tuple[str, str, bool]]
) -> None:
    request, _ = decode(**fields)
    assert request.sampling.max_output_tokens == limit
    assert request.spelled("max_output_tokens") == spelled
    assert noted(**fields) == notes


def test_logprobs() -> None:
    assert clean(logprobs=True, top_logprobs=0).sampling == Sampling(logprobs=True, top_logprobs=0)
    assert refused(top_logprobs=2).param == "top_logprobs"
    assert refused(top_logprobs=2, logprobs=False).param == "top_logprobs"
    assert refused(top_logprobs=21, logprobs=True).code == "integer_above_max_value"


def test_stop_is_a_list_of_at_most_five() -> None:
    assert clean(stop="END").stop == ("END",)
    assert clean(stop=["a", "b", "c", "d", "e"]).stop == ("a", "b", "c", "d", "e")
    error = refused(stop=["a"] * 6)
    assert (error.param, error.code) == ("stop", "array_above_max_length")


def test_streaming_and_its_options() -> None:
    request = clean(stream=True, stream_options={"include_usage": True})
    assert request.stream
    assert request.include_usage
    options = {"include_usage": False, "include_obfuscation": True}
    assert noted(stream=True, stream_options=options) == [
        ("stream_options.include_obfuscation", "dropped", True)
    ]


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max"])
def test_an_effort_shows_the_thoughts_unless_it_is_none(effort: str) -> None:
    expected = Reasoning(effort, effort != "none", "reasoning_effort")
    assert clean(reasoning_effort=effort).reasoning == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"reasoning": {"effort": "low"}}, Reasoning("low", True, "reasoning.effort")),
        (
            {"reasoning": {"effort": "low", "exclude": True}},
            Reasoning("low", False, "reasoning.effort"),
        ),
        ({"reasoning": {"summary": "auto"}}, Reasoning(None, True)),
        ({"include_reasoning": True}, Reasoning(None, True)),
        ({"reasoning": {}}, None),
    ],
)
def test_other_ways_to_ask_for_reasoning(fields: Any, expected: Reasoning | None) -> None:
    assert clean(**fields).reasoning == expected


def test_an_unknown_effort_is_refused_with_the_known_ones() -> None:
    error = refused(reasoning_effort="extreme")
    assert (error.param, error.code) == ("reasoning_effort", "invalid_value")
    assert "'high', 'low', 'max', 'medium', 'minimal', 'none', and 'xhigh'" in error.message


@pytest.mark.parametrize(
    ("form", "kind", "name", "schema", "strict", "path"),
    [
        ({"type": "json_object"}, "json_object", None, None, False, "response_format"),
        (
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"z": 1, "a": 2}, "strict": True},
            },
            *("json_schema", "n", b'{"z":1,"a":2}', True, "response_format.json_schema"),
        ),
        (
            {"type": "json_schema", "name": "n", "schema": {"z": 1}},
            *("json_schema", "n", b'{"z":1}', False, "response_format"),
        ),
    ],
)
def test_forms_of_the_answer(
    form: Any, kind: Any, name: str | None, schema: bytes | None, strict: bool, path: str
) -> None:
    raw = None if schema is None else msgspec.Raw(schema)
    assert clean(response_format=form).output == OutputFormat(kind, raw, name, strict, path)


def test_plain_text_is_no_form() -> None:
    assert clean(response_format={"type": "text"}).output is None


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {}}, "response_format.json_schema.name"),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": [1]}},
            "response_format.json_schema.schema",
        ),
        ({"type": "xml"}, "response_format.type"),
        ({}, "response_format.type"),
        ("json_object", "response_format"),
    ],
)
def test_forms_that_are_none(form: Any, param: str) -> None:
    assert refused(response_format=form).param == param


def test_tools_nested_flat_and_hosted_keep_their_order() -> None:
    grammar = {"syntax": "lark", "definition": "start: x"}
    request = clean(
        tools=[
            F,
            G | {"description": "d", "strict": True},
            {
                "type": "custom",
                "custom": {"name": "c", "format": {"type": "grammar", "grammar": grammar}},
            },
            {"type": "custom", "name": "ApplyPatch", "format": {"type": "grammar"} | grammar},
            {"type": "custom", "custom": {"name": "t", "format": {"type": "text"}}},
            {"type": "web_search_preview", "search_context_size": "low"},
            {"type": "google_search"},
            {"type": "code_interpreter", "container": {"type": "auto"}},
            {"type": "url_context"},
        ]
    )
    assert request.tools == (
        FunctionTool("f", None, msgspec.Raw(b'{"type":"object"}'), path="tools[0].function"),
        FunctionTool("g", "d", None, True, "tools[1]"),
        CustomTool("c", None, "lark", "start: x", "tools[2].custom"),
        CustomTool("ApplyPatch", None, "lark", "start: x", "tools[3]"),
        CustomTool("t", path="tools[4].custom"),
        HostedTool("web_search", msgspec.Raw(b'{"search_context_size":"low"}'), "tools[5]"),
        HostedTool("web_search", None, "tools[6]"),
        HostedTool("code_execution", msgspec.Raw(b'{"container":{"type":"auto"}}'), "tools[7]"),
        HostedTool("url_context", None, "tools[8]"),
    )


def test_a_schema_stays_as_the_client_wrote_it() -> None:
    schema = b'{ "type" : "object", "properties":{"z":{"minimum":1.0},"a":{"const":1e2}} }'
    body = (
        b'{"model":"m","zip":1,"messages":[{"role":"user","content":"hi"}],"tools":'
        b'[{"type":"function","function":{"name":"f","parameters":' + schema + b"}}]}"
    )
    tool = chat.decode_request(body, Notes()).tools[0]
    assert isinstance(tool, FunctionTool)
    assert tool.parameters == msgspec.Raw(schema)


def test_tools_nobody_serves_are_dropped_and_the_others_keep_their_paths() -> None:
    tools = [{"type": "namespace", "name": "n", "tools": [G]}, {"type": "tool_search"}, G]
    request, _ = decode(tools=tools)
    assert request.tools == (FunctionTool("g", path="tools[2]"),)
    assert noted(tools=tools) == [("tools[0]", "dropped", False), ("tools[1]", "dropped", False)]


def test_extra_keys_on_tools_are_inert() -> None:
    tool = G | {"defer_loading": True, "cache_control": {"type": "ephemeral"}}
    assert noted(tools=[tool]) == [
        ("tools[0].cache_control", "dropped", True),
        ("tools[0].defer_loading", "dropped", True),
    ]


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([F, F], "tools[1].function.name"),
        ([F, {"type": "custom", "name": "f"}], "tools[1].name"),
        ([{"type": "function"}], "tools[0].name"),
        ([{"type": "function", "function": {"name": ""}}], "tools[0].function.name"),
        ([{"type": "custom"}], "tools[0].name"),
        ([{"description": "d"}], "tools[0].type"),
        ([{"type": "function", "name": "f", "parameters": "x"}], "tools[0].parameters"),
        ([G] * 513, "tools"),
    ],
)
def test_tools_that_are_none(tools: Any, param: str) -> None:
    assert refused(tools=tools).param == param


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", ToolChoice("none")),
        ("auto", ToolChoice("auto")),
        ("required", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("required", ("f",))),
        ({"type": "function", "name": "g"}, ToolChoice("required", ("g",))),
        ({"type": "custom", "custom": {"name": "g"}}, ToolChoice("required", ("g",))),
        ({"type": "web_search_preview"}, ToolChoice("required", ("web_search",))),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [F | {"function": {"name": "f"}}]},
            },
            ToolChoice("auto", ("f",)),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [G, {"type": "function", "name": "f"}],
            },
            ToolChoice("required", ("g", "f")),
        ),
    ],
)
def test_tool_choices(choice: Any, expected: ToolChoice) -> None:
    tools = [F, G, {"type": "web_search"}]
    assert clean(tools=tools, tool_choice=choice).tool_choice == expected


@pytest.mark.parametrize(
    ("choice", "tools"),
    [
        ({"type": "function", "function": {"name": "other"}}, [F]),
        ({"type": "function"}, [F]),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, [F]),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"name": "o"}]}},
            [F],
        ),
        ("required", []),
        ("any", [F]),
        ({"type": "function", "function": {"name": "f"}}, None),
    ],
)
def test_choices_of_tools_that_are_not_there(choice: Any, tools: Any) -> None:
    assert refused(tool_choice=choice, tools=tools).param == "tool_choice"


def test_a_choice_without_tools_changes_nothing() -> None:
    assert decode(tool_choice="auto", tools=[])[0].tool_choice is None
    assert noted(tool_choice="none") == [("tool_choice", "dropped", True)]


def test_legacy_functions_are_tools_and_mark_the_answer() -> None:
    functions = [{"name": "f", "description": "d", "parameters": {}}]
    request = clean(functions=functions, function_call={"name": "f"})
    assert request.legacy_functions
    assert request.tools == (FunctionTool("f", "d", msgspec.Raw(b"{}"), path="functions[0]"),)
    assert request.tool_choice == ToolChoice("required", ("f",), "function_call")
    assert clean(functions=functions, function_call="none").tool_choice == ToolChoice(
        "none", path="function_call"
    )
    assert refused(functions=functions, function_call={"name": "g"}).param == "function_call"


def test_tools_win_over_legacy_functions() -> None:
    request, _ = decode(functions=[{"name": "x"}], function_call="auto", tools=[F])
    assert not request.legacy_functions
    assert [path for path, *_ in noted(functions=[{"name": "x"}], tools=[F])] == ["functions"]


def test_speech() -> None:
    request = clean(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"})
    assert request.modalities == ("text", "audio")
    assert request.audio == AudioOutput("alloy", "wav")
    custom = clean(
        modalities=["audio"], audio={"voice": {"id": "v"}, "format": "pcm16"}, stream=True
    )
    assert custom.audio == AudioOutput("v", "pcm16")


@pytest.mark.parametrize("form", ["aac", "mp3", "flac", "opus"])
def test_compressed_speech_is_refused(form: str) -> None:
    error = refused(modalities=["audio"], audio={"voice": "alloy", "format": form})
    assert (error.param, error.code) == ("audio.format", "unsupported_value")
    assert "'wav' and 'pcm16'" in error.message


def test_wav_cannot_be_streamed() -> None:
    error = refused(modalities=["audio"], audio={"voice": "alloy", "format": "wav"}, stream=True)
    assert (error.param, error.code) == ("audio.format", "unsupported_value")


def test_audio_without_parameters_and_parameters_without_audio() -> None:
    assert refused(modalities=["audio"]).code == "missing_required_parameter"
    assert noted(audio={"voice": "alloy", "format": "wav"}) == [("audio", "dropped", True)]


def test_search_options_are_a_hosted_tool_with_the_clients_options() -> None:
    request = clean(web_search_options={"search_context_size": "low"}, tools=[F])
    assert request.tools[1] == HostedTool(
        "web_search", msgspec.Raw(b'{"search_context_size":"low"}'), "web_search_options"
    )
    assert clean(web_search_options={}).tools == (
        HostedTool("web_search", None, "web_search_options"),
    )


@pytest.mark.parametrize("path", ["extra_body.google", "google"])
def test_googles_pass_through_by_name(path: str) -> None:
    google = {"thinking_config": {"include_thoughts": True}, "cached_content": "c"}
    fields = {"google": google} if path == "google" else {"extra_body": {"google": google}}
    request = clean(**fields)
    assert request.extra == {
        "thinking_config": msgspec.Raw(b'{"include_thoughts":true}'),
        "cached_content": msgspec.Raw(b'"c"'),
    }
    assert request.spelled("extra") == path
    broken = {"google": [1]} if path == "google" else {"extra_body": {"google": [1]}}
    assert refused(**broken).param == path


def test_other_fields_of_a_literal_extra_body_are_noted() -> None:
    assert noted(extra_body={"top_k": 3}) == [("extra_body.top_k", "dropped", False)]


@pytest.mark.parametrize(
    ("fields", "inert"),
    [
        ({"user": "u"}, True),
        ({"safety_identifier": "s"}, True),
        ({"prompt_cache_key": "k"}, True),
        ({"prompt_cache_retention": "24h"}, True),
        ({"prompt_cache_options": {"mode": "implicit"}}, True),
        ({"store": True}, False),
        ({"store": False}, True),
        ({"verbosity": "low"}, False),
        ({"verbosity": "medium"}, True),
        ({"prediction": {"type": "content", "content": "x"}}, True),
        ({"logit_bias": {"50256": -100}}, False),
        ({"logit_bias": {}}, True),
        ({"moderation": {"model": "omni-moderation-latest"}}, False),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, False),
        ({"enable_thinking": True}, False),
        ({"chat_template_kwargs": {}}, False),
        ({"repetition_penalty": 1.1}, False),
    ],
)
def test_fields_without_effect_are_noted(fields: dict[str, Any], inert: bool) -> None:
    [name] = fields
    assert noted(**fields) == [(name, "dropped", inert)]


def test_instructions_beside_messages_come_first() -> None:
    request = clean(instructions="be brief")
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.messages[0].path == "instructions"


def test_a_request_without_model_or_messages() -> None:
    assert refused(model=None).message == "you must provide a model parameter"
    assert refused(model="").param is None
    error = refused(messages=[])
    assert (error.param, error.code) == ("messages", "empty_array")
    with pytest.raises(InvalidRequestError, match="Missing required parameter: 'messages'"):
        chat.decode_request(b'{"model":"m"}', Notes())


def test_values_of_undefined_are_removed_from_parameters_not_from_text() -> None:
    request, _ = decode(
        temperature="[undefined]",
        tool_choice="[undefined]",
        reasoning={"effort": "[undefined]"},
        stream_options="[undefined]",
        messages=[{"role": "user", "content": "[undefined]"}],
    )
    assert request.sampling == Sampling()
    assert request.messages[0].parts == (Text("[undefined]"),)


RICH: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t"},
                {"type": "image_url", "image_url": {"url": "https://a.b/c.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_data": "AAAA", "filename": "a.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                    "extra_content": {"google": {"thought_signature": "s"}},
                },
                {"id": "b", "type": "custom", "custom": {"name": "c", "input": "x"}},
            ],
            "reasoning_details": [{"type": "reasoning.encrypted", "data": "d", "id": "a"}],
            "thinking_blocks": [{"type": "thinking", "thinking": "t", "signature": "s"}],
            "extra_content": {"google": {"carrier": 1, "parts": [{"kind": "text", "length": 1}]}},
            "images": [{"image_url": {"url": "data:image/png;base64,AAAA"}}],
            "audio": {"id": "x", "transcript": "y"},
        },
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "r"}]},
        {"role": "tool", "tool_call_id": "b", "content": "r"},
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "x"},
    ],
    "tools": [F, G, {"type": "custom", "custom": {"name": "c", "format": {"type": "text"}}}],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [G]}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    "stream_options": {"include_usage": True},
    "audio": {"voice": {"id": "v"}, "format": "wav"},
    "modalities": ["text", "audio"],
    "reasoning": {"effort": "low"},
    "web_search_options": {"user_location": {}},
    "extra_body": {"google": {"a": 1}},
    "stop": ["a"],
    "metadata": {"a": "b"},
}


def _variants(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from _variants(inner, (*path, key))


@pytest.mark.parametrize(
    "value", [None, True, -1, 2.5, "", "zz", [], [[]], {}, {"x": {}}], ids=repr
)
def test_one_wrong_value_anywhere_is_a_400_or_taken(value: Any) -> None:
    for path in _variants(RICH):
        body = copy.deepcopy(RICH)
        if not path:
            continue
        spot: Any = body
        for key in path[:-1]:
            spot = spot[key]
        spot[path[-1]] = value
        with contextlib.suppress(InvalidRequestError):
            chat.decode_request(msgspec.json.encode(body), Notes())
