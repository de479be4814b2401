"""What happens when a rest is over: one lease probes, and what becomes of it decides."""

from __future__ import annotations

import math

from tests.support.pools import A, M, failure, rate, spend, taken

from oaicompat_server.pool import Pool, Wanted


def test_one_of_a_hundred_probes_first() -> None:
    pool = Pool([A])
    spend(pool, 0, rate(30), only=A)
    found = [pool.lease(30, Wanted(M)) for _ in range(100)]
    probes = [lease for lease in found if lease is not None]
    assert len(probes) == 1
    assert pool.probing(30, M)
    assert taken(pool, 30, retrying=True) == ""
    probes[0].report(31, None)
    assert not pool.probing(31, M)
    assert all(pool.lease(31, Wanted(M)) for _ in range(99))


def test_a_probe_that_fails_rests_longer_and_one_that_is_abandoned_passes_on() -> None:
    pool = Pool([A])
    spend(pool, 0, failure("rate", 429), only=A)
    for end in ("abandoned", "about something else", "abandoned"):
        probe = pool.lease(5, Wanted(M))
        assert probe is not None, end
        assert taken(pool, 5) == ""
        if end != "abandoned":
            probe.report(5, failure("request", 400, retryable=False))
        probe.release()
    probe = pool.lease(5, Wanted(M))
    assert probe is not None
    probe.report(6, failure("rate", 429))
    probe.release()
    assert pool.outlook(6, M).wait == 15
    assert taken(pool, 20.9) == ""
    assert taken(pool, 21) == "a"


def test_an_old_probe_takes_no_new_one_with_it() -> None:
    pool = Pool([A])
    spend(pool, 0, failure("rate", 429), only=A)
    old = pool.lease(5, Wanted(M))
    late = pool.lease(10, Wanted(M))
    assert old is not None
    assert late is not None
    late.report(10, failure("rate", 429))
    assert pool.lease(25, Wanted(M)) is not None
    old.release()
    assert taken(pool, 25) == ""


def test_a_shorter_wait_takes_nothing_from_a_longer_one() -> None:
    pool = Pool([A])
    first, second = pool.lease(0, Wanted(M)), pool.lease(0, Wanted(M))
    for lease, wait in ((first, 30), (second, 6)):
        assert lease is not None
        lease.report(0, failure("rate", 429, retry_after=wait))
    assert pool.outlook(0, M).wait == 30


def test_a_wait_that_is_no_number_is_none() -> None:
    pool = Pool([A])
    spend(pool, 0, failure("rate", 429, retry_after=math.nan), only=A)
    assert pool.outlook(0, M).wait == 5


def test_a_probe_that_runs_for_long_has_passed() -> None:
    pool = Pool([A])
    spend(pool, 0, failure("rate", 429), only=A)
    assert pool.lease(5, Wanted(M)) is not None
    assert pool.outlook(6, M).wait == 4
    assert taken(pool, 9.9) == ""
    assert taken(pool, 10) == "a"
