"""The answer side of the Gemini wire, as the service writes it.

Everything may be absent or null, unknown fields are ignored, and values that are only copied (text, arguments)
or rarely read (grounding, log probabilities) stay raw JSON, so that a plain text chunk costs one decode. Enums
are names, or numbers where somebody asked the service for those (seen in recordings).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct


class Blob(Struct, frozen=True, rename="camel", gc=False):
    """`inlineData`."""

    mime_type: str | None = None
    data: str | None = None


class FileData(Struct, frozen=True, rename="camel", gc=False):
    """`fileData`."""

    mime_type: str | None = None
    file_uri: str | None = None


class PartialArg(Struct, frozen=True, rename="camel", gc=False):
    """One piece of a streamed argument (Vertex `streamFunctionCallArguments`)."""

    json_path: str = "$"
    string_value: str | None = None
    number_value: Raw = Raw()
    bool_value: bool | None = None
    null_value: Raw = Raw()
    will_continue: bool | None = None


class FunctionCall(Struct, frozen=True, rename="camel"):
    """`functionCall`, whole or (with `partialArgs` or `willContinue`) in pieces."""

    id: str | None = None
    name: str | None = None
    args: Raw = Raw()
    partial_args: list[PartialArg] | None = None
    will_continue: bool | None = None


class ExecutableCode(Struct, frozen=True, gc=False):
    """`executableCode`."""

    code: str | None = None
    language: str | int | None = None
    id: str | None = None


class CodeExecutionResult(Struct, frozen=True, gc=False):
    """`codeExecutionResult`."""

    outcome: str | int | None = None
    output: str | None = None
    id: str | None = None


class AnswerPart(Struct, frozen=True, rename="camel", gc=False):
    """One part: exactly one of the data fields, or a bare signature."""

    text: Raw = Raw()
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    executable_code: ExecutableCode | None = None
    code_execution_result: CodeExecutionResult | None = None
    function_response: Raw = Raw()
    tool_call: Raw = Raw()
    tool_response: Raw = Raw()


class AnswerContent(Struct, frozen=True, gc=False):
    """`content` of a candidate."""

    parts: list[AnswerPart] | None = None


class Candidate(Struct, frozen=True, rename="camel", gc=False):
    """One candidate of one chunk."""

    content: AnswerContent | None = None
    finish_reason: str | int | None = None
    finish_message: str | None = None
    index: int | None = None
    grounding_metadata: Raw = Raw()
    citation_metadata: Raw = Raw()
    url_context_metadata: Raw = Raw()
    logprobs_result: Raw = Raw()
    continuation_token: str | None = None


class ModalityCount(Struct, frozen=True, rename="camel", gc=False):
    """Tokens of one modality."""

    modality: str | int | None = None
    token_count: int | None = None


class UsageMetadata(Struct, frozen=True, rename="camel", gc=False):
    """`usageMetadata`; counts are cumulative over a stream."""

    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    prompt_tokens_details: list[ModalityCount] | None = None
    candidates_tokens_details: list[ModalityCount] | None = None
    traffic_type: str | int | None = None
    service_tier: str | int | None = None


class PromptFeedback(Struct, frozen=True, rename="camel", gc=False):
    """Why a prompt was refused."""

    block_reason: str | int | None = None
    block_reason_message: str | None = None


class GenerateContentResponse(Struct, frozen=True, rename="camel", gc=False):
    """A whole answer, or one chunk of a stream; `error` is an error object inside a 200."""

    candidates: list[Candidate] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: Raw = Raw()
    model_version: str | None = None
    response_id: str | None = None
    error: Raw = Raw()


class PlainPart(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A part that is text and nothing else."""

    text: Annotated[str, Meta(min_length=1)]


class PlainContent(Struct, frozen=True, gc=False):
    """One such part."""

    parts: Annotated[list[PlainPart], Meta(min_length=1, max_length=1)]


class PlainCandidate(Struct, frozen=True, rename="camel", gc=False):
    """A candidate of one plain text, which ended as it should and has nothing else of note."""

    content: PlainContent
    finish_reason: Literal["STOP"]
    finish_message: str | None = None
    index: Literal[0] | None = None
    grounding_metadata: None = None
    citation_metadata: None = None
    url_context_metadata: None = None
    logprobs_result: None = None
    continuation_token: None = None


class PlainAnswer(Struct, frozen=True, rename="camel", gc=False):
    """A `GenerateContentResponse` that is one plain text; what is not does not decode to it."""

    candidates: Annotated[list[PlainCandidate], Meta(min_length=1, max_length=1)]
    prompt_feedback: None = None
    usage_metadata: UsageMetadata | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Raw = Raw()


class GroundingWeb(Struct, frozen=True, gc=False):
    """A source on the web (maps and retrieved contexts have the same two fields)."""

    uri: str | None = None
    title: str | None = None


class GroundingChunk(Struct, frozen=True, rename="camel"):
    """One source, of one kind."""

    web: GroundingWeb | None = None
    maps: GroundingWeb | None = None
    retrieved_context: GroundingWeb | None = None


class Segment(Struct, frozen=True, rename="camel", gc=False):
    """A span of the answer in UTF-8 bytes; `startIndex` is left out when it is 0."""

    part_index: int | None = None
    start_index: int | None = None
    end_index: int | None = None
    text: str | None = None


class GroundingSupport(Struct, frozen=True, rename="camel"):
    """Which sources stand behind which span."""

    segment: Segment | None = None
    grounding_chunk_indices: list[int] | None = None


class GroundingMetadata(Struct, frozen=True, rename="camel"):
    """`groundingMetadata`; chunks are incremental over a stream and indices count over all of it."""

    web_search_queries: list[str] | None = None
    grounding_chunks: list[GroundingChunk] | None = None
    grounding_supports: list[GroundingSupport] | None = None


class CitationSource(Struct, frozen=True, rename="camel", gc=False):
    """A source the model recited."""

    start_index: int | None = None
    end_index: int | None = None
    uri: str | None = None
    title: str | None = None


class CitationMetadata(Struct, frozen=True, rename="camel"):
    """`citationMetadata`: the Gemini API and Vertex name the list differently."""

    citation_sources: list[CitationSource] | None = None
    citations: list[CitationSource] | None = None


class UrlMetadata(Struct, frozen=True, rename="camel", gc=False):
    """One page the model read."""

    retrieved_url: str | None = None
    url_retrieval_status: str | int | None = None


class UrlContextMetadata(Struct, frozen=True, rename="camel"):
    """`urlContextMetadata`."""

    url_metadata: list[UrlMetadata] | None = None


class LogprobsCandidate(Struct, frozen=True, rename="camel", gc=False):
    """One token with its log probability."""

    token: str | None = None
    log_probability: float | str | None = None


class TopCandidates(Struct, frozen=True):
    """The likeliest tokens at one position."""

    candidates: list[LogprobsCandidate] | None = None


class LogprobsResult(Struct, frozen=True, rename="camel"):
    """`logprobsResult`."""

    chosen_candidates: list[LogprobsCandidate] | None = None
    top_candidates: list[TopCandidates] | None = None
