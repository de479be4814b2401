"""Tools, their names, and the choice among them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    CustomTool,
    FunctionTool,
    HostedTool,
    Message,
    OutputFormat,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from oaicompat.notes import Notes
from oaicompat.providers.gemini.endpoints import GEMINI_API, Target
from oaicompat.providers.gemini.names import is_legal, upstream_names
from oaicompat.providers.gemini.request import encode_request

VERTEX = Target("vertex", project="project-1", location="global")
HELLO = Message("user", (Text("Hello"),), "messages[0]")
F = FunctionTool("f", "Does f.", Raw(b'{"type":"object"}'), path="tools[0].function")
G = FunctionTool("g", path="tools[1].function")
STRICT = FunctionTool("s", strict=True, path="tools[0].function")
SEARCH = HostedTool("web_search", path="tools[2]")
JSON = OutputFormat("json_object")
DECLARED_F = {
    "name": "f",
    "description": "Does f.",
    "parametersJsonSchema": {"type": "object"},
}


def sent(
    *tools: Tool,
    model: str = "gemini-3.5-flash",
    target: Target = GEMINI_API,
    **fields: Any,
) -> tuple[Any, list[tuple[str, str]]]:
    notes = Notes()
    fields.setdefault("messages", (HELLO,))
    request = Request(model, tools=tools, **fields)
    body: Any = json.loads(encode_request(request, target, notes).body)
    return body, [(note.path, note.action) for note in notes]


def calling(body: Any) -> Any:
    return body.get("toolConfig", {}).get("functionCallingConfig")


def refused(*tools: Tool, **fields: Any) -> str | None:
    with pytest.raises(InvalidRequestError) as caught:
        sent(*tools, **fields)
    return caught.value.param


def test_functions_are_declared_in_order_from_known_keys_only() -> None:
    """litellm#14644, CLIProxyAPI#1375: extra keys are refused upstream; no parameters stay none."""
    body, notes = sent(F, G)
    assert body["tools"] == [{"functionDeclarations": [DECLARED_F, {"name": "g"}]}]
    assert "toolConfig" not in body
    assert notes == []


def test_a_schema_keeps_its_bytes() -> None:
    """mappings C: key order, recursion, nullable, anyOf siblings, keywords as property names."""
    schema = (
        '{"$schema": "x", "type": ["object", "null"], "properties": {"z": {"type": "integer", "enum": [1, 2]},'
        ' "title": {"anyOf": [{"type": "string"}], "description": "d"}, "additionalProperties": {},'
        ' "m": {"$ref": "#"}}, "exclusiveMinimum": 3}'
    )
    request = Request(
        "gemini-2.5-flash", (HELLO,), (FunctionTool("f", None, Raw(schema.encode())),)
    )
    notes = Notes()
    body = encode_request(request, GEMINI_API, notes).body
    assert f'"parametersJsonSchema":{schema}'.encode() in body
    assert not len(notes)


def test_a_model_without_the_json_field_gets_the_compiled_subset() -> None:
    tool = FunctionTool("f", None, Raw(b'{"type":"object","not":{},"properties":{}}'), path="t")
    body, notes = sent(tool, model="gemini-1.5-pro")
    (declaration,) = body["tools"][0]["functionDeclarations"]
    assert "parametersJsonSchema" not in declaration
    assert declaration["parameters"]["type"].lower() == "object"
    assert [path for path, _ in notes] == ["t.parameters.not"]


def test_a_schema_that_is_none_is_refused_by_name() -> None:
    assert refused(FunctionTool("f", None, Raw(b"[]"), path="t")) == "t.parameters"


def test_null_parameters_are_none() -> None:
    body, _ = sent(FunctionTool("f", None, Raw(b"null")))
    assert body["tools"] == [{"functionDeclarations": [{"name": "f"}]}]


def test_names_must_be_unique() -> None:
    assert refused(F, CustomTool("f", path="tools[1]")) == "tools[1]"


def test_a_custom_tool_is_a_function_of_one_string() -> None:
    body, notes = sent(CustomTool("apply_patch", "Edit files."))
    (declaration,) = body["tools"][0]["functionDeclarations"]
    assert declaration["description"] == "Edit files."
    assert declaration["parametersJsonSchema"]["required"] == ["input"]
    assert notes == []


def test_a_grammar_is_described_and_noted() -> None:
    tool = CustomTool("apply_patch", "Edit.", "lark", 'start: "x"', path="tools[0]")
    body, notes = sent(tool)
    description = body["tools"][0]["functionDeclarations"][0]["description"]
    assert description.startswith("Edit.")
    assert 'start: "x"' in description
    assert notes == [("tools[0]", "approximated")]


@pytest.mark.parametrize(
    ("choice", "config", "declared"),
    [
        (None, None, "fg"),
        (ToolChoice("auto"), {"mode": "AUTO"}, "fg"),
        (ToolChoice("none"), {"mode": "NONE"}, "fg"),
        (ToolChoice("required"), {"mode": "ANY"}, "fg"),
        (
            ToolChoice("required", ("g",)),
            {"mode": "ANY", "allowedFunctionNames": ["g"]},
            "fg",
        ),
        (ToolChoice("auto", ("g",)), {"mode": "AUTO"}, "g"),
    ],
)
def test_tool_choice(choice: ToolChoice | None, config: Any, declared: str) -> None:
    body, notes = sent(F, G, tool_choice=choice)
    assert calling(body) == config
    assert "".join(each["name"] for each in body["tools"][0]["functionDeclarations"]) == declared
    assert notes == []


def test_a_choice_without_tools_says_nothing_upstream() -> None:
    body, notes = sent(tool_choice=ToolChoice("auto"))
    assert "toolConfig" not in body
    assert notes == []
    body, notes = sent(tool_choice=ToolChoice("required"))
    assert "toolConfig" not in body
    assert notes == [("tool_choice", "dropped")]


def test_an_undeclared_choice_is_refused() -> None:
    assert refused(F, tool_choice=ToolChoice("required", ("zzz",))) == "tool_choice"


def test_strict_functions_are_validated_unless_a_call_is_forced() -> None:
    """vercel#18748: the forced choice was overwritten."""
    assert calling(sent(STRICT)[0]) == {"mode": "VALIDATED"}
    assert calling(sent(STRICT, tool_choice=ToolChoice("auto"))[0]) == {"mode": "VALIDATED"}
    assert calling(sent(STRICT, tool_choice=ToolChoice("required"))[0]) == {"mode": "ANY"}
    assert calling(sent(STRICT, tool_choice=ToolChoice("none"))[0]) == {"mode": "NONE"}
    body, notes = sent(STRICT, model="gemini-2.0-flash")
    assert calling(body) is None
    assert notes == [("tools[0].function.strict", "approximated")]


def test_parallel_calls_cannot_be_switched_off() -> None:
    assert sent(F, parallel_tool_calls=False)[1] == [("parallel_tool_calls", "approximated")]
    assert sent(F, parallel_tool_calls=True)[1] == []
    assert sent(parallel_tool_calls=False)[1] == []


def test_tools_the_service_runs() -> None:
    kinds = ("web_search", "code_execution", "url_context", "maps")
    body, notes = sent(*(HostedTool(kind) for kind in kinds), HostedTool("web_search"))
    assert body["tools"] == [
        {"googleSearch": {}},
        {"codeExecution": {}},
        {"urlContext": {}},
        {"googleMaps": {}},
    ]
    assert "toolConfig" not in body
    assert notes == []


def test_their_options_are_mapped_or_noted() -> None:
    options = {"search_context_size": "low", "user_location": None, "filters": {"x": 1}}
    _, notes = sent(HostedTool("web_search", Raw(json.dumps(options).encode()), "tools[0]"))
    assert notes == [
        ("tools[0].search_context_size", "dropped"),
        ("tools[0].filters", "dropped"),
    ]
    container = Raw(b'{"container":{"type":"auto","file_ids":["a"]}}')
    _, notes = sent(HostedTool("code_execution", container, "tools[0]"))
    assert ("tools[0].container.file_ids", "dropped") in notes
    body, notes = sent(
        HostedTool("file_search", Raw(b'{"vector_store_ids":["s"],"max_num_results":3}'), "t")
    )
    assert body["tools"] == [{"fileSearch": {"fileSearchStoreNames": ["s"], "topK": 3}}]
    assert notes == []
    body, notes = sent(
        HostedTool("computer_use", Raw(b'{"environment":"mac","display_width":1}'), "t")
    )
    assert body["tools"] == [{"computerUse": {"environment": "ENVIRONMENT_BROWSER"}}]
    assert notes == [("t.environment", "approximated"), ("t.display_width", "dropped")]


@pytest.mark.parametrize(
    ("tool", "target"),
    [
        (HostedTool("image_generation", path="t"), GEMINI_API),
        (HostedTool("file_search", path="t"), GEMINI_API),
        (HostedTool("file_search", Raw(b'{"vector_store_ids":["s"]}'), "t"), VERTEX),
        (HostedTool("web_search", Raw(b"[]"), "t"), GEMINI_API),
    ],
)
def test_tools_the_backend_lacks_are_refused(tool: Tool, target: Target) -> None:
    assert refused(tool, target=target) == "t"


def test_search_and_functions_go_together_where_the_model_can() -> None:
    """litellm#23337: one of the two was silently lost."""
    body, notes = sent(F, SEARCH)
    assert body["tools"] == [
        {"functionDeclarations": [DECLARED_F]},
        {"googleSearch": {}},
    ]
    assert body["toolConfig"] == {
        "functionCallingConfig": {"mode": "VALIDATED"},
        "includeServerSideToolInvocations": True,
    }
    assert notes == []
    body, _ = sent(F, SEARCH, target=VERTEX)
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    body, _ = sent(F, SEARCH, tool_choice=ToolChoice("required"))
    assert calling(body) == {"mode": "ANY"}
    assert refused(F, SEARCH, model="gemini-2.5-flash") == "tools"


def test_search_from_google_fields_counts_too() -> None:
    body, _ = sent(F, extra={"tools": Raw(b'[{"googleSearch":{}}]')})
    assert body["tools"] == [
        {"functionDeclarations": [DECLARED_F]},
        {"googleSearch": {}},
    ]
    assert body["toolConfig"]["includeServerSideToolInvocations"] is True


def test_no_tool_may_be_used_means_no_search_either() -> None:
    body, notes = sent(F, SEARCH, tool_choice=ToolChoice("none"), model="gemini-2.5-flash")
    assert body["tools"] == [{"functionDeclarations": [DECLARED_F]}]
    assert calling(body) == {"mode": "NONE"}
    assert notes == []


def test_a_search_cannot_be_forced() -> None:
    body, notes = sent(F, SEARCH, tool_choice=ToolChoice("required", ("web_search",)))
    assert body["tools"] == [{"googleSearch": {}}]
    assert "toolConfig" not in body
    assert notes == [("tool_choice", "approximated")]
    body, notes = sent(F, G, SEARCH, tool_choice=ToolChoice("required", ("web_search", "g")))
    assert body["tools"] == [
        {"functionDeclarations": [{"name": "g"}]},
        {"googleSearch": {}},
    ]
    assert notes == [("tool_choice", "approximated")]


def test_json_with_tools_needs_a_model_that_can() -> None:
    """gemini-balance#264, ai-manus#101: the upstream 400 became a 500."""
    assert refused(F, output=JSON, model="gemini-2.5-flash") == "response_format"
    assert refused(SEARCH, output=JSON, model="gemini-2.5-flash") == "response_format"
    body, _ = sent(F, output=JSON)
    assert body["generationConfig"] == {"responseMimeType": "application/json"}
    body, notes = sent(F, output=JSON, model="gemini-2.5-flash", tool_choice=ToolChoice("none"))
    assert "tools" not in body
    assert notes == []


def test_a_model_without_functions_drops_them_with_a_note() -> None:
    body, notes = sent(F, model="gemini-2.5-flash-image")
    assert "tools" not in body
    assert notes == [("tools[0].function", "dropped")]


def test_illegal_names_are_changed_alike_everywhere() -> None:
    """mcp-router PR#177, seclab PR#287, gemini-cli#2966."""
    name = "8mcp/x y"
    request = Request(
        "gemini-2.5-flash",
        (
            HELLO,
            Message("assistant", (ToolCall("a", name, "{}"),)),
            Message("tool", (ToolResult("a", (Text("x"),)),)),
        ),
        (FunctionTool(name), CustomTool("x" * 65)),
        tool_choice=ToolChoice("required", (name,)),
    )
    encoded = encode_request(request, GEMINI_API, Notes())
    body = json.loads(encoded.body)
    changed, long = (each["name"] for each in body["tools"][0]["functionDeclarations"])
    assert is_legal(changed)
    assert is_legal(long)
    assert body["contents"][1]["parts"][0]["functionCall"]["name"] == changed
    assert body["contents"][2]["parts"][0]["functionResponse"]["name"] == changed
    assert calling(body)["allowedFunctionNames"] == [changed]
    assert encoded.names == {changed: name, long: "x" * 65}


def test_a_changed_name_does_not_depend_on_its_neighbours() -> None:
    assert upstream_names(["a b"])["a b"] == upstream_names(["a.b", "a b", "a/b"])["a b"]


def test_a_changed_name_never_meets_another() -> None:
    taken = upstream_names(["a b"])["a b"]
    names = ["a b", taken]
    assert upstream_names(names)["a b"] != taken


@given(
    st.lists(
        st.text(max_size=70) | st.from_regex(r"[a-c/ ]{1,3}", fullmatch=True),
        unique=True,
    )
)
def test_names_are_legal_and_distinct(names: list[str]) -> None:
    changed = upstream_names(names)
    travelling = [changed.get(name, name) for name in names]
    assert all(is_legal(name) for name in travelling)
    assert len(set(travelling)) == len(names)
    assert all(not is_legal(name) for name in changed)
