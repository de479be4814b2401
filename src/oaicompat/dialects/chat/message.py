"""The pieces of a chat answer that a whole message and a stream's deltas have in common, as plain data.

Every function returns what goes onto the wire under OpenAI's names (openai-wire sections 1 and 2); extensions
are the field's own: `reasoning_content`, `images`, `reasoning_details`, `native_finish_reason`, and
`extra_content.google` as Google's OpenAI endpoint spells it.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from oaicompat.dialects import AnswerContext, AnswerOptions
from oaicompat.errors import OaicompatError
from oaicompat.events import Citation, FinishReason, Search, TokenLogprob, Usage
from oaicompat.media import wav
from oaicompat.messages import Code, CodeResult, Media, Part, Signature, Text, Thought, ToolCall
from oaicompat.signatures import carrier, describe, needed

Data = dict[str, Any]

_RAW_SOUND = ("audio/l16", "audio/pcm")


def encode_error(error: OaicompatError) -> bytes:
    """Encode an error as OpenAI's error object, for a body or a stream's last frame."""
    return msgspec.json.encode(
        {
            "error": {
                "message": error.message,
                "type": error.type,
                "param": error.param,
                "code": error.code,
            }
        }
    )


class PromptDetails(Struct, gc=False):
    """`prompt_tokens_details`; modalities stand there where the provider told them apart."""

    cached_tokens: int
    audio_tokens: int = 0
    text_tokens: int | UnsetType = UNSET
    image_tokens: int | UnsetType = UNSET


class CompletionDetails(Struct, gc=False):
    """`completion_tokens_details`."""

    reasoning_tokens: int
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    text_tokens: int | UnsetType = UNSET
    image_tokens: int | UnsetType = UNSET


class UsageData(Struct, gc=False):
    """`usage`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


def usage_data(usage: Usage) -> UsageData:
    """Return the usage object."""
    sent, made = usage.input_details, usage.output_details
    return UsageData(
        usage.input,
        usage.output,
        usage.input + usage.output,
        PromptDetails(
            usage.cached, sent.get("audio", 0), sent.get("text", UNSET), sent.get("image", UNSET)
        )
        if sent
        else PromptDetails(usage.cached),
        CompletionDetails(
            usage.reasoning,
            made.get("audio", 0),
            text_tokens=made.get("text", UNSET),
            image_tokens=made.get("image", UNSET),
        )
        if made
        else CompletionDetails(usage.reasoning),
    )


def finish_reason(reason: FinishReason, context: AnswerContext) -> str:
    """Return the finish reason, in the legacy word where the request used legacy functions."""
    if reason == "tool_calls" and context.request.legacy_functions:
        return "function_call"
    return reason


def call_data(call: ToolCall, arguments: str) -> Data:
    """Return one entry of `tool_calls`, with its signature in Google's own place."""
    data: Data = {"id": call.id}
    if call.custom:
        data |= {"type": "custom", "custom": {"name": call.name, "input": arguments}}
    else:
        data |= {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    if call.signature:
        google = {"thought_signature": call.signature.value}
        if call.signature.backend not in ("", "gemini"):
            google["backend"] = call.signature.backend
        data["extra_content"] = {"google": google}
    return data


def annotations_data(citations: Iterable[Citation]) -> list[Data]:
    """Return `annotations`, each a `url_citation`; offsets count code points of `content`."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": citation.start,
                "end_index": citation.end,
                "url": citation.url,
                "title": citation.title,
            },
        }
        for citation in citations
    ]


def logprobs_data(tokens: Iterable[TokenLogprob]) -> Data:
    """Return the `logprobs` object of a choice."""
    return {
        "content": [
            _token(each.token, each.logprob)
            | {"top_logprobs": [_token(token, logprob) for token, logprob in each.top]}
            for each in tokens
        ],
        "refusal": None,
    }


def _token(token: str, logprob: float) -> Data:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def is_audio(media: Media) -> bool:
    """Tell whether a medium goes into `audio` instead of `images`."""
    return media.mime.startswith("audio/")


def address(media: Media) -> str:
    """Return a medium as a URL: its own, or a data URI."""
    return media.uri or f"data:{media.mime};base64,{media.data}"


def image_data(media: Media, index: int) -> Data:
    """Return one entry of `images`."""
    return {"type": "image_url", "image_url": {"url": address(media)}, "index": index}


def audio_data(sounds: Sequence[Media], context: AnswerContext) -> Data:
    """Return the `audio` object for the sounds of one choice, in the format the client asked for.

    Gemini sends raw PCM; for `pcm16` it goes out as it is, otherwise with a WAV header.
    """
    data = sounds[0].data
    if len(sounds) > 1:
        data = b2a_base64(
            b"".join(a2b_base64(each.data) for each in sounds), newline=False
        ).decode()
    wanted = context.request.audio.format if context.request.audio else "wav"
    mime = sounds[0].mime
    if wanted != "pcm16" and mime.partition(";")[0].strip().lower() in _RAW_SOUND:
        data = wav(data, mime)
    return {
        "id": f"audio_{context.token or '0'}",
        "data": data,
        "expires_at": context.created,
        "transcript": "",
    }


def shown(part: Part, options: AnswerOptions) -> str:
    """Return the text that stands for a part in `content` (in `reasoning_content` for a thought)."""
    match part:
        case Text() | Thought():
            return part.text
        case Media() if options.images == "markdown" and part.mime.startswith("image/"):
            return f"![image]({address(part)})"
        case Code() if options.code == "fenced":
            return f"\n```{part.language.lower()}\n{part.code}\n```\n"
        case CodeResult() if options.code == "fenced":
            return f"\n```\n{part.output}\n```\n"
        case _:
            return ""


def extensions(parts: Sequence[Part], search: Search | None, context: AnswerContext) -> Data:
    """Return the message fields that carry what chat has no place for: order, signatures, searches."""
    google: Data = {}
    data: Data = {}
    carried = needed(parts)
    if not carried and search is None:
        return data
    if carried:
        described = (describe(part, shown(part, context.options)) for part in parts)
        google = carrier([each for each in described if each is not None], _backend(parts))
        signed = [part for part in parts if _signature(part)]
        details = [_detail(part, index) for index, part in enumerate(signed)]
        if details:
            data["reasoning_details"] = details
    if search is not None:
        sources = [{"url": url, "title": title} for url, title in search.sources]
        google["search"] = {"queries": list(search.queries), "sources": sources}
    if google:
        data["extra_content"] = {"google": google}
    return data


def _backend(parts: Sequence[Part]) -> str:
    """Return the backend that made a choice's signatures; one call, and so one backend, answers a choice."""
    tags = (signature.backend for part in parts if (signature := _signature(part)))
    return next(tags, "")


def _signature(part: Part) -> Signature | None:
    return getattr(part, "signature", None)


def _detail(part: Part, index: int) -> Data:
    """Return one signature in the form clients of OpenRouter echo."""
    signature = _signature(part)
    return {
        "type": "reasoning.encrypted",
        "data": signature.value if signature else "",
        "id": part.id if isinstance(part, ToolCall) else None,
        "format": "google-gemini-v1",
        "index": index,
    }
