"""A conversation made short: `POST /v1/responses/compact`.

The answer holds the user's messages as they were and one `compaction` item with a summary of everything; it is
input for the next request, and stored nowhere (openai-wire section 4).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from oaicompat.dialects import AnswerContext, Decoded, Encoder, Keep, Pending
from oaicompat.dialects.responses.compaction import Summary
from oaicompat.dialects.responses.envelope import DONE
from oaicompat.dialects.responses.memo import memo_of
from oaicompat.dialects.responses.output import encode_error, usage_data
from oaicompat.dialects.responses.request import drafted, read_body
from oaicompat.dialects.responses.stored import stored_input
from oaicompat.dialects.responses.writing import Sink
from oaicompat.events import Response, Usage
from oaicompat.notes import Notes

__all__ = ["decode", "encode_error", "encode_response", "encoder"]


def decode(body: bytes, notes: Notes, keep: Keep = "") -> Decoded | Pending:
    """Decode a request for a summary; raises `InvalidRequestError` naming `param`."""
    return drafted(read_body(body, notes), notes, "", _whole, compacts=True)


def _whole(decoded: Decoded) -> Decoded:
    return replace(decoded, request=replace(decoded.request, stream=False))


def encode_response(response: Response, context: AnswerContext) -> bytes:
    """Encode what is left of the conversation; raises `UpstreamError` where there is no summary."""
    memo = memo_of(context.memo)
    token = context.token or response.response_id or "0"
    summary = Summary(Sink(quiet=True), token, covers=False)
    choice = response.choices[0]
    for part in choice.parts:
        summary.start(part)
        summary.end()
    summary.finish(DONE.get(choice.finish, "incomplete"))
    said = (*memo.past, *stored_input(context.source, memo, token))
    items: list[dict[str, Any]] = [msgspec.json.decode(item.body) for item in said]
    kept = [item for item in items if item.get("role") == "user"]
    return msgspec.json.encode(
        {
            "id": f"resp_{token}",
            "object": "response.compaction",
            "created_at": context.created,
            "output": [*kept, *summary.items],
            "usage": usage_data(response.usage or Usage()),
        }
    )


def encoder(context: AnswerContext) -> Encoder:
    """Refuse: a compacted conversation is never streamed."""
    raise ValueError("a compacted conversation is not streamed")
