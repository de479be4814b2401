"""The Response object around the output: what an answer repeats of its request.

One rule: the object is complete at every moment of its life (openai-wire section 4, Open Responses), in the
first event of a stream as in the last. What is repeated is read from the client's own body, leniently:
the decoder has judged it already, and a chat body has fewer of these fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from oaicompat.dialects import AnswerContext
from oaicompat.dialects.responses.memo import memo_of
from oaicompat.dialects.responses.output import Data, failure_data, usage_data
from oaicompat.errors import OaicompatError
from oaicompat.events import Usage
from oaicompat.wire import given

DONE = {"stop": "completed", "tool_calls": "completed"}
"""The status of an answer by its finish reason; every other reason leaves it incomplete."""

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}

_TOOLS = frozenset(
    {
        *("function", "custom", "namespace", "tool_search", "programmatic_tool_calling"),
        *("local_shell", "shell", "apply_patch", "mcp", "computer", "computer_use_preview"),
        *("code_interpreter", "file_search", "image_generation", "web_search"),
        *("web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"),
    }
)
_MOST_REPEATED = 16 * 1024 * 1024


class _Asked(Struct):
    """The fields of a body that its answer repeats."""

    instructions: Raw = Raw()
    max_output_tokens: Raw = Raw()
    max_tool_calls: Raw = Raw()
    metadata: Raw = Raw()
    parallel_tool_calls: Raw = Raw()
    prompt_cache_key: Raw = Raw()
    prompt_cache_retention: Raw = Raw()
    reasoning: Raw = Raw()
    safety_identifier: Raw = Raw()
    service_tier: Raw = Raw()
    temperature: Raw = Raw()
    text: Raw = Raw()
    tool_choice: Raw = Raw()
    tools: Raw = Raw()
    top_logprobs: Raw = Raw()
    top_p: Raw = Raw()
    truncation: Raw = Raw()
    user: Raw = Raw()


_TYPES: Mapping[str, tuple[Any, Any]] = {
    "instructions": (str, None),
    "max_output_tokens": (int, None),
    "max_tool_calls": (int, None),
    "metadata": (dict[str, str], {}),
    "parallel_tool_calls": (bool, True),
    "prompt_cache_key": (str, None),
    "prompt_cache_retention": (str, None),
    "safety_identifier": (str, None),
    "temperature": (float, 1.0),
    "top_logprobs": (int, 0),
    "top_p": (float, 1.0),
    "truncation": (str, "disabled"),
    "user": (str, None),
}
"""The fields that are repeated as they are: their type, and what stands there where the client said nothing."""


_DEFAULTS: Data = {name: default for name, (_, default) in _TYPES.items()}


class Envelope:
    """Builds the Response objects of one answer."""

    def __init__(self, context: AnswerContext, token: str) -> None:
        asked = _asked(context.source)
        memo = memo_of(context.memo)
        self._tier = _read(asked.service_tier, str, None)
        if self._tier in (None, "auto"):
            self._tier = "default"
        self._created = context.created
        self._base: Data = {
            "id": f"resp_{token}",
            "object": "response",
            "created_at": context.created,
            "model": context.model,
            "previous_response_id": memo.previous or None,
            "conversation": {"id": memo.conversation} if memo.conversation else None,
            "background": memo.background,
            "store": memo.stored,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            **_repeated(asked),
            "reasoning": _reasoning(_read(asked.reasoning, dict[str, Any], {})),
            "text": _text(_read(asked.text, dict[str, Any], {})),
            "tool_choice": _choice(_read(asked.tool_choice, Any, "auto")),
            "tools": _tools(_read(asked.tools, list[dict[str, Any]], [])),
        }

    def running(self, status: str = "in_progress") -> Data:
        """Return the object while the answer is made, or waits to be."""
        return self._object(status, [], None)

    def finished(
        self, output: Sequence[Data], usage: Usage | None, reason: str, tier: str | None
    ) -> Data:
        """Return the object of an answer that ended for `reason`, a finish reason of the neutral form."""
        data = self._object(DONE.get(reason, "incomplete"), output, usage or Usage())
        if data["status"] == "incomplete":
            data["incomplete_details"] = {"reason": INCOMPLETE.get(reason, reason)}
        else:
            data["completed_at"] = self._created
        if tier:
            data["service_tier"] = tier
        return data

    def failed(self, output: Sequence[Data], usage: Usage | None, error: OaicompatError) -> Data:
        """Return the object of an answer that failed."""
        return self._object("failed", output, usage) | {"error": failure_data(error)}

    def _object(self, status: str, output: Sequence[Data], usage: Usage | None) -> Data:
        return {
            **self._base,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "output": list(output),
            "service_tier": self._tier,
            "usage": None if usage is None else usage_data(usage),
        }


def _asked(source: bytes) -> _Asked:
    if len(source) > _MOST_REPEATED:
        return _Asked()
    try:
        return msgspec.json.decode(source, type=_Asked)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _Asked()


def _repeated(asked: _Asked) -> Data:
    """Return the fields that are repeated as they are."""
    data = _DEFAULTS.copy()
    for name, (kind, default) in _TYPES.items():
        if raw := getattr(asked, name):
            data[name] = _read(raw, kind, default)
    return data


def _read(raw: Raw, kind: Any, default: Any) -> Any:
    if not given(raw):
        return default
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return default


def _reasoning(asked: Data) -> Data:
    return {"effort": asked.get("effort"), "summary": asked.get("summary")}


def _text(asked: Data) -> Data:
    form = asked.get("format")
    if not isinstance(form, dict):
        form = {"type": "text"}
    nested = form.get("json_schema")
    if isinstance(nested, dict):
        form = {"type": "json_schema", **nested}
    if form.get("type") == "json_schema" and "schema" not in form:
        form = {**form, "schema": {}}
    text = {"format": form}
    if isinstance(asked.get("verbosity"), str):
        text["verbosity"] = asked["verbosity"]
    return text


def _choice(asked: Any) -> Any:
    if not isinstance(asked, dict):
        return asked if isinstance(asked, str) else "auto"
    kind = asked.get("type")
    nested = asked.get(kind) if isinstance(kind, str) else None
    if not isinstance(nested, dict):
        return asked
    flat = {"type": kind, **nested}
    if isinstance(flat.get("tools"), list):
        flat["tools"] = [_flat(each) if isinstance(each, dict) else each for each in flat["tools"]]
    return flat


def _flat(tool: Data) -> Data:
    """Return a tool as Responses writes it, where it was nested under its type as in chat."""
    kind = tool.get("type")
    nested = tool.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **nested} if isinstance(nested, dict) else tool


def _tools(asked: Sequence[Data]) -> list[Data]:
    return [_complete(_flat(tool)) for tool in asked if tool.get("type") in _TOOLS]


def _complete(tool: Data) -> Data:
    """Return a tool with the keys that Open Responses requires of a function."""
    if tool["type"] != "function":
        return tool
    return {"description": None, "parameters": None, "strict": None, **tool}
