"""What becomes of every property of a chat request, each with a request that shows it.

One rule: a row is a claim that `tests/test_parameters.py` proves by running the decoder on `fields` and on
`without`. Names are paths in the published schema; `[user]` stands for the kind of an array's item.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["mapped", "noted", "refused"]


@dataclass(frozen=True)
class Row:
    """One property: what becomes of it, the request that has it, the same without it, and the words.

    `whole` tells that everything below the property shares its fate.
    """

    name: str
    outcome: Outcome
    fields: dict[str, Any]
    text: str
    without: dict[str, Any] = field(default_factory=dict)
    whole: bool = False


USER: dict[str, Any] = {"role": "user", "content": "hi"}
BASE: dict[str, Any] = {"model": "m", "messages": [USER]}
_F = {"type": "function", "function": {"name": "f"}}
_G = {"type": "function", "function": {"name": "g"}}
_C = {"type": "custom", "custom": {"name": "c"}}
_CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]
_CALLED = {"role": "assistant", "tool_calls": _CALLS}
_WAV = {"modalities": ["audio"], "audio": {"voice": "alloy", "format": "wav"}}
_PNG = "data:image/png;base64,AAAA"
_CACHE = "the provider caches by itself (inert)"
_SPEAKERS = "the models do not tell speakers apart"


def _messages(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)}


_IDS: dict[str, dict[str, Any]] = {"tool": {"tool_call_id": "c1"}, "function": {"name": "f"}}


def _with(role: str, **fields: Any) -> dict[str, Any]:
    before: list[dict[str, Any]] = [_CALLED] if role == "tool" else []
    if role == "function":
        before = [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}]
    last = {"role": role, "content": "x"} | _IDS.get(role, {}) | fields
    return _messages(USER, *before, last)


def _part(**part: Any) -> dict[str, Any]:
    return _with("user", content=[part])


def _call(**changes: Any) -> dict[str, Any]:
    return _with("assistant", content=None, tool_calls=[_CALLS[0] | changes])


def _tool(kind: str, **definition: Any) -> dict[str, Any]:
    return {"tools": [{"type": kind, kind: {"name": "f"} | definition}]}


def _mapped(name: str, value: Any, text: str, other: Any = None, **rest: Any) -> Row:
    without = rest if other is None else rest | {name: other}
    return Row(name, "mapped", rest | {name: value}, text, without)


def _noted(name: str, value: Any, text: str) -> Row:
    return Row(name, "noted", {name: value}, text, whole=True)


_PARTS: dict[str, dict[str, Any]] = {
    "text": {"text": "t"},
    "image_url": {"image_url": {"url": _PNG}},
    "input_audio": {"input_audio": {"data": "AAAA", "format": "wav"}},
    "file": {"file": {"file_data": "AAAA", "filename": "a.pdf"}},
    "refusal": {"refusal": "no"},
}
_ROLE_PARTS = {
    "developer": ["text"],
    "system": ["text"],
    "user": ["text", "image_url", "input_audio", "file"],
    "assistant": ["text"],
    "tool": ["text"],
}


def _message_rows() -> list[Row]:
    rows = []
    for role, kinds in _ROLE_PARTS.items():
        where = "system text" if role in ("developer", "system") else f"{role} turn"
        rows.append(
            Row(f"messages[{role}].content", "mapped", _with(role, content="y"), where, _with(role))
        )
        for kind in kinds:
            part = {"type": kind} | _PARTS[kind]
            marked = part | {"prompt_cache_breakpoint": {"mode": "explicit"}}
            name = f"messages[{role}].content[{kind}].prompt_cache_breakpoint"
            with_mark, without = _with(role, content=[marked]), _with(role, content=[part])
            rows.append(Row(name, "noted", with_mark, _CACHE, without, whole=True))
        rows.append(
            Row(
                f"messages[{role}].content[text].text",
                "mapped",
                _with(role, content=[{"type": "text", "text": "y"}]),
                "text, in its place among the parts",
                _with(role, content=[{"type": "text", "text": "x"}]),
            )
        )
        if role != "tool":
            name = f"messages[{role}].name"
            rows.append(Row(name, "noted", _with(role, name="bob"), _SPEAKERS, _with(role)))
    return rows


def _part_row(kind: str, names: str, text: str, one: Any, other: Any) -> Row:
    first, *rest = names.split(".")
    assert first == kind
    fields = _part(**{"type": kind, kind: one})
    without = _part(**{"type": kind, kind: other})
    return Row(
        f"messages[user].content[{kind}].{'.'.join([first, *rest])}",
        "mapped",
        fields,
        text,
        without,
    )


_PART_ROWS = [
    _part_row(
        "image_url",
        "image_url.url",
        "data URI: inline, undecoded; https, gs, Files API and YouTube: the provider fetches it",
        {"url": _PNG},
        {"url": "https://a.b/c.png"},
    ),
    _part_row(
        "image_url",
        "image_url.detail",
        "media resolution",
        {"url": _PNG, "detail": "low"},
        {"url": _PNG},
    ),
    _part_row(
        "input_audio",
        "input_audio.data",
        "inline, undecoded",
        {"data": "AAAA", "format": "wav"},
        {"data": "BBBB", "format": "wav"},
    ),
    _part_row(
        "input_audio",
        "input_audio.format",
        "media type; formats beyond wav and mp3 are taken as well",
        {"data": "AAAA", "format": "mp3"},
        {"data": "AAAA", "format": "wav"},
    ),
    _part_row(
        "file",
        "file.file_data",
        "data URI or base64, inline, undecoded",
        {"file_data": "AAAA", "filename": "a.pdf"},
        {"file_data": "BBBB", "filename": "a.pdf"},
    ),
    _part_row(
        "file",
        "file.filename",
        "tells the media type where the data does not",
        {"file_data": "AAAA", "filename": "a.pdf"},
        {"file_data": "AAAA", "filename": "a.txt"},
    ),
    _part_row(
        "file",
        "file.file_id",
        "a Files API name or address; ids of other services are refused",
        {"file_id": "files/a"},
        {"file_id": "files/b"},
    ),
]

_ANSWER_ROWS = [
    Row(
        "messages[assistant].content[refusal].refusal",
        "mapped",
        _with("assistant", content=[{"type": "refusal", "refusal": "no"}]),
        "refusal, in its place among the parts",
        _with("assistant", content=[]),
    ),
    Row(
        "messages[assistant].refusal",
        "mapped",
        _with("assistant", content=None, refusal="no"),
        "refusal",
        _with("assistant", content=None),
    ),
    Row(
        "messages[assistant].audio.id",
        "refused",
        _with("assistant", content=None, audio={"id": "audio_1"}),
        "earlier speech is not kept; an echoed transcript is taken in its place",
    ),
    Row(
        "messages[assistant].function_call.name",
        "mapped",
        _with("assistant", function_call={"name": "f", "arguments": "{}"}),
        "legacy call; its id is made up and never sent",
        _with("assistant", function_call={"name": "g", "arguments": "{}"}),
    ),
    Row(
        "messages[assistant].function_call.arguments",
        "mapped",
        _with("assistant", function_call={"name": "f", "arguments": '{"a":1}'}),
        "arguments, untouched",
        _with("assistant", function_call={"name": "f", "arguments": "{}"}),
    ),
    Row(
        "messages[assistant].tool_calls[function].id", "mapped", _call(id="c9"), "call id", _call()
    ),
    Row(
        "messages[assistant].tool_calls[function].function.name",
        "mapped",
        _call(function={"name": "h", "arguments": "{}"}),
        "call",
        _call(),
    ),
    Row(
        "messages[assistant].tool_calls[function].function.arguments",
        "mapped",
        _call(function={"name": "f", "arguments": '{"a":1}'}),
        "arguments, untouched",
        _call(),
    ),
    Row(
        "messages[assistant].tool_calls[custom].id",
        "mapped",
        _with("assistant", tool_calls=[_C | {"id": "c8"}]),
        "call id",
        _with("assistant", tool_calls=[_C | {"id": "c9"}]),
    ),
    Row(
        "messages[assistant].tool_calls[custom].custom.name",
        "mapped",
        _with("assistant", tool_calls=[_C | {"id": "c", "custom": {"name": "d"}}]),
        "call of a free-text tool",
        _with("assistant", tool_calls=[_C | {"id": "c"}]),
    ),
    Row(
        "messages[assistant].tool_calls[custom].custom.input",
        "mapped",
        _with("assistant", tool_calls=[_C | {"id": "c", "custom": {"name": "c", "input": "x"}}]),
        "free text, untouched",
        _with("assistant", tool_calls=[_C | {"id": "c"}]),
    ),
    Row(
        "messages[tool].tool_call_id",
        "mapped",
        _with("tool", tool_call_id="c2"),
        "pairs the result with its call; empty ids pair by position, unknown ones are refused",
        _with("tool", tool_call_id="c1"),
    ),
    Row(
        "messages[function].content",
        "mapped",
        _with("function", content="y"),
        "result of a legacy call",
        _with("function"),
    ),
    Row(
        "messages[function].name",
        "refused",
        _with("function", name="other"),
        "pairs the result with the call of that name; a function that was not called is refused",
        _with("function"),
    ),
]

_GRAMMAR = {"syntax": "lark", "definition": "start: x"}
_TOOL_ROWS = [
    Row(
        "tools[function].function.name",
        "mapped",
        _tool("function", name="h"),
        "function; a name declared twice is refused",
        _tool("function"),
    ),
    Row(
        "tools[function].function.description",
        "mapped",
        _tool("function", description="d"),
        "description",
        _tool("function"),
    ),
    Row(
        "tools[function].function.parameters",
        "mapped",
        _tool("function", parameters={"type": "object"}),
        "JSON Schema, passed on as it was written",
        _tool("function"),
        whole=True,
    ),
    Row(
        "tools[function].function.strict",
        "mapped",
        _tool("function", strict=True),
        "validated calls, where the model has them",
        _tool("function"),
    ),
    Row(
        "tools[custom].custom.name",
        "mapped",
        _tool("custom", name="h"),
        "free-text tool",
        _tool("custom"),
    ),
    Row(
        "tools[custom].custom.description",
        "mapped",
        _tool("custom", description="d"),
        "description",
        _tool("custom"),
    ),
    Row(
        "tools[custom].custom.format[grammar].grammar.definition",
        "mapped",
        _tool("custom", format={"type": "grammar", "grammar": _GRAMMAR}),
        "described to the model, not enforced",
        _tool("custom", format={"type": "grammar", "grammar": _GRAMMAR | {"definition": "x"}}),
    ),
    Row(
        "tools[custom].custom.format[grammar].grammar.syntax",
        "mapped",
        _tool("custom", format={"type": "grammar", "grammar": _GRAMMAR}),
        "described to the model, not enforced",
        _tool("custom", format={"type": "grammar", "grammar": _GRAMMAR | {"syntax": "regex"}}),
    ),
    _mapped("tool_choice", "required", "none, auto or required", tools=[_F]),
    Row(
        "tool_choice[function].function.name",
        "mapped",
        {"tools": [_F], "tool_choice": _F},
        "forces one function; one that is not declared is refused",
        {"tools": [_F]},
    ),
    Row(
        "tool_choice[custom].custom.name",
        "mapped",
        {"tools": [_C], "tool_choice": _C},
        "forces one tool",
        {"tools": [_C]},
    ),
    Row(
        "tool_choice[allowed_tools].allowed_tools.mode",
        "mapped",
        {
            "tools": [_F],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [_F]},
            },
        },
        "auto or required, among the allowed tools",
        {
            "tools": [_F],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [_F]},
            },
        },
    ),
    Row(
        "tool_choice[allowed_tools].allowed_tools.tools",
        "mapped",
        {
            "tools": [_F, _G],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [_F]},
            },
        },
        "names of declared tools",
        {
            "tools": [_F, _G],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [_G]},
            },
        },
    ),
    _mapped("parallel_tool_calls", False, "passed on; false cannot be guaranteed, which is noted"),
    Row(
        "functions[].name",
        "mapped",
        {"functions": [{"name": "h"}]},
        "function; the answer has the legacy shape too",
        {"functions": [{"name": "f"}]},
    ),
    Row(
        "functions[].description",
        "mapped",
        {"functions": [{"name": "f", "description": "d"}]},
        "description",
        {"functions": [{"name": "f"}]},
    ),
    Row(
        "functions[].parameters",
        "mapped",
        {"functions": [{"name": "f", "parameters": {}}]},
        "JSON Schema, passed on as it was written",
        {"functions": [{"name": "f"}]},
        whole=True,
    ),
    _mapped("function_call", "none", "none or auto", functions=[{"name": "f"}]),
    Row(
        "function_call.name",
        "mapped",
        {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
        "forces one function",
        {"functions": [{"name": "f"}]},
    ),
]

_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n"}}


def _schema(**fields: Any) -> dict[str, Any]:
    return {"response_format": _SCHEMA | {"json_schema": {"name": "n"} | fields}}


_PARAMETER_ROWS = [
    Row("model", "mapped", {"model": "x"}, "model name, through the model map", {"model": "y"}),
    _mapped("temperature", 0.5, "temperature"),
    _mapped("top_p", 0.5, "top_p"),
    _mapped("n", 2, "number of candidates"),
    _mapped("seed", 7, "seed"),
    _mapped("presence_penalty", 1, "presence penalty, where the model takes it"),
    _mapped("frequency_penalty", 1, "frequency penalty, where the model takes it"),
    _mapped("logprobs", True, "log probabilities, where the model gives them"),
    _mapped("top_logprobs", 3, "number of alternatives; refused without logprobs", logprobs=True),
    _mapped("max_completion_tokens", 9, "token limit; wins over max_tokens"),
    _mapped("max_tokens", 9, "token limit"),
    _mapped("stop", ["a"], "stop sequences; more than five are refused"),
    _mapped("stream", True, "streamed answer"),
    Row(
        "stream_options.include_usage",
        "mapped",
        {"stream": True, "stream_options": {"include_usage": True}},
        "a last chunk with the usage",
        {"stream": True, "stream_options": {}},
    ),
    Row(
        "stream_options.include_obfuscation",
        "noted",
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "streams are never padded (inert)",
        {"stream": True},
    ),
    _mapped("response_format", {"type": "json_object"}, "JSON answers"),
    Row(
        "response_format[json_schema].json_schema.name",
        "mapped",
        _schema(name="x"),
        "name of the schema",
        _schema(),
    ),
    Row(
        "response_format[json_schema].json_schema.schema",
        "mapped",
        _schema(schema={"type": "object"}),
        "JSON Schema, passed on as it was written",
        _schema(),
        whole=True,
    ),
    Row(
        "response_format[json_schema].json_schema.strict",
        "mapped",
        _schema(strict=True),
        "the schema always binds",
        _schema(),
    ),
    Row(
        "response_format[json_schema].json_schema.description",
        "noted",
        _schema(description="d"),
        "the provider takes no description of the format",
        _schema(),
    ),
    _mapped("reasoning_effort", "low", "thinking effort; thoughts are shown unless it is none"),
    _mapped("modalities", ["text"], "text, audio, and image as an extension"),
    Row(
        "audio.voice",
        "mapped",
        _WAV,
        "voice",
        _WAV | {"audio": {"voice": "ash", "format": "wav"}},
    ),
    Row(
        "audio.voice.id",
        "mapped",
        _WAV | {"audio": {"voice": {"id": "x"}, "format": "wav"}},
        "voice",
        _WAV,
    ),
    Row(
        "audio.format",
        "refused",
        _WAV | {"audio": {"voice": "alloy", "format": "mp3"}},
        "wav and pcm16 are made (pcm16 only when streaming); the others are refused",
        _WAV,
    ),
    _mapped("service_tier", "flex", "service tier"),
    _mapped("metadata", {"a": "b"}, "labels on Vertex AI, otherwise noted (inert)"),
    Row(
        "web_search_options.user_location",
        "mapped",
        {"web_search_options": {"user_location": {"type": "approximate"}}},
        "option of the provider's search, which notes what it cannot use",
        {"web_search_options": {}},
        whole=True,
    ),
    Row(
        "web_search_options.search_context_size",
        "mapped",
        {"web_search_options": {"search_context_size": "low"}},
        "option of the provider's search, which notes what it cannot use",
        {"web_search_options": {}},
    ),
    _noted("user", "u", "the provider is not told who the user is (inert)"),
    _noted("safety_identifier", "s", "the provider is not told who the user is (inert)"),
    _noted("prompt_cache_key", "k", _CACHE),
    _noted("prompt_cache_options", {"mode": "implicit"}, _CACHE),
    _noted("prompt_cache_retention", "24h", _CACHE),
    _noted("store", True, "chat completions are not stored (false is inert)"),
    _noted("verbosity", "low", "the models have no such setting (medium is inert)"),
    _noted("prediction", {"type": "content", "content": "x"}, "would only be faster (inert)"),
    _noted("logit_bias", {"1": 2}, "the models take no token biases (an empty object is inert)"),
    _noted("moderation", {"model": "x"}, "answers are not moderated here"),
]

OPENAI: tuple[Row, ...] = (
    *_PARAMETER_ROWS,
    *_TOOL_ROWS,
    *_message_rows(),
    *_PART_ROWS,
    *_ANSWER_ROWS,
)

_GOOGLE = {"thinking_config": {"include_thoughts": True}}
_SIGNED = {"google": {"thought_signature": "s"}}

EXTENSIONS: tuple[Row, ...] = (
    _mapped("top_k", 3, "top_k"),
    _mapped("max_output_tokens", 9, "token limit; max_completion_tokens wins"),
    _mapped("instructions", "be brief", "system text before all messages"),
    _mapped("google", _GOOGLE, "Gemini's own fields, as Google's OpenAI endpoint takes them"),
    _mapped("extra_body", {"google": _GOOGLE}, "the same, where a client sends the SDK's argument"),
    _mapped("reasoning", {"effort": "low"}, "effort, summary, exclude; reasoning_effort wins"),
    _mapped("include_reasoning", True, "shows thoughts"),
    _noted("thinking", {"type": "enabled"}, "use reasoning_effort"),
    _noted("thinking_budget", 5, "use reasoning_effort or google.thinking_config"),
    _noted("enable_thinking", True, "use reasoning_effort"),
    _noted("chat_template_kwargs", {"a": 1}, "use reasoning_effort"),
    _noted("cache_control", {"type": "ephemeral"}, _CACHE),
    _noted("any_other_field", 1, "unknown fields are ignored; strict mode refuses them"),
    Row(
        "messages[user].content[video_url].video_url",
        "mapped",
        _part(type="video_url", video_url={"url": "gs://a/b.mp4", "start": 1, "end": 2, "fps": 2}),
        "video, with the seconds and frames per second meant",
        _part(type="video_url", video_url={"url": "gs://a/b.mp4"}),
    ),
    Row(
        "messages[user].content[input_image].image_url",
        "mapped",
        _part(type="input_image", image_url=_PNG),
        "parts as Responses names them (input_text, output_text, input_image, input_file)",
        _part(type="input_image", image_url="https://a.b/c.png"),
    ),
    Row(
        "messages[user].content[text].cache_control",
        "noted",
        _part(type="text", text="t", cache_control={"type": "ephemeral"}),
        _CACHE,
        _part(type="text", text="t"),
    ),
    Row(
        "messages[assistant].tool_calls[function].extra_content",
        "mapped",
        _call(extra_content=_SIGNED),
        "thought signature of the call",
        _call(),
    ),
    Row(
        "messages[assistant].extra_content",
        "mapped",
        _with("assistant", extra_content=_SIGNED),
        "carrier of the turn: order, signatures, and parts chat has no field for",
        _with("assistant"),
    ),
    Row(
        "messages[assistant].reasoning_details",
        "mapped",
        _with("assistant", reasoning_details=[{"type": "reasoning.encrypted", "data": "s"}]),
        "thought signatures, where the calls have none",
        _with("assistant"),
    ),
    Row(
        "messages[assistant].thinking_blocks",
        "mapped",
        _with("assistant", thinking_blocks=[{"type": "thinking", "signature": "s"}]),
        "thought signatures, where nothing else has any",
        _with("assistant"),
    ),
    Row(
        "messages[assistant].reasoning_content",
        "noted",
        _with("assistant", reasoning_content="hm"),
        "thoughts go back only with their carrier (inert)",
        _with("assistant"),
    ),
    Row(
        "messages[assistant].images",
        "mapped",
        _with("assistant", images=[{"image_url": {"url": _PNG}}]),
        "images of an earlier answer",
        _with("assistant"),
    ),
    Row(
        "tools[web_search]",
        "mapped",
        {"tools": [{"type": "web_search"}]},
        "the provider's own tools: web_search, code_interpreter, url_context, google_maps, file_search",
    ),
    Row(
        "tools[namespace]",
        "noted",
        {"tools": [{"type": "namespace", "name": "n"}]},
        "tools of types nobody serves are left out",
    ),
)
