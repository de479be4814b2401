"""The credential pool and the attempts of one call, with the time passed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oaicompat.errors import OaicompatError, PoolExhaustedError, UpstreamError
from oaicompat.retry import RetryPolicy
from oaicompat_server.attempts import Attempts
from oaicompat_server.credentials import Credential, Pool
from oaicompat_server.secret import Secret

A, B, C = (Credential(Secret(name), label=name) for name in "abc")
M = "gemini-2.5-flash"


def _error(
    cause: str, status: int = 503, retry_after: float | None = None, retryable: bool = True
) -> UpstreamError:
    return UpstreamError(
        f"{cause} happened.",
        status=status,
        cause=cause,
        retry_after=retry_after,
        retryable=retryable,
    )


def test_leases_go_round() -> None:
    pool = Pool([A, B, C])
    assert [pool.lease(0, M) for _ in range(5)] == [A, B, C, A, B]
    assert pool.lease(0, M, {C, A}) == B
    assert pool.lease(0, M, {A, B, C}) is None
    assert Pool([]).lease(0, M) is None


def test_cooldown_belongs_to_one_credential_and_one_model() -> None:
    pool = Pool([A, B])
    pool.report(A, 0, M, _error("rate", 429, retry_after=30))
    assert [pool.lease(1, M) for _ in range(2)] == [B, B]
    assert {pool.lease(1, "other") for _ in range(2)} == {A, B}
    assert pool.lease(30.0, M, {B}) == A
    pool.report(B, 1, M, _error("rate", 429, retry_after=10))
    assert pool.earliest(2, M) == 9
    assert pool.earliest(2, "other") == 0


def test_cooldown_grows_by_steps_and_success_resets_it() -> None:
    pool = Pool([A])
    waits = []
    now = 0.0
    for _ in range(6):
        pool.report(A, now, M, _error("rate", 429))
        waits.append(pool.earliest(now, M))
        now += 100
    assert waits == [5, 15, 30, 60, 60, 60]
    pool.report(A, now, M)
    assert pool.earliest(now, M) == 0
    pool.report(A, now, M, _error("rate", 429))
    assert pool.earliest(now, M) == 5


@pytest.mark.parametrize("wait", [0.0, -1.0, 1e9, float("nan"), float("inf")])
def test_any_wait_is_bounded(wait: float) -> None:
    pool = Pool([A])
    pool.report(A, 0, M, _error("rate", 429, retry_after=wait))
    earliest = pool.earliest(0, M)
    assert earliest is not None
    assert 0 <= earliest <= 24 * 3600


def test_refused_credential_is_out() -> None:
    pool = Pool([A, B])
    pool.report(A, 0, M, _error("credential", 401))
    assert {pool.lease(1e9, "any") for _ in range(4)} == {B}
    assert not pool.all_refused
    pool.report(B, 0, M, _error("credential", 401))
    assert pool.all_refused
    assert pool.earliest(0, M) is None


@pytest.mark.parametrize("cause", ["permission", "model_permission"])
def test_regression_a_denial_rests_one_credential_for_one_model_only(cause: str) -> None:
    pool = Pool([A, B])
    for credential in (A, B):
        pool.report(credential, 0, M, _error(cause, 403))
    assert pool.lease(1, M) is None
    assert {pool.lease(1, "other") for _ in range(2)} == {A, B}
    assert not pool.all_refused
    assert pool.earliest(0, M) == 60
    assert pool.lease(60, M) is not None


@pytest.mark.parametrize("cause", ["request", "network", "empty", "malformed", "signature"])
def test_what_is_not_the_credentials_fault_cools_nothing(cause: str) -> None:
    pool = Pool([A])
    pool.report(A, 0, M, _error(cause))
    assert pool.lease(0, M) == A


def test_account_is_the_label_or_a_fingerprint() -> None:
    assert A.account == "a"
    anonymous = Credential(Secret("AIzaSentinel"))
    assert anonymous.account.startswith("key-")
    assert len(anonymous.account) == 12
    assert "AIza" not in repr(anonymous) + anonymous.account


@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B, C]),
            st.sampled_from([None, "rate", "quota", "overload", "network", "credential"]),
            st.floats(0, 100),
        ),
        max_size=30,
    )
)
def test_law_a_lease_is_usable_and_none_means_none_is(
    steps: list[tuple[Credential, str | None, float]],
) -> None:
    pool = Pool([A, B, C])
    now = 0.0
    for credential, cause, passed in steps:
        now += passed
        pool.report(credential, now, M, _error(cause) if cause else None)
        leased = pool.lease(now, M)
        earliest = pool.earliest(now, M)
        assert (leased is not None) == (earliest == 0)
        if earliest:
            assert pool.lease(now + earliest + 1e-6, M) is not None


def test_regression_a_spent_day_rests_longer_than_its_retry_info_says() -> None:
    pool = Pool([A])
    pool.report(A, 0, M, _error("quota", 429, retry_after=2))
    assert pool.earliest(0, M) == 60
    pool.report(A, 100, M, _error("quota", 429, retry_after=40_000))
    assert pool.earliest(100, M) == 40_000


def _attempts(pool: Pool, most: int = 3) -> Attempts:
    return Attempts(pool, RetryPolicy(attempts=most), M, deadline=600, jitter=lambda: 0.5)


def _run(pool: Pool, *outcomes: UpstreamError) -> tuple[list[str], OaicompatError | None]:
    """Play outcomes until the attempts end; return who was tried and the error, None when one is left."""
    attempts = _attempts(pool)
    tried = []
    try:
        for outcome in outcomes:
            tried.append(attempts.next(0).account)
            attempts.failed(0, outcome)
            attempts.delay(0)
    except OaicompatError as error:
        return tried, error
    return tried, None


def test_rate_limits_rotate_over_the_pool_and_end_in_429() -> None:
    tried, error = _run(Pool([A, B]), *[_error("rate", 429, retry_after=17)] * 3)
    assert tried == ["a", "b"]
    assert isinstance(error, PoolExhaustedError)
    assert (error.status, error.retry_after) == (429, 17)
    assert error.message == "rate happened. Please try again in 17s."


def test_same_credential_serves_again_only_for_faults_that_pass() -> None:
    for error, count in (
        (_error("overload", 503), 3),
        (_error("network", 502), 3),
        (_error("rate", 429, retry_after=4), 3),
        (_error("rate", 429, retry_after=6), 1),
        (_error("rate", 429), 1),
        (_error("overload", 503, retry_after=60), 1),
        (_error("request", 400, retryable=False), 1),
        (_error("credential", 401), 1),
    ):
        tried, _ = _run(Pool([A]), *[error] * 5)
        assert tried == ["a"] * count, error


def test_exhaustion_by_failures_is_503_with_the_last_reason() -> None:
    _, error = _run(Pool([A]), *[_error("overload", 500)] * 3)
    assert error is not None
    assert (error.status, error.type) == (503, "service_unavailable_error")
    assert error.message.startswith("overload happened.")
    assert error.retry_after is not None


def test_network_failures_keep_their_own_status() -> None:
    _, error = _run(Pool([A]), *[_error("network", 504)] * 3)
    assert error is not None
    assert error.status == 504


def test_all_credentials_refused_tells_clients_not_to_retry() -> None:
    tried, error = _run(Pool([A, B]), *[_error("credential", 401, retryable=False)] * 3)
    assert tried == ["a", "b"]
    assert error is not None
    assert (error.status, error.should_retry) == (503, False)


def test_all_cooling_asks_nobody() -> None:
    pool = Pool([A])
    pool.report(A, 0, M, _error("rate", 429, retry_after=60))
    tried, error = _run(pool, _error("rate", 429))
    assert tried == []
    assert error is not None
    assert (error.status, error.retry_after, error.code) == (429, 60, "rate_limit_exceeded")


def test_signature_is_tried_once_more_with_the_sentinel() -> None:
    attempts = _attempts(Pool([A, B]))
    error = _error("signature", 400, retryable=False)
    assert attempts.next(0) == A
    attempts.failed(0, error)
    assert attempts.delay(0) == 0
    assert attempts.sentinel
    assert attempts.next(0) == A
    attempts.failed(0, error)
    with pytest.raises(UpstreamError, match="signature"):
        attempts.delay(0)


def test_wait_is_jittered_and_a_short_one_asked_for_is_honoured() -> None:
    attempts = _attempts(Pool([A]))
    attempts.next(0)
    attempts.failed(0, _error("overload", 503))
    assert attempts.delay(0) == 0.125
    attempts = _attempts(Pool([A]))
    attempts.next(0)
    attempts.failed(0, _error("rate", 429, retry_after=4))
    assert attempts.delay(0) >= 4


def test_no_wait_goes_beyond_the_deadline() -> None:
    attempts = Attempts(Pool([A]), RetryPolicy(), M, deadline=3, jitter=lambda: 0.5)
    attempts.next(0)
    attempts.failed(0, _error("rate", 429, retry_after=4))
    with pytest.raises(PoolExhaustedError):
        attempts.delay(0)


def _quota(retry_after: float | None = None) -> UpstreamError:
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


@pytest.mark.parametrize("keys", [[A], [A, B], [A, B, C]])
def test_regression_a_spent_quota_tells_clients_to_stop_and_is_never_waited_out(
    keys: list[Credential],
) -> None:
    pool = Pool(keys)
    tried, error = _run(pool, *[_quota(2)] * 4)
    assert tried == [key.label for key in keys]
    for told in (error, _run(pool, _quota())[1]):
        assert told is not None
        assert (told.status, told.code, told.type) == (429, *["insufficient_quota"] * 2)
        assert (told.should_retry, told.retry_after) == (False, 60)
        assert told.message.endswith("Please try again in 60s.")


def test_a_spent_quota_beside_a_credential_that_returns_soon_asks_to_come_back() -> None:
    pool = Pool([A, B])
    pool.report(A, 0, M, _error("rate", 429, retry_after=9))
    tried, error = _run(pool, _quota())
    assert tried == ["b"]
    assert error is not None
    assert (error.status, error.should_retry, error.retry_after) == (429, None, 9)
    assert error.code == "rate_limit_exceeded"
    pool = Pool([A, B, C, Credential(Secret("d"), label="d")])
    tried, error = _run(pool, *[_quota()] * 3)
    assert error is not None
    assert (error.status, error.should_retry, error.retry_after) == (429, None, 1)
    assert error.code == "rate_limit_exceeded"


def test_all_denied_for_a_model_keeps_the_reason_and_tells_clients_to_stop() -> None:
    pool = Pool([A])
    denied = UpstreamError(
        "The upstream service denies access: not here.",
        status=403,
        code="unsupported_country_region_territory",
        param="model",
        should_retry=False,
        cause="model_permission",
    )
    for _ in range(2):
        tried, error = _run(pool, denied)
        assert error is not None
        assert (error.status, error.code) == (403, denied.code)
        assert error.should_retry is False
        assert ("not here" in error.message) == (tried == ["a"])


@pytest.mark.parametrize(
    ("text", "told", "seconds"),
    [
        ("Please try again in 30 seconds. That is all we know.", None, 1),
        ("Please try again in 30s.", 30, 30),
        ("Retry after 2 minutes 5 s, please.", 7.5, 8),
        ("Please retry in 48.9s.", 48.9, 49),
        ("No hint.", 12, 12),
    ],
)
def test_regression_the_text_and_retry_after_name_one_wait(
    text: str, told: float | None, seconds: int
) -> None:
    failure = UpstreamError(
        text, status=502, cause="network", upstream_status=502, retryable=True, retry_after=told
    )
    attempts = _attempts(Pool([A]), 1)
    attempts.next(0)
    attempts.failed(0, failure)
    with pytest.raises(OaicompatError) as caught:
        attempts.delay(0)
    assert caught.value.retry_after == seconds
    assert f"{seconds}s" in caught.value.message
    for other in ("30s", "30 seconds", "2 minutes", "5 s", "48.9"):
        if other != f"{seconds}s":
            assert other not in caught.value.message
