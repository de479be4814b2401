"""Credentials, failures and attempts for tests of the pool, with the time passed in."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import count
from typing import Any

from oaicompat.affinity import conversation_key
from oaicompat.errors import OaicompatError, UpstreamError
from oaicompat.retry import RetryPolicy
from oaicompat_server.attempts import Attempts
from oaicompat_server.pool import Credential, Pool, Wanted
from oaicompat_server.secret import Secret

M = "gemini-2.5-flash"


def credential(name: str, **fields: Any) -> Credential:
    """Return a credential that is called as its key is."""
    return Credential(Secret(name), label=name, **fields)


A, B, C, D = (credential(name) for name in "abcd")


class Renewing:
    """A source of tokens that counts how often it was told to renew."""

    def __init__(self) -> None:
        self.project = self.quota_project = ""
        self.renewed = 0

    async def token(self) -> Secret:
        """Return a token."""
        return Secret("token")

    def renew(self) -> None:
        """Count."""
        self.renewed += 1


def failure(
    cause: str,
    status: int = 503,
    retry_after: float | None = None,
    retryable: bool = True,
    **fields: Any,
) -> UpstreamError:
    """Return what the upstream said, as the provider's decoder would put it."""
    return UpstreamError(
        f"{cause} happened.",
        status=status,
        cause=cause,
        retry_after=retry_after,
        retryable=retryable,
        **fields,
    )


def rate(wait: float | None = None) -> UpstreamError:
    """Return the failure of a limit per minute."""
    return failure("rate", 429, wait)


def quota(retry_after: float | None = None) -> UpstreamError:
    """Return the failure of a quota that is spent."""
    return UpstreamError(
        "You exceeded your current upstream quota for m. Please try again in 2s.",
        status=429,
        type="insufficient_quota",
        code="insufficient_quota",
        should_retry=False,
        retryable=True,
        cause="quota",
        retry_after=retry_after,
    )


def spend(
    pool: Pool, now: float, error: UpstreamError | None, *, only: Credential, model: str = M
) -> None:
    """Let one attempt with this credential end so; one that rests is taken as a retry that began before."""
    lease = pool.lease(now, Wanted(model, only=only, retrying=True))
    assert lease is not None, (only.account, now)
    with lease:
        lease.report(now, error)


def taken(pool: Pool, now: float, model: str = M, **how: Any) -> str:
    """Return the account of the next lease, which is given back at once; "" where there is none."""
    lease = pool.lease(now, Wanted(model, **how))
    if lease is None:
        return ""
    with lease:
        return lease.credential.account


def usable(pool: Pool, now: float, model: str = M, **how: Any) -> set[str]:
    """Return the accounts that could serve now."""
    found = {pool.peek(now, Wanted(model, only=each, **how)) for each in pool.credentials}
    return {each.account for each in found if each is not None}


def user_of(pool: Pool, order: Sequence[str]) -> str:
    """Return a user whose conversation goes to the credentials in this order, by their accounts."""
    now = time.monotonic()
    for number in count():
        user = f"user-{number}"
        sticky = conversation_key(json.dumps({"user": user}).encode(), ())
        tried: list[Any] = []
        for _ in order:
            tried.append(pool.peek(now, Wanted("untouched", tried, sticky=sticky)))
        if [each.account for each in tried] == list(order):
            return user
    raise AssertionError


def attempts(pool: Pool, most: int = 3, models: Sequence[str] = (M,), **how: Any) -> Attempts:
    """Return the attempts of one call."""
    settings: dict[str, Any] = {"deadline": 600.0, "jitter": lambda: 0.5, **how}
    return Attempts(pool, RetryPolicy(attempts=most), tuple(models), **settings)


def run(
    pool: Pool, *outcomes: UpstreamError, now: float = 0.0, **how: Any
) -> tuple[list[str], OaicompatError | None]:
    """Play outcomes until the attempts end; return who was tried and the error, None when one is left."""
    tried = []
    with closing(attempts(pool, **how)) as call:
        try:
            for outcome in outcomes:
                tried.append(call.next(now).credential.account)
                call.failed(now, outcome)
                call.delay(now)
        except OaicompatError as error:
            return tried, error
    return tried, None
