"""Finds the thought signatures of an assistant message that comes without a whole carrier.

Clients keep different fields, so answers show a signature in several and every one is read here, by priority:
on the call, on the message, `reasoning_details`, `thinking_blocks`, after a separator in the call's id
(mappings section 1.1). One rule: a lower source is asked only where the higher ones gave nothing, and no
signature goes back twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from oaicompat.dialects.chat.schema import AssistantMessage, CallFields, ToolCallItem
from oaicompat.messages import Part, Signature, Text, ToolCall
from oaicompat.wire import given

IN_ID = "__thought__"
"""What stands between a call's id and a signature in clients of one gateway (litellm)."""

_GOOGLE = "google"

Found = tuple[str | None, Signature]


class _GoogleExtra(Struct):
    """What Google's endpoint puts on a message: the signature of its text."""

    thought_signature: str | None = None
    backend: str | None = None


def explicit(item: ToolCallItem) -> Signature | None:
    """Return the signature that stands on a call itself."""
    google = item.extra_content.google if item.extra_content else None
    if google is not None and google.thought_signature:
        return Signature(google.thought_signature, google.backend or "")
    places: tuple[CallFields | None, ...] = (
        item.provider_specific_fields,
        item.function.provider_specific_fields if item.function else None,
    )
    for fields in places:
        if fields is not None and fields.thought_signature:
            return Signature(fields.thought_signature)
    return None


def bare(message: AssistantMessage) -> bool:
    """Tell whether a message has nothing but content and calls."""
    for item in message.tool_calls or ():
        if item.id and IN_ID in item.id:
            return False
    return not (
        message.extra_content
        or message.reasoning_content
        or message.reasoning
        or message.reasoning_details
        or message.thinking_blocks
        or message.refusal
        or message.images
        or message.audio
    )


def signed(parts: Sequence[Part], message: AssistantMessage) -> list[Part]:
    """Return the parts with the signatures the message has for them."""
    signing = list(parts)
    _sign_text(signing, message)
    for source in (_details, _blocks, _in_ids):
        if any(getattr(part, "signature", None) for part in signing):
            break
        _sign(signing, source(message))
    return signing


def _sign(parts: list[Part], found: Iterable[Found]) -> None:
    """Put each signature on the call it names; one that names none on the first call, else the last text."""
    unsigned: dict[str, list[int]] = {}
    first: list[int] = []
    for at, part in enumerate(parts):
        if isinstance(part, ToolCall):
            unsigned.setdefault(part.id, []).append(at)
            first = first or [at]
    first = first or _last_text(parts)
    used: set[Signature] = set()
    for call_id, signature in found:
        if signature in used:
            continue
        for at in unsigned.pop(call_id, ()) if call_id else first:
            if _put(parts, at, signature):
                used.add(signature)


def _put(parts: list[Part], at: int, signature: Signature) -> bool:
    """Sign a part that has no signature yet; tell whether it was done."""
    part = parts[at]
    if not isinstance(part, (ToolCall, Text)) or part.signature is not None:
        return False
    parts[at] = replace(part, signature=signature)
    return True


def _last_text(parts: Sequence[Part]) -> list[int]:
    return [at for at, part in enumerate(parts) if isinstance(part, Text)][-1:]


def _sign_text(parts: list[Part], message: AssistantMessage) -> None:
    extra = message.extra_content
    if extra is None or not given(extra.google):
        return
    try:
        google = msgspec.json.decode(extra.google, type=_GoogleExtra)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return
    if google.thought_signature:
        signature = Signature(google.thought_signature, google.backend or "")
        for at in _last_text(parts):
            _put(parts, at, signature)


def _details(message: AssistantMessage) -> Iterator[Found]:
    for detail in message.reasoning_details or ():
        google = detail.format is None or detail.format.startswith(_GOOGLE)
        if detail.type == "reasoning.encrypted" and google and detail.data:
            yield _bare(detail.id), Signature(detail.data)


def _blocks(message: AssistantMessage) -> Iterator[Found]:
    for block in message.thinking_blocks or ():
        if block.signature:
            yield None, Signature(block.signature)


def _in_ids(message: AssistantMessage) -> Iterator[Found]:
    for item in message.tool_calls or ():
        call_id, _, value = (item.id or "").partition(IN_ID)
        if value:
            yield call_id, Signature(value)


def _bare(call_id: str | None) -> str | None:
    return call_id.partition(IN_ID)[0] if call_id else None
