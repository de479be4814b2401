"""The credential pool: who serves, what rests and for how long, with the time passed in."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.pools import (
    A,
    B,
    C,
    D,
    M,
    Renewing,
    credential,
    failure,
    quota,
    spend,
    taken,
    usable,
)

from oaicompat.errors import UpstreamError
from oaicompat_server.pool import Credential, Pool, Wanted

DAY = 24 * 3600.0
LONG = failure("rate", 429, retry_after=30)


def test_leases_go_round() -> None:
    pool = Pool([A, B, C])
    assert [taken(pool, 0) for _ in range(5)] == ["a", "b", "c", "a", "b"]
    assert taken(pool, 0, exclude={C, A}) == "b"
    assert taken(pool, 0, exclude={A, B, C}) == ""
    assert taken(Pool([]), 0) == ""


def test_the_same_credential_twice_is_one() -> None:
    assert Pool([A, B, credential("a")]).credentials == (A, B)


def test_who_has_the_least_to_do_serves() -> None:
    pool = Pool([A, B])
    held = [pool.lease(0, Wanted(M)) for _ in range(4)]
    assert [lease.credential.account for lease in held if lease] == ["a", "b", "a", "b"]
    for lease in held[1::2]:
        assert lease is not None
        lease.release()
    assert [taken(pool, 0) for _ in range(3)] == ["b"] * 3
    assert pool.in_flight == 2


def test_a_lease_given_back_twice_counts_once() -> None:
    pool = Pool([A])
    lease = pool.lease(0, Wanted(M))
    assert lease is not None
    for _ in range(2):
        lease.release()
    assert pool.in_flight == 0


def test_peek_tells_what_lease_does_and_changes_nothing() -> None:
    pool = Pool([A, B, C])
    for _ in range(7):
        seen = pool.peek(0, Wanted(M))
        assert seen is not None
        assert seen == pool.peek(0, Wanted(M))
        assert taken(pool, 0) == seen.account
    assert Pool([]).peek(0, Wanted(M)) is None


def test_weights_are_shares_of_turns_and_of_what_is_in_flight() -> None:
    heavy, light = credential("h", weight=3.0), credential("l", weight=1.0)
    pool = Pool([light, heavy])
    assert Counter(taken(pool, 0) for _ in range(400)) == {"h": 300, "l": 100}
    held = [pool.lease(0, Wanted(M)) for _ in range(40)]
    assert Counter(lease.credential.account for lease in held if lease) == {"h": 30, "l": 10}


def test_one_that_was_away_does_not_make_up_for_it() -> None:
    pool = Pool([A, B])
    spend(pool, 0, failure("rate", 429, retry_after=100), only=A)
    assert [taken(pool, 1) for _ in range(50)] == ["b"] * 50
    assert Counter(taken(pool, 200) for _ in range(10))["a"] <= 6


def test_regression_what_others_serve_takes_no_turn_from_anybody() -> None:
    pool = Pool([A, B, credential("n", models=("n",), weight=0.5)])
    found = []
    for _ in range(10):
        assert taken(pool, 0, "n", exclude={A, B}) == "n"
        found.append(taken(pool, 0))
    assert Counter(found) == {"a": 5, "b": 5}


def test_a_tier_serves_only_where_none_before_it_can() -> None:
    first, second, third = (
        credential("x", priority=1),
        credential("y", priority=1),
        credential("z", priority=7),
    )
    pool = Pool([third, second, first])
    assert {taken(pool, 0) for _ in range(6)} == {"x", "y"}
    spend(pool, 0, LONG, only=first)
    assert {taken(pool, 0) for _ in range(6)} == {"y"}
    spend(pool, 0, LONG, only=second)
    assert {taken(pool, 0) for _ in range(6)} == {"z"}
    assert taken(pool, 30) in "xy"


def test_models_are_served_by_those_that_may() -> None:
    flash, pro = credential("f", models=("*-flash",)), credential("p", models=("gemini-2.5-pro",))
    pool = Pool([flash, pro])
    assert {taken(pool, 0, M) for _ in range(4)} == {"f"}
    assert {taken(pool, 0, "gemini-2.5-pro") for _ in range(4)} == {"p"}
    assert taken(pool, 0, "gemini-3-pro-preview") == ""
    assert pool.outlook(0, "gemini-3-pro-preview").allowed == 0
    assert pool.outlook(0, M).allowed == 1


def test_cooldown_belongs_to_one_credential_and_one_model() -> None:
    pool = Pool([A, B])
    spend(pool, 0, LONG, only=A)
    assert usable(pool, 1) == {"b"}
    assert usable(pool, 1, "other") == {"a", "b"}
    assert taken(pool, 29.9, exclude={B}) == ""
    assert taken(pool, 30.0, exclude={B}) == "a"
    spend(pool, 1, failure("rate", 429, retry_after=10), only=B)
    assert pool.outlook(2, M).wait == 9
    assert pool.outlook(2, "other").wait == 0


def test_a_quota_group_rests_as_one() -> None:
    a, b, c = (credential(name, quota_group="project") for name in "abc")
    pool = Pool([a, b, c, D])
    spend(pool, 0, LONG, only=b)
    assert usable(pool, 1) == {"d"}
    assert usable(pool, 1, "other") == {"a", "b", "c", "d"}
    spend(pool, 30, None, only=a)
    assert usable(pool, 30) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("code", "resting"),
    [("upstream_api_disabled", "ab"), ("upstream_billing_required", "ab"), ("other", "a")],
)
def test_a_denial_of_the_project_is_one_of_its_group(code: str, resting: str) -> None:
    a, b = (credential(name, quota_group="project") for name in "ab")
    pool = Pool([a, b, C])
    spend(pool, 0, failure("permission", 403, code=code), only=a)
    assert usable(pool, 1) == set("abc") - set(resting)


def test_cooldown_grows_by_steps_and_success_resets_it() -> None:
    pool = Pool([A])
    waits = []
    now = 0.0
    for _ in range(6):
        spend(pool, now, failure("rate", 429), only=A)
        waits.append(pool.outlook(now, M).wait)
        now += 100
    assert waits == [5, 15, 30, 60, 60, 60]
    spend(pool, now, None, only=A)
    assert pool.outlook(now, M).wait == 0
    spend(pool, now, failure("rate", 429), only=A)
    assert pool.outlook(now, M).wait == 5


def test_what_failed_together_is_one_failure() -> None:
    pool = Pool([A])
    held = [pool.lease(0, Wanted(M)) for _ in range(10)]
    for lease in held:
        assert lease is not None
        lease.report(1, failure("rate", 429))
    assert pool.outlook(1, M).wait == 5


def test_a_success_that_began_before_the_limit_does_not_lift_it() -> None:
    pool = Pool([A])
    early, other = pool.lease(0, Wanted(M)), pool.lease(0, Wanted(M))
    assert early is not None
    assert other is not None
    other.report(1, LONG)
    early.report(2, None)
    assert pool.outlook(2, M).wait == 29


@pytest.mark.parametrize("wait", [0.0, -1.0, 1e9, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("cause", ["rate", "quota", "overload"])
def test_any_wait_is_bounded(cause: str, wait: float) -> None:
    pool = Pool([A])
    spend(pool, 0, failure(cause, 429, retry_after=wait), only=A)
    earliest = pool.outlook(0, M).wait
    assert earliest is not None
    assert 0 <= earliest <= DAY


def test_regression_a_spent_day_rests_longer_than_its_retry_info_says() -> None:
    pool = Pool([A])
    spend(pool, 0, quota(2), only=A)
    assert pool.outlook(0, M).wait == 60
    spend(pool, 100, quota(40_000), only=A)
    assert pool.outlook(100, M).wait == 40_000


@pytest.mark.parametrize("cause", ["permission", "model_permission"])
def test_regression_a_denial_rests_one_credential_for_one_model_and_longer_each_time(
    cause: str,
) -> None:
    pool = Pool([A, B])
    for each in (A, B):
        spend(pool, 0, failure(cause, 403, retry_after=1), only=each)
    assert taken(pool, 1) == ""
    assert {taken(pool, 1, "other") for _ in range(2)} == {"a", "b"}
    assert not pool.all_refused
    assert pool.outlook(0, M).wait is None
    now = 0.0
    for rest in (300, 1800, 7200, 21600, 21600):
        assert taken(pool, now + rest - 1) == ""
        now += rest
        assert taken(pool, now, only=A) == "a"
        spend(pool, now, failure(cause, 403), only=A)
        spend(pool, now, failure(cause, 403), only=B)


@pytest.mark.parametrize("cause", ["request", "network", "empty", "malformed", "signature"])
def test_what_is_not_the_credentials_fault_cools_nothing(cause: str) -> None:
    pool = Pool([A])
    for _ in range(20):
        spend(pool, 0, failure(cause), only=A)
    assert taken(pool, 0) == "a"
    assert pool.status(0)["cells"] == []


@pytest.mark.parametrize(
    ("error", "patience"),
    [(failure("overload"), 3), (failure("network", 502, upstream_status=500), 7)],
)
def test_a_run_of_failures_rests_the_model_behind_a_door_and_no_key(
    error: UpstreamError, patience: int
) -> None:
    other = credential("v", kind="express")
    pool = Pool([A, B, other])
    for number in range(patience):
        assert taken(pool, 0, only=B) == "b", number
        spend(pool, 0, error, only=A)
    assert usable(pool, 0) == {"v"}
    assert usable(pool, 0, "other") == {"a", "b", "v"}
    assert taken(pool, 0, only=B, retrying=True) == "b"
    assert taken(pool, 2, only=B) == "b"


def test_failures_of_one_client_hold_no_other_one_off() -> None:
    """Whose requests alone fail is held off alone; what fails for two clients is an outage for all."""
    pool = Pool([A, B])
    error = failure("network", 502, upstream_status=500)

    def fail(owner: str) -> None:
        lease = pool.lease(0, Wanted(M, retrying=True, owner=owner))
        assert lease is not None
        with lease:
            lease.report(0, error)

    for _ in range(12):
        fail("hostile")
    assert taken(pool, 0, owner="hostile") == ""
    assert taken(pool, 0, owner="another") != ""
    fail("another")
    assert taken(pool, 0, owner="third") == ""


def test_one_success_ends_an_outage_though_it_began_before() -> None:
    pool = Pool([A, B])
    early = pool.lease(0, Wanted(M))
    assert early is not None
    for _ in range(5):
        spend(pool, 0, failure("overload"), only=A)
    assert taken(pool, 0) == ""
    early.report(0, None)
    assert taken(pool, 0) != ""


def test_an_overload_that_names_its_wait_holds_retries_off_too() -> None:
    pool = Pool([A, B])
    spend(pool, 0, failure("overload", 503, retry_after=20), only=A)
    assert taken(pool, 19, retrying=True) == ""
    assert taken(pool, 20) != ""


def test_refused_credential_is_out_until_reset() -> None:
    pool = Pool([A, B])
    spend(pool, 0, failure("credential", 401), only=A)
    assert {taken(pool, 1e9, "any") for _ in range(4)} == {"b"}
    assert not pool.all_refused
    spend(pool, 0, failure("credential", 401), only=B)
    assert pool.all_refused
    assert pool.outlook(0, M).wait is None
    assert pool.outlook(0, M).refused == 2
    pool.reset(model=M)
    assert pool.all_refused
    pool.reset("b")
    assert taken(pool, 0) == "b"


def test_a_token_that_expires_may_be_refused_once() -> None:
    sourced = credential("s", kind="adc", source=Renewing())
    pool = Pool([sourced])
    refused = failure("credential", 401)
    together = [pool.lease(0, Wanted(M)) for _ in range(5)]
    for lease in together:
        assert lease is not None
        with lease:
            lease.report(0, refused)
    assert taken(pool, 0) == "s"
    spend(pool, 0, None, only=sourced)
    spend(pool, 0, refused, only=sourced)
    assert taken(pool, 0) == "s"
    spend(pool, 0, refused, only=sourced)
    assert pool.all_refused


def test_a_conversation_stays_and_only_those_of_a_missing_credential_move() -> None:
    pool = Pool([A, B, C])
    names = [f"conversation {number}" for number in range(300)]
    before = {name: taken(pool, 0, sticky=name) for name in names}
    assert before == {name: taken(pool, 0, sticky=name) for name in names}
    assert min(Counter(before.values()).values()) > 60
    assert before == {name: taken(Pool([C, A, B]), 0, sticky=name) for name in names}
    spend(pool, 0, LONG, only=B)
    after = {name: taken(pool, 1, sticky=name) for name in names}
    assert {name for name in names if before[name] != after[name]} == {
        name for name in names if before[name] == "b"
    }
    assert {after[name] for name in names if before[name] == "b"} == {"a", "c"}
    assert before == {name: taken(pool, 31, sticky=name) for name in names}


def test_conversations_are_shared_out_by_weight() -> None:
    pool = Pool([credential("h", weight=4.0), credential("l")])
    found = Counter(taken(pool, 0, sticky=f"{number} \ud800") for number in range(1000))
    assert 740 < found["h"] < 860


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
    for each, cause, passed in steps:
        now += passed
        lease = pool.lease(now, Wanted(M, only=each))
        if lease is not None:
            with lease:
                lease.report(now, failure(cause) if cause else None)
        earliest = pool.outlook(now, M).wait
        assert (taken(pool, now) != "") == (earliest == 0)
        if earliest:
            assert taken(pool, now + earliest + 1e-6) != ""
