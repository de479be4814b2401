"""When to try again, with which credential, and after how long; and what the upstream said about waiting.

One rule: pure functions of what is passed in. Time, randomness and the credentials belong to the caller. Every
wait is a number of seconds in [0, 86400], whatever the upstream wrote.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal

import msgspec
from msgspec import Struct

from .errors import UpstreamError

RETRYABLE = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Upstream statuses that may pass with another attempt."""

LONGEST_WAIT = 86_400.0


class Retry(Struct, frozen=True):
    """Try again after `delay` seconds, with another credential if `rotate`."""

    delay: float
    rotate: bool


class GiveUp(Struct, frozen=True):
    """Answer the client with the failure."""


Decision = Retry | GiveUp


class _Remedy(Struct, frozen=True):
    """What helps against one cause.

    `elsewhere` another credential, if one is free; `here` the same one: always, after a wait the upstream named
    and that is short, or never. `backs_off` waits a jittered time first; `once` allows a single retry.
    """

    elsewhere: bool
    here: Literal["always", "told", "never"]
    backs_off: bool = True
    once: bool = False


_LIMITED = _Remedy(elsewhere=True, here="told", backs_off=False)
_OVERLOADED = _Remedy(elsewhere=True, here="always")
_FAILED = _Remedy(elsewhere=False, here="always")
_FAULTY = _Remedy(elsewhere=True, here="never", backs_off=False)

# By `UpstreamError.cause`. These causes stand whatever `retryable` says: another credential, or a changed
# request, is what helps.
_ALWAYS: Mapping[str, _Remedy] = MappingProxyType(
    {
        "credential": _FAULTY,
        "permission": _FAULTY,
        "model_permission": _FAULTY,
        "signature": _Remedy(elsewhere=False, here="always", backs_off=False, once=True),
        "empty": _Remedy(elsewhere=True, here="always", backs_off=False, once=True),
        "malformed": _Remedy(elsewhere=False, here="always", backs_off=False, once=True),
    }
)
_IF_RETRYABLE: Mapping[str, _Remedy] = MappingProxyType(
    {"rate": _LIMITED, "quota": _LIMITED, "overload": _OVERLOADED, "network": _FAILED}
)
# For a retryable failure without a cause of its own.
_BY_STATUS: Mapping[int | None, _Remedy] = MappingProxyType(
    {
        429: _LIMITED,
        503: _OVERLOADED,
        529: _OVERLOADED,
        408: _FAILED,
        500: _FAILED,
        502: _FAILED,
        504: _FAILED,
    }
)


class RetryPolicy(Struct, frozen=True):
    """The limits: attempts per call with the first one counted, and waits in seconds.

    `base` and `cap` bound the jittered wait; `inline_wait` is the longest wait asked for by the upstream that a
    client is made to sit through.
    """

    attempts: int = 3
    base: float = 0.25
    cap: float = 8.0
    inline_wait: float = 5.0

    def delay(self, attempt: int, *, jitter: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait after the failed attempt number `attempt`, counted from 1.

        Full jitter: `jitter`, in [0, 1), of a time that doubles with each attempt. It comes on top of
        `retry_after`, so that clients told the same moment do not come back together. Never above `cap`.
        """
        backoff = jitter * min(self.cap, self.base * 2.0 ** min(max(attempt - 1, 0), 64))
        told = retry_after if retry_after is not None and retry_after > 0 else 0.0
        return min(self.cap, told + backoff)

    def decide(
        self,
        attempt: int,
        error: UpstreamError,
        *,
        others: bool,
        budget: float,
        jitter: float,
        earlier: Collection[str] = (),
    ) -> Decision:
        """Say what follows the failed attempt number `attempt`, counted from 1.

        `others`: another credential is free. `budget`: seconds left to the request as a whole. `earlier`: the
        causes of the attempts before this one; without them a cause that allows one retry has it only after the
        first attempt.
        """
        remedy = _remedy(error)
        if remedy is None or attempt >= self.attempts:
            return GiveUp()
        if remedy.once and (error.cause in earlier if earlier else attempt > 1):
            return GiveUp()
        rotate = remedy.elsewhere and others
        if not rotate and not self._may_stay(remedy, error.retry_after):
            return GiveUp()
        told = None if rotate else error.retry_after
        wait = self.delay(
            attempt, jitter=jitter if remedy.backs_off or told else 0.0, retry_after=told
        )
        return Retry(wait, rotate) if wait < budget else GiveUp()

    def _may_stay(self, remedy: _Remedy, told: float | None) -> bool:
        if remedy.here == "never" or (told is None and remedy.here == "told"):
            return False
        return told is None or told <= self.inline_wait


def _remedy(error: UpstreamError) -> _Remedy | None:
    remedy = _ALWAYS.get(error.cause)
    if remedy is not None or not error.retryable:
        return remedy
    return _IF_RETRYABLE.get(error.cause) or _BY_STATUS.get(error.upstream_status or error.status)


def retry_after(
    headers: Mapping[str, str] | Iterable[tuple[str, str]], body: bytes, *, now: float | None = None
) -> float | None:
    """Read how many seconds the upstream asks to wait, in [0, 86400]; None when it does not say.

    In this order: the header `Retry-After` (seconds, decimals too, or an IMF-fixdate, measured from the
    reply's own `Date`, else from `now` in Unix seconds), `RetryInfo.retryDelay` and
    `metadata.quotaResetDelay` anywhere in `error.details`, and the message ("Please retry in 48.9s.",
    gemini-wire section 6). What is malformed counts as absent.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = {name.lower(): value.strip() for name, value in pairs}
    sent = _http_date(lines.get("date", ""))
    wait = _header(lines.get("retry-after", ""), now if sent is None else sent)
    if wait is not None:
        return _bounded(wait)
    return next((_bounded(wait) for wait in _told(_error(body)) if wait is not None), None)


def _bounded(wait: float) -> float:
    return min(max(wait, 0.0), LONGEST_WAIT)


def _header(value: str, now: float | None) -> float | None:
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", value):
        return float(value)
    moment = None if now is None else _http_date(value)
    return None if moment is None or now is None else moment - now


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HTTP_DATE = (
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-3][0-9]) ([A-Z][a-z]{2}) ([0-9]{4})"
    r" ([0-2][0-9]):([0-5][0-9]):([0-6][0-9]) GMT"
)


def _http_date(value: str) -> float | None:
    """Turn an IMF-fixdate (RFC 9110 section 5.6.7) into Unix seconds."""
    found = re.fullmatch(_HTTP_DATE, value)
    if found is None or found[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(found[group]) for group in (1, 3, 4, 5, 6))
    # Counting months from March puts the leap day last, so that one formula holds for the whole year.
    month = (_MONTHS.index(found[2]) - 2) % 12
    year -= month >= 10
    days = (
        year * 365 + year // 4 - year // 100 + year // 400 + (month * 153 + 2) // 5 + day - 719_469
    )
    return float(days * 86_400 + hour * 3_600 + minute * 60 + second)


def _error(body: bytes) -> dict[str, object]:
    """Find the error object in a body: Google's, one in a list, or a bare one."""
    try:
        decoded: object = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(decoded, list) and decoded:
        decoded = decoded[0]
    if not isinstance(decoded, dict):
        return {}
    error = decoded.get("error", decoded)
    return error if isinstance(error, dict) else {"message": error}


def _told(error: dict[str, object]) -> Iterator[float | None]:
    details = error.get("details")
    found = [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    for detail in found:
        yield _duration(detail.get("retryDelay", detail.get("retry_delay")))
    for detail in found:
        metadata = detail.get("metadata")
        yield _duration(metadata.get("quotaResetDelay")) if isinstance(metadata, dict) else None
    message = error.get("message")
    yield _message(message) if isinstance(message, str) else None


_UNIT_SECONDS = MappingProxyType({"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001})
_AMOUNT = r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])"
_DURATION = r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[dhms])){1,5}"


def _duration(value: object) -> float | None:
    """Read "34.4s", "1h16m0.667s", "500ms", a number of seconds, or {"seconds": "48", "nanos": 5}."""
    match value:
        case int() | float():
            return _number(value)
        case str() if re.fullmatch(_DURATION, value):
            return sum(
                float(amount) * _UNIT_SECONDS[unit] for amount, unit in re.findall(_AMOUNT, value)
            )
        case {"seconds": seconds, **rest}:
            whole, nanos = _number(seconds), _number(rest.get("nanos", 0))
            return None if whole is None or nanos is None else whole + nanos / 1e9
        case _:
            return None


def _number(value: object) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]+", value):
        value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number >= 0 else None


_IN_WORDS = (
    r"(?i)\b(?:retry|try again) (?:in|after) (?:about )?"
    r"((?:[0-9]+(?:\.[0-9]+)? ?"
    r"(?:milliseconds?|ms|days?|d|hours?|h|minutes?|mins?|m|seconds?|secs?|s)\b,? ?){1,5}"
    r"|(?:[0-9]+(?:\.[0-9]+)?(?:ms|[dhms])){1,5}\b)"
)
_WORD_AMOUNT = r"([0-9]+(?:\.[0-9]+)?) ?(mil|ms|[dhms])"


def _message(message: str) -> float | None:
    found = re.search(_IN_WORDS, message[:4_000])
    if found is None:
        return None
    amounts = re.findall(_WORD_AMOUNT, found[1].lower())
    return sum(float(amount) * _UNIT_SECONDS[unit.replace("mil", "ms")] for amount, unit in amounts)
