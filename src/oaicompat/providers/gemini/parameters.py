"""Name the client's parameter for a place in a Gemini request.

One rule: an error points at what the client wrote. Paths arrive in several spellings (camel or snake case,
with or without the message's type in front, in a violation or only in the text); the longest entry of one
table decides, and a place the client has no name for is None. The table has the neutral names; a request's
`spelling` says how its dialect writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

CHAT: Mapping[str, str] = MappingProxyType(
    {"candidates": "n", "max_output_tokens": "max_completion_tokens"}
)

# Gemini path to the parameter's neutral name, which is chat's where `CHAT` does not say otherwise.
CLIENT_PARAMETERS: dict[str, str] = {
    "model": "model",
    "contents": "messages",
    "systemInstruction": "messages",
    "tools": "tools",
    "toolConfig": "tool_choice",
    "cachedContent": "extra_body.google.cached_content",
    "safetySettings": "extra_body.google.safety_settings",
    "labels": "metadata",
    "serviceTier": "service_tier",
    "generationConfig.temperature": "temperature",
    "generationConfig.topP": "top_p",
    "generationConfig.topK": "extra_body.google.top_k",
    "generationConfig.candidateCount": "candidates",
    "generationConfig.maxOutputTokens": "max_output_tokens",
    "generationConfig.stopSequences": "stop",
    "generationConfig.seed": "seed",
    "generationConfig.presencePenalty": "presence_penalty",
    "generationConfig.frequencyPenalty": "frequency_penalty",
    "generationConfig.responseLogprobs": "logprobs",
    "generationConfig.logprobs": "top_logprobs",
    "generationConfig.responseMimeType": "response_format",
    "generationConfig.responseSchema": "response_format",
    "generationConfig.responseJsonSchema": "response_format",
    "generationConfig.responseModalities": "modalities",
    "generationConfig.speechConfig": "audio",
    "generationConfig.thinkingConfig": "reasoning_effort",
}

# What messages without a violation speak of, in gemini-wire sections 3 and 6.
_SPOKEN_OF: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), path)
    for pattern, path in (
        (r"CachedContent|[Cc]ached content", "cachedContent"),
        (r"Multiple candidates|\bcandidate_?[Cc]ount\b", "generationConfig.candidateCount"),
        (r"Penalty is not enabled", "generationConfig.frequencyPenalty"),
        (r"Logprobs is not enabled", "generationConfig.responseLogprobs"),
        (r"response mime type", "generationConfig.responseMimeType"),
        (r"\bstop_?[Ss]equences\b", "generationConfig.stopSequences"),
        (r"\bmax_?[Oo]utput_?[Tt]okens\b", "generationConfig.maxOutputTokens"),
        (r"\btemperature\b", "generationConfig.temperature"),
        (r"\btop_?[Pp]\b", "generationConfig.topP"),
        (r"\btop_?[Kk]\b", "generationConfig.topK"),
        (r"(?i)\bthinking\b|Budget \d+ is invalid", "generationConfig.thinkingConfig"),
        (r"(?i)function calling config|allowed_function_names", "toolConfig"),
        (r"model turn|function response|function call turn|valid role|\bcontents\b", "contents"),
        (r"(?i)function[_ ]?declaration|Tool use with|Built-in tools", "tools"),
    )
)
_AT = re.compile(r"(?: at '|GenerateContentRequest\.)([\w.\[\]]{1,200})")
_INDEX = re.compile(r"\[\d*\]")
_HUMP = re.compile(r"_+([a-z])")


def client_parameter(path: str, spelling: Mapping[str, str] = CHAT) -> str | None:
    """Map a Gemini request path (`generation_config.top_p`, `tools[0].functionDeclarations`) to the client's.

    `spelling` maps neutral names to the client's, as a request holds it; without it they are chat's.
    """
    steps = [_camel(step) for step in _INDEX.sub("", path).split(".")]
    while steps:
        if (found := CLIENT_PARAMETERS.get(".".join(steps))) is not None:
            return spelling.get(found, found)
        steps.pop()
    return None


def _camel(step: str) -> str:
    return _HUMP.sub(lambda found: found[1].upper(), step.lstrip("_"))


def upstream_path(fields: Iterable[str], message: str) -> str | None:
    """Find which place of the Gemini request an error is about.

    `fields` are those of the `BadRequest` violations, `message` the upstream text. The first field counts;
    without one the path in the text, then what the text speaks of.
    """
    for field in fields:
        if field:
            return field.removeprefix("GenerateContentRequest.")
    if found := _AT.search(message):
        return found[1].rstrip(".:")
    return next((path for pattern, path in _SPOKEN_OF if pattern.search(message)), None)
