"""How an answer ends: Gemini's finish and block reasons in OpenAI's closed set.

The reason is a property of the whole candidate and is decided once, at the end of the stream
(mappings 1.3): truncation and safety outrank calls, and an answer that is no answer is an error, not `stop`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from oaicompat.errors import UpstreamError, UpstreamProtocolError
from oaicompat.events import FinishReason
from oaicompat.providers.gemini.redaction import scrub

_Kind = Literal["done", "length", "safety", "filtered", "broken", "textual"]

KINDS: dict[str, _Kind] = {
    "STOP": "done",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "safety",
    "PROHIBITED_CONTENT": "safety",
    "BLOCKLIST": "safety",
    "SPII": "safety",
    "IMAGE_SAFETY": "safety",
    "IMAGE_PROHIBITED_CONTENT": "safety",
    "MODEL_ARMOR": "safety",
    "RECITATION": "filtered",
    "IMAGE_RECITATION": "filtered",
    "LANGUAGE": "filtered",
    "MALFORMED_FUNCTION_CALL": "broken",
    "UNEXPECTED_TOOL_CALL": "broken",
    "TOO_MANY_TOOL_CALLS": "broken",
    "MISSING_THOUGHT_SIGNATURE": "broken",
    "MALFORMED_RESPONSE": "broken",
    "NO_IMAGE": "textual",
    "IMAGE_OTHER": "textual",
    "OTHER": "textual",
    "FINISH_REASON_UNSPECIFIED": "textual",
}
"""What each reason means; one that is not listed is `textual`: fine where there is something to show.

A `CONTINUATION` that comes to its end here is one without a token to go on with: the answer is cut short.
"""

CONTINUATION = "CONTINUATION"

_NUMBERED = ("FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")


def name(reason: str | int) -> str:
    """Return a finish reason by name; the two services agree only on the first numbers."""
    if isinstance(reason, str):
        return reason
    return _NUMBERED[reason] if 0 <= reason < len(_NUMBERED) else str(reason)


class Ending(Struct, frozen=True, gc=False):
    """The end of one candidate: the reason, and a refusal to show where the provider stepped in."""

    reason: FinishReason
    refusal: str = ""


def ending(native: str | None, message: str | None, *, shown: bool, calls: bool) -> Ending:
    """Decide how a candidate ended.

    `native` is Gemini's last finish reason (`None`: the stream ended without one), `shown` whether anything
    visible came, `calls` whether a function call did. Raises `UpstreamProtocolError` for a cut stream and
    `UpstreamError` for an answer that broke off.
    """
    if native is None:
        raise UpstreamProtocolError(
            "The upstream answer ended before it was finished.",
            code="upstream_incomplete",
            cause="network",
            retryable=True,
        )
    match KINDS.get(native, "textual"):
        case "done":
            return Ending("tool_calls" if calls else "stop")
        case "length":
            return Ending("length")
        case "safety":
            return Ending("content_filter", _refusal("answer", native, message))
        case "filtered":
            return Ending("content_filter")
        case "textual" if shown or calls:
            return Ending("tool_calls" if calls else "stop")
        case _:
            raise broken(native, message)


def broken(native: str, message: str | None) -> UpstreamError:
    """Return the error for an answer that ended in `native` and cannot be used."""
    said = f": {scrub(message)}" if message else "."
    return UpstreamError(
        f"The model ended its answer with {native}{said}",
        code=native.lower(),
        cause="malformed",
        retryable=True,
    )


def blocked(reason: str, message: str | None) -> Ending:
    """Return the end of an answer whose prompt was refused with this `blockReason`."""
    return Ending("content_filter", _refusal("prompt", reason, message))


def withheld() -> Ending:
    """Return the end of a candidate that never came, though one behind it did."""
    return Ending("content_filter", "The provider returned no answer for this choice.")


def _refusal(what: str, reason: str, message: str | None) -> str:
    said = f": {scrub(message)}" if message else "."
    return f"The {what} was blocked by the provider ({reason}){said}"


def no_candidates() -> UpstreamError:
    """Return the error for an answer without any candidate and without a reason."""
    return UpstreamError(
        "The upstream returned no candidates.", code="upstream_empty", cause="empty", retryable=True
    )
