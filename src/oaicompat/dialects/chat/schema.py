"""The body of POST /v1/chat/completions as clients send it.

Names are the wire's (openai-wire section 1), with the extensions real clients use beside it. One rule: what
the provider reads as JSON (schemas, carriers, pass-through) stays `Raw`, so it is neither parsed nor changed
here, and fields that only leave a note are `Raw` too, whatever their value is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, field

from oaicompat.dialects.generation import Effort, ResponseFormat, ServiceTier
from oaicompat.dialects.parts import Content, ImageUrl, Wire
from oaicompat.dialects.tools import FunctionDefinition, Mode, Named, ToolChoiceObject
from oaicompat.sampling import respell


class MessageBase(Wire, tag_field="role", frozen=True):
    """What any message may carry besides its content."""

    name: str | None = None
    cache_control: Raw = Raw()


class SystemMessage(MessageBase, tag="system", kw_only=True, frozen=True):
    """What the application tells the model."""

    content: Content


class DeveloperMessage(SystemMessage, tag="developer", frozen=True):
    """What newer models call system."""


class UserMessage(MessageBase, tag="user", kw_only=True, frozen=True):
    """What the user says."""

    content: Content


class GoogleCallExtra(Wire, frozen=True):
    """A signature as Google's own endpoint puts it on a call."""

    thought_signature: str | None = None
    backend: str | None = None


class CallExtra(Wire, frozen=True):
    """The extensions of a call."""

    google: GoogleCallExtra | None = None


class CallFields(Wire, frozen=True):
    """What one gateway's client library puts on a call instead."""

    thought_signature: str | None = None


class CalledFunction(Wire, frozen=True):
    """The function of a call; arguments are JSON text."""

    name: str
    arguments: str | None = None
    provider_specific_fields: CallFields | None = None


class CalledCustom(Wire, frozen=True):
    """The custom tool of a call; the input is free text."""

    name: str
    input: str | None = None


class ToolCallItem(Wire, frozen=True):
    """A call the model made; `index` is left over from streams."""

    id: str | None = None
    type: str | None = None
    function: CalledFunction | None = None
    custom: CalledCustom | None = None
    extra_content: CallExtra | None = None
    provider_specific_fields: CallFields | None = None
    index: int | None = None
    cache_control: Raw = Raw()


class AudioReference(Wire, frozen=True):
    """Speech of an earlier answer."""

    id: str | None = None
    transcript: str | None = None
    data: Raw = Raw()
    expires_at: Raw = Raw()


class ReasoningDetail(Wire, frozen=True):
    """A piece of reasoning as OpenRouter's clients echo it."""

    type: str | None = None
    id: str | None = None
    data: str | None = None
    text: str | None = None
    summary: str | None = None
    signature: str | None = None
    format: str | None = None
    index: int | None = None


class ThinkingBlock(Wire, frozen=True):
    """A piece of thinking as Anthropic's clients echo it."""

    type: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class AnswerImage(Wire, frozen=True):
    """An image of an earlier answer."""

    image_url: ImageUrl | str
    type: str | None = None
    index: int | None = None


class MessageExtra(Wire, frozen=True):
    """The extensions of an assistant message; the value is the carrier of `oaicompat.signatures`."""

    google: Raw = Raw()


class AssistantMessage(MessageBase, tag="assistant", frozen=True):
    """An earlier answer, as the client kept it."""

    content: Content = None
    refusal: str | None = None
    tool_calls: list[ToolCallItem] | None = None
    function_call: CalledFunction | None = None
    audio: AudioReference | None = None
    images: list[AnswerImage] | None = None
    extra_content: MessageExtra | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[ReasoningDetail] | None = None
    thinking_blocks: list[ThinkingBlock] | None = None
    annotations: Raw = Raw()
    parsed: Raw = Raw()
    provider_specific_fields: Raw = Raw()


class ToolMessage(MessageBase, tag="tool", kw_only=True, frozen=True):
    """The result of a call."""

    content: Content
    tool_call_id: str | None


class FunctionMessage(MessageBase, tag="function", kw_only=True, frozen=True):
    """The result of a legacy function call; `name` says of which."""

    content: Content


ChatMessage = (
    SystemMessage
    | DeveloperMessage
    | UserMessage
    | AssistantMessage
    | ToolMessage
    | FunctionMessage
)


class StreamOptions(Wire, frozen=True):
    """How a stream is dressed."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class VoiceReference(Wire, frozen=True):
    """A custom voice."""

    id: str


class AudioParameters(Wire, frozen=True):
    """Speech wanted as answer."""

    voice: str | VoiceReference
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]


class WebSearchOptions(Wire, frozen=True):
    """How the provider's search is to be used."""

    user_location: Raw = Raw()
    search_context_size: Raw = Raw()


class ReasoningParameters(Wire, frozen=True):
    """Reasoning as Responses and OpenRouter write it."""

    effort: Effort | None = None
    summary: str | None = None
    generate_summary: str | None = None
    exclude: bool | None = None
    enabled: Raw = Raw()
    max_tokens: Raw = Raw()


class ExtraBody(Wire, frozen=True):
    """Pass-through by provider, where a client sends the SDK's argument as a field."""

    google: Raw = Raw()


class ChatCompletionRequest(Wire, kw_only=True, frozen=True):
    """A chat request without its scalar parameters, which `REQUEST` adds in front.

    From `tool_choice` on come the fields that few clients send.
    """

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    model: str | None = None
    instructions: str | None = None
    tools: Raw = Raw()
    functions: Annotated[list[FunctionDefinition], Meta(max_length=512)] | None = None
    web_search_options: WebSearchOptions | None = None
    stop: str | Annotated[list[str], Meta(max_length=5)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    other_max_tokens: Annotated[int, Meta(ge=1)] | None = field(
        default=None, name="max_output_tokens"
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tool_choice: Mode | ToolChoiceObject | None = None
    function_call: Literal["none", "auto"] | Named | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text", "audio", "image"]] | None = None
    audio: AudioParameters | None = None
    reasoning_effort: Effort | None = None
    reasoning: ReasoningParameters | None = None
    include_reasoning: bool | None = None
    service_tier: ServiceTier | None = None
    metadata: dict[str, str] | None = None
    extra_body: ExtraBody | None = None
    google: Raw = Raw()
    user: Raw = Raw()
    safety_identifier: Raw = Raw()
    prompt_cache_key: Raw = Raw()
    prompt_cache_options: Raw = Raw()
    prompt_cache_retention: Raw = Raw()
    cache_control: Raw = Raw()
    store: Raw = Raw()
    verbosity: Raw = Raw()
    prediction: Raw = Raw()
    logit_bias: Raw = Raw()
    moderation: Raw = Raw()
    thinking: Raw = Raw()
    thinking_budget: Raw = Raw()
    enable_thinking: Raw = Raw()
    chat_template_kwargs: Raw = Raw()


SPELLING = {"candidates": "n", "max_output_tokens": "max_completion_tokens"}

SPELLINGS = {
    name: {**SPELLING, "max_output_tokens": name}
    for name in (SPELLING["max_output_tokens"], "max_output_tokens", "max_tokens")
}
"""The spelling of a request, by its name for the limit of tokens."""

REQUEST = respell(ChatCompletionRequest, SPELLING)
"""The struct that request bodies decode to: `ChatCompletionRequest` with chat's names of the parameters."""
