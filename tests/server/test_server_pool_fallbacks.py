"""Retries of all calls together, and fallback models: what is tried where a model or a budget is spent."""

from __future__ import annotations

from contextlib import closing, suppress

import pytest
from tests.support.pools import A, B, C, D, attempts, failure, rate, run, spend

from oaicompat.errors import ModelNotFoundError, OaicompatError, PoolExhaustedError, UpstreamError
from oaicompat_server.pool import Pool
from oaicompat_server.pool.budget import RetryBudget

MISSING = ModelNotFoundError("The model `m` does not exist.", param="model")


def test_the_budget_is_a_fifth_of_what_runs_and_three_at_least() -> None:
    budget = RetryBudget()
    assert [budget.take(0) for _ in range(4)] == [True, True, True, False]
    budget.give()
    assert budget.take(0)
    assert not budget.take(19)
    assert budget.take(20)
    assert not budget.take(24)
    assert budget.taken == 4


def test_a_retry_beyond_the_budget_fails_at_once_and_places_come_back() -> None:
    pool = Pool([A, B])
    calls = [attempts(pool) for _ in range(5)]
    for call in calls:
        call.next(0)
    for call in calls[:3]:
        call.failed(0, failure("network", 502))
        call.delay(0)
    assert pool.retries.taken == 3
    calls[3].failed(0, failure("network", 502))
    with pytest.raises(UpstreamError):
        calls[3].delay(0)
    calls[0].next(1)
    calls[0].succeeded()
    calls[0].close()
    assert pool.retries.taken == 2
    calls[4].failed(1, failure("network", 502))
    assert calls[4].delay(1) >= 0
    for call in calls:
        call.close()
    assert (pool.retries.taken, pool.in_flight) == (0, 0)


def test_rotation_takes_no_place_among_the_retries() -> None:
    pool = Pool([A, B])
    with closing(attempts(pool)) as call:
        call.next(0)
        call.failed(0, rate(30))
        call.delay(0)
        assert pool.retries.taken == 0


def asked(pool: Pool, error: UpstreamError, models: tuple[str, ...], most: int = 3) -> list[str]:
    """Return who was asked for what until a call of these models ended."""
    found = []
    with closing(attempts(pool, most=most, models=models)) as call, suppress(OaicompatError):
        for _ in range(9):
            lease = call.next(0)
            found.append(f"{lease.credential.account} {call.model}")
            assert lease.model == call.model
            call.failed(0, error)
            call.delay(0)
    return found


@pytest.mark.parametrize(
    ("models", "most", "expected"),
    [
        (("m", "n"), 3, ["a m", "b m", "c n"]),
        (("m", "n", "o"), 3, ["a m", "b n", "c o"]),
        (("m", "n", "o"), 1, ["a m", "b n", "c o"]),
        (("m", "n"), 1, ["a m", "b n"]),
        (("m",), 2, ["a m", "b m"]),
    ],
)
def test_each_fallback_keeps_one_attempt(
    models: tuple[str, ...], most: int, expected: list[str]
) -> None:
    assert asked(Pool([A, B, C]), rate(30), models, most) == expected


@pytest.mark.parametrize("cause", ["overload", "network", "quota", "permission"])
def test_a_fallback_is_tried_whatever_holds_the_model(cause: str) -> None:
    found = asked(Pool([A]), failure(cause, 503, 60), ("m", "n"))
    assert found[0] == "a m"
    assert found[-1] == "a n"


def test_a_model_that_rests_everywhere_is_passed_over_without_a_wait() -> None:
    pool = Pool([A, B])
    for each in (A, B):
        spend(pool, 0, rate(3), only=each, model="m")
    with closing(attempts(pool, models=("m", "n"))) as call:
        assert call.wait(0) == 0
        assert call.next(0).model == "n"
        assert call.model == "n"


def test_a_model_that_is_missing_goes_on_to_the_next_and_is_told_at_last() -> None:
    pool = Pool([A])
    with closing(attempts(pool, models=("m", "n"))) as call:
        call.next(0)
        call.failed(0, MISSING)
        assert call.delay(0) == 0
        assert call.next(0).model == "n"
        call.failed(0, MISSING)
        with pytest.raises(ModelNotFoundError):
            call.delay(0)
    assert pool.outlook(0, "m").wait == 0


def test_a_clients_own_fault_goes_on_nowhere() -> None:
    with closing(attempts(Pool([A, B]), models=("m", "n"))) as call:
        call.next(0)
        call.failed(0, failure("request", 400, retryable=False))
        with pytest.raises(UpstreamError):
            call.delay(0)


def test_exhaustion_of_several_models_names_the_first_one_that_is_back() -> None:
    pool = Pool([A])
    spend(pool, 0, rate(90), only=A, model="m")
    spend(pool, 0, rate(40), only=A, model="n")
    with (
        closing(attempts(pool, models=("m", "n"))) as call,
        pytest.raises(PoolExhaustedError) as caught,
    ):
        call.next(0)
    assert caught.value.retry_after == 40


def test_what_is_held_is_given_back_at_the_end() -> None:
    pool = Pool([A])
    with closing(attempts(pool)) as call:
        call.next(0)
        assert pool.in_flight == 1
    assert pool.in_flight == 0


def test_regression_keys_that_are_refused_one_after_the_other_say_so() -> None:
    pool = Pool([A, B, C, D])
    tried, error = run(pool, *[failure("credential", 401, retryable=False)] * 3)
    assert len(tried) == 3
    assert error is not None
    assert (error.status, error.code) == (503, "upstream_credentials_refused")
    assert (error.should_retry, error.retry_after) == (None, 1)
    assert run(pool, failure("credential", 401, retryable=False))[0] == ["d"]


def test_regression_a_denial_is_told_as_one_while_other_models_have_credentials_left() -> None:
    denied = failure("permission", 403, retryable=False)
    tried, error = run(Pool([A, B, C]), *[denied] * 4, models=("one", "two"))
    assert len(tried) == 3
    assert error is not None
    assert (error.status, error.should_retry) == (403, False)
