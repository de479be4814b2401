"""Noticing that a client leaves while its answer is made.

One rule: our own server protocol tells at once and for nothing; under any other server a task waits for the
message that ASGI has for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from oaicompat_server.framing import Receive, Scope

LEAVING = "oaicompat.leaving"
"""Where a server of ours leaves in the scope what tells that the client has left."""


class Leaving:
    """Tells one listener that the client of a request has left."""

    __slots__ = ("_left", "gone")

    def __init__(self) -> None:
        self.gone = False
        self._left: Callable[[], None] | None = None

    def listen(self, left: Callable[[], None]) -> None:
        """Call `left` when the client leaves, or now if it has."""
        if self.gone:
            left()
        else:
            self._left = left

    def ignore(self) -> None:
        """Call nobody any more."""
        self._left = None

    def tell(self) -> None:
        """Take the news."""
        self.gone = True
        if self._left is not None:
            self._left()


def listen(scope: Scope, receive: Receive, left: Callable[[], None]) -> Callable[[], None]:
    """Call `left` once the client leaves; return what ends that. The body must have been read."""
    leaving: Leaving | None = scope.get(LEAVING)
    if leaving is None:
        return _watched(receive, left)
    leaving.listen(left)
    return leaving.ignore


def _watched(receive: Receive, left: Callable[[], None]) -> Callable[[], None]:
    watcher = asyncio.get_running_loop().create_task(_await_leave(receive, left))

    def ignore() -> None:
        watcher.cancel()

    return ignore


async def _await_leave(receive: Receive, left: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    left()
