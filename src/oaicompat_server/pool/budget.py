"""How many attempts may be retries at once, over all requests: an outage is not to get three times the load.

One rule: a place is taken when a retry is decided, before its wait, and given back when its attempt has ended.
"""

from __future__ import annotations

SHARE = 0.2
FLOOR = 3
"""Of what is in flight, and at least so many (reliability C3)."""


class RetryBudget:
    """Counts the retries that wait or run."""

    def __init__(self, share: float = SHARE, floor: int = FLOOR) -> None:
        self._share = share
        self._floor = floor
        self.taken = 0

    def take(self, in_flight: int) -> bool:
        """Take a place while `in_flight` attempts run; False where none is left."""
        if self.taken >= max(self._floor, int(self._share * in_flight)):
            return False
        self.taken += 1
        return True

    def give(self) -> None:
        """Give a place back."""
        self.taken -= 1
