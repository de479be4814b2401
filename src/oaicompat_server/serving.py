"""Running the application: the socket, uvicorn's settings, the signals.

One rule: the first signal drains (nothing new is taken, what runs may finish until the grace is over and is
then cut), the second one leaves at once. The port is bound before anything is printed, so that a taken port is
one clear line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import anyio
import uvicorn

from oaicompat_server.accepting import Accepting
from oaicompat_server.auth import App
from oaicompat_server.corking import cork_of
from oaicompat_server.descriptors import connection_cap, raise_descriptor_limit
from oaicompat_server.guard import GuardedProtocol, guarded
from oaicompat_server.limits import Limits
from oaicompat_server.relay import Relay
from oaicompat_server.settings import ConfigError
from oaicompat_server.upgraded import upgraded
from oaicompat_server.worker import Worker

_CUT_SECONDS = 2.0
_FLUSH_SECONDS = 0.5
_CLOSE_SECONDS = 1.0
_FORCED_SECONDS = 0.3
_LOOK_SECONDS = 0.05
EXIT_SECONDS = 0.4
_UNSENT_OPTION: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_UNSENT_BYTES = 128 * 1024
"""What the kernel takes of an answer ahead of its client: by default 4 MB, behind which a reader that is slow
looks like one that has stopped. Accepted connections inherit it."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


logger = logging.getLogger("oaicompat")


class Server(uvicorn.Server):
    """uvicorn's server, ending with exit status 0 after a signal and at once after the second one.

    `relay` is that of the application, told when to refuse and when to cut; `worker` is set where others
    serve on the same socket.
    """

    def __init__(
        self, config: uvicorn.Config, relay: Relay | None = None, worker: Worker | None = None
    ) -> None:
        super().__init__(config)
        self._worker = worker
        self._relay = relay
        self._accepting: list[Accepting] = []
        self._grace = 30.0 if relay is None else relay.config.server.grace

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle the signals while serving; they are not raised again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        if self._worker is not None:
            self._worker.hear_signals()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        # Windows' event loop cannot watch a listening socket.
        if sockets is None or sys.platform == "win32":
            await super().startup(sockets)
            return
        await super().startup([])
        made: Any = self.config.http_protocol_class
        protocol = partial(
            made,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self._accepting = [Accepting(each, protocol) for each in sockets]
        if self._worker is not None:
            self._worker.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, wait for what runs, cut it, close; a forced end leaves the waiting out."""
        until = time.monotonic() + self._grace
        for each in (*self.servers, *self._accepting, *(sockets or ())):
            each.close()
        if self._relay is not None:
            self._relay.draining = True
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if running := self._running():
            logger.info("stopping: %d requests have %g s to end", running, self._grace)
        await self._wait(self._running, self._grace)
        if self._running() and not self.force_exit:
            await self._cut()
            await self._wait(self._running, _CUT_SECONDS)
        await self._hang_up(max(_FLUSH_SECONDS, until - time.monotonic()))
        with anyio.move_on_after(_FORCED_SECONDS if self.force_exit else _CLOSE_SECONDS):
            await self.lifespan.shutdown()

    def _running(self) -> int:
        """Return how many requests run, with those whose clients do not wait."""
        requests = len(self.server_state.tasks)
        return requests if self._relay is None else max(requests, self._relay.cuts.running)

    async def _cut(self) -> None:
        """End what runs, and refuse what has not come whole."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, GuardedProtocol):
                connection.cut()
        if self._relay is not None:
            await self._relay.cuts.cut()

    async def _wait(self, left: Callable[[], int], seconds: float) -> None:
        """Wait until nothing is left, at most so long, and not when forced."""
        until = time.monotonic() + seconds
        # uvicorn's collections have no event to wait for.
        while left() and not self.force_exit and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)

    async def _hang_up(self, seconds: float) -> None:
        """Close every connection, those with something unsent after `seconds`, and end what still runs."""
        connections, tasks = self.server_state.connections, self.server_state.tasks
        cork_of(asyncio.get_running_loop()).pull()
        for connection in list(connections):
            connection.transport.close()
        await self._wait(lambda: len(connections), seconds)
        for connection in list(connections):
            connection.transport.abort()
        await asyncio.sleep(_LOOK_SECONDS)
        await self._wait(lambda: len(tasks), _FLUSH_SECONDS)
        for task in list(tasks):
            task.cancel()
        await asyncio.sleep(0)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, stop waiting on the second; that a worker is told by its supervisor."""
        if self.should_exit and self._worker is None:
            self.force_exit = True
        self.should_exit = True

    def drain(self) -> None:
        """Do what the first signal asks for."""
        self.should_exit = True

    def leave(self) -> None:
        """Do what the second signal asks for."""
        self.should_exit = self.force_exit = True


def leave_within(seconds: float) -> None:
    """End the process with status 0 after `seconds`, whatever thread is not done by then."""
    timer = threading.Timer(seconds, os._exit, (0,))
    timer.daemon = True
    timer.start()


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket; raises `ConfigError` when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _UNSENT_OPTION is not None:
            bound.setsockopt(socket.IPPROTO_TCP, _UNSENT_OPTION, _UNSENT_BYTES)
        bound.bind((host.strip("[]"), port))
        bound.listen(2048)
    except (OSError, UnicodeError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or "not a usable address"
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}") from None
    return bound


def make_server(
    app: App,
    limits: Limits | None = None,
    *,
    relay: Relay | None = None,
    worker: Worker | None = None,
) -> Server:
    """Return a server with the settings of reliability 4.9; call `serve(sockets=[...])` on it.

    `relay` is the application's, which a shutdown tells to refuse and to cut; `worker` is set where others
    serve on the same socket.
    """
    raise_descriptor_limit()
    limits = limits or Limits(connections=connection_cap())
    settings: dict[str, Any] = {
        "http": guarded(limits),
        "loop": "auto",
        "lifespan": "on",
        "backlog": 2048,
        "timeout_keep_alive": 65,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "log_config": None,
        "ws": upgraded(limits),
        "ws_max_size": limits.message_bytes,
        "ws_per_message_deflate": False,
    }
    return Server(uvicorn.Config(app, **settings), relay, worker)


def loop_factory() -> Callable[[], Any] | None:
    """Return uvloop's loop factory where it is installed, else None."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
