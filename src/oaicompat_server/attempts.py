"""The attempts of one upstream call: which credential comes next, after which wait, and how it ends.

One rule: `oaicompat.retry` decides, the pool provides, and this module keeps the history of one call. What
ends the attempts keeps the last real reason, and says when to come back.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from oaicompat.errors import OaicompatError, PoolExhaustedError, UpstreamError
from oaicompat.retry import GiveUp, RetryPolicy
from oaicompat_server.credentials import REFUSED, Credential, Pool

_AS_IT_IS = ("empty", "malformed", "signature")


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
        if self._current is not None:
            self._pool.report(self._current, now, self._model, error)

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
        if isinstance(decision, GiveUp):
            raise self._final(error, now)
        self._following = fresh if decision.rotate else self._current
        self.sentinel = self.sentinel or error.cause == "signature"
        return decision.delay

    def _final(self, error: UpstreamError, now: float) -> OaicompatError:
        """Return the failure itself where it says all, else what it means for the pool."""
        unanswered = error.cause == "network" and error.upstream_status is None
        temporary = error.retryable and error.cause not in _AS_IT_IS and not unanswered
        return self._exhausted(now) if temporary or error.cause in REFUSED else error

    def _exhausted(self, now: float) -> OaicompatError:
        last = self._last
        if self._pool.all_refused:
            return _all_refused(last)
        wait = self._pool.earliest(now, self._model)
        seconds = max(1, math.ceil(wait if wait is not None else 1.0))
        again = f"Please try again in {seconds}s."
        if last is None:
            return PoolExhaustedError(
                f"All credentials are cooling down for this model. {again}", retry_after=seconds
            )
        limited = last.status == 429
        message = last.message if "try again in" in last.message else f"{last.message} {again}"
        return PoolExhaustedError(
            message,
            status=429 if limited else 503,
            type=last.type if limited else "service_unavailable_error",
            code=last.code if limited else "server_is_overloaded",
            retry_after=seconds,
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
