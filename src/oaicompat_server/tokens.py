"""Tokens that expire, and are made anew before they do.

One rule: a refresh belongs to the source. Whoever needs a token waits for the one refresh that runs, and takes
nothing along when leaving; a token that is still good is used whatever becomes of its successor.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable

import anyio
from msgspec import Struct

from oaicompat.errors import UpstreamError
from oaicompat_server.secret import Secret

REFRESH_SECONDS = 10.0
_REFRESH_AT = 0.8
_EARLIER = 0.05
_MARGIN = 0.05
_MOST_MARGIN = 10.0
_YOUNG_SECONDS = 10.0
_STEPS = (1.0, 2.0, 5.0, 10.0)

logger = logging.getLogger("oaicompat")


class Minted(Struct, frozen=True):
    """A new token; `life` is how many seconds it is good for, counted from when it was asked for."""

    value: Secret
    life: float


class _Held(Struct, frozen=True):
    value: Secret
    since: float
    refresh: float
    dies: float


class Tokens:
    """Keeps one token, and has `mint` make the next one, at most one at a time.

    `mint` raises `UpstreamError`. `name` stands in log lines. `clock` gives seconds that go on while the
    machine sleeps, `jitter` a number in [0, 1), and `seconds` bounds a refresh.
    """

    def __init__(
        self,
        mint: Callable[[], Awaitable[Minted]],
        name: str,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        seconds: float = REFRESH_SECONDS,
    ) -> None:
        self._mint = mint
        self._name = name
        self._clock = clock
        self._jitter = jitter
        self._seconds = seconds
        self._held: _Held | None = None
        self._flight: asyncio.Task[None] | None = None
        self._error: UpstreamError | None = None
        self._failures = 0
        self._rest = (0.0, 0.0)

    @property
    def project(self) -> str:
        """Return the project that the account is of, "" where that is not known, or not yet."""
        return ""

    @property
    def quota_project(self) -> str:
        """Return the project that is to pay, "" for the one that is called."""
        return ""

    async def token(self) -> Secret:
        """Return a token that is valid now; raises `UpstreamError` where none can be had."""
        now = self._clock()
        held = self._valid(now)
        if held is None or now >= held.refresh:
            self._begin(now)
        if held is None and self._flight is not None:
            # Unlike awaiting the task, this leaves it running when the waiter is cancelled.
            await asyncio.wait({self._flight})
            held = self._valid(self._clock())
        if held is None:
            raise copy.copy(self._error) if self._error is not None else late()
        return held.value

    def renew(self) -> None:
        """Forget the token that is held, because the upstream refused it.

        A young one stays: it was its predecessor that was refused, or a new one would be refused as well.
        """
        held = self._held
        if held is not None and not 0.0 <= self._clock() - held.since < _YOUNG_SECONDS:
            self._held = None

    def _valid(self, now: float) -> _Held | None:
        """Return what is held while it is good; a clock that was set back is not trusted."""
        held = self._held
        return held if held is not None and held.since <= now < held.dies else None

    def _begin(self, now: float) -> None:
        failed, until = self._rest
        if self._flight is None and not failed <= now < until:
            self._flight = asyncio.get_running_loop().create_task(self._refresh(now))

    async def _refresh(self, started: float) -> None:
        try:
            with anyio.fail_after(self._seconds):
                minted = await self._mint()
        except UpstreamError as error:
            self._failed(error)
        except TimeoutError:
            self._failed(late())
        except Exception as error:
            # Its text is not ours and may quote anything.
            logger.error("the token of %s: unexpected %s", self._name, type(error).__name__)
            self._failed(unusable())
        else:
            self._succeeded(minted, started)
        finally:
            self._flight = None

    def _succeeded(self, minted: Minted, started: float) -> None:
        life = minted.life
        if not life > 0:
            self._failed(unusable())
            return
        if self._failures:
            logger.info("the token of %s is renewed again", self._name)
        self._failures = 0
        self._error = None
        self._held = _Held(
            minted.value,
            started,
            started + life * (_REFRESH_AT - _EARLIER * self._jitter()),
            # What is sent now arrives later.
            started + life - min(life * _MARGIN, _MOST_MARGIN),
        )

    def _failed(self, error: UpstreamError) -> None:
        now = self._clock()
        step = _STEPS[min(self._failures, len(_STEPS) - 1)]
        if not self._failures:
            logger.warning("the token of %s is not renewed: %s", self._name, error.message)
        self._failures += 1
        self._error = copy.copy(error)
        self._rest = (now, now + step * (1.0 + 0.25 * self._jitter()))


def late() -> UpstreamError:
    """Return the error for a token service that does not answer in time."""
    return _unanswered("Google's token service did not answer in time.", 504)


def unreachable() -> UpstreamError:
    """Return the error for a token service that cannot be reached."""
    return _unanswered("Google's token service cannot be reached.")


def unusable(status: int = 200) -> UpstreamError:
    """Return the error for an answer of the token service that is neither a token nor a refusal."""
    told = "without a usable token" if status == 200 else f"with status {status}"
    return _unanswered(f"Google's token service answered {told}.")


def _unanswered(message: str, status: int = 503) -> UpstreamError:
    return UpstreamError(message, status=status, cause="network", retryable=True)
