"""The pieces of a Responses answer, as plain data under OpenAI's names.

One rule: what a function returns is complete by the union of the published schema, the SDKs and Open Responses
(openai-wire section 4): no key is left out that one of them requires, and none is null that one forbids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from oaicompat.errors import OaicompatError
from oaicompat.events import Citation, Search, TokenLogprob, Usage

Data = dict[str, Any]

SOURCES = "web_search_call.action.sources"
_CODES = frozenset(
    {
        *("server_error", "rate_limit_exceeded", "invalid_prompt", "data_residency_mismatch"),
        *("bio_policy", "vector_store_timeout", "invalid_image", "invalid_image_format"),
        *("invalid_base64_image", "invalid_image_url", "image_too_large", "image_too_small"),
        *("image_parse_error", "image_content_policy_violation", "invalid_image_mode"),
        *("image_file_too_large", "unsupported_image_media_type", "empty_image_file"),
        *("failed_to_download_image", "image_file_not_found"),
        *("context_length_exceeded", "insufficient_quota", "cyber_policy"),
        *("server_is_overloaded", "slow_down"),
    }
)

CODE_OUTPUTS = "code_interpreter_call.outputs"


def encode_error(error: OaicompatError) -> bytes:
    """Encode an error as OpenAI's error object, for the body of a reply."""
    return msgspec.json.encode({"error": error_data(error)})


def error_data(error: OaicompatError) -> Data:
    """Return an error with all four keys."""
    return {
        "type": error.type,
        "code": error.code,
        "message": error.message,
        "param": error.param,
    }


def failure_data(error: OaicompatError) -> Data:
    """Return the `error` of a failed response; its code is one that clients know.

    Codes beyond the published list are those Codex acts on (openai-wire section 9).
    """
    code = error.code
    if code not in _CODES:
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
    return error_data(error) | {"code": code}


def usage_data(usage: Usage) -> Data:
    """Return the usage object."""
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


def text_part(text: str, annotations: Sequence[Data] = (), logprobs: Sequence[Data] = ()) -> Data:
    """Return an `output_text` part."""
    return {
        "type": "output_text",
        "text": text,
        "annotations": list(annotations),
        "logprobs": list(logprobs),
    }


def refusal_part(text: str) -> Data:
    """Return a `refusal` part."""
    return {"type": "refusal", "refusal": text}


def summary_part(text: str) -> Data:
    """Return a part of a reasoning summary."""
    return {"type": "summary_text", "text": text}


def annotation_data(citation: Citation, offset: int) -> Data:
    """Return one `url_citation`; offsets count code points of the part's text, which begins at `offset`."""
    return {
        "type": "url_citation",
        "start_index": citation.start - offset,
        "end_index": citation.end - offset,
        "url": citation.url,
        "title": citation.title,
    }


def logprob_data(each: TokenLogprob) -> Data:
    """Return the probability of one token."""
    likeliest = [_token(token, logprob) for token, logprob in each.top]
    return _token(each.token, each.logprob) | {"top_logprobs": likeliest}


def _token(token: str, logprob: float) -> Data:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def message_data(item_id: str, status: str, content: Sequence[Data]) -> Data:
    """Return a `message` item."""
    return {
        "type": "message",
        "id": item_id,
        "status": status,
        "role": "assistant",
        "content": list(content),
    }


def reasoning_data(item_id: str, summary: Sequence[Data], encrypted: str) -> Data:
    """Return a `reasoning` item; content that carries nothing is left out, since null is refused."""
    data: Data = {"type": "reasoning", "id": item_id, "summary": list(summary)}
    if encrypted:
        data["encrypted_content"] = encrypted
    return data


def search_data(item_id: str, status: str, search: Search | None, *, sources: bool) -> Data:
    """Return a `web_search_call` item; its sources only where the client asked to include them."""
    action: Data = {"type": "search"}
    if search is not None:
        action["query"] = search.queries[0] if search.queries else ""
        action["queries"] = list(search.queries)
        if sources:
            action["sources"] = [{"type": "url", "url": url} for url, _ in search.sources]
    return {"type": "web_search_call", "id": item_id, "status": status, "action": action}


def code_data(
    item_id: str, status: str, container: str, code: str, outputs: Sequence[str] | None
) -> Data:
    """Return a `code_interpreter_call` item; `outputs` is null where the client did not ask for them."""
    logs = None if outputs is None else [{"type": "logs", "logs": each} for each in outputs]
    return {
        "type": "code_interpreter_call",
        "id": item_id,
        "status": status,
        "container_id": container,
        "code": code,
        "outputs": logs,
    }


def image_data(item_id: str, status: str, result: str | None) -> Data:
    """Return an `image_generation_call` item with the image as base64."""
    return {"type": "image_generation_call", "id": item_id, "status": status, "result": result}
