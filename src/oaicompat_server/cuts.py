"""What still runs when a shutdown has waited long enough, and how it is stopped.

One rule: work that is cut ends like work that failed, so that its client is told; those who follow the work of
others are cut a little later, when that has told them itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from oaicompat.errors import OaicompatError

_FOLLOWERS_SECONDS = 0.25


class Cuts:
    """The work of one gateway that can be cut; `over` once it was."""

    def __init__(self) -> None:
        self.over = False
        self._work: set[anyio.CancelScope] = set()
        self._following: set[anyio.CancelScope] = set()

    @contextmanager
    def scope(self, *, following: bool = False) -> Iterator[anyio.CancelScope]:
        """Run work that is cancelled when it is to be cut; the scope's `cancelled_caught` tells that it was."""
        kept = self._following if following else self._work
        with anyio.CancelScope() as scope:
            kept.add(scope)
            if self.over:
                scope.cancel()
            try:
                yield scope
            finally:
                self._work.discard(scope)
                self._following.discard(scope)

    def follow(self, scope: anyio.CancelScope) -> None:
        """Cut this work later: from now on it only follows the work of others."""
        self._work.discard(scope)
        self._following.add(scope)

    async def cut(self) -> None:
        """Stop all of it, and whatever begins from now on."""
        self.over = True
        for scope in list(self._work):
            scope.cancel()
        if self._following:
            await anyio.sleep(_FOLLOWERS_SECONDS)
        for scope in list(self._following):
            scope.cancel()


def shutting_down() -> OaicompatError:
    """Return what is told to those whose request is refused or cut because the gateway ends."""
    return OaicompatError(
        "The server is shutting down. Please try again in 1s.",
        status=503,
        type="service_unavailable_error",
        code="server_shutdown",
        retry_after=1.0,
    )
