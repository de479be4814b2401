"""Chat completions: `POST /v1/chat/completions`."""

from oaicompat.dialects.chat.request import decode, decode_request
from oaicompat.dialects.chat.response import encode_error, encode_response, encoder

__all__ = ["decode", "decode_request", "encode_error", "encode_response", "encoder"]
