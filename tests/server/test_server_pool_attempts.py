"""The attempts of one call: rotation, waits, fallback models, and how a call ends that nothing can serve."""

from __future__ import annotations

from contextlib import closing

import pytest
from tests.support.pools import (
    A,
    B,
    C,
    D,
    M,
    Renewing,
    attempts,
    credential,
    failure,
    quota,
    rate,
    run,
    spend,
)

from oaicompat.errors import PoolExhaustedError, UpstreamError
from oaicompat_server.attempts import Attempts
from oaicompat_server.pool import Credential, Pool, Wanted

REFUSED = failure("credential", 401, retryable=False)


def ended(call: Attempts, now: float = 0.0) -> PoolExhaustedError:
    with pytest.raises(PoolExhaustedError) as caught:
        call.next(now)
    return caught.value


def test_rate_limits_rotate_over_the_pool_and_end_in_429() -> None:
    tried, error = run(Pool([A, B]), *[rate(17)] * 3)
    assert tried == ["a", "b"]
    assert isinstance(error, PoolExhaustedError)
    assert (error.status, error.retry_after) == (429, 17)
    assert error.message == "rate happened. Please try again in 17s."


@pytest.mark.parametrize(
    ("error", "count"),
    [
        (failure("overload", 503), 3),
        (failure("network", 502), 3),
        (rate(4), 1),
        (rate(6), 1),
        (rate(), 1),
        (failure("overload", 503, 60), 1),
        (failure("request", 400, retryable=False), 1),
        (REFUSED, 1),
        (failure("permission", 403, retryable=False), 1),
        (failure("empty", 502), 2),
        (failure("malformed", 502), 2),
    ],
)
def test_same_credential_serves_again_only_for_faults_that_pass(
    error: UpstreamError, count: int
) -> None:
    # No time passes here, so that a limit that is short still holds when the retry is due.
    assert run(Pool([A]), *[error] * 5)[0] == ["a"] * count


def test_a_short_limit_is_waited_for_with_the_same_credential() -> None:
    with closing(attempts(Pool([A]))) as call:
        now = 0.0
        for _ in range(2):
            assert call.next(now).credential == A
            call.failed(now, rate(2))
            now += call.delay(now)
        assert call.next(now).credential == A
        assert 4 <= now < 5


def test_exhaustion_by_failures_is_503_with_the_last_reason() -> None:
    _, error = run(Pool([A]), *[failure("overload", 500)] * 3)
    assert error is not None
    assert (error.status, error.type) == (503, "service_unavailable_error")
    assert error.code == "server_is_overloaded"
    assert error.message.startswith("overload happened.")
    assert error.retry_after is not None


def test_network_failures_keep_their_own_status() -> None:
    _, error = run(Pool([A]), *[failure("network", 504)] * 3)
    assert error is not None
    assert error.status == 504


def test_all_credentials_refused_tells_clients_not_to_retry() -> None:
    pool = Pool([A, B])
    tried, error = run(pool, *[REFUSED] * 3)
    assert tried == ["a", "b"]
    for told in (error, run(pool, REFUSED)[1]):
        assert told is not None
        assert (told.status, told.should_retry) == (503, False)
        assert told.code == "upstream_credentials_refused"


def test_a_model_that_no_credential_may_serve_does_not_exist() -> None:
    tried, error = run(Pool([credential("f", models=("other",))]), rate())
    assert tried == []
    assert error is not None
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")


def test_all_cooling_asks_nobody() -> None:
    pool = Pool([A])
    spend(pool, 0, rate(60), only=A)
    tried, error = run(pool, rate())
    assert tried == []
    assert error is not None
    assert (error.status, error.retry_after, error.code) == (429, 60, "rate_limit_exceeded")


def test_an_outage_is_told_as_one_before_anybody_is_asked() -> None:
    pool = Pool([A])
    spend(pool, 0, failure("overload", 503, 20), only=A)
    tried, error = run(pool, rate())
    assert tried == []
    assert error is not None
    assert (error.status, error.retry_after) == (503, 20)
    assert error.code == "server_is_overloaded"


def test_signature_is_tried_once_more_with_the_sentinel() -> None:
    error = failure("signature", 400, retryable=False)
    with closing(attempts(Pool([A, B]))) as call:
        assert call.next(0).credential == A
        call.failed(0, error)
        assert call.delay(0) == 0
        assert call.sentinel
        assert call.next(0).credential == A
        call.failed(0, error)
        with pytest.raises(UpstreamError, match="signature"):
            call.delay(0)


def test_waits_are_jittered_and_a_short_one_asked_for_is_honoured() -> None:
    call = attempts(Pool([A]))
    call.next(0)
    call.failed(0, failure("overload", 503))
    assert call.delay(0) == 0.125
    call = attempts(Pool([A]))
    call.next(0)
    call.failed(0, rate(4))
    assert 4 <= call.delay(0) <= 4.25


def test_no_wait_goes_beyond_the_deadline() -> None:
    call = attempts(Pool([A]), deadline=3.0)
    call.next(0)
    call.failed(0, rate(4))
    with pytest.raises(PoolExhaustedError):
        call.delay(0)
    pool = Pool([A])
    spend(pool, 0, rate(4), only=A)
    assert attempts(pool, deadline=3.0).wait(0) == 0
    assert attempts(pool, deadline=4.0).wait(0) <= 4.0


@pytest.mark.parametrize("keys", [[A], [A, B], [A, B, C]])
def test_regression_a_spent_quota_tells_clients_to_stop_and_is_never_waited_out(
    keys: list[Credential],
) -> None:
    pool = Pool(keys)
    tried, error = run(pool, *[quota(2)] * 4)
    assert tried == [key.label for key in keys]
    for told in (error, run(pool, quota())[1]):
        assert told is not None
        assert (told.status, told.code, told.type) == (429, *["insufficient_quota"] * 2)
        assert (told.should_retry, told.retry_after) == (False, 60)
        assert told.message.endswith("Please try again in 60s.")


def test_a_spent_quota_is_told_at_once() -> None:
    call = attempts(Pool([A]))
    call.next(0)
    call.failed(0, quota(2))
    with pytest.raises(PoolExhaustedError):
        call.delay(0)


def test_a_spent_quota_beside_a_credential_that_returns_soon_asks_to_come_back() -> None:
    pool = Pool([A, B])
    spend(pool, 0, rate(9), only=A)
    tried, error = run(pool, quota())
    assert tried == ["b"]
    assert error is not None
    assert (error.status, error.should_retry, error.retry_after) == (429, None, 9)
    assert error.code == "rate_limit_exceeded"
    _, error = run(Pool([A, B, C, D]), *[quota()] * 3)
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
        tried, error = run(pool, denied)
        assert error is not None
        assert (error.status, error.code) == (403, denied.code)
        assert error.should_retry is False
        assert ("not here" in error.message) == (tried == ["a"])


def test_a_denial_beside_a_limit_is_told_as_a_limit() -> None:
    pool = Pool([A, B])
    spend(pool, 0, failure("permission", 403), only=A)
    spend(pool, 0, rate(40), only=B)
    _, error = run(pool, rate())
    assert error is not None
    assert (error.status, error.retry_after) == (429, 40)


@pytest.mark.parametrize(
    ("text", "told", "seconds"),
    [
        ("Please try again in 30 seconds. That is all we know.", None, 1),
        ("Please try again in 30s.", 30, 30),
        ("Retry after 2 minutes 5 s, please.", 7.5, 8),
        ("Please retry in 48.9s.", 48.9, 49),
        ("No hint.", 12, 12),
        ("Too busy. Please try again later.", 12, 12),
    ],
)
def test_regression_the_text_and_retry_after_name_one_wait(
    text: str, told: float | None, seconds: int
) -> None:
    error = UpstreamError(
        text, status=502, cause="network", upstream_status=502, retryable=True, retry_after=told
    )
    _, found = run(Pool([A]), error, most=1)
    assert found is not None
    assert found.retry_after == seconds
    assert f"{seconds}s" in found.message
    for other in ("30s", "30 seconds", "2 minutes", "5 s", "48.9", "later"):
        if other != f"{seconds}s":
            assert other not in found.message


@pytest.mark.parametrize("told", [2.0, 4.9])
def test_a_short_cooldown_is_waited_for_in_line(told: float) -> None:
    pool = Pool([A])
    spend(pool, 0, rate(told), only=A)
    with closing(attempts(pool)) as call:
        wait = call.wait(0)
        assert told <= wait <= told + 0.05
        assert call.wait(wait) == 0
        assert call.next(wait).credential == A


def test_waits_in_line_are_five_seconds_in_all() -> None:
    pool = Pool([A])
    spend(pool, 0, rate(4), only=A)
    with closing(attempts(pool)) as call:
        now = call.wait(0)
        assert now > 0
        spend(pool, now, rate(4), only=A)
        assert call.wait(now) == 0
        assert ended(call, now).retry_after == 4
    spend(pool, 100, rate(5.5), only=A)
    assert attempts(pool).wait(100) == 0


def test_a_probe_under_way_is_waited_for() -> None:
    pool = Pool([A])
    spend(pool, 0, rate(10), only=A)
    probe = pool.lease(10, Wanted(M))
    assert probe is not None
    with closing(attempts(pool)) as call:
        assert 0 < call.wait(10) <= 0.1
        probe.report(10.1, None)
        probe.release()
        assert call.wait(10.1) == 0
        assert call.next(10.1).credential == A


def test_regression_who_comes_back_with_its_credential_waits_for_the_probe() -> None:
    pool = Pool([A])
    with closing(attempts(pool)) as call:
        call.next(0)
        call.failed(0, rate(2))
        now = call.delay(0)
        probe = pool.lease(now, Wanted(M))
        assert probe is not None
        assert 0 < call.wait(now) <= 0.1
        probe.report(now, None)
        probe.release()
        assert call.wait(now) == 0
        assert call.next(now).credential == A


def test_regression_nobody_is_waited_for_that_was_asked_already() -> None:
    pool = Pool([A, B])
    with closing(attempts(pool)) as call:
        call.next(0)
        call.failed(0, failure("overload", 503))
        now = call.delay(0)
        spend(pool, now, rate(60), only=B)
        assert call.wait(now) == 0
        ended(call, now)


def test_one_jitter_of_zero_is_no_busy_loop() -> None:
    pool = Pool([A])
    spend(pool, 0, rate(3), only=A)
    with closing(attempts(pool, jitter=lambda: 0.0)) as call:
        assert call.wait(0) == 3
        assert call.wait(3) == 0
    assert pool.lease(3, Wanted(M)) is not None
    assert attempts(pool, jitter=lambda: 0.0).wait(3) == 0.05


def test_a_refused_token_is_renewed_once_and_the_attempt_repeated() -> None:
    source = Renewing()
    sourced = credential("s", kind="adc", source=source)
    pool = Pool([sourced, B])
    tried, error = run(pool, REFUSED, REFUSED, failure("request", 400, retryable=False))
    assert tried == ["s", "s", "b"]
    assert error is not None
    assert error.status == 400
    assert source.renewed == 2
    assert [row["state"] for row in pool.status(0)["credentials"]] == ["out", "usable"]


def test_regression_a_credential_that_is_out_by_now_leaves_the_call_to_the_others() -> None:
    sourced = credential("s", kind="adc", source=Renewing())
    pool = Pool([sourced, B])
    spend(pool, 0, REFUSED, only=sourced)
    with closing(attempts(pool)) as call:
        first = call.next(0)
        assert first.credential == B
        call.close()
    with closing(attempts(pool)) as call:
        assert call.next(0).credential == sourced
        call.failed(0, REFUSED)
        assert call.delay(0) == 0
        assert call.wait(0) == 0
        assert call.next(0).credential == B
