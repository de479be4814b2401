"""Responses: `POST /v1/responses`, as far as nothing has to be remembered."""

from oaicompat.dialects.responses.request import decode_request
from oaicompat.dialects.responses.response import encode_error, encode_response, encoder

__all__ = ["decode_request", "encode_error", "encode_response", "encoder"]
