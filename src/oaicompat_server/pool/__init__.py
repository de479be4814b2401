"""The credential pool: who serves the next attempt, what rests and for how long, and what is known of it.

One rule: the pool is a state machine without a clock and without chance; every method is told the time in
seconds, and the same calls give the same answers.
"""

from __future__ import annotations

from oaicompat_server.pool.credential import Credential, SourceOf, TokenSource
from oaicompat_server.pool.pool import DENIED, REFUSED, Outlook, Pool
from oaicompat_server.pool.selection import Lease, Wanted

__all__ = [
    "DENIED",
    "REFUSED",
    "Credential",
    "Lease",
    "Outlook",
    "Pool",
    "SourceOf",
    "TokenSource",
    "Wanted",
]
