"""One of several processes that serve on the same socket, as it sees itself.

One rule: it obeys the process that started it and nobody else, over a line that both hold: signals that reach
it besides (a terminal and some service managers send them to every process) can make it drain, never leave at
once. When the line breaks, the other end is gone, and it leaves by itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import msgspec

from oaicompat_server.secret import Secret
from oaicompat_server.settings import Config

VARIABLE = "_OAICOMPAT_WORKER"
"""Which worker a process is, and the descriptors it was given: `index socket line`."""

READY = b"ready"
RELOAD, DRAIN, LEAVE, FORGET = b"reload", b"drain", b"leave", b"forget"
"""What stands on the line, each in a line of its own; arguments follow as a list in JSON."""

Orders = Mapping[bytes, Callable[..., None]]

HELD = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
"""Signals that wait until a worker can handle them: it starts with all of them blocked."""

_ORPHAN_SECONDS = 1.0


class Worker:
    """What a process was given: the `listening` socket, its `index` from 1, the line to its supervisor."""

    def __init__(self, index: int, listening: socket.socket, line: socket.socket) -> None:
        self.index = index
        self.listening = listening
        self._line = line
        self._orders = line.makefile("rb")

    @classmethod
    def given(cls, environ: MutableMapping[str, str]) -> Worker | None:
        """Return what this process was given, which is taken out of `environ`; None where it is no worker."""
        given = environ.pop(VARIABLE, "")
        if not given:
            return None
        index, listening, line = map(int, given.split())
        for descriptor in (listening, line):
            os.set_inheritable(descriptor, False)
        return cls(index, socket.socket(fileno=listening), socket.socket(fileno=line))

    def settings(self) -> Config:
        """Return the settings that the gateway began with, credentials and clients' keys left out."""
        return msgspec.json.decode(self._orders.readline(), type=Config, dec_hook=_decode)

    def ready(self) -> None:
        """Tell that this worker serves."""
        with suppress(OSError):
            self._line.sendall(READY + b"\n")

    def others_forget(self, account: str, model: str) -> None:
        """Have the others forget what rests, as this worker did."""
        with suppress(OSError):
            self._line.sendall(b"%s %s\n" % (FORGET, msgspec.json.encode([account, model])))

    def hear_signals(self) -> None:
        """Let signals come: there are handlers for them now."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)

    def obey(self, orders: Orders) -> None:
        """Do in the running event loop what the line says, as long as this process lasts."""
        watching = (asyncio.get_running_loop(), orders)
        threading.Thread(target=self._watch, args=watching, name="orders", daemon=True).start()

    def _watch(self, loop: asyncio.AbstractEventLoop, orders: Orders) -> None:
        # A loop that is stuck must not keep an orphan, so that this is a thread.
        with suppress(RuntimeError, OSError):
            for line in self._orders:
                order, _, arguments = line.strip().partition(b" ")
                loop.call_soon_threadsafe(orders[order], *msgspec.json.decode(arguments or b"[]"))
            end = threading.Timer(_ORPHAN_SECONDS, os._exit, (1,))
            end.daemon = True
            end.start()
            loop.call_soon_threadsafe(orders[LEAVE])


def handed_over(config: Config) -> bytes:
    """Return settings as `Worker.settings` reads them: a line of JSON."""
    kept = msgspec.structs.replace(config, auth=Config().auth, credentials=())
    return msgspec.json.encode(kept, enc_hook=_encode) + b"\n"


def _encode(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError


def _decode(wanted: type[Any], value: Any) -> Any:
    return wanted(value)
