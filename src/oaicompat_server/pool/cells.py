"""What rests, and for how long: one cell for each quota, denial or overload that is known of a model.

One rule: a cell is closed (served), resting, or half-open: its time is over and one lease may probe. A probe
that succeeds closes it, one that fails lets it rest longer, one that is given back leaves its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from oaicompat.errors import UpstreamError

CellKind = Literal["limit", "denial", "overload"]

LONGEST = 24 * 3600.0
PROBE_SECONDS = 5.0
"""A refusal for lack of quota or of place comes at once; a probe that still runs after this has passed."""


class Rule(Struct, frozen=True):
    """How failures of one cause are taken: what they are of, and the seconds of rest by their number.

    The rest begins with failure number `patience`; `at_least` keeps a shorter time that the upstream names
    from taking the place of a step, and `told` says whether such a time counts at all.
    """

    kind: CellKind
    steps: tuple[float, ...]
    patience: int = 1
    at_least: bool = False
    told: bool = True


_DENIED = Rule("denial", (300.0, 1800.0, 7200.0, 21600.0), told=False)
_OVERLOADED = (2.0, 5.0, 15.0, 30.0)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "rate": Rule("limit", (5.0, 15.0, 30.0, 60.0)),
        # A spent day comes with a RetryInfo of seconds (gemini-wire section 6).
        "quota": Rule("limit", (60.0, 300.0, 1800.0, 3600.0), at_least=True),
        "permission": _DENIED,
        "model_permission": _DENIED,
        # One failure is common and the next attempt is served; a run of them is an outage.
        "overload": Rule("overload", _OVERLOADED, patience=3),
        # A request can make the service fail; it takes more than one to blame the model.
        "failure": Rule("overload", _OVERLOADED, patience=7),
    }
)
"""By cause; `failure` is a 5xx that is not an overload. Other causes are held against nobody."""


def rule_of(error: UpstreamError) -> Rule | None:
    """Return how the pool takes a failure, None where nothing rests for it."""
    if error.cause == "network":
        status = error.upstream_status
        return RULES["failure"] if status is not None and status >= 500 else None
    return RULES.get(error.cause)


class Cell:
    """What is known about one thing that may rest; times are the pool's `now`."""

    __slots__ = ("failed", "failures", "firm", "owners", "prober", "probing", "reason", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.failures = 0
        self.failed = -1
        self.firm = True
        self.owners: set[str] = set()
        self.reason: UpstreamError | None = None
        self.probing = 0.0
        self.prober: object = None

    def ready_at(self) -> float:
        """Return when the next lease may pass; that time may lie in the past."""
        return max(self.until, self.probing)

    def half_open(self, now: float) -> bool:
        """Tell whether the next lease probes."""
        return 0.0 < self.until <= now and not self.probing

    def passes(self, owner: str) -> bool:
        """Tell whether a run of failures is all one other client's: its requests may be what fails."""
        return not self.firm and len(self.owners) == 1 and owner not in self.owners

    def begin(self, prober: object, now: float) -> None:
        """Let one lease probe."""
        self.prober = prober
        self.probing = now + PROBE_SECONDS

    def abandon(self, prober: object) -> None:
        """Take the probe back where it is this one's and came to no end."""
        if self.prober is prober:
            self.prober = None
            self.probing = 0.0

    def fail(
        self, rule: Rule, error: UpstreamError, now: float, *, begun: int, number: int
    ) -> None:
        """Take a failure of an attempt that began as event `begun` and ended as event `number`.

        What began before the last failure says nothing new: it can make the rest longer, not the next one.
        """
        if begun > self.failed:
            self.failures += 1
            self.failed = number
        self.prober = None
        self.probing = 0.0
        told = error.retry_after if rule.told else None
        if told is not None and told != told:
            told = None
        rest = _rest(rule, self.failures, told)
        if rest is None:
            self.reason = self.reason or error
            return
        if now + rest >= self.until:
            self.until = now + rest
            self.reason = error
            self.firm = rule.kind != "overload" or told is not None

    def renewed(self, begun: int) -> bool:
        """Tell whether the success of an attempt that began as event `begun` speaks against resting."""
        return begun > self.failed or not self.firm


def _rest(rule: Rule, failures: int, told: float | None) -> float | None:
    """Return how many seconds to rest: what the upstream says, or the step; None: not yet."""
    number = failures - rule.patience
    if number < 0:
        return None if told is None else min(max(told, 0.0), LONGEST)
    step = rule.steps[min(number, len(rule.steps) - 1)]
    if told is None:
        return step
    return min(max(told, step if rule.at_least else 0.0), LONGEST)
