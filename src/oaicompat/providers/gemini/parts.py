"""One neutral part to one wire part, with its signature where it may have one.

One rule: a part stands for itself; nothing here looks at its neighbours. Calls and results, which depend on
their turns, are encoded in `model_turns` and `tool_turns`.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from oaicompat.messages import (
    Code,
    CodeResult,
    Media,
    Refusal,
    ServerTool,
    Signature,
    Text,
    Thought,
    ToolCall,
    ToolResult,
)
from oaicompat.messages import Part as NeutralPart
from oaicompat.providers.gemini.context import Context
from oaicompat.providers.gemini.media import encode_media
from oaicompat.providers.gemini.schema import CodeExecutionResult, ExecutableCode, Part


def usable_signature(
    signature: Signature | None, path: str, context: Context, *, resign: bool = False
) -> str | None:
    """Return the signature to send, if any.

    Backends refuse each other's signatures, and one that was refused is not sent again (`resign`); both are
    noted at `path`. A signature of unknown origin is sent.
    """
    if signature is None or not signature.value:
        return None
    if signature.backend not in ("", context.target.backend):
        context.notes.rewritten(path, "a thought signature of another backend is left out")
        return None
    if resign:
        context.notes.rewritten(path, "a thought signature the service refused is left out")
        return None
    return signature.value


def encode_part(
    part: NeutralPart, path: str, context: Context, *, resign: bool = False
) -> Part | None:
    """Encode a part that is neither call nor result; `None` where nothing is left to send."""
    if (type(part) is Text and part.signature is None) or isinstance(part, Refusal):
        return Part(part.text) if part.text else None
    if isinstance(part, ToolCall | ToolResult):
        context.notes.dropped(part.path or path, "a tool part outside a tool turn")
        return None
    signature = usable_signature(part.signature, path, context, resign=resign)
    match part:
        case Text() | Thought():
            if not part.text and signature is None:
                return None
            thought = True if isinstance(part, Thought) else None
            return Part(text=part.text, thought=thought, thought_signature=signature)
        case Media():
            encoded = encode_media(part, context)
            return encoded if signature is None else replace(encoded, thought_signature=signature)
        case Code() | CodeResult():
            return _code(part, signature)
        case ServerTool():
            return _server_tool(part, path, signature, context)
        case _:
            assert_never(part)


def _code(part: Code | CodeResult, signature: str | None) -> Part:
    thought = part.thought or None
    if isinstance(part, Code):
        return Part(
            executable_code=ExecutableCode(part.language, part.code, part.id),
            thought=thought,
            thought_signature=signature,
        )
    return Part(
        code_execution_result=CodeExecutionResult(part.outcome, part.output, part.id),
        thought=thought,
        thought_signature=signature,
    )


def _server_tool(
    part: ServerTool, path: str, signature: str | None, context: Context
) -> Part | None:
    if part.kind not in ("toolCall", "toolResponse") or not context.profile.server_tool_parts:
        context.notes.dropped(path, "this model takes no parts of tools the provider ran")
        return None
    is_call = part.kind == "toolCall"
    return Part(
        tool_call=part.data if is_call else None,
        tool_response=None if is_call else part.data,
        thought=part.thought or None,
        thought_signature=signature,
    )
