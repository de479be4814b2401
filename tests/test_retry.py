"""Retry decisions as tables, delays as laws, and the one parser of waits on hostile input."""

from __future__ import annotations

from email.utils import formatdate
from math import isclose

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oaicompat.errors import UpstreamError, UpstreamProtocolError
from oaicompat.retry import LONGEST_WAIT, RETRYABLE, GiveUp, Retry, RetryPolicy, retry_after

POLICY = RetryPolicy()
NOW = 1_800_000_000.0
JITTER = 0.5


def failure(
    cause: str = "request",
    status: int | None = None,
    told: float | None = None,
    retryable: bool = True,
) -> UpstreamError:
    return UpstreamError(
        "no", cause=cause, upstream_status=status, retry_after=told, retryable=retryable
    )


def test_the_retryable_statuses() -> None:
    assert {408, 429, 500, 502, 503, 504, 529} == RETRYABLE


# Cause, status, told wait; then the decision with another credential free, and without one.
STAY = Retry(0.125, rotate=False)
DECISIONS = [
    ("rate", 429, None, Retry(0.0, rotate=True), GiveUp()),
    ("rate", 429, 2.0, Retry(0.0, rotate=True), Retry(2.125, rotate=False)),
    ("rate", 429, 5.0, Retry(0.0, rotate=True), Retry(5.125, rotate=False)),
    ("rate", 429, 5.1, Retry(0.0, rotate=True), GiveUp()),
    ("rate", 429, 0.0, Retry(0.0, rotate=True), Retry(0.0, rotate=False)),
    ("quota", 429, 40_000.0, Retry(0.0, rotate=True), GiveUp()),
    ("overload", 503, None, Retry(0.125, rotate=True), STAY),
    ("overload", 529, None, Retry(0.125, rotate=True), STAY),
    ("overload", 503, 30.0, Retry(0.125, rotate=True), GiveUp()),
    ("network", None, None, STAY, STAY),
    ("network", 500, 1.0, Retry(1.125, rotate=False), Retry(1.125, rotate=False)),
    ("network", 500, 30.0, GiveUp(), GiveUp()),
    ("credential", 400, None, Retry(0.0, rotate=True), GiveUp()),
    ("credential", 401, 1.0, Retry(0.0, rotate=True), GiveUp()),
    ("permission", 403, None, Retry(0.0, rotate=True), GiveUp()),
    ("signature", 400, None, Retry(0.0, rotate=False), Retry(0.0, rotate=False)),
    ("empty", 200, None, Retry(0.0, rotate=True), Retry(0.0, rotate=False)),
    ("malformed", 200, None, Retry(0.0, rotate=False), Retry(0.0, rotate=False)),
    *(("request", status, None, STAY, STAY) for status in (408, 500, 502, 504)),
    *(("request", status, None, Retry(0.125, rotate=True), STAY) for status in (503, 529)),
    ("request", 429, None, Retry(0.0, rotate=True), GiveUp()),
    *(
        ("request", status, 1.0, GiveUp(), GiveUp())
        for status in (200, 400, 403, 404, 413, 422, 501)
    ),
]


@pytest.mark.parametrize(("cause", "status", "told", "with_others", "alone"), DECISIONS)
def test_decisions(
    cause: str, status: int, told: float | None, with_others: Retry | GiveUp, alone: Retry | GiveUp
) -> None:
    error = failure(cause, status, told)
    for others, expected in ((True, with_others), (False, alone)):
        assert POLICY.decide(1, error, others=others, budget=60.0, jitter=JITTER) == expected


@pytest.mark.parametrize("cause", ["rate", "quota", "overload", "network", "request"])
@pytest.mark.parametrize("status", sorted(RETRYABLE))
def test_what_is_marked_final_is_final(cause: str, status: int) -> None:
    error = failure(cause, status, 1.0, retryable=False)
    assert POLICY.decide(1, error, others=True, budget=60.0, jitter=0.0) == GiveUp()


@pytest.mark.parametrize("cause", ["credential", "permission"])
def test_a_faulty_credential_rotates_though_the_call_itself_is_final(cause: str) -> None:
    error = failure(cause, 400, retryable=False)
    assert POLICY.decide(1, error, others=True, budget=60.0, jitter=0.0) == Retry(0.0, rotate=True)


@pytest.mark.parametrize("cause", ["signature", "empty", "malformed"])
def test_some_causes_are_retried_once(cause: str) -> None:
    def decide(attempt: int, *earlier: str) -> Retry | GiveUp:
        return POLICY.decide(
            attempt, failure(cause), others=False, budget=60.0, jitter=0.0, earlier=earlier
        )

    assert isinstance(decide(1), Retry)
    assert decide(2) == GiveUp()
    assert decide(2, cause) == GiveUp()
    assert isinstance(decide(2, "rate"), Retry)


@given(
    st.sampled_from([row[0] for row in DECISIONS]),
    st.sampled_from([None, *RETRYABLE, 400, 401, 403, 404]),
    st.none() | st.floats(0, LONGEST_WAIT),
    st.integers(-1, 5),
    st.floats(-1, 60) | st.just(float("nan")),
    st.floats(0, 1, exclude_max=True),
    st.booleans(),
)
def test_no_decision_breaks_a_limit(
    cause: str,
    status: int | None,
    told: float | None,
    attempt: int,
    budget: float,
    jitter: float,
    others: bool,
) -> None:
    decision = POLICY.decide(
        attempt, failure(cause, status, told), others=others, budget=budget, jitter=jitter
    )
    match decision:
        case Retry(delay, rotate):
            assert attempt < POLICY.attempts
            assert 0 <= delay < budget
            assert delay <= POLICY.cap
            assert others or not rotate
            assert rotate or told is None or told <= POLICY.inline_wait
        case GiveUp():
            pass


def test_the_budget_ends_it() -> None:
    error = failure("network", 500)
    assert POLICY.decide(1, error, others=False, budget=0.125, jitter=JITTER) == GiveUp()
    assert POLICY.decide(1, error, others=False, budget=0.126, jitter=JITTER) == STAY
    assert POLICY.decide(3, error, others=True, budget=60.0, jitter=JITTER) == GiveUp()


def test_a_protocol_error_is_final_unless_it_says_otherwise() -> None:
    error = UpstreamProtocolError("cut", cause="network")
    assert POLICY.decide(1, error, others=True, budget=60.0, jitter=0.0) == GiveUp()


@pytest.mark.parametrize(
    ("attempt", "ceiling"), [(0, 0.25), (1, 0.25), (2, 0.5), (3, 1.0), (6, 8.0), (10**9, 8.0)]
)
def test_backoff_doubles_up_to_the_cap(attempt: int, ceiling: float) -> None:
    assert POLICY.delay(attempt, jitter=0.0) == 0.0
    assert POLICY.delay(attempt, jitter=0.5) == ceiling / 2


@given(st.integers(0, 40), st.floats(0, 1, exclude_max=True), st.none() | st.floats())
@example(1, 0.5, float("nan"))
@example(1, 0.5, float("inf"))
def test_a_delay_honours_the_told_wait_within_the_cap(
    attempt: int, jitter: float, told: float | None
) -> None:
    delay = POLICY.delay(attempt, jitter=jitter, retry_after=told)
    assert 0 <= delay <= POLICY.cap
    if told is not None and told > 0:
        assert delay >= min(told, POLICY.cap)


def date(offset: float) -> str:
    return formatdate(NOW + offset, usegmt=True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0), ("20", 20.0), (" 1.5 ", 1.5), ("1000000000", LONGEST_WAIT),
        ("9" * 400, LONGEST_WAIT),
        (date(30), 30.0), (date(0), 0.0), (date(-90), 0.0), (date(10**8), LONGEST_WAIT),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0), ("Mon, 00 Jan 0000 00:00:00 GMT", 0.0),
        ("-1", None), ("NaN", None), ("inf", None), ("1e9", None), ("1_000", None),
        ("soon", None), ("", None),
        ("\u0663", None), ("Mon, 06 Foo 1994 08:49:37 GMT", None),
        ("Sunday, 06-Nov-94 08:49:37 GMT", None),
    ],
)  # fmt: skip
def test_the_retry_after_header(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value}, b"", now=NOW) == seconds
    assert retry_after([("x", "1"), ("retry-after", value)], b"", now=NOW) == seconds


def test_a_date_means_nothing_without_a_clock() -> None:
    assert retry_after({"retry-after": date(30)}, b"") is None


def test_a_date_is_measured_from_the_date_of_its_own_reply() -> None:
    headers = {"date": date(5), "retry-after": date(30)}
    assert retry_after(headers, b"") == 25.0
    assert retry_after(headers, b"", now=NOW + 1_000_000) == 25.0


@given(st.integers(0, 4_102_444_800))
@example(951_782_400)
@example(951_868_800)
@example(4_107_542_400)
def test_http_dates_are_read_as_the_standard_library_writes_them(moment: int) -> None:
    headers = {"Retry-After": formatdate(moment, usegmt=True)}
    assert retry_after(headers, b"", now=float(moment - 7)) == 7.0


def google(*details: object, message: object = "no") -> bytes:
    return msgspec.json.encode({"error": {"code": 429, "message": message, "details": details}})


def retry_info(delay: object) -> dict[str, object]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


HELP = {"@type": "type.googleapis.com/google.rpc.Help", "links": []}


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        ("48s", 48.0), ("34.4s", 34.4), ("36605.7s", 36605.7), ("0s", 0.0),
        ("1h16m0.667s", 4560.667), ("500ms", 0.5),
        ("2m", 120.0), ("1d", 86_400.0), ("1e9s", None), ("1000000000s", LONGEST_WAIT),
        (f"{'9' * 400}s", LONGEST_WAIT),
        ("-3s", None), ("soon", None), ("", None), ("48", None), ("3 models", None),
        ("NaNs", None), (None, None),
        ({"seconds": "48", "nanos": 500_000_000}, 48.5), ({"seconds": 48}, 48.0),
        ({"nanos": 5}, None), ({}, None),
        ({"seconds": -1}, None), ({"seconds": "x"}, None), ({"seconds": 1, "nanos": []}, None),
        ({"seconds": True}, None),
        (7, 7.0), (7.5, 7.5), (-7, None), (True, None), (1e308, LONGEST_WAIT), ([48], None),
    ],
)  # fmt: skip
def test_durations_in_the_details(delay: object, seconds: float | None) -> None:
    for body in (
        google(retry_info(delay)),
        google(HELP, "text", 5, retry_info(delay), HELP),
        google({"metadata": {"quotaResetDelay": delay}}),
        b"[" + google(retry_info(delay)) + b"\n]",
    ):
        found = retry_after({}, body)
        assert found == seconds or (
            found is not None and seconds is not None and isclose(found, seconds)
        )


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        (
            "Quota exceeded for metric: x, limit: 1000000\nPlease retry in 48.939935699s.",
            48.939935699,
        ),
        ("Please try again in 1.5s.", 1.5),
        ("Rate limited, retry after 20 seconds", 20.0),
        ("Try again in 2 minutes", 120.0),
        ("try again in 1 minute, 30 seconds please", 90.0),
        ("Please retry in 1h2m3.5s.", 3723.5),
        ("Please retry in 500ms.", 0.5),
        ("Please retry in 20 milliseconds.", 0.02),
        ("Please retry in 999999999999s.", LONGEST_WAIT),
        ("The project has 3 models", None),
        ("retry in 3 models", None),
        ("retry in 3models", None),
        ("Please retry in a few seconds", None),
        ("Please retry after 20", None),
        ("please retry in -5s", None),
        ("500ms", None),
        ("", None),
        (None, None),
        ([], None),
    ],
)
def test_waits_in_the_message(message: object, seconds: float | None) -> None:
    found = retry_after({}, google(message=message))
    assert found == seconds or (
        found is not None and seconds is not None and isclose(found, seconds)
    )


def test_the_order_of_the_sources() -> None:
    reset = {"metadata": {"quotaResetDelay": "3s"}}
    text = "Please retry in 4s."
    body = google(reset, HELP, retry_info("2s"), message=text)
    assert retry_after({"Retry-After": "1"}, body) == 1.0
    assert retry_after({"Retry-After": "soon"}, body) == 2.0
    assert retry_after({}, google(reset, retry_info("soon"), message=text)) == 3.0
    assert retry_after({}, google(retry_info(None), message=text)) == 4.0
    assert retry_after([("Retry-After", "soon"), ("Retry-After", "6")], body) == 6.0


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"5", b'"Please retry in 5s"', b"<html>Please retry in 5s</html>",
        b"\xff\xfe", b"{",
        b'{"error": null}', b'{"error": []}', b'{"error": {"details": {}}}',
        b'{"error": {"details": [null]}}',
        b'{"error": {"details": [{"metadata": []}]}}', b"[" * 100_000, b'{"a":' * 100_000,
        b'{"error": {"message": 1e999}}',
        b'{"error": {"details": [{"retryDelay": 1' + b"0" * 400 + b"}]}}",
    ],
)  # fmt: skip
def test_a_body_that_says_nothing(body: bytes) -> None:
    assert retry_after({}, body) is None


def test_other_shapes_of_the_body() -> None:
    assert retry_after({}, b'{"error": "Please retry in 5s"}') == 5.0
    assert retry_after({}, b'{"message": "Please retry in 5s"}') == 5.0
    assert retry_after({}, b'{"error": {"details": [{"retry_delay": "5s"}]}}') == 5.0


WORDS = st.text("0123456789.eE+-dhms NaInf:GMT,", max_size=30)


@given(WORDS | st.text(), WORDS, WORDS, st.binary(max_size=40))
def test_whatever_is_said_the_wait_is_bounded(
    header: str, delay: str, words: str, body: bytes
) -> None:
    for said in (
        retry_after({"Retry-After": header}, body, now=NOW),
        retry_after({}, google(retry_info(delay))),
        retry_after({}, google(message="retry in " + words)),
    ):
        assert said is None or 0.0 <= said <= LONGEST_WAIT
