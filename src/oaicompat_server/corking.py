"""Small writes to sockets that come close together, made in a row.

One rule: a write waits for the end of the loop's turn and for at most seven others, never for time. Each write
wakes whoever reads there and gives the processor's caches to the kernel; several in a row do so once (uvloop
writes at once since 0.22). A connection's own writes keep their order, so whatever else is done to it `pull`s
first.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from weakref import WeakKeyDictionary

logger = logging.getLogger("oaicompat")

_MOST = 8
"""More would save a little more, but answers that come together would be sent together, and stay so."""

_SMALL_BYTES = 16 * 1024
"""What is larger fills buffers, and whoever sends it has to know at once that they are full."""


class Cork:
    """The writes of one event loop that wait."""

    __slots__ = ("_due", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []
        self._due = False

    def write(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, data: bytes
    ) -> None:
        """Write to a transport of this loop by the end of its turn; dropped where it is closed before."""
        waiting = self._waiting
        waiting.append((transport, data))
        if len(waiting) >= _MOST or len(data) > _SMALL_BYTES:
            self.pull()
        elif not self._due:
            self._due = True
            loop.call_soon(self._end_turn)

    def pull(self) -> None:
        """Make all writes that wait."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for transport, data in waiting:
                try:
                    if not transport.is_closing():
                        transport.write(data)
                except Exception:
                    # Whoever writes here has nothing to do with the connections behind it.
                    logger.exception("a connection could not be written to")
                    with suppress(Exception):
                        transport.abort()

    def _end_turn(self) -> None:
        self._due = False
        self.pull()


_corks: WeakKeyDictionary[asyncio.AbstractEventLoop, Cork] = WeakKeyDictionary()


def cork_of(loop: asyncio.AbstractEventLoop) -> Cork:
    """Return the cork that all who write in this loop share."""
    cork = _corks.get(loop)
    if cork is None:
        cork = _corks[loop] = Cork()
    return cork
