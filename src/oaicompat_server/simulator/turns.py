"""What the last turn of a conversation says: its text, its directives, its tool results.

Owns the reading side of the scripting convention. The one rule: only the current turn counts, that is
everything after the last answer of the model that was not a function call; neighbouring user contents are
one turn (gemini-wire, "Conversation rules").
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

import msgspec

from .status import JSON

_DIRECTIVE = re.compile(r"#script:([a-z0-9-]*[a-z0-9])((?::[A-Za-z0-9_.+-]*[A-Za-z0-9_])*)")
_CALL = "#call:"


class Turn(msgspec.Struct, frozen=True):
    """The current turn: user text, directives (name → arguments), and what came back from tools."""

    text: str
    directives: dict[str, tuple[str, ...]]
    results: tuple[JSON, ...] = ()
    text_after_results: str = ""
    named_call: JSON | None = None
    called: tuple[str, ...] = ()

    def number(self, name: str, default: int = 0) -> int:
        """Return the first argument of a directive as a number, `default` when it is none."""
        arguments = self.directives.get(name, ())
        return int(arguments[0]) if arguments and arguments[0].isdecimal() else default

    def argument(self, name: str, default: str) -> str:
        """Return the first argument of a directive, `default` when it has none."""
        arguments = self.directives.get(name, ())
        return arguments[0] if arguments and arguments[0] else default


def read_turn(contents: list[JSON]) -> Turn:
    """Read the current turn of canonical contents."""
    before: list[str] = []
    after: list[str] = []
    media: list[str] = []
    results: list[JSON] = []
    called: list[str] = []
    for content in contents[_start(contents) :]:
        parts = content.get("parts") or []
        if content.get("role") == "model":
            called += [part["functionCall"]["name"] for part in parts if "functionCall" in part]
            continue
        results += [part["functionResponse"] for part in parts if "functionResponse" in part]
        (after if results else before).extend(part["text"] for part in parts if "text" in part)
        media += [shown for part in parts if (shown := describe_media(part))]
    text = "\n".join(before) or "\n".join(media)
    fresh = "\n".join(after)
    if "#script:" in fresh:
        text, results, called, fresh = fresh, [], [], ""
    return Turn(
        text=text,
        directives=read_directives(text),
        results=tuple(results),
        text_after_results=fresh,
        named_call=_named_call(text),
        called=tuple(called),
    )


def read_directives(text: str) -> dict[str, tuple[str, ...]]:
    """Return every `#script:name:argument` of `text` as name → arguments; the last one of a name counts."""
    return {found[1]: tuple(found[2].split(":")[1:]) for found in _DIRECTIVE.finditer(text)}


def result_text(result: JSON) -> str:
    """Return what a function response says: its one string, else its JSON."""
    response = result.get("response") or {}
    for key in ("output", "error", "result", "return_value"):
        if isinstance(response.get(key), str) and len(response) == 1:
            return str(response[key])
    text = json.dumps(response, ensure_ascii=False)
    shown = [describe_media(part) for part in result.get("parts") or []]
    return " ".join([text, *filter(None, shown)])


def describe_media(part: JSON) -> str:
    """Return `[image/png 68 bytes]` or `[video/mp4 https://…]` for a media part, else an empty string."""
    blob, file = part.get("inlineData"), part.get("fileData")
    if blob is not None:
        return f"[{blob.get('mimeType')} {_size(blob.get('data', ''))} bytes]"
    if file is not None:
        return f"[{file.get('mimeType') or 'file'} {file.get('fileUri')}]"
    return ""


def _size(data: str) -> int:
    if len(data) > 1 << 16:
        return len(data.rstrip("=")) * 3 // 4
    text = data.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return len(base64.b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return 0


def _start(contents: list[JSON]) -> int:
    for at in range(len(contents) - 1, -1, -1):
        parts = contents[at].get("parts") or []
        is_model = contents[at].get("role") == "model"
        if is_model and not any(_is_tool_part(part) for part in parts):
            return at + 1
    return 0


def _is_tool_part(part: JSON) -> bool:
    return "functionCall" in part or "functionResponse" in part


def _named_call(text: str) -> JSON | None:
    at = text.find(_CALL)
    if at < 0:
        return None
    try:
        value: Any = json.JSONDecoder().raw_decode(text[at + len(_CALL) :].lstrip())[0]
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("args")
    return {"name": value["name"], "args": arguments if isinstance(arguments, dict) else {}}
