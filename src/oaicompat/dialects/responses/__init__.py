"""Responses: bodies with `input` instead of `messages`, wherever they arrive."""

from oaicompat.dialects.responses.request import decode_request

__all__ = ["decode_request"]
