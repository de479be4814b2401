"""The attempts of one upstream call: which credential comes next, after which wait, and how it ends.

One rule: `oaicompat.retry` decides, the pool provides, and this module keeps the history of one call. What
ends the attempts keeps the last real reason, and says when to come back.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable

from oaicompat.errors import OaicompatError, PoolExhaustedError, UpstreamError
from oaicompat.retry import GiveUp, RetryPolicy
from oaicompat_server.credentials import DENIED, REFUSED, Credential, Pool

_AS_IT_IS = frozenset({"empty", "malformed", "signature"})
_OF_CREDENTIALS = frozenset({"rate", "quota", *DENIED, *REFUSED})
_AGAIN = re.compile(
    r"(?i)\b(?:re)?try(?: again)? (?:in|after) (?:about )?"
    r"[0-9]+(?:\.[0-9]+)? ?[a-z]+\b(?:,? ?[0-9]+(?:\.[0-9]+)? ?[a-z]+\b)*"
)

logger = logging.getLogger("oaicompat")


class Attempts:
    """Keeps the history of one call; `now` and `deadline` are seconds on the monotonic clock.

    `jitter` returns a number in [0, 1), for waits that must not fall together.
    """

    def __init__(
        self,
        pool: Pool,
        policy: RetryPolicy,
        model: str,
        *,
        deadline: float,
        jitter: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._policy = policy
        self._model = model
        self._deadline = deadline
        self._jitter = jitter
        self._count = 0
        self._tried: set[Credential] = set()
        self._causes: list[str] = []
        self._current: Credential | None = None
        self._following: Credential | None = None
        self._last: UpstreamError | None = None
        self.sentinel = False

    def next(self, now: float) -> Credential:
        """Return the credential of the next attempt; raises `PoolExhaustedError` when none can serve."""
        credential = self._following or self._pool.lease(now, self._model, self._tried)
        if credential is None:
            raise self._exhausted(now)
        self._following = None
        self._count += 1
        self._current = credential
        self._tried.add(credential)
        return credential

    def succeeded(self, now: float) -> None:
        """Tell the pool that the current attempt served its call."""
        if self._current is not None:
            self._pool.report(self._current, now, self._model)

    def failed(self, now: float, error: UpstreamError) -> None:
        """Tell the pool what became of the current attempt."""
        self._last = error
        if self._current is None:
            return
        self._pool.report(self._current, now, self._model, error)
        if error.cause in DENIED:
            logger.warning(
                "credential %s rests for %s: %s", self._current.account, self._model, error.message
            )

    def delay(self, now: float) -> float:
        """Return the wait before the next attempt, in seconds; raises the error that ends the call."""
        error = self._last
        if error is None:
            return 0.0
        fresh = self._pool.lease(now, self._model, self._tried)
        decision = self._policy.decide(
            self._count,
            error,
            others=fresh is not None,
            budget=self._deadline - now,
            jitter=self._jitter(),
            earlier=self._causes,
        )
        self._causes.append(error.cause)
        waited_out = not isinstance(decision, GiveUp) and not decision.rotate
        if isinstance(decision, GiveUp) or (waited_out and error.cause == "quota"):
            raise self._final(error, now)
        self._following = fresh if decision.rotate else self._current
        self.sentinel = self.sentinel or error.cause == "signature"
        return decision.delay

    def _final(self, error: UpstreamError, now: float) -> OaicompatError:
        """Return the failure itself where it says all, else what it means for the pool."""
        unanswered = error.cause == "network" and error.upstream_status is None
        temporary = error.retryable and error.cause not in _AS_IT_IS and not unanswered
        held = error.cause in _OF_CREDENTIALS
        return self._exhausted(now) if temporary or held else error

    def _exhausted(self, now: float) -> OaicompatError:
        """Return the error for a pool that cannot serve: the credential that is back first decides."""
        last = self._last
        if self._pool.all_refused:
            return _all_refused(last)
        wait = self._pool.earliest(now, self._model) or 0.0
        reason = self._pool.reason(now, self._model)
        held = last is None or last.cause in _OF_CREDENTIALS
        if last is not None and (not held or (reason is None and last.status != 429)):
            return _failed(last, wait if held else max(wait, _told(last)))
        if reason is not None and reason.cause in DENIED:
            return _denied(reason, wait, last)
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
    return PoolExhaustedError(
        _timed(message, seconds),
        type="insufficient_quota" if spent else None,
        code="insufficient_quota" if spent else None,
        retry_after=seconds,
        should_retry=False if spent else None,
    )


def _denied(reason: UpstreamError, wait: float, last: UpstreamError | None) -> OaicompatError:
    """Say that no credential may do this: in the upstream's words only to the client whose call it was."""
    message = "The upstream denies this model to every configured credential for now."
    return PoolExhaustedError(
        last.message if last is not None and last.cause in DENIED else message,
        status=reason.status,
        type=reason.type,
        code=reason.code,
        param=reason.param,
        retry_after=_seconds(wait),
        should_retry=False,
    )


def _all_refused(last: UpstreamError | None) -> OaicompatError:
    reason = f" {last.message}" if last else ""
    return PoolExhaustedError(
        f"Every configured credential was refused by the upstream.{reason}",
        status=503,
        type="server_error",
        code="upstream_credentials_refused",
        should_retry=False,
    )
