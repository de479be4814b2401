"""Items as they are stored and listed: complete, each with an id.

One rule: an item keeps every field its client sent; only what OpenAI's own listing has and the item lacks is
added (openai-wire section 4: ids, the status, content as parts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from oaicompat.dialects.responses.memo import Memo
from oaicompat.supplies import Item
from oaicompat.wire import given

Data = dict[str, Any]

_PREFIXES: Mapping[str, str] = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "compaction": "cmp",
    "local_shell_call": "lsh",
    "local_shell_call_output": "lsho",
    "shell_call": "sh",
    "shell_call_output": "sho",
    "apply_patch_call": "apc",
    "apply_patch_call_output": "apco",
    "web_search_call": "ws",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
    "tool_search_call": "tsc",
    "tool_search_output": "tso",
}
_WITH_STATUS = frozenset(
    {
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
    }
)


class _Body(Struct):
    input: Raw = Raw()


def stored_input(source: bytes, memo: Memo, token: str) -> tuple[Item, ...]:
    """Return the input of a request as items; a reference is the item it names.

    `source` is the request's body, which was decoded before; `token` makes new ids unique.
    """
    body = msgspec.json.decode(source, type=_Body)
    if not given(body.input):
        return ()
    sent = msgspec.json.decode(body.input)
    items: Sequence[Data] = [{"role": "user", "content": sent}] if isinstance(sent, str) else sent
    kept = []
    for index, item in enumerate(items):
        kind = _kind_of(item)
        if kind == "item_reference":
            kept.append(memo.references[item["id"]])
        elif kind != "compaction_trigger":
            kept.append(normalised(item, f"{token}_in{index}"))
    return tuple(kept)


def _kind_of(item: Mapping[str, Any]) -> str:
    """Return the type of an item as it was sent."""
    return item.get("type") or ("message" if item.get("role") else "item_reference")


def normalised(item: Mapping[str, Any], token: str) -> Item:
    """Return an item as it is stored; `token` makes its id where it has none."""
    kind = _kind_of(item)
    data: Data = {**item, "type": kind}
    data["id"] = item.get("id") or f"{_PREFIXES.get(kind, 'item')}_{token}"
    if kind in _WITH_STATUS and not item.get("status"):
        data["status"] = "completed"
    if kind == "message":
        data["content"] = _parts(item.get("role"), item.get("content"))
    return Item(data["id"], msgspec.json.encode(data))


def _parts(role: Any, content: Any) -> list[Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    parts = [{"type": kind, "text": content}] if isinstance(content, str) else list(content or ())
    return [_part(part) for part in parts]


def _part(part: Any) -> Any:
    if not isinstance(part, dict) or part.get("type") != "output_text":
        return part
    return {"annotations": [], "logprobs": [], **part}
