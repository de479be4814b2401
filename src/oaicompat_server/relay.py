"""What requests share, and how one becomes an exchange.

One rule: everything here outlives a request; what belongs to one is in its session.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import anyio
import anyio.to_thread
from msgspec import Struct

from oaicompat.dialects import Keep
from oaicompat.errors import OaicompatError
from oaicompat.exchange import Exchange
from oaicompat.supplies import Supplies
from oaicompat_server.admission import Admission
from oaicompat_server.beside import finished
from oaicompat_server.bodies import BodyBudget
from oaicompat_server.cuts import Cuts
from oaicompat_server.entropy import token
from oaicompat_server.media_fetch import MediaFetch
from oaicompat_server.pool import Pool
from oaicompat_server.pool.sharing import Sharing
from oaicompat_server.recall import (
    CountingRecall,
    FetchingRecall,
    Recall,
    StoredRecall,
    checked_size,
)
from oaicompat_server.settings import Config, share
from oaicompat_server.snapshot import Snapshot
from oaicompat_server.store import Store
from oaicompat_server.store.cooldowns import MemoryCooldowns
from oaicompat_server.store.remembering import Signatures
from oaicompat_server.stored import Run, Runs
from oaicompat_server.upstream import Upstream, waits_of

PARSE_IN_THREAD = 4 * 1024 * 1024
"""The bytes from which a body is decoded beside the event loop."""

_PARSERS = 2
_RETIRED_POOLS = 4


class Incoming(Struct, frozen=True):
    """One request whose body has been read.

    `started` is when it came, on the monotonic clock; `owner` whose it is (see `auth.OWNER`). `streaming`
    overrules the body; `silent` asks the model nothing; `keep` tells which responses its `Recall` can keep;
    `session` is what its headers say of the conversation. `release` is called when somebody else counts the
    body from then on.
    """

    dialect: str
    body: bytes
    request_id: str
    started: float
    owner: str = ""
    streaming: bool | None = None
    silent: bool = False
    keep: Keep = "stored"
    session: str = ""
    release: Callable[[], None] | None = None


class Background(Runs, Protocol):
    """Makes responses whose client does not wait."""

    async def start(self, incoming: Incoming, exchange: Exchange, recall: Recall) -> Run:
        """Begin to answer; return once the response is stored."""
        ...


class Relay:
    """Owns what requests share; `store`, `background` and `sharing` are set when the application starts.

    `settings` are those in force, with their `config` and `pool`. `worker` tells which of `server.workers`
    processes this is, `others_forget` has the others forget what rests of an account and a model, as
    `Sharing.forget` does.
    """

    def __init__(self, settings: Snapshot, upstream: Upstream) -> None:
        server = settings.config.server
        self.settings = settings
        self.config: Config = settings.config
        self.pool: Pool = settings.pool
        self.upstream = upstream
        self.sharing = Sharing(settings.pool, MemoryCooldowns())
        self.worker = 1
        self.others_forget: Callable[[str, str], None] = _nobody
        workers = server.workers
        self.admission = Admission(
            share(server.max_in_flight, workers), share(server.queue, workers), server.queue_wait
        )
        # Otherwise a body within its limit could never be taken.
        self.bodies = BodyBudget(max(share(server.body_budget, workers), server.body_limit))
        self.signatures = Signatures()
        self.media = MediaFetch(server.body_limit, upstream.secure)
        self.store: Store
        self.background: Background
        self.draining = False
        self.cuts = Cuts()
        # A call that began with earlier settings may lease from their pool later on.
        self._retired: deque[Pool] = deque(maxlen=_RETIRED_POOLS)
        self._parsers = anyio.CapacityLimiter(_PARSERS)

    def swap(self, settings: Snapshot) -> None:
        """Put new settings in force; what cools down goes on cooling."""
        now = time.monotonic()
        settings.pool.adopt(self.pool.export(now), now)
        self._retired.append(self.pool)
        self.upstream.waits = waits_of(settings.config.upstream)
        self.sharing.replace(settings.pool)
        self.settings, self.config, self.pool = settings, settings.config, settings.pool

    @property
    def leases(self) -> int:
        """Return how many credentials are in use."""
        return self.pool.in_flight + sum(pool.in_flight for pool in self._retired)

    def recall(self, owner: str) -> Recall:
        """Return what finds and keeps for this client, links to media included where they are fetched."""
        limit = self.config.server.body_limit
        stored = CountingRecall(
            StoredRecall(self.signatures, self.store, owner), limit, self.bodies
        )
        settings = self.config.media
        if not settings.fetch:
            return stored
        return FetchingRecall(stored, partial(self.media.fetch, settings, owner), self.bodies)

    def exchange(self, incoming: Incoming) -> Exchange:
        """Decode the request; raises `InvalidRequestError`."""
        settings = self.settings
        # By position: keywords make a class four times as slow to call.
        return Exchange(
            incoming.dialect,
            incoming.body,
            settings.models,
            int(time.time()),
            _new_id,
            settings.config.request.strict,
            incoming.streaming,
            "gemini",
            incoming.silent,
            settings.options[incoming.keep],
        )

    async def exchange_beside(self, incoming: Incoming) -> Exchange:
        """Decode a big request in a thread; raises `InvalidRequestError`."""
        return await anyio.to_thread.run_sync(
            self.exchange, incoming, abandon_on_cancel=True, limiter=self._parsers
        )

    async def supply(self, exchange: Exchange, found: Supplies) -> None:
        """Give an exchange what was found, in a thread when that is big; raises `InvalidRequestError`."""
        if checked_size(found, self.config.server.body_limit) < PARSE_IN_THREAD:
            exchange.supply(found)
            return
        # Not abandoned: a failure is told by the same exchange.
        supplying = anyio.to_thread.run_sync(exchange.supply, found, limiter=self._parsers)
        await finished(supplying)


def internal_error(request_id: str) -> OaicompatError:
    """Return the opaque error for a fault of our own."""
    return OaicompatError(
        f"The server had an error while processing your request (request ID {request_id}).",
        status=500,
    )


def _nobody(account: str, model: str) -> None:
    """Stand in where there are no others."""


def _new_id() -> str:
    return token()[:28]
