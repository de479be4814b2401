"""Ending connections on which nothing moves: the client does not take what is sent to it, or asks for nothing.

One rule: only a client that takes nothing is cut; one that reads slowly keeps its connection as long as some
arrives in every interval. It is aborted, because a close would wait for ever until all is sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from oaicompat_server.corking import cork_of

_SLOWEST = 500.0


class WriteStall:
    """Watches one connection while more was written than it takes; `seconds` is the longest pause.

    In that time a client has to take as many bytes as 500 in every second make.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0

    def begin(self, transport: asyncio.Transport) -> None:
        """Watch from now on, where it is not watched already."""
        if self._timer is None:
            self._unsent = transport.get_write_buffer_size()
            self._timer = self._loop.call_later(self._seconds, self._look, transport)

    def close(self, transport: asyncio.Transport) -> None:
        """Close once what is unsent is taken, for which the client has no longer than for anything else."""
        cork_of(self._loop).pull()
        if not transport.is_closing() and transport.get_write_buffer_size():
            self.begin(transport)
        transport.close()

    def resume(self, transport: asyncio.Transport) -> None:
        """Stop watching a connection that takes enough, unless it is one that has to end."""
        if not transport.is_closing():
            self.end()

    def end(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, transport: asyncio.Transport) -> None:
        self._timer = None
        if self._unsent - transport.get_write_buffer_size() < self._seconds * _SLOWEST:
            transport.abort()
        else:
            self.begin(transport)


class Arrival:
    """Ends the wait for a body of which nothing comes for so many `seconds`; it has one timer, which looks in.

    `moved` tells that some has come, and nobody has looked since.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self.moved = False

    def wait(self, backed_up: Callable[[], bool], late: Callable[[], None]) -> None:
        """Call `late` when time is up; it stands still while `backed_up` says that nobody takes what came."""
        if self.moved:
            self.moved = False
            self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look, backed_up, late)

    def end(self) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, backed_up: Callable[[], bool], late: Callable[[], None]) -> None:
        self._timer = None
        now = self._loop.time()
        if backed_up():
            self._since = now
        wait = self._since + self._seconds - now
        if wait > 0.001:
            self._timer = self._loop.call_later(wait, self._look, backed_up, late)
        else:
            late()


class Idleness:
    """Closes one connection after so many `seconds` without a request; it has one timer, which looks in.

    `since` is when it began, on the monotonic clock, and 0 while something is under way.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        stall: WriteStall,
        seconds: float,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._stall = stall
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self.since = 0.0

    def begin(self) -> None:
        """Wait for a request from now on."""
        self.since = time.monotonic()
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def end(self) -> None:
        """Stop waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = time.monotonic()
        wait = (self.since or now) + self._seconds - now
        if wait > 0.001:
            self._timer = self._loop.call_later(wait, self._look)
        else:
            self._timer = None
            self._stall.close(self._transport)
