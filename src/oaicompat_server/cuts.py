"""What still runs when a shutdown has waited long enough, and how it is stopped.

One rule: work that is cut ends like work that failed, so that its client is told; those who follow the work of
others are cut a little later, when that has told them itself.
"""

from __future__ import annotations

from types import TracebackType

import anyio

from oaicompat.errors import OaicompatError

_FOLLOWERS_SECONDS = 0.25


class Cut:
    """The context of one piece of work; `cancelled_caught` of its scope tells that it was cut."""

    __slots__ = ("_among", "_cuts", "_scope")

    def __init__(self, cuts: Cuts, among: set[anyio.CancelScope]) -> None:
        self._cuts = cuts
        self._among = among
        self._scope = anyio.CancelScope()

    def __enter__(self) -> anyio.CancelScope:
        self._scope.__enter__()
        self._among.add(self._scope)
        if self._cuts.over:
            self._scope.cancel()
        return self._scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._cuts.forget(self._scope)
        return self._scope.__exit__(kind, error, trace)


class Cuts:
    """The work of one gateway that can be cut; `over` once it was."""

    def __init__(self) -> None:
        self.over = False
        self._work: set[anyio.CancelScope] = set()
        self._following: set[anyio.CancelScope] = set()

    @property
    def running(self) -> int:
        """Return how much work there is, without what only follows it."""
        return len(self._work)

    def scope(self, *, following: bool = False) -> Cut:
        """Return a context for work that is cancelled when it is to be cut; it gives the scope to ask."""
        return Cut(self, self._following if following else self._work)

    def follow(self, scope: anyio.CancelScope) -> None:
        """Cut this work later: from now on it only follows the work of others."""
        self._work.discard(scope)
        self._following.add(scope)

    def forget(self, scope: anyio.CancelScope) -> None:
        """Let go of work that has ended."""
        self._work.discard(scope)
        self._following.discard(scope)

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
