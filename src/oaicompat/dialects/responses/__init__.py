"""Responses: `POST /v1/responses` and the calls around it."""

from oaicompat.dialects.responses.request import decode, decode_request
from oaicompat.dialects.responses.response import encode_error, encode_response, encoder

__all__ = ["decode", "decode_request", "encode_error", "encode_response", "encoder"]
