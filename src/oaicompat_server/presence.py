"""Telling a client that only ended its sending side from one that has left.

One rule: an end of input alone does not tell, because both look the same on the wire; so a byte is sent. An
interim `100 Continue`, which HTTP/1.1 lets a server send at any time before the answer, draws a reset from a
socket that is closed, and nothing from one that was only shut down for sending.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
_FIRST_SECONDS = 0.005
_SLOWEST_SECONDS = 0.25
_CLOSED = 7


class Presence:
    """Watches one connection whose input has ended, and calls `gone` when a reset comes; `stop` ends that.

    A client that leaves later, without a byte from us in between, is noticed at the next write.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        gone: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._plug: Any = transport.get_extra_info("socket")
        self._gone = gone
        self._wait = _FIRST_SECONDS
        transport.write(_INTERIM)
        self._timer = loop.call_later(self._wait, self._look)

    def stop(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _look(self) -> None:
        if _was_reset(self._plug):
            self._gone()
            return
        self._wait = min(self._wait * 1.5, _SLOWEST_SECONDS)
        self._timer = self._loop.call_later(self._wait, self._look)


def _was_reset(plug: Any) -> bool:
    try:
        if plug.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        information = getattr(socket, "TCP_INFO", None)
        if information is None:
            return False
        state: bytes = plug.getsockopt(socket.IPPROTO_TCP, information, 1)
    except OSError:
        return True
    return state[:1] == bytes([_CLOSED])
