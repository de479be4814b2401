"""What becomes of every property of a Responses request; proved like the table of chat.

Items and tools have a row for each type, which stands for everything below it.
"""

from __future__ import annotations

from typing import Any

from tests.support.chat_ledger import Outcome, Row

USER: dict[str, Any] = {"role": "user", "content": "hi"}
BASE: dict[str, Any] = {"model": "m", "input": [USER]}
_PNG = "iVBORw0KGgo="
_F = {"type": "function", "name": "f"}
_CUSTOM = {"type": "custom", "name": "c"}
_CACHE = "the provider caches by itself (inert)"
_WHO = "the provider is not told who the user is (inert)"


def _mapped(name: str, value: Any, text: str, **rest: Any) -> Row:
    return Row(name, "mapped", rest | {name: value}, text, rest)


def _noted(name: str, value: Any, text: str) -> Row:
    return Row(name, "noted", {name: value}, text, whole=True)


def _within(path: str, outcome: Outcome, value: Any, text: str, **rest: Any) -> Row:
    top, _, inner = path.partition(".")
    return Row(path, outcome, rest | {top: {inner: value}}, text, rest, whole=True)


_CALLS: dict[str, dict[str, Any]] = {
    "function_call": {"name": "f", "arguments": "{}"},
    "custom_tool_call": {"name": "c", "input": "x"},
    "local_shell_call": {"action": {"type": "exec", "command": ["ls"], "env": {}}},
    "shell_call": {"action": {"commands": ["ls"]}},
    "apply_patch_call": {"operation": {"type": "delete_file", "path": "a"}},
    "tool_search_call": {"execution": "client", "arguments": {"query": "x"}},
}
_OUTPUTS: dict[str, Any] = {
    "function_call": {"output": "r"},
    "custom_tool_call": {"output": [{"type": "input_text", "text": "r"}]},
    "local_shell_call": {"output": "r"},
    "shell_call": {
        "output": [{"stdout": "r", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
    },
    "apply_patch_call": {"status": "completed", "output": "r"},
    "tool_search_call": {"execution": "client", "tools": [_F]},
}


def _call(kind: str, **changes: Any) -> dict[str, Any]:
    return {"type": kind, "id": "x_1", "call_id": "c1", **_CALLS[kind], **changes}


def _output(kind: str) -> dict[str, Any]:
    return {
        "type": kind.replace("_search_call", "_search") + "_output",
        "call_id": "c1",
        **_OUTPUTS[kind],
    }


def _item(name: str, outcome: Outcome, text: str, *items: dict[str, Any]) -> Row:
    return Row(
        f"input[{name}]",
        outcome,
        {"input": [USER, *items]},
        text,
        {"input": [USER]},
        whole=True,
    )


def _call_rows() -> list[Row]:
    rows = []
    for kind in _CALLS:
        call, output = _call(kind), _output(kind)
        rows.append(_item(kind, "mapped", "call, in its turn of the model", call, output))
        name = output["type"]
        rows.append(_item(name, "mapped", "result of the call", call, output))
    return rows


_ITEM_ROWS = [
    _item("message", "mapped", "turn of the speaker", {"type": "message", **USER}),
    _item("assistant", "mapped", "turn of the model", {"role": "assistant", "content": "x"}),
    _item(
        "developer",
        "mapped",
        "additional_tools: tools like the request's own",
        {"type": "additional_tools", "role": "developer", "tools": [_F]},
    ),
    _item(
        "reasoning",
        "noted",
        "its encrypted_content restores the model's turn; that of others is noted",
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
    ),
    _item(
        "code_interpreter_call",
        "mapped",
        "code and its results",
        {"type": "code_interpreter_call", "code": "1", "outputs": [{"type": "logs", "logs": "1"}]},
    ),
    _item(
        "image_generation_call",
        "mapped",
        "image of the model's",
        {"type": "image_generation_call", "result": _PNG},
    ),
    _item(
        "web_search_call",
        "noted",
        "what was found stands in the answer's text (inert)",
        {"type": "web_search_call", "action": {"type": "search"}},
    ),
    _item(
        "compaction",
        "noted",
        "a summary sealed here is a user turn; that of others is noted",
        {"type": "compaction", "encrypted_content": "gAAA"},
    ),
    Row(
        "input[]",
        "refused",
        {"input": [{"type": "item_reference", "id": "rs_1"}]},
        "item_reference: the stored item; without a store 404. compaction_trigger: the answer is a summary",
        whole=True,
    ),
    *(
        _item(kind, "noted", "not read back", {"type": kind, "id": "x"})
        for kind in (
            *("file_search_call", "computer_call", "computer_call_output", "mcp_list_tools"),
            *("mcp_call", "mcp_approval_request", "mcp_approval_response"),
            *("program", "program_output"),
        )
    ),
]


def _tool(kind: str, outcome: Outcome, text: str, **fields: Any) -> Row:
    return Row(f"tools[{kind}]", outcome, {"tools": [{"type": kind, **fields}]}, text, whole=True)


_TOOL_ROWS = [
    _tool("function", "mapped", "function; its schema is passed on as it was written", name="f"),
    _tool("custom", "mapped", "function with one text; the grammar describes it", name="c"),
    _tool(
        "namespace",
        "mapped",
        "functions named namespace.name; calls come back with both",
        name="n",
        tools=[_F],
    ),
    _tool("tool_search", "mapped", "function, if the client executes it", execution="client"),
    _tool("shell", "mapped", "function; calls are shell_call items"),
    _tool("apply_patch", "mapped", "function; calls are apply_patch_call items"),
    _tool("code_interpreter", "mapped", "code execution", container={"type": "auto"}),
    _tool("file_search", "mapped", "file search in Gemini's stores", vector_store_ids=["v"]),
    _tool("image_generation", "noted", "the model makes images by itself where it can"),
    _tool("mcp", "noted", "not served", server_label="s", server_url="https://example.com"),
    _tool("computer_use_preview", "refused", "its calls have no counterpart"),
    Row(
        "tools[]",
        "mapped",
        {"tools": [{"type": "web_search"}]},
        "web_search and its other names: Google search",
        whole=True,
    ),
]

_PARAMETER_ROWS = [
    Row("model", "mapped", {"model": "x"}, "model name, through the model map", {"model": "y"}),
    Row("input", "mapped", {"input": "hi"}, "a string is one user turn"),
    _mapped("instructions", "i", "first system text, also beside a string as input"),
    _mapped("temperature", 0.5, "temperature"),
    _mapped("top_p", 0.5, "top_p"),
    _mapped("max_output_tokens", 20, "token limit; less than 16 is refused"),
    Row(
        "top_logprobs",
        "mapped",
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        "number of alternatives, where include asks for log probabilities",
        {"include": ["message.output_text.logprobs"]},
    ),
    _mapped("include", ["message.output_text.logprobs"], "log probabilities, sources, code output"),
    _mapped("tool_choice", "required", "in any form", tools=[_F]),
    *(
        Row(
            f"tool_choice{path}",
            "mapped",
            {"tools": [_F, _CUSTOM], "tool_choice": choice},
            text,
            {"tools": [_F, _CUSTOM]},
            whole=True,
        )
        for path, choice, text in (
            (
                "[allowed_tools].mode",
                {"type": "allowed_tools", "mode": "auto", "tools": [_F]},
                "auto or required, among some tools",
            ),
            (
                "[allowed_tools].tools",
                {"type": "allowed_tools", "mode": "auto", "tools": [_F]},
                "the tools that may be used",
            ),
            ("[function].name", {"type": "function", "name": "f"}, "forces one function"),
            ("[custom].name", {"type": "custom", "name": "c"}, "forces one tool"),
        )
    ),
    Row(
        "tool_choice.type",
        "mapped",
        {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
        "a tool the provider runs",
        {"tools": [{"type": "web_search"}]},
    ),
    Row(
        "tool_choice[mcp]",
        "noted",
        {"tools": [_F], "tool_choice": {"type": "mcp", "server_label": "s"}},
        "not served",
        {"tools": [_F]},
        whole=True,
    ),
    _mapped("parallel_tool_calls", False, "passed on; false cannot be guaranteed, which is noted"),
    _within("text.format", "mapped", {"type": "json_object"}, "JSON answers"),
    Row(
        "text.format[json_schema].description",
        "noted",
        {"text": {"format": {"type": "json_schema", "name": "n", "description": "d"}}},
        "the provider takes no description of the format",
        {"text": {"format": {"type": "json_schema", "name": "n"}}},
    ),
    _within("text.verbosity", "noted", "low", "the models have no such setting"),
    _within("reasoning.effort", "mapped", "low", "thinking level or budget"),
    _within("reasoning.summary", "mapped", "auto", "thoughts are shown"),
    _within("reasoning.generate_summary", "mapped", "auto", "the older name of summary"),
    _within("reasoning.mode", "noted", "standard", "the models have no such setting"),
    _within("reasoning.context", "noted", "auto", "the models have no such setting"),
    _mapped("service_tier", "flex", "service tier, where the front door takes it"),
    _mapped("metadata", {"a": "b"}, "labels on Vertex AI"),
    _mapped("stream", True, "streamed answer"),
    _within(
        "stream_options.include_obfuscation", "noted", True, "streams are never padded (inert)"
    ),
    Row(
        "previous_response_id",
        "refused",
        {"previous_response_id": "resp_1"},
        "the conversation goes on from a stored response; without a store 400 previous_response_not_found",
    ),
    Row(
        "conversation",
        "refused",
        {"conversation": {"id": "conv_1"}},
        "a stored conversation goes on; without a store 404",
        whole=True,
    ),
    _noted(
        "store", True, "the gateway stores the response; the functions have no store and note it"
    ),
    _noted("background", True, "the gateway answers at once and goes on; the functions note it"),
    _noted("truncation", "auto", "nothing is cut; disabled is inert"),
    _noted("max_tool_calls", 2, "the number of calls cannot be limited"),
    _noted("prompt", {"id": "p"}, "there are no stored prompts"),
    _noted("context_management", [{"type": "compaction"}], "the context is not compacted"),
    _noted("moderation", {"model": "m"}, "answers are not moderated here"),
    _noted("user", "u", _WHO),
    _noted("safety_identifier", "u", _WHO),
    _noted("prompt_cache_key", "k", _CACHE),
    _noted("prompt_cache_retention", "24h", _CACHE),
    _noted("prompt_cache_options", {"mode": "implicit"}, _CACHE),
]

BOOKKEEPING: dict[str, str] = {
    "*.id": "calls are known by their call_id, and nothing else is asked for by its id",
    "*.caller": "only the model itself calls",
    "message.phase": "the models do not tell commentary from answers",
    **dict.fromkeys(
        (
            *("message.status", "function_call.status", "local_shell_call.status"),
            *("apply_patch_call.status", "function_call_output.status", "shell_call_output.status"),
            *("code_interpreter_call.status", "image_generation_call.status", "reasoning.status"),
        ),
        "what came of it is what there is",
    ),
    "message.content.annotations": "sources stand beside the text, for its reader",
    "reasoning.summary": "thoughts go back with the content that is sealed beside them",
    "reasoning.content": "thoughts go back with the content that is sealed beside them",
    "code_interpreter_call.container_id": "the sandbox is gone",
    "shell_call.environment": "it is the client's own",
    "shell_call_output.max_output_length": "it was applied before",
    "tool_search_output.execution": "the call it answers tells",
}
"""Fields of items that say nothing to a model, by the item's type, and why: they leave no note."""

DEFAULTS: dict[str, Any] = {
    "background": False,
    "context_management": [],
    "include": [],
    "instructions": "",
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {},
    "service_tier": "auto",
    "store": False,
    "stream": False,
    "stream_options": {},
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "truncation": "disabled",
}
"""Values that ask for what happens anyway."""

RESPONSES = (*_PARAMETER_ROWS, *_ITEM_ROWS, *_call_rows(), *_TOOL_ROWS)
"""The properties of OpenAI's schema."""
