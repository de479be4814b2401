"""The attempts of one upstream call: which credential and model come next, after which wait.

One rule: `oaicompat.retry` decides, the pool provides, and this module keeps the history of one call. A
fallback model is tried when the one before it has no credential or no attempt left; one attempt is kept for
each. How a call that cannot be served ends is said in `exhaustion`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec.structs import replace

from oaicompat.errors import ModelNotFoundError, OaicompatError, UpstreamError
from oaicompat.retry import GiveUp, RetryPolicy
from oaicompat_server.exhaustion import OF_CREDENTIALS, exhausted
from oaicompat_server.failures import log_failure
from oaicompat_server.pool import REFUSED, Credential, Lease, Pool, Wanted

_AS_IT_IS = frozenset({"empty", "malformed", "signature"})
_ELSEWHERE = OF_CREDENTIALS | {"overload", "network"}
_BUDGETED = frozenset({"overload", "network"})
_POLL_SECONDS = 0.05

Failure = UpstreamError | ModelNotFoundError


class Attempts:
    """Keeps the history of one call; `now` and `deadline` are seconds on the monotonic clock.

    `models` are the call's own and its fallbacks, in their order; `sticky` names the conversation, `owner`
    whose it is; `jitter` returns a number in [0, 1), for waits that must not fall together. `close` gives back
    what it holds, and has to be called at the end.
    """

    def __init__(
        self,
        pool: Pool,
        policy: RetryPolicy,
        models: tuple[str, ...],
        deadline: float,
        sticky: str = "",
        owner: str = "",
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._pool = pool
        enough = policy.attempts >= len(models)
        self._policy = policy if enough else replace(policy, attempts=len(models))
        self._models = models
        self._deadline = deadline
        self._jitter = jitter
        self._sticky = sticky
        self._owner = owner
        self._place = 0
        self._made = 0
        self._before = 0
        self._tried: tuple[Credential, ...] = ()
        self._causes: tuple[str, ...] = ()
        self._lease: Lease | None = None
        self._used: Credential | None = None
        self._stays: Credential | None = None
        self._last: Failure | None = None
        self._asked: float | None = None
        self._renewed = False
        self._budgeted = False
        self.sentinel = False

    @property
    def model(self) -> str:
        """Return the model of the current or next attempt."""
        return self._models[self._place]

    def lease(self, now: float) -> Lease | None:
        """Lease what the next attempt uses where the current model has it now."""
        model, owner, again = self._models[self._place], self._owner, self._made > 0
        lease = None
        if self._stays is not None:
            lease = self._pool.lease(now, Wanted(model, (), "", self._stays, True, owner))
        if lease is None:
            wanted = Wanted(model, self._tried, self._sticky, None, again, owner)
            lease = self._pool.lease(now, wanted)
            if lease is None:
                return None
        self._stays = None
        self._made += 1
        self._lease = lease
        self._used = lease.credential
        self._tried += (lease.credential,)
        return lease

    def wait(self, now: float) -> float:
        """Return the seconds after which to ask again, 0 to go on with `next`.

        A credential that is back soon, or is being probed, is waited for as long as the policy lets a client
        wait in all.
        """
        if self._asked is None:
            self._asked = now
        ahead = self._models[self._place :]
        if any(self._peek(now, model) is not None for model in ahead):
            return 0.0
        left = min(self._asked + self._policy.inline_wait, self._deadline) - now
        if left <= 0:
            return 0.0
        if any(self._pool.probing(now, model, self._spent(model)) for model in ahead):
            return min(left, _POLL_SECONDS * (1.0 + self._jitter()))
        outlooks = [self._pool.outlook(now, model, self._spent(model)) for model in ahead]
        waits = [outlook.wait for outlook in outlooks if outlook.wait is not None]
        soonest = min(waits, default=left + 1.0)
        return min(left, soonest + _POLL_SECONDS * self._jitter()) if soonest <= left else 0.0

    def next(self, now: float) -> Lease:
        """Lease what the next attempt uses; raises the error that ends the call where nothing can serve."""
        lease = self.lease(now)
        while lease is None:
            if not self._fall_back():
                raise self._exhausted(now)
            lease = self.lease(now)
        return lease

    def succeeded(self) -> None:
        """Tell the pool that the current attempt served its call."""
        if self._lease is not None:
            self._pool.succeed(self._lease)

    def failed(self, now: float, error: Failure) -> None:
        """Tell the pool what became of the current attempt, and give its credential back."""
        self._last = error
        lease = self._lease
        if lease is not None and isinstance(error, UpstreamError):
            lease.report(now, error)
            log_failure(lease.credential, self.model, error)
            if error.cause in REFUSED:
                self._renew(lease.credential)
        self.close()

    def delay(self, now: float) -> float:
        """Return the wait before the next attempt, in seconds; raises the error that ends the call."""
        error = self._last
        if error is None:
            return 0.0
        if isinstance(error, ModelNotFoundError):
            if self._fall_back():
                return 0.0
            raise error
        if self._stays is not None:
            return 0.0
        return self._decided(error, now)

    def _renew(self, credential: Credential) -> None:
        """Have a refused token made anew, and tried once more where attempts are left."""
        if credential.source is None:
            return
        credential.source.renew()
        if not self._renewed and self._made - self._before < self._limit():
            self._renewed = True
            self._stays = credential

    def close(self) -> None:
        """Give back what is held."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        if self._budgeted:
            self._budgeted = False
            self._pool.retries.give()

    def _decided(self, error: UpstreamError, now: float) -> float:
        decision = replace(self._policy, attempts=self._limit()).decide(
            self._made - self._before,
            error,
            others=self._peek(now, self.model) is not None,
            budget=self._deadline - now,
            jitter=self._jitter(),
            earlier=self._causes,
        )
        self._causes += (error.cause,)
        if isinstance(decision, GiveUp) or not self._worthwhile(error, decision.rotate):
            if error.cause in _ELSEWHERE and self._fall_back():
                return 0.0
            raise self._final(error, now)
        self._stays = None if decision.rotate else self._used
        self.sentinel = self.sentinel or error.cause == "signature"
        return decision.delay

    def _worthwhile(self, error: UpstreamError, rotate: bool) -> bool:
        """Tell whether a retry that the policy allows may be made; takes its place among all retries."""
        if error.cause == "quota" and not rotate:
            # It does not pass while a client waits, whatever short time comes with it.
            return False
        if error.cause in _BUDGETED:
            self._budgeted = self._pool.retries.take(self._pool.in_flight)
            return self._budgeted
        return True

    def _limit(self) -> int:
        """Return how many attempts the current model may have."""
        kept = len(self._models) - self._place - 1
        return max(1, self._policy.attempts - self._before - kept)

    def _fall_back(self) -> bool:
        """Go on to the next model, if there is one."""
        if self._place + 1 >= len(self._models):
            return False
        self._place += 1
        self._before = self._made
        self._tried = ()
        self._causes = ()
        self._stays = None
        self.sentinel = False
        return True

    def _peek(self, now: float, model: str) -> Credential | None:
        wanted = Wanted(model, self._spent(model), retrying=self._made > 0, owner=self._owner)
        return self._pool.peek(now, wanted)

    def _spent(self, model: str) -> tuple[Credential, ...]:
        """Return the credentials that are not asked again for this model."""
        if model != self.model:
            return ()
        return tuple([each for each in self._tried if each != self._stays])

    def _final(self, error: UpstreamError, now: float) -> OaicompatError:
        """Return the failure itself where it says all, else what it means for the pool."""
        unanswered = error.cause == "network" and error.upstream_status is None
        temporary = error.retryable and error.cause not in _AS_IT_IS and not unanswered
        held = error.cause in OF_CREDENTIALS
        return self._exhausted(now) if temporary or held else error

    def _exhausted(self, now: float) -> OaicompatError:
        last = self._last if isinstance(self._last, UpstreamError) else None
        return exhausted(
            [self._pool.outlook(now, model) for model in self._models], self._models[0], last
        )
