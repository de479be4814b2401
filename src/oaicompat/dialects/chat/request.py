"""A chat request to the neutral form.

One rule: whatever the client wrote reaches the request, leaves a note, or is the client's 400; the ledger in
docs/parameters.md lists which, and its test runs this decoder to prove it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import astuple, replace

from oaicompat.affinity import told_by
from oaicompat.dialects import Decoded, Keep
from oaicompat.dialects.chat.plain import read_plain
from oaicompat.dialects.chat.schema import (
    REQUEST,
    SPELLING,
    SPELLINGS,
    ChatCompletionRequest,
    StreamOptions,
    WebSearchOptions,
)
from oaicompat.dialects.chat.turns import read_messages
from oaicompat.dialects.declared import NOTHING_DECLARED, declared
from oaicompat.dialects.generation import NO_MODEL, Inert, Unused, output_format
from oaicompat.dialects.tools import (
    Mode,
    ToolChoiceObject,
    distinct,
    raw_options,
    read_choice,
    read_functions,
    read_tools,
)
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    AudioOutput,
    HostedTool,
    Message,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolChoice,
)
from oaicompat.notes import Notes
from oaicompat.sampling import Sampling
from oaicompat.wire import decode_body, given, json_object, sound

CONTENT = frozenset({"messages", "instructions", "tools", "functions", "response_format", "stop"})
"""Fields that hold what people and programs wrote, where "[undefined]" is a text like any other."""

_AUDIO_FORMATS = ("wav", "pcm16")
_CACHING = Inert("the provider caches by itself")
_FOREIGN = Inert("another service's parameter; reasoning_effort says the same here", inert=False)
UNUSED = {
    "user": Inert("the provider is not told who the user is"),
    "safety_identifier": Inert("the provider is not told who the user is"),
    "prompt_cache_key": _CACHING,
    "prompt_cache_options": _CACHING,
    "prompt_cache_retention": _CACHING,
    "cache_control": _CACHING,
    "store": Inert("chat completions are not stored", inert=False, harmless=(b"false",)),
    "verbosity": Inert("the models have no such setting", inert=False, harmless=(b'"medium"',)),
    "prediction": Inert("it would only make the answer faster"),
    "logit_bias": Inert("the models take no token biases", inert=False, harmless=(b"{}",)),
    "moderation": Inert("answers are not moderated here", inert=False),
    "thinking": _FOREIGN,
    "thinking_budget": _FOREIGN,
    "enable_thinking": _FOREIGN,
    "chat_template_kwargs": _FOREIGN,
}
"""Fields that reach no model, and why; each leaves a note."""

_UNUSED = Unused(UNUSED)
_SCALARS = len(Sampling.__struct_fields__)
_COMMON = REQUEST.__struct_fields__.index("tool_choice")
_ABSENT = REQUEST.__struct_defaults__[_COMMON - len(REQUEST.__struct_fields__) :]
_NO_OPTIONS = StreamOptions()


def decode(body: bytes, notes: Notes, keep: Keep = "") -> Decoded:
    """Decode a chat request, of which nothing is ever kept; raises `InvalidRequestError` naming `param`."""
    plain = read_plain(body)
    if plain is not None:
        return Decoded(plain)
    wire = decode_body(body, REQUEST, notes, CONTENT)
    return Decoded(_request(wire, notes), told=told_by(wire))


def decode_request(body: bytes, notes: Notes) -> Request:
    """Decode the body of a chat request; raises `InvalidRequestError` naming `param`."""
    return _request(decode_body(body, REQUEST, notes, CONTENT), notes)


def _request(wire: ChatCompletionRequest, notes: Notes) -> Request:
    values = astuple(wire)
    seldom = values[_COMMON:] != _ABSENT
    if seldom:
        _UNUSED.note(wire, notes)
    tools: tuple[Tool, ...] = ()
    legacy = False
    if wire.tools or wire.functions or wire.web_search_options is not None:
        tools, legacy = _tools(wire, notes)
    sampling, limit = _sampling(Sampling(*values[:_SCALARS]), wire, notes)
    options = _NO_OPTIONS if wire.stream_options is None else _stream_options(wire, notes)
    if not wire.model:
        raise InvalidRequestError(NO_MODEL)
    messages = read_messages(wire.messages, notes)
    if wire.instructions:
        first = Message("system", (Text(wire.instructions),), "instructions")
        messages = (first, *messages)
    request = Request(
        wire.model,
        messages,
        tools,
        sampling=sampling,
        stop=() if wire.stop is None else _stop(wire.stop),
        stream=wire.stream is True,
        include_usage=options.include_usage is True,
        legacy_functions=legacy,
        spelling=SPELLINGS[limit],
    )
    return _with_seldom(request, wire, notes) if seldom else request


def _with_seldom(request: Request, wire: ChatCompletionRequest, notes: Notes) -> Request:
    """Return the request with what few clients send."""
    tools, legacy = request.tools, request.legacy_functions
    spelling = dict(request.spelling)
    return replace(
        request,
        tool_choice=_tool_choice(wire, tools, legacy, notes),
        parallel_tool_calls=wire.parallel_tool_calls,
        output=output_format(wire.response_format, "response_format", notes),
        reasoning=_reasoning(wire, notes),
        modalities=tuple(wire.modalities or ()),
        audio=_audio(wire, notes),
        service_tier=wire.service_tier,
        metadata=wire.metadata,
        extra=_extra(wire, spelling, notes),
        spelling=spelling,
    )


def _tools(wire: ChatCompletionRequest, notes: Notes) -> tuple[tuple[Tool, ...], bool]:
    """Return the tools, and whether they were declared in the legacy way."""
    found = declared(wire.tools, read_tools, notes) if wire.tools else NOTHING_DECLARED
    tools: tuple[Tool, ...] = found.tools
    legacy = bool(wire.functions) and not found.sent
    if legacy:
        tools = distinct(read_functions(wire.functions or (), notes))
    elif wire.functions:
        notes.dropped("functions", "tools are given as well, and win")
    if wire.web_search_options is not None:
        tools = (*tools, _web_search(wire.web_search_options))
    return tools, legacy


def _web_search(options: WebSearchOptions) -> HostedTool:
    names = ("user_location", "search_context_size")
    path = "web_search_options"
    return HostedTool("web_search", raw_options(options, names, path), path)


def _tool_choice(
    wire: ChatCompletionRequest, tools: tuple[Tool, ...], legacy: bool, notes: Notes
) -> ToolChoice | None:
    choice: Mode | ToolChoiceObject | None = wire.tool_choice
    path = "tool_choice"
    if wire.function_call is not None and choice is None and legacy:
        path = "function_call"
        called = wire.function_call
        choice = called if isinstance(called, str) else ToolChoiceObject(name=called.name)
    elif wire.function_call is not None:
        notes.dropped("function_call", "it chooses among functions, and none count", inert=True)
    return read_choice(choice, tools, notes, path)


def _sampling(
    sampling: Sampling, wire: ChatCompletionRequest, notes: Notes
) -> tuple[Sampling, str]:
    """Return the scalar parameters with the limit of tokens, and how the client names that."""
    named = SPELLING["max_output_tokens"]
    if sampling.top_logprobs is not None and not sampling.logprobs:
        message = "Invalid value for 'top_logprobs': 'logprobs' must be true to use it."
        raise InvalidRequestError(message, param="top_logprobs", code="invalid_value")
    if wire.max_tokens is None and wire.other_max_tokens is None:
        return sampling, named
    limit = sampling.max_output_tokens
    for name, value in (
        ("max_output_tokens", wire.other_max_tokens),
        ("max_tokens", wire.max_tokens),
    ):
        if value is None:
            continue
        if limit is None:
            named, limit = name, value
        elif value != limit:
            notes.dropped(name, f"{named} is given as well, and wins")
    return replace(sampling, max_output_tokens=limit), named


def _stop(stop: str | list[str]) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _stream_options(wire: ChatCompletionRequest, notes: Notes) -> StreamOptions:
    options = wire.stream_options
    if options is None:
        return StreamOptions()
    if options.include_obfuscation is not None:
        path = "stream_options.include_obfuscation"
        notes.dropped(path, "streams are never padded", inert=True)
    if not wire.stream:
        notes.dropped("stream_options", "the answer is not streamed", inert=True)
    return options


def _reasoning(wire: ChatCompletionRequest, notes: Notes) -> Reasoning | None:
    """Read effort and visibility; an effort asks for the thoughts to be shown, as users of chat expect."""
    effort, path = wire.reasoning_effort, "reasoning_effort"
    visible = wire.include_reasoning
    nested = wire.reasoning
    if nested is not None:
        if effort is None and nested.effort is not None:
            effort, path = nested.effort, "reasoning.effort"
        elif nested.effort not in (None, effort):
            notes.dropped("reasoning.effort", "reasoning_effort is given as well, and wins")
        if nested.summary or nested.generate_summary:
            visible = True
        if nested.exclude is not None:
            visible = not nested.exclude
        for name in ("enabled", "max_tokens"):
            if given(getattr(nested, name)):
                notes.dropped(f"reasoning.{name}", "only an effort can be asked for")
    if visible is None and effort is not None:
        visible = effort != "none"
    return None if effort is None and visible is None else Reasoning(effort, visible, path)


def _audio(wire: ChatCompletionRequest, notes: Notes) -> AudioOutput | None:
    audio = wire.audio
    if "audio" not in (wire.modalities or ()):
        if audio is not None:
            notes.dropped("audio", "modalities does not ask for audio", inert=True)
        return None
    if audio is None:
        message = "Missing required parameter: 'audio'."
        raise InvalidRequestError(message, param="audio", code="missing_required_parameter")
    allowed = _AUDIO_FORMATS[1:] if wire.stream else _AUDIO_FORMATS
    if audio.format not in allowed:
        when = " when stream=true" if audio.format in _AUDIO_FORMATS else ""
        message = (
            f"Unsupported value: 'audio.format' does not support '{audio.format}'{when}. "
            f"Supported values are: {' and '.join(map(repr, allowed))}."
        )
        raise InvalidRequestError(message, param="audio.format", code="unsupported_value")
    voice = audio.voice if isinstance(audio.voice, str) else audio.voice.id
    return AudioOutput(voice, audio.format)


def _extra(
    wire: ChatCompletionRequest, spelling: dict[str, str], notes: Notes
) -> Mapping[str, Raw]:
    """Return Google's pass-through by name: a literal `extra_body`, or what an SDK merges from one."""
    path, value = "extra_body.google", wire.extra_body.google if wire.extra_body else Raw()
    if not given(value):
        path, value = "google", wire.google
    elif given(wire.google):
        notes.dropped("google", "extra_body.google is given as well, and wins")
    found = json_object(value, path)
    if found is None:
        return {}
    spelling["extra"] = path
    fields: Any = msgspec.json.decode(found, type=dict[str, Raw])
    return {name: sound(field, f"{path}.{name}") for name, field in fields.items()}
