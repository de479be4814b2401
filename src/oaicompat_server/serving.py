"""Running the application: the socket, uvicorn's settings, the signals.

One rule: the first signal drains (what is running may finish, for at most half a minute), the second one
leaves at once. The port is bound before anything is printed, so that a taken port is one clear line.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import anyio
import uvicorn

from oaicompat_server.auth import App
from oaicompat_server.guard import Limits, connection_cap, guarded, raise_descriptor_limit
from oaicompat_server.settings import ConfigError
from oaicompat_server.upgraded import upgraded

GRACE_SECONDS = 30
_FORCED_SECONDS = 0.5
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """uvicorn's server, ending with exit status 0 after a signal and at once after the second one."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle the signals while serving; they are not raised again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain and close; a forced end still closes what the application holds."""
        await super().shutdown(sockets)
        if self.force_exit:
            for task in list(self.server_state.tasks):
                task.cancel()
            with anyio.move_on_after(_FORCED_SECONDS):
                await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal, stop waiting on the second."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket; raises `ConfigError` when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host.strip("[]"), port))
        bound.listen(2048)
    except (OSError, UnicodeError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or "not a usable address"
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}") from None
    return bound


def make_server(app: App, limits: Limits | None = None) -> Server:
    """Return a server with the settings of reliability 4.9; call `serve(sockets=[...])` on it."""
    raise_descriptor_limit()
    limits = limits or Limits(connections=connection_cap())
    settings: dict[str, Any] = {
        "http": guarded(limits),
        "loop": "auto",
        "lifespan": "on",
        "backlog": 2048,
        "timeout_keep_alive": 65,
        "timeout_graceful_shutdown": GRACE_SECONDS,
        "access_log": False,
        "server_header": False,
        "date_header": False,
        "proxy_headers": False,
        "log_config": None,
        "ws": upgraded(limits),
        "ws_max_size": limits.message_bytes,
        "ws_per_message_deflate": False,
    }
    return Server(uvicorn.Config(app, **settings))


def loop_factory() -> Callable[[], Any] | None:
    """Return uvloop's loop factory where it is installed, else None."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
