"""Run programs that speak the OpenAI API on Google Gemini: the conversion, without any I/O.

`openai_to_gemini`, `gemini_to_openai` and `stream` convert one request and its answer; `Exchange` drives a
whole one for a transport, attempts, several upstream calls and streaming included.
"""

from __future__ import annotations

from oaicompat.dialects import AnswerOptions
from oaicompat.errors import (
    AuthenticationError,
    InvalidRequestError,
    ModelNotFoundError,
    OaicompatError,
    PoolExhaustedError,
    UnsupportedFeatureError,
    UpstreamError,
    UpstreamProtocolError,
)
from oaicompat.events import Frame
from oaicompat.exchange import Call, Exchange, Options, UpstreamRequest
from oaicompat.mapper import (
    MappedCall,
    MappedStream,
    gemini_to_openai,
    openai_to_gemini,
    stream,
)
from oaicompat.models import BUILTIN, PRESETS, ModelMap
from oaicompat.notes import Note, Notes
from oaicompat.providers.gemini.endpoints import GEMINI_API, Target
from oaicompat.retry import RetryPolicy
from oaicompat.supplies import Item, KeepResponse, Needs, RememberSignature, Supplies

__all__ = [
    "BUILTIN",
    "GEMINI_API",
    "PRESETS",
    "AnswerOptions",
    "AuthenticationError",
    "Call",
    "Exchange",
    "Frame",
    "InvalidRequestError",
    "Item",
    "KeepResponse",
    "MappedCall",
    "MappedStream",
    "ModelMap",
    "ModelNotFoundError",
    "Needs",
    "Note",
    "Notes",
    "OaicompatError",
    "Options",
    "PoolExhaustedError",
    "RememberSignature",
    "RetryPolicy",
    "Supplies",
    "Target",
    "UnsupportedFeatureError",
    "UpstreamError",
    "UpstreamProtocolError",
    "UpstreamRequest",
    "gemini_to_openai",
    "openai_to_gemini",
    "stream",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("oaicompat")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
