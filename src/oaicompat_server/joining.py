"""Sending the head of an answer together with the first bytes of its body.

One rule: the head waits for what comes in the same turn of the loop, never longer; one write to the socket
costs as much as converting a small answer.
"""

from __future__ import annotations

import asyncio

_HEAD = b"HTTP/1.1 "


class Joining:
    """What a server's request cycle uses of its transport."""

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """Send, or hold what begins an answer."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(_HEAD):
            self._held = data
            self._loop.call_soon(self._release)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close once all is sent."""
        self._release()
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether the transport is closing or closed."""
        return self._transport.is_closing()

    def _release(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            self._transport.write(data)
