"""Which of the usable credentials serves: the conversation's own, else the one with the least to do.

One rule: nothing here looks at time or at failures. A conversation hashes to the same credential on every
machine (weighted rendezvous hashing), and where that one is missing only its own conversations move.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from hashlib import blake2b, sha256
from types import TracebackType
from typing import Protocol

from msgspec import Struct

from oaicompat.errors import UpstreamError
from oaicompat.models import name_matcher
from oaicompat_server.pool.cells import Cell
from oaicompat_server.pool.credential import Credential


class Wanted(Struct, frozen=True):
    """What an attempt is to be leased: a credential for this model, empty for any.

    `exclude` are left out, and all but `only`. `sticky` names a conversation, which stays with its credential
    while that is usable. `retrying` is for a further attempt of a call: it passes where new calls are held off
    by a run of failures alone; so does a client (`owner`) where the failures are all another one's.
    """

    model: str
    exclude: Collection[Credential] = ()
    sticky: str = ""
    only: Credential | None = None
    retrying: bool = False
    owner: str = ""

    def among(self, slots: Sequence[Slot]) -> list[Slot]:
        """Return the slots that would do, whatever rests."""
        model, exclude, only = self.model, self.exclude, self.only
        found = []
        for slot in slots:
            if slot.out is not None or (only is not None and slot.credential != only):
                continue
            if exclude and slot.credential in exclude:
                continue
            if slot.allows is None or not model or slot.allows(model):
                found.append(slot)
        return found


class Slot:
    """One credential of the pool, and what it is doing.

    `account` is its name; `allows` tells which models it may serve, None: all; `own`, `quota` and `door` name
    what rests together: the credential, those that share its quota, the models behind its front door. `turn` is
    how much of its share it has served, of which a lease is one `share`; `last` its last lease.
    """

    __slots__ = (
        "account",
        "allows",
        "credential",
        "door",
        "in_flight",
        "last",
        "out",
        "own",
        "quota",
        "refused",
        "served",
        "share",
        "suspect",
        "turn",
    )

    def __init__(self, credential: Credential) -> None:
        group = credential.quota_group
        self.credential = credential
        self.account = credential.account
        self.own = credential.identity
        self.quota = f"group-{_digest(group)}" if group else self.own
        self.door = f"door-{_digest(credential.door)}"
        self.allows = name_matcher(credential.models) if credential.models else None
        self.share = 1.0 / credential.weight
        self.in_flight = 0
        self.served = 0
        self.turn = 0.0
        self.last = 0
        self.out: UpstreamError | None = None
        self.suspect = False
        self.refused = -1


class Reporting(Protocol):
    """Where a lease tells what became of it."""

    def succeed(self, lease: Lease) -> None:
        """Take a success."""
        ...

    def settle(self, lease: Lease, now: float, error: UpstreamError) -> None:
        """Take a failure."""
        ...


class Lease(Struct, eq=False):
    """The use of one credential for one attempt; as a context manager it is given back at the end.

    `begun` is the number of the event as which it began.
    """

    pool: Reporting
    slot: Slot
    credential: Credential
    model: str
    begun: int
    owner: str = ""
    probes: tuple[Cell, ...] = ()
    held: bool = True

    def report(self, now: float, error: UpstreamError | None = None) -> None:
        """Tell what became of the attempt: None for success, which may be told as soon as it is seen."""
        if error is None:
            self.pool.succeed(self)
        else:
            self.pool.settle(self, now, error)

    def release(self) -> None:
        """Give the credential back; a probe that was not reported is another's to make."""
        if not self.held:
            return
        self.held = False
        self.slot.in_flight -= 1
        for cell in self.probes:
            cell.abandon(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def choose(slots: Sequence[Slot], sticky: str, served: float = 0.0) -> Slot:
    """Return the slot that serves next, of at least one.

    With `sticky`, the conversation's; else the one with the least in flight by weight, and among equals the
    one that has served the least of its share since the turn `served`, or that served longest ago.
    """
    if len(slots) == 1:
        return slots[0]
    if sticky:
        seed = sticky.encode("utf-8", "surrogatepass")
        return max(slots, key=lambda slot: _affinity(seed, slot))
    return min(slots, key=lambda slot: (_load(slot), max(slot.turn, served), slot.last))


def _load(slot: Slot) -> float:
    return slot.in_flight / slot.credential.weight


def _affinity(seed: bytes, slot: Slot) -> float:
    """Score one slot for one conversation: Schindelhauer and Schomaker's logarithmic method."""
    digest = blake2b(seed, digest_size=8, key=slot.own.encode("ascii")).digest()
    share = (int.from_bytes(digest, "big") + 1) / (2**64 + 2)
    return -slot.credential.weight / math.log(share)


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8")).hexdigest()[:24]
