"""A whole chat answer: `chat.completion` (openai-wire section 1).

One rule: what is always there is a field of a struct, in the order it is written; a message, whose fields
depend on what is in it, is plain data with what a stream's deltas have too.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Struct, UnsetType

from oaicompat.dialects import AnswerContext
from oaicompat.dialects.chat.message import (
    Data,
    UsageData,
    annotations_data,
    audio_data,
    call_data,
    extensions,
    finish_reason,
    image_data,
    is_audio,
    logprobs_data,
    shown,
    usage_data,
)
from oaicompat.events import Choice, Response, Usage
from oaicompat.messages import Media, Refusal, Text, Thought, ToolCall
from oaicompat.signatures import needed

_encode = msgspec.json.Encoder().encode
_NOTHING_SPENT = Usage()


class ChoiceData(Struct, gc=False):
    """One entry of `choices`."""

    index: int
    message: Data
    logprobs: Data | None
    finish_reason: str
    native_finish_reason: str | None


class ChatCompletion(Struct, gc=False):
    """The body."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChoiceData]
    usage: UsageData
    system_fingerprint: str | None
    service_tier: str | UnsetType


def encode_response(response: Response, context: AnswerContext) -> bytes:
    """Encode a whole answer as a `chat.completion` body."""
    usage = response.usage or _NOTHING_SPENT
    choices: list[ChoiceData] = []
    for choice in response.choices:
        data = ChoiceData(
            len(choices),
            _text_data(choice) or _message_data(choice, context),
            logprobs_data(choice.logprobs) if choice.logprobs else None,
            finish_reason(choice.finish, context),
            choice.native or None,
        )
        choices.append(data)
    return _encode(
        ChatCompletion(
            f"chatcmpl-{context.token or response.response_id or '0'}",
            "chat.completion",
            context.created,
            context.model,
            choices,
            usage_data(usage),
            response.model_version or None,
            usage.service_tier or UNSET,
        )
    )


def _text_data(choice: Choice) -> Data | None:
    """Return the message that is one text, as most are; None for others."""
    part = choice.parts[0] if len(choice.parts) == 1 else None
    if type(part) is not Text or part.signature is not None or choice.search is not None:
        return None
    return _said(part.text, None, choice)


def _message_data(choice: Choice, context: AnswerContext) -> Data:
    text = reasoning = refusal = ""
    calls: list[ToolCall] = []
    media: list[Media] = []
    for part in choice.parts:
        if type(part) is Text:
            text += part.text
        elif type(part) is Thought:
            reasoning += part.text
        elif type(part) is Refusal:
            refusal += part.text
        elif type(part) is ToolCall:
            calls.append(part)
        elif type(part) is Media and not shown(part, context.options):
            media.append(part)
        else:
            text += shown(part, context.options)
    content = text if text or not (calls or refusal or media) else None
    message = _said(content, refusal or None, choice)
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls or media:
        _add_calls(message, calls, context)
        _add_media(message, media, context)
    if choice.search is not None or needed(choice.parts):
        message.update(extensions(choice.parts, choice.search, context))
    return message


def _said(content: str | None, refusal: str | None, choice: Choice) -> Data:
    """Return what every message has."""
    return {
        "role": "assistant",
        "content": content,
        "refusal": refusal,
        "annotations": annotations_data(choice.citations) if choice.citations else [],
    }


def _add_calls(message: Data, calls: list[ToolCall], context: AnswerContext) -> None:
    if not calls:
        return
    if not context.request.legacy_functions:
        message["tool_calls"] = [call_data(call, call.arguments) for call in calls]
        return
    for _ in calls[1:]:
        context.notes.dropped("choices.message.function_call", "the legacy form holds one call")
    message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}


def _add_media(message: Data, media: list[Media], context: AnswerContext) -> None:
    images = [each for each in media if not is_audio(each)]
    sounds = [each for each in media if is_audio(each)]
    if images:
        message["images"] = [image_data(each, index) for index, each in enumerate(images)]
    if sounds:
        message["audio"] = audio_data(sounds, context)
