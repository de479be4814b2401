"""Hypothesis strategies for both wires, to property-test programs that convert between them.

Everything drawn is valid: a request that is accepted, an answer as the service could give it. Values are
plain dicts and lists as JSON has them, small, and shrink well. Install with `oaicompat[testing]`; this
package is the only one here that imports hypothesis. See docs/testing.md.
"""

from __future__ import annotations

from oaicompat.testing.answers import gemini_answers
from oaicompat.testing.chat import chat_requests
from oaicompat.testing.responses import responses_requests
from oaicompat.testing.streams import (
    FRAMINGS,
    Framing,
    GeminiStream,
    cuts,
    frame,
    gemini_streams,
    sse_framings,
)
from oaicompat.testing.turns import gemini_turns

__all__ = [
    "FRAMINGS",
    "Framing",
    "GeminiStream",
    "chat_requests",
    "cuts",
    "frame",
    "gemini_answers",
    "gemini_streams",
    "gemini_turns",
    "responses_requests",
    "sse_framings",
]
