"""What the service asks of `contents`: roles, parts, the order of calls and responses, thought signatures.

The one rule: neighbouring contents of one role are one turn, so every count is over turns, not contents
(gemini-wire, "Conversation rules"). Input is the canonical form that `fields` returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import media, signatures
from .status import JSON, Refusal
from .target import Target

_DATA = frozenset(
    {
        "text",
        "inlineData",
        "functionCall",
        "functionResponse",
        "fileData",
        "executableCode",
        "codeExecutionResult",
        "toolCall",
        "toolResponse",
    }
)
_STANDS_ALONE = ("thoughtSignature", "videoMetadata")


def check_conversation(request: JSON, target: Target) -> None:
    """Refuse contents the service would refuse.

    Raises:
        Refusal: with the text of the first rule that is broken.
    """
    contents = request.get("contents") or []
    if not contents:
        raise target.refuse(
            "* GenerateContentRequest.contents: contents is not specified\n",
            vertex="Unable to submit request because at least one contents field is required. "
            "Learn more: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/gemini",
        )
    for at, content in enumerate(contents):
        _check_role(content, target)
        _check_parts(content.get("parts") or [], f"contents[{at}]", target)
    _check_instruction(request.get("systemInstruction"), target)
    turns = merge_turns(contents)
    _check_order(turns, target)
    _check_ids(contents, target)
    _check_signatures(contents, target)


def merge_turns(contents: list[JSON]) -> list[tuple[str, list[JSON]]]:
    """Fold contents into turns of (role, parts); contents with function responses are turns "function"."""
    turns: list[tuple[str, list[JSON]]] = []
    for content in contents:
        parts = content.get("parts") or []
        role = content.get("role") or "user"
        if any("functionResponse" in part for part in parts):
            role = "function"
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(parts)
        else:
            turns.append((role, list(parts)))
    return turns


def _check_role(content: JSON, target: Target) -> None:
    role = content.get("role") or "user"
    legacy = role == "function" and target.generation < (3, 0)
    if role not in ("user", "model") and not legacy:
        raise target.refuse("Please use a valid role: user, model.")


def _check_parts(parts: list[JSON], path: str, target: Target) -> None:
    if not parts:
        raise target.refuse(
            f"* GenerateContentRequest.{path}.parts: contents.parts must not be empty.\n",
            vertex="Unable to submit request because it must include at least one parts field, which "
            "describes the prompt input. Learn more: "
            "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/gemini",
        )
    for at, part in enumerate(parts):
        where = f"{path}.parts[{at}]"
        if _DATA.isdisjoint(part) and not any(key in part for key in _STANDS_ALONE):
            text = "required oneof field 'data' must have one initialized field"
            raise target.refuse_at(f"{where}.data", text)
        _check_part(part, where, target)


def _check_part(part: JSON, where: str, target: Target) -> None:
    if "inlineData" in part:
        media.check_blob(part["inlineData"], f"{where}.inline_data", target)
    if "fileData" in part:
        media.check_file(part["fileData"], f"{where}.file_data", target)
    fps = part.get("videoMetadata", {}).get("fps")
    if fps is not None and not 0 < fps <= 24:
        raise target.refuse_at(f"{where}.video_metadata.fps", "must be in the range (0, 24]")
    if "functionCall" in part and not part["functionCall"].get("name"):
        raise target.refuse_at(f"{where}.function_call.name", "Name cannot be empty.")
    if "functionResponse" in part:
        _check_response(part["functionResponse"], f"{where}.function_response", target)


def _check_response(response: JSON, where: str, target: Target) -> None:
    if not response.get("name"):
        raise target.refuse_at(f"{where}.name", "Name cannot be empty.")
    parts = response.get("parts") or []
    if parts and target.generation < (3, 0):
        # ~ wording; gemini-wire section 3 only says that parts need Gemini 3.
        raise target.refuse_at(f"{where}.parts", "Multimodal function response is not supported.")
    names = set()
    for at, part in enumerate(parts):
        if "inlineData" in part:
            media.check_blob(part["inlineData"], f"{where}.parts[{at}].inline_data", target)
        names |= {blob.get("displayName") for blob in part.values()}
    for reference in _references(response.get("response", {})):
        if reference not in names:
            # ~ wording; the refusal itself is reported in mappings section 3.
            raise target.refuse_at(f"{where}.response", f'"$ref" to unknown part "{reference}".')


def _references(value: Any) -> Iterator[Any]:
    match value:
        case dict():
            for key, item in value.items():
                if key == "$ref":
                    yield item if isinstance(item, str) else repr(item)
                else:
                    yield from _references(item)
        case list():
            for item in value:
                yield from _references(item)


def _check_instruction(content: JSON | None, target: Target) -> None:
    if content is None:
        return
    for at, part in enumerate(content.get("parts") or []):
        if "text" not in part:
            path = f"system_instruction.parts[{at}]"
            raise target.refuse_at(path, "system instruction only supports text parts")


def _count(parts: list[JSON], kind: str) -> int:
    return sum(kind in part for part in parts)


def _check_order(turns: list[tuple[str, list[JSON]]], target: Target) -> None:
    if turns[0][0] == "model":
        _refuse_model_start(turns[0][1], target)
    if turns[-1][0] == "model" and not target.model.prefill:
        raise target.refuse("Requests ending with a model turn are not supported.")
    for at, (role, parts) in enumerate(turns):
        before = turns[at - 1] if at else ("", [])
        if role == "function":
            _check_response_turn(before, parts, target)
        elif _count(before[1], "functionCall") and target.generation > (2, 0):
            raise _uneven(target)


def _refuse_model_start(parts: list[JSON], target: Target) -> None:
    if _count(parts, "functionCall"):
        raise target.refuse(
            "Please ensure that function call turn comes immediately after a user turn or after a "
            "function response turn."
        )
    # ~ wording; mappings section 3 lists the refusal.
    raise target.refuse("Please ensure that the conversation starts with a user turn.")


def _check_response_turn(before: tuple[str, list[JSON]], parts: list[JSON], target: Target) -> None:
    calls = _count(before[1], "functionCall")
    if before[0] != "model" or not calls:
        raise target.refuse(
            "Please ensure that function response turn comes immediately after a function call turn."
        )
    if calls != _count(parts, "functionResponse"):
        raise _uneven(target)


def _uneven(target: Target) -> Refusal:
    return target.refuse(
        "Please ensure that the number of function response parts is equal to the number of function "
        "call parts of the function call turn."
    )


def _check_ids(contents: list[JSON], target: Target) -> None:
    if target.vertex and target.generation < (3, 0):
        _refuse_ids(contents)
    if not target.vertex and target.generation >= (3, 5):
        _require_ids(contents, target)


def _refuse_ids(contents: list[JSON]) -> None:
    for at, content in enumerate(contents):
        for place, part in enumerate(content.get("parts") or []):
            for kind, spelled in (
                ("functionCall", "function_call"),
                ("functionResponse", "function_response"),
            ):
                if part.get(kind, {}).get("id"):
                    raise Refusal(
                        'Invalid JSON payload received. Unknown name "id" at '
                        f"'contents[{at}].parts[{place}].{spelled}': Cannot find field."
                    )


def _require_ids(contents: list[JSON], target: Target) -> None:
    issued: set[str] = set()
    for content in contents:
        for part in content.get("parts") or []:
            call, response = part.get("functionCall"), part.get("functionResponse")
            if call and call.get("id"):
                issued.add(call["id"])
            if response and issued and response.get("id") not in issued:
                # ~ wording; mappings section 1.4: responses without their call's id are refused.
                name = response["name"]
                raise target.refuse(
                    f"Function response `{name}` does not carry the id of its function call."
                )


def _check_signatures(contents: list[JSON], target: Target) -> None:
    for content in contents:
        for part in content.get("parts") or []:
            if part.get("thoughtSignature"):
                signatures.check(
                    part["thoughtSignature"],
                    target.backend,
                    tolerate_foreign=target.foreign_signatures,
                )
    if target.generation >= (3, 0) and target.model.kind == "text":
        _check_missing(contents, target)


def current_turn(contents: list[JSON]) -> int:
    """Return the index of the first content after the last real user message."""
    for at in range(len(contents) - 1, -1, -1):
        content = contents[at]
        parts = content.get("parts") or []
        is_user = (content.get("role") or "user") == "user"
        if is_user and not any("functionResponse" in part for part in parts):
            return at + 1
    return 0


def _check_missing(contents: list[JSON], target: Target) -> None:
    start = current_turn(contents)
    for at in range(start, len(contents)):
        if contents[at].get("role") != "model" or _continues_step(contents, at, start):
            continue
        calls = [part for part in contents[at].get("parts") or [] if "functionCall" in part]
        if calls and not calls[0].get("thoughtSignature"):
            name = calls[0]["functionCall"]["name"]
            raise target.refuse(
                "Function call is missing a thought_signature in functionCall parts. This is required "
                "for tools to work correctly, and missing thought_signature may lead to degraded model "
                f"performance. Additional data, function call `default_api:{name}` , position {at + 1}. "
                "Please refer to https://ai.google.dev/gemini-api/docs/thought-signatures for more "
                "details."
            )


def _continues_step(contents: list[JSON], at: int, start: int) -> bool:
    """Tell whether the model step of content `at` already had a call in the content before it."""
    while at > start and contents[at - 1].get("role") == "model":
        at -= 1
        if any("functionCall" in part for part in contents[at].get("parts") or []):
            return True
    return False
