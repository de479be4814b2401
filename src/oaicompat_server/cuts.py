"""What still runs when a shutdown has waited long enough, and how it is stopped.

One rule: work that is cut ends like work that failed, so that its client is told; those who follow the work of
others are cut a little later, when that has told them itself.
"""

from __future__ import annotations

import asyncio

from oaicompat.errors import OaicompatError
from oaicompat_server.span import Spans

_FOLLOWERS_SECONDS = 0.25


class Cuts:
    """The spans of one gateway: of its `work`, and of what is only `following` the work of others."""

    def __init__(self) -> None:
        self.work = Spans()
        self.following = Spans()

    @property
    def running(self) -> int:
        """Return how much work there is, without what only follows it."""
        return len(self.work.running)

    async def cut(self) -> None:
        """Stop all of it, and whatever begins from now on."""
        self.work.cut()
        self.following.over = True
        if self.following.running:
            await asyncio.sleep(_FOLLOWERS_SECONDS)
        self.following.cut()


def shutting_down() -> OaicompatError:
    """Return what is told to those whose request is refused or cut because the gateway ends."""
    return OaicompatError(
        "The server is shutting down. Please try again in 1s.",
        status=503,
        type="service_unavailable_error",
        code="server_shutdown",
        retry_after=1.0,
    )
