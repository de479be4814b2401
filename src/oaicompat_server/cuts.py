"""What still runs when a shutdown has waited long enough, and how it is stopped.

One rule: work that is cut ends like work that failed, so that its client is told; those who follow the work of
others are cut a little later, when that has told them itself.
"""

from __future__ import annotations

import asyncio

from oaicompat.errors import OaicompatError
from oaicompat_server.span import Span

_FOLLOWERS_SECONDS = 0.25


class Cuts:
    """The spans of one gateway's work, which can be cut; `over` once they were."""

    def __init__(self) -> None:
        self.over = False
        self._work: set[Span] = set()
        self._following: set[Span] = set()

    @property
    def running(self) -> int:
        """Return how much work there is, without what only follows it."""
        return len(self._work)

    def add(self, span: Span) -> None:
        """Take work on, until `forget`; it is cut as it begins where all was."""
        self._work.add(span)
        if self.over:
            span.end("cut")

    def follow(self, span: Span) -> None:
        """Take on what only follows the work of others, or does from now on."""
        self._work.discard(span)
        self._following.add(span)
        if self.over:
            span.end("cut")

    def forget(self, span: Span) -> None:
        """Let go of work that has ended."""
        self._work.discard(span)
        self._following.discard(span)

    async def cut(self) -> None:
        """Stop all of it, and whatever begins from now on."""
        self.over = True
        for span in list(self._work):
            span.end("cut")
        if self._following:
            await asyncio.sleep(_FOLLOWERS_SECONDS)
        for span in list(self._following):
            span.end("cut")


def shutting_down() -> OaicompatError:
    """Return what is told to those whose request is refused or cut because the gateway ends."""
    return OaicompatError(
        "The server is shutting down. Please try again in 1s.",
        status=503,
        type="service_unavailable_error",
        code="server_shutdown",
        retry_after=1.0,
    )
