"""The credential pool: which key serves the next attempt, and which ones rest.

One rule: the pool is a state machine without a clock; every method is told the time in seconds. A cooldown
belongs to one credential and one model, because quotas do; only a key that is itself invalid is out until the
settings are loaded again, since any other denial may be about what one client asked for. The key itself stays
inside its `Secret`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from oaicompat.errors import UpstreamError
from oaicompat.providers.gemini.endpoints import Target
from oaicompat_server.secret import Secret
from oaicompat_server.settings import CredentialSettings

REFUSED = frozenset({"credential"})
"""The causes that take a credential out until the settings are loaded again."""

DENIED = frozenset({"permission", "model_permission"})
"""The causes for which a credential rests on the model that was asked for, since waiting is of no known use."""

_FOREVER = float("inf")
_AT_LEAST = frozenset({"quota", *DENIED})
_DENIED_STEPS = (60.0, 300.0, 1800.0, 3600.0)
_STEPS = {
    **dict.fromkeys(DENIED, _DENIED_STEPS),
    "rate": (5.0, 15.0, 30.0, 60.0),
    "quota": (60.0, 300.0, 1800.0, 3600.0),
    "overload": (2.0, 5.0, 15.0, 30.0),
}
_LONGEST = 24 * 3600.0
_MOST_CELLS = 4096


class Credential(Struct, frozen=True):
    """One key and where it is used; `base_url` is empty for the configured default."""

    secret: Secret
    label: str = ""
    base_url: str = ""

    @property
    def account(self) -> str:
        """Return the name shown in `X-Account-Email`: the label, else a fingerprint of the key."""
        return self.label or f"key-{self.secret.fingerprint()}"

    def target(self, base_url: str) -> Target:
        """Return where this credential is used: at its own address, else at `base_url`."""
        return Target(base_url=self.base_url or base_url)

    @classmethod
    def of(cls, settings: CredentialSettings) -> Credential:
        """Return the credential that a settings entry describes."""
        return cls(settings.key, settings.label, settings.base_url)


class _Cell:
    """What is known about one credential on one model."""

    __slots__ = ("failures", "reason", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.failures = 0
        self.reason: UpstreamError | None = None


class Pool:
    """Hands out credentials in turn and remembers what became of them."""

    def __init__(self, credentials: Sequence[Credential]) -> None:
        self._credentials = tuple(dict.fromkeys(credentials))
        self._next = 0
        self._cells: dict[tuple[Credential, str], _Cell] = {}
        self._refused: set[Credential] = set()

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """Return every credential, usable or not."""
        return self._credentials

    @property
    def all_refused(self) -> bool:
        """Tell whether every credential was refused as invalid: waiting does not help."""
        return len(self._refused) == len(self._credentials)

    def reset(self) -> None:
        """Forget every cooldown and refusal, as a restart would."""
        self._cells.clear()
        self._refused.clear()

    def lease(
        self, now: float, model: str, exclude: Collection[Credential] = ()
    ) -> Credential | None:
        """Return the next usable credential for `model` in turn, or None."""
        count = len(self._credentials)
        for step in range(count):
            index = (self._next + step) % count
            credential = self._credentials[index]
            if credential not in exclude and self._ready_at(credential, model) <= now:
                self._next = (index + 1) % count
                return credential
        return None

    def report(
        self, credential: Credential, now: float, model: str, error: UpstreamError | None = None
    ) -> None:
        """Take the outcome of an attempt: None for success, else the error whose `cause` decides."""
        if error is None:
            self._cells.pop((credential, model), None)
        elif error.cause in REFUSED:
            self._refused.add(credential)
        elif error.cause in _STEPS:
            cell = self._cell(credential, now, model)
            until = now + _rest(error, cell.failures)
            cell.failures += 1
            if until >= cell.until:
                cell.until = until
                cell.reason = error

    def earliest(self, now: float, model: str) -> float | None:
        """Return how many seconds until some credential is usable for `model`; None: never."""
        ready = min(
            (self._ready_at(credential, model) for credential in self._credentials),
            default=_FOREVER,
        )
        return None if ready == _FOREVER else max(0.0, ready - now)

    def reason(self, now: float, model: str) -> UpstreamError | None:
        """Return why the credential rests that is back first; None when one is usable, or none ever will be."""
        first = min(
            self._credentials,
            key=lambda credential: self._ready_at(credential, model),
            default=None,
        )
        if first is None or not now < self._ready_at(first, model) < _FOREVER:
            return None
        return self._cells[first, model].reason

    def _cell(self, credential: Credential, now: float, model: str) -> _Cell:
        """Return the cell, dropping cells that are over when clients invent too many model names."""
        if len(self._cells) >= _MOST_CELLS:
            self._cells = {key: cell for key, cell in self._cells.items() if cell.until > now}
        return self._cells.setdefault((credential, model), _Cell())

    def _ready_at(self, credential: Credential, model: str) -> float:
        if credential in self._refused:
            return _FOREVER
        cell = self._cells.get((credential, model))
        return cell.until if cell else 0.0


def _rest(error: UpstreamError, failures: int) -> float:
    """Return how many seconds to rest: what the upstream says, and for what does not pass soon at least a step.

    A spent day comes with a RetryInfo of seconds (gemini-wire section 6).
    """
    steps = _STEPS[error.cause]
    step = steps[min(failures, len(steps) - 1)]
    told = error.retry_after
    if told is None or told != told:
        return step
    return min(max(told, step if error.cause in _AT_LEAST else 0.0), _LONGEST)
