"""Taking connections from a listening socket, on which other processes may listen as well.

One rule: one connection in each turn of the event loop, and one more for each millisecond that the turn took.
asyncio's own server takes all there are, so that the process that wakes first would get a whole burst of
clients and keep them; libuv's takes one whatever happens, so that a busy process leaves its clients waiting
for seconds.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable

_PAUSE_SECONDS = 0.1
_A_SECOND = 1000
_AT_ONCE = 128
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Accepting:
    """Makes a protocol for each connection that this process gets, until it is closed."""

    def __init__(
        self, listening: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._protocol = protocol
        self._connecting: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._turn = 0.0
        listening.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Take no more; whoever made the socket closes it."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listening)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        now = time.monotonic()
        late = int((now - self._turn) * _A_SECOND) if self._turn else 0
        self._turn = now
        for _ in range(min(1 + late, _AT_ONCE)):
            if not self._take():
                break
        self._loop.call_soon(self._loop.call_soon, self._forget, now)

    def _forget(self, turn: float) -> None:
        """Count the time no further where nobody waited in the turn after that one."""
        if self._turn == turn:
            self._turn = 0.0

    def _take(self) -> bool:
        """Take a connection; False where there is none to take."""
        try:
            connection, _ = self._listening.accept()
        except OSError as error:
            # Another process was first, or the client has left; no descriptor left would be told again at once.
            if error.errno in _EXHAUSTED:
                self._loop.remove_reader(self._listening)
                self._pause = self._loop.call_later(_PAUSE_SECONDS, self._resume)
            return False
        connection.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return True

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()
