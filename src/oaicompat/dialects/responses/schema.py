"""The body of POST /v1/responses as clients send it.

Names are the wire's (openai-wire section 4). One rule: an item is one struct of every field any item type has,
because clients leave `type` out of messages and references; which fields count is up to the type.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw

from oaicompat.dialects.generation import Effort, ResponseFormat, ServiceTier
from oaicompat.dialects.parts import Wire
from oaicompat.dialects.tools import Mode, ToolChoiceObject
from oaicompat.sampling import respell

Role = Literal["user", "assistant", "system", "developer"]


class SummaryPart(Wire, frozen=True):
    """A part of a reasoning summary."""

    text: str = ""
    type: str | None = None


class Item(Wire, frozen=True):
    """One input item."""

    type: str | None = None
    role: Role | None = None
    content: Raw = Raw()
    id: str | None = None
    status: str | None = None
    phase: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | dict[str, Raw] | None = None
    input: str | None = None
    output: Raw = Raw()
    summary: list[SummaryPart] | None = None
    encrypted_content: str | None = None
    action: dict[str, Raw] | None = None
    operation: dict[str, Raw] | None = None
    tools: Raw = Raw()
    execution: str | None = None
    code: str | None = None
    outputs: Raw = Raw()
    result: str | None = None
    environment: Raw = Raw()
    container_id: Raw = Raw()
    caller: Raw = Raw()
    created_by: Raw = Raw()
    max_output_length: Raw = Raw()
    queries: Raw = Raw()
    results: Raw = Raw()
    error: Raw = Raw()
    server_label: Raw = Raw()
    approval_request_id: Raw = Raw()
    approve: Raw = Raw()
    reason: Raw = Raw()
    pending_safety_checks: Raw = Raw()
    acknowledged_safety_checks: Raw = Raw()
    fingerprint: Raw = Raw()
    internal_chat_message_metadata_passthrough: Raw = Raw()


def kind_of(item: Item) -> str:
    """Return the type of an item; messages and references may leave it out."""
    if item.type is not None:
        return item.type
    return "message" if item.role is not None else "item_reference"


class ShellOutput(Wire, frozen=True):
    """What one shell command wrote, and how it ended."""

    stdout: str = ""
    stderr: str = ""
    outcome: Raw = Raw()
    created_by: Raw = Raw()


class CodeOutput(Wire, frozen=True):
    """One result of code the provider ran."""

    type: str | None = None
    logs: str | None = None
    url: str | None = None


class ReasoningParameters(Wire, frozen=True):
    """How hard to think, and whether to summarise it."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Raw = Raw()
    mode: Raw = Raw()


class TextParameters(Wire, frozen=True):
    """The form of the answer."""

    format: ResponseFormat | None = None
    verbosity: Raw = Raw()


class StreamOptions(Wire, frozen=True):
    """How a stream is dressed."""

    include_obfuscation: Raw = Raw()
    include_usage: Raw = Raw()


class ConversationReference(Wire, frozen=True):
    """Which conversation goes on."""

    id: str


class CreateResponse(Wire, kw_only=True, frozen=True):
    """A Responses request without its scalar parameters, which `REQUEST` adds."""

    model: str | None = None
    input: str | list[Item] | None = None
    instructions: str | None = None
    tools: Raw = Raw()
    tool_choice: Mode | ToolChoiceObject | None = None
    parallel_tool_calls: bool | None = None
    text: TextParameters | None = None
    reasoning: ReasoningParameters | None = None
    stop: str | Annotated[list[str], Meta(max_length=5)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    include: list[str] | None = None
    service_tier: ServiceTier | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationReference | None = None
    store: bool | None = None
    background: bool | None = None
    truncation: Raw = Raw()
    max_tool_calls: Raw = Raw()
    max_output_tokens: Annotated[int, Meta(ge=16)] | None = None
    prompt: Raw = Raw()
    context_management: Raw = Raw()
    client_metadata: Raw = Raw()
    user: Raw = Raw()
    safety_identifier: Raw = Raw()
    prompt_cache_key: Raw = Raw()
    prompt_cache_options: Raw = Raw()
    prompt_cache_retention: Raw = Raw()
    moderation: Raw = Raw()


SPELLING: dict[str, str | None] = {
    "candidates": None,
    "max_output_tokens": None,
    "seed": None,
    "presence_penalty": None,
    "frequency_penalty": None,
    "logprobs": None,
}

REQUEST = respell(CreateResponse, SPELLING)
"""The struct that request bodies decode to: `CreateResponse` with the parameters Responses has."""
