"""The user turn that answers a model turn's calls.

One rule: it holds exactly as many function responses as there were calls, in the order of the calls, and
nothing else (mappings 1.4). What the client did not answer is filled in and reported; what it answered
beyond the calls is refused, because the service would refuse the whole request.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import Media, Text, ToolCall, ToolResult
from oaicompat.notes import Notes
from oaicompat.providers.gemini.context import EMPTY_OBJECT, Context, json_object
from oaicompat.providers.gemini.media import encode_bytes, encode_media
from oaicompat.providers.gemini.schema import FunctionResponse, FunctionResponsePart, Part

# The types a function response may hold; sound and video stand beside it.
_INSIDE = ("image/", "application/pdf", "text/plain")
_NO_RESULT = Raw(b'{"error":"The client returned no result for this call."}')
_OBJECT = re.compile(r"[ \t\r\n]*\{")


class SentCall(Struct, frozen=True, gc=False):
    """A call as it was sent: `wire_id` is empty where the provider is not told one."""

    call: ToolCall
    wire_id: str


def encode_results(
    calls: Sequence[SentCall], results: Sequence[ToolResult], context: Context
) -> tuple[list[Part], list[Part]]:
    """Encode the answers to the calls of one model turn.

    Returns the responses, and the media that must follow in a turn of their own. Raises
    `InvalidRequestError`, param the result's path, for a result that no call asked for.
    """
    following: list[Part] = []
    paired: Sequence[ToolResult | None] = results
    if len(calls) != 1 or len(results) != 1 or results[0].call_id != calls[0].call.id:
        paired = pair_results([each.call for each in calls], results, context.notes)
    responses = [
        _response(sent, result, following, context)
        for sent, result in zip(calls, paired, strict=True)
    ]
    return responses, following


def pair_results(
    calls: Sequence[ToolCall], results: Sequence[ToolResult], notes: Notes
) -> list[ToolResult | None]:
    """Find each call's result: by id, then by function name and position where the client gave no id.

    Ids that occur twice are used up in order (vercel#19091, mappings B17, B21). A second result for an
    answered call is dropped with a note. Raises `InvalidRequestError` for an id no call has.
    """
    found: list[ToolResult | None] = [None] * len(calls)
    waiting: dict[str, deque[int]] = {}
    for index, call in enumerate(calls):
        waiting.setdefault(call.id, deque()).append(index)
    for result in results:
        if not result.call_id:
            continue
        if result.call_id not in waiting:
            raise _unasked(result, f"no preceding call has the id {result.call_id[:64]!r}")
        if indexes := waiting[result.call_id]:
            found[indexes.popleft()] = result
        else:
            notes.dropped(result.path, "the call has a result already")
    _pair_by_position(calls, [each for each in results if not each.call_id], found)
    return found


def _pair_by_position(
    calls: Sequence[ToolCall], results: Sequence[ToolResult], found: list[ToolResult | None]
) -> None:
    free = {index: None for index, each in enumerate(found) if each is None} if results else {}
    named: dict[str, deque[int]] = {}
    for index in free:
        named.setdefault(calls[index].name, deque()).append(index)
    for result in results:
        if not free:
            raise _unasked(result, "every preceding call has a result already")
        alike = named.get(result.name or "")
        while alike and alike[0] not in free:
            alike.popleft()
        index = alike[0] if alike else next(iter(free))
        del free[index]
        found[index] = result


def unasked_result(results: Sequence[ToolResult]) -> InvalidRequestError:
    """Build the error for results that follow no call at all."""
    return _unasked(results[0], "it must follow an assistant message with calls")


def _unasked(result: ToolResult, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"Invalid tool result: {why}.", param=result.path or None)


def _response(
    sent: SentCall, result: ToolResult | None, following: list[Part], context: Context
) -> Part:
    name = context.names.get(sent.call.name, sent.call.name)
    wire_id = sent.wire_id or None
    if result is None:
        context.notes.approximated(sent.call.path, "the call has no result; an error was filled in")
        return Part(function_response=FunctionResponse(name, _NO_RESULT, wire_id))
    payload = encode_payload(result, context.notes)
    inside: tuple[FunctionResponsePart, ...] = ()
    if len(result.parts) != 1 or type(result.parts[0]) is not Text:
        inside = _media(result, following, context)
    return Part(function_response=FunctionResponse(name, payload, wire_id, inside))


def _media(
    result: ToolResult, following: list[Part], context: Context
) -> tuple[FunctionResponsePart, ...]:
    """Encode a result's media: those returned go inside the response, the others are appended."""
    inside: list[FunctionResponsePart] = []
    for media in result.parts:
        if not isinstance(media, Media):
            continue
        if context.profile.multimodal_function_response and media.mime.startswith(_INSIDE):
            inside.append(FunctionResponsePart(*encode_bytes(media, context)))
        else:
            context.notes.rewritten(media.path or result.path, "sent after the tool results")
            following.append(encode_media(media, context))
    return tuple(inside)


def encode_payload(result: ToolResult, notes: Notes) -> Raw | Mapping[str, Any]:
    """Return the JSON object that stands for a result's text.

    The text of one JSON object stays that object, byte for byte; other text is the `output` of one, a list
    where the client sent several texts. An object that holds a `$ref` key is sent as text, because the
    service would read the key as a pointer to a part (bifrost#7694).
    """
    texts = [part.text for part in result.parts if type(part) is Text]
    if len(texts) != 1:
        if not texts and result.parts:
            return EMPTY_OBJECT
        return {"output": texts or ""}
    text = texts[0]
    raw = json_object(text) if _OBJECT.match(text) else None
    if raw is None:
        return {"output": text}
    if _may_refer(text) and any(key == "$ref" for key in _keys(raw)):
        notes.rewritten(result.path, "a JSON object with a $ref key is sent as text")
        return {"output": text}
    return raw


def _may_refer(text: str) -> bool:
    return "$ref" in text or "\\u" in text


def _keys(raw: Raw) -> Iterator[str]:
    """Yield every key of every object in valid JSON, without recursion."""
    pending: list[object] = [msgspec.json.decode(raw)]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
