"""How long a Responses request is: `POST /v1/responses/input_tokens`.

One rule: the body is read as for a response, with all it refers to; only the answer is another, and it is
never streamed.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from oaicompat.dialects import AnswerContext, Decoded, Encoder, Keep, Pending
from oaicompat.dialects.responses.output import encode_error
from oaicompat.dialects.responses.request import drafted, read_body
from oaicompat.events import Response, Usage
from oaicompat.notes import Notes

__all__ = ["decode", "encode_error", "encode_response", "encoder"]


def decode(body: bytes, notes: Notes, keep: Keep = "") -> Decoded | Pending:
    """Decode a request that is only counted; raises `InvalidRequestError` naming `param`."""
    return drafted(read_body(body, notes), notes, "", _counted)


def _counted(decoded: Decoded) -> Decoded:
    return replace(decoded, request=replace(decoded.request, stream=False), operation="count")


def encode_response(response: Response, context: AnswerContext) -> bytes:
    """Encode the count."""
    tokens = (response.usage or Usage()).input
    return msgspec.json.encode({"object": "response.input_tokens", "input_tokens": tokens})


def encoder(context: AnswerContext) -> Encoder:
    """Refuse: a count is never streamed."""
    raise ValueError("a count of tokens is not streamed")
