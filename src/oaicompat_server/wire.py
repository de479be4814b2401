"""What a connection to an upstream needs of the stream below it, and how any stream of httpcore's gives that.

One rule: sending and taking never wait. What has to be waited for is returned, so that an exchange which finds
all it needs there is no chain of coroutines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable
from typing import Protocol

import httpcore

_READ_BYTES = 4 * 1024 * 1024


class Wire(Protocol):
    """A stream as a connection drives it: what has come is taken, and only what has not is waited for."""

    def send(self, data: bytes, seconds: float | None) -> Awaitable[None] | None:
        """Send; return what to wait for before more is sent, if anything. Raises `httpcore.WriteError`."""
        ...

    def allow(self, seconds: float | None) -> None:
        """Let arrivals take until so many seconds from now, None for ever."""
        ...

    def arrival(self) -> Awaitable[None]:
        """Return what to wait for until bytes have come, or the end; raises `httpcore.ReadTimeout`."""
        ...

    def take(self) -> bytes:
        """Return all that has come, b"" at the end; raises `httpcore.ReadError`."""
        ...

    def quiet(self) -> bool:
        """Tell whether nothing has come, nor the end."""
        ...

    async def aclose(self) -> None:
        """Cut the connection."""
        ...


class StreamWire:
    """The `Wire` of any other network stream of httpcore's."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._until = math.inf
        self._come = b""

    def send(self, data: bytes, seconds: float | None) -> Awaitable[None]:
        return self._stream.write(data, seconds)

    def allow(self, seconds: float | None) -> None:
        self._until = math.inf if seconds is None else time.monotonic() + seconds

    async def arrival(self) -> None:
        left = None if self._until == math.inf else self._until - time.monotonic()
        if left is not None and left <= 0:
            raise httpcore.ReadTimeout
        self._come = await self._stream.read(_READ_BYTES, left)

    def take(self) -> bytes:
        come, self._come = self._come, b""
        return come

    def quiet(self) -> bool:
        return not self._stream.get_extra_info("is_readable")

    async def aclose(self) -> None:
        await self._stream.aclose()
