"""How a call ends that nothing can serve: the last real reason, and when to come back.

One rule: the credential that is back first decides what is said, and the one wait in the text is the one of
`Retry-After`. Where waiting is of no known use, clients are told not to try again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from oaicompat.errors import (
    ModelNotFoundError,
    OaicompatError,
    PoolExhaustedError,
    UpstreamError,
)
from oaicompat_server.pool import DENIED, REFUSED, Outlook

OF_CREDENTIALS = frozenset({"rate", "quota", *DENIED, *REFUSED})
"""The causes that are about what a call was made with, so that another credential may help."""

_AGAIN = re.compile(
    r"(?i)\btry again later\b|\b(?:re)?try(?: again)? (?:in|after) (?:about )?"
    r"[0-9]+(?:\.[0-9]+)? ?[a-z]+\b(?:,? ?[0-9]+(?:\.[0-9]+)? ?[a-z]+\b)*"
)


def exhausted(
    outlooks: Sequence[Outlook], model: str, last: UpstreamError | None
) -> OaicompatError:
    """Return the error for a call of `model`, by the outlook of it and its fallbacks, and the last failure."""
    if not any(outlook.allowed for outlook in outlooks):
        return ModelNotFoundError(
            f"The model `{model}` does not exist or you do not have access to it.", param="model"
        )
    if all(outlook.refused == outlook.allowed for outlook in outlooks):
        return _all_refused(last)
    waits = [outlook.wait for outlook in outlooks if outlook.wait is not None]
    wait = min(waits, default=0.0)
    reason = next((outlook.reason for outlook in outlooks if outlook.wait == wait and waits), None)
    denial = next((outlook.reason for outlook in outlooks if outlook.wait is None), None)
    if last is not None and last.cause in DENIED and reason is None:
        return _denied(last, last)
    held = last is None or last.cause in OF_CREDENTIALS
    if last is not None and (not held or (not denial and reason is None and last.status != 429)):
        return _failed(last, wait if held else max(wait, _told(last)))
    if not waits and denial is not None:
        return _denied(denial, last)
    return _limited(reason, wait, last)


def _told(error: UpstreamError) -> float:
    wait = error.retry_after
    return wait if wait is not None and math.isfinite(wait) else 0.0


def _seconds(wait: float) -> int:
    return max(1, math.ceil(wait))


def _timed(message: str, seconds: int) -> str:
    """Return the text with one wait in it, the one that `Retry-After` tells."""
    text, found = _AGAIN.subn(f"try again in {seconds}s", message)
    return text if found else f"{message} Please try again in {seconds}s."


def _failed(last: UpstreamError, wait: float) -> OaicompatError:
    seconds = _seconds(wait)
    if last.cause in REFUSED:
        return _all_refused(last, others=True)
    limited = last.status == 429
    return PoolExhaustedError(
        _timed(last.message, seconds),
        status=429 if limited else 503,
        type=last.type if limited else "service_unavailable_error",
        code=last.code if limited else "server_is_overloaded",
        retry_after=seconds,
    )


def _limited(
    reason: UpstreamError | None, wait: float, last: UpstreamError | None
) -> OaicompatError:
    """Say that the pool rests; that no retry helps only where nothing but a spent quota holds it."""
    seconds = _seconds(wait)
    spent = reason is not None and reason.cause == "quota"
    told = last or reason
    message = "All credentials are cooling down for this model."
    if spent and reason is not None:
        message = reason.message
    elif told is not None and told.cause != "quota":
        message = told.message if last else f"{message} {told.message}"
    overloaded = not spent and reason is not None and reason.status != 429
    return PoolExhaustedError(
        _timed(message, seconds),
        status=503 if overloaded else 429,
        type="insufficient_quota" if spent else "service_unavailable_error" if overloaded else None,
        code="insufficient_quota" if spent else "server_is_overloaded" if overloaded else None,
        retry_after=seconds,
        should_retry=False if spent else None,
    )


def _denied(reason: UpstreamError, last: UpstreamError | None) -> OaicompatError:
    """Say that no credential may do this: in the upstream's words only to the client whose call it was."""
    message = "The upstream denies this model to every configured credential for now."
    return PoolExhaustedError(
        last.message if last is not None and last.cause in DENIED else message,
        status=reason.status,
        type=reason.type,
        code=reason.code,
        param=reason.param,
        should_retry=False,
    )


def _all_refused(last: UpstreamError | None, *, others: bool = False) -> OaicompatError:
    """Say that credentials were refused: all there are, or all that this call was made with."""
    which = "Every credential that was tried" if others else "Every configured credential"
    reason = f" {last.message}" if last else ""
    return PoolExhaustedError(
        f"{which} was refused by the upstream.{reason}",
        status=503,
        type="server_error",
        code="upstream_credentials_refused",
        retry_after=1 if others else None,
        should_retry=None if others else False,
    )
