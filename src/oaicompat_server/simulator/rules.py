"""The order in which a request is judged, and the one entry point to all rules.

`check_generate` is what the simulator asks before it answers, and what a test may ask without a socket. The
one rule: structure first (unknown names, types), meaning second, as the service does.
"""

from __future__ import annotations

from typing import Any

from .configuration import check_configuration
from .conversation import check_conversation
from .fields import read_message
from .status import JSON, Refusal
from .target import Target
from .tools import check_tools


def check_generate(body: Any, target: Target) -> JSON:
    """Return the canonical form of a generateContent body that `target` accepts.

    Raises:
        Refusal: what the service would answer instead.
    """
    request = _read("GenerateContentRequest", body, target)
    _check_all(request, target)
    return request


def check_count(body: Any, target: Target) -> JSON:
    """Return the canonical request whose tokens a countTokens body wants counted."""
    request = _read("CountTokensRequest", body, target)
    inner = request.get("generateContentRequest")
    if inner is not None:
        if request.get("contents"):
            raise target.refuse("contents and generate_content_request must not both be set.")
        request = inner
    check_conversation(request, target)
    return request


def check_embed(body: Any, target: Target, *, batch: bool) -> list[JSON]:
    """Return the canonical single requests of an embedContent or batchEmbedContents body."""
    if not batch:
        requests = [_read("EmbedContentRequest", body, target)]
    else:
        requests = _read("BatchEmbedContentsRequest", body, target).get("requests") or []
        _check_batch(requests, target)
    for request in requests:
        if not (request.get("content") or {}).get("parts"):
            raise Refusal("* EmbedContentRequest.content: contents is not specified\n")
    return requests


def _check_batch(requests: list[JSON], target: Target) -> None:
    if not requests:
        raise Refusal("* BatchEmbedContentsRequest.requests: requests is not specified\n")
    if len(requests) > 100:
        raise Refusal(
            "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n"
        )
    for at, request in enumerate(requests):
        if request.get("model") != f"models/{target.model.name}":
            raise Refusal(
                f"* BatchEmbedContentsRequest.requests[{at}].model: must be the model of the batch\n"
            )


def _read(message: str, body: Any, target: Target) -> JSON:
    return read_message(message, body, backend=target.backend)


def _check_all(request: JSON, target: Target) -> None:
    check_conversation(request, target)
    check_configuration(request, target)
    check_tools(request, target)
