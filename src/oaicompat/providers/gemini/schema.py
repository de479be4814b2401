"""The request side of Gemini's generateContent wire, field for field.

One rule: a struct here is what the service documents, under the service's own names, and a field that is not
set is not sent. Values that are the client's data (schemas, arguments, results) are `Raw`: they are copied,
never rebuilt. Source: gemini-wire section 3. No value here can be part of a cycle, hence `gc=False`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Raw, Struct


class Wire(Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """Base of the wire structs."""


class Blob(Wire, frozen=True, gc=False):
    """Bytes in the request itself, base64."""

    mime_type: str
    data: str
    display_name: str | None = None


class FileData(Wire, frozen=True, gc=False):
    """Bytes the service reads from a URI."""

    file_uri: str
    mime_type: str | None = None
    display_name: str | None = None


class VideoMetadata(Wire, frozen=True, gc=False):
    """Which stretch of a video is meant; offsets are durations like `3.5s`."""

    start_offset: str | None = None
    end_offset: str | None = None
    fps: float | None = None


class MediaResolution(Wire, frozen=True, gc=False):
    """How finely one medium is read."""

    level: str


class FunctionCall(Wire, frozen=True, gc=False):
    """A call the model made; `args` is a JSON object."""

    name: str
    args: Raw
    id: str | None = None


class FunctionResponsePart(Wire, frozen=True, gc=False):
    """A medium inside a function response."""

    inline_data: Blob | None = None
    file_data: FileData | None = None


class FunctionResponse(Wire, frozen=True, gc=False):
    """The answer to a call; `response` is a JSON object."""

    name: str
    response: Raw | Mapping[str, Any]
    id: str | None = None
    parts: Sequence[FunctionResponsePart] = ()


class ExecutableCode(Wire, frozen=True, gc=False):
    """Code the service ran."""

    language: str
    code: str
    id: str | None = None


class CodeExecutionResult(Wire, frozen=True, gc=False):
    """What that code printed."""

    outcome: str
    output: str
    id: str | None = None


class Part(Wire, frozen=True, gc=False):
    """One part of a turn: exactly one of the data fields, plus what is said about it."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    executable_code: ExecutableCode | None = None
    code_execution_result: CodeExecutionResult | None = None
    tool_call: Raw | None = None
    tool_response: Raw | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    video_metadata: VideoMetadata | None = None
    media_resolution: MediaResolution | None = None


class TextPart(Wire, frozen=True, gc=False):
    """A part that is a text and nothing more, as most are."""

    text: str


class Content(Wire, frozen=True, gc=False):
    """One turn."""

    role: Literal["user", "model"] | None = None
    parts: Sequence[Part | TextPart] = ()


class FunctionDeclaration(Wire, frozen=True, gc=False):
    """A function of the client's; at most one of the two schema fields is set."""

    name: str
    description: str | None = None
    parameters: Raw | None = None
    parameters_json_schema: Raw | None = None


class Tool(Wire, frozen=True, gc=False):
    """Either functions, or one tool the service runs; the latter's value is a JSON object."""

    function_declarations: Sequence[FunctionDeclaration] | Raw = ()
    google_search: Raw | None = None
    code_execution: Raw | None = None
    url_context: Raw | None = None
    google_maps: Raw | None = None
    file_search: Raw | None = None
    computer_use: Raw | None = None


class FunctionCallingConfig(Wire, frozen=True, gc=False):
    """`allowed_function_names` goes only with ANY and VALIDATED."""

    mode: Literal["AUTO", "ANY", "NONE", "VALIDATED"]
    allowed_function_names: Sequence[str] = ()


class ToolConfig(Wire, frozen=True, gc=False):
    """How tools may be used."""

    function_calling_config: FunctionCallingConfig | Raw | None = None
    retrieval_config: Raw | None = None
    include_server_side_tool_invocations: bool | Raw | None = None


class ThinkingConfig(Wire, frozen=True, gc=False):
    """Never both a budget and a level (400)."""

    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class GenerationConfig(Wire, frozen=True, gc=False):
    """Everything about how the answer is made; fields only `extra_body.google` can set are `Raw`."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: Sequence[str] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    response_mime_type: str | None = None
    response_schema: Raw | None = None
    response_json_schema: Raw | None = None
    response_modalities: Sequence[str] = ()
    speech_config: Mapping[str, Any] | None = None
    media_resolution: str | None = None
    thinking_config: ThinkingConfig | None = None
    image_config: Raw | None = None
    enable_affective_dialog: Raw | None = None
    enable_enhanced_civic_answers: Raw | None = None
    audio_transcription_config: Raw | None = None
    audio_timestamp: Raw | None = None
    routing_config: Raw | None = None
    model_config: Raw | None = None
    translation_config: Raw | None = None
    response_format: Raw | None = None


class GenerateContentRequest(Wire, frozen=True, gc=False):
    """The body of generateContent and streamGenerateContent."""

    contents: Sequence[Content]
    system_instruction: Content | None = None
    tools: Sequence[Tool | Raw] = ()
    tool_config: ToolConfig | None = None
    safety_settings: Raw | None = None
    generation_config: GenerationConfig | Mapping[str, Raw] | None = None
    cached_content: str | None = None
    labels: Mapping[str, str] | Raw | None = None
    service_tier: str | Raw | None = None
    store: Raw | None = None
    model_armor_config: Raw | None = None
    continuation_token: str | None = None
