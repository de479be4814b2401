"""Answer parts that come whole: media, code the provider ran, and its tools, in the neutral form.

One rule: what is only carried (arguments, values of tools) keeps its own JSON, without its white space.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from oaicompat.errors import InvalidRequestError, UpstreamProtocolError
from oaicompat.media import normalise
from oaicompat.messages import Code, CodeResult, Media, Part, ServerTool, Signature
from oaicompat.providers.gemini.answer_schema import AnswerPart, FunctionCall


def verbatim(call: FunctionCall) -> Raw:
    """Return a call as it came, for one that the provider ran itself."""
    fields = {"id": call.id, "name": call.name, "args": call.args or None}
    given = {key: value for key, value in fields.items() if value is not None}
    return Raw(msgspec.json.format(msgspec.json.encode(given), indent=-1))


def compact(args: Raw) -> str:
    """Return a JSON object without white space; nothing, or null, is the empty object."""
    text = bytes(args)
    if not text or text == b"null":
        return "{}"
    return msgspec.json.format(text, indent=-1).decode()


def media(part: AnswerPart, signature: Signature | None) -> Media:
    """Return inline data or a file; raises `UpstreamProtocolError` for sound that is not base64."""
    thought = bool(part.thought)
    if part.inline_data is not None:
        blob = part.inline_data
        mime, data = blob.mime_type or "", blob.data or ""
        if mime.startswith("audio/") and data:
            data = _sound(data)
        return Media(mime, data, thought=thought, signature=signature)
    file = part.file_data
    uri, mime = (file.file_uri or "", file.mime_type or "") if file else ("", "")
    return Media(mime, uri=uri, thought=thought, signature=signature)


def _sound(data: str) -> str:
    """Return standard base64: sound is the one medium an answer's encoder has to decode."""
    try:
        return normalise(data, "")
    except InvalidRequestError:
        raise UpstreamProtocolError("The upstream sent audio that is not base64.") from None


def provider_part(part: AnswerPart, signature: Signature | None) -> Part | None:
    """Return code, its result, or a call or response of the provider's own tools; `None` for none of them."""
    thought = bool(part.thought)
    if part.executable_code is not None:
        code = part.executable_code
        language = code.language if isinstance(code.language, str) else "PYTHON"
        return Code(code.code or "", language, code.id, thought, signature)
    if part.code_execution_result is not None:
        result = part.code_execution_result
        outcome = str(result.outcome) if result.outcome is not None else ""
        return CodeResult(outcome, result.output or "", result.id, thought, signature)
    for kind, raw in (
        ("toolCall", part.tool_call),
        ("toolResponse", part.tool_response),
        ("functionResponse", part.function_response),
    ):
        if raw and bytes(raw) != b"null":
            return ServerTool(kind, Raw(compact(raw).encode()), thought, signature)
    return None
