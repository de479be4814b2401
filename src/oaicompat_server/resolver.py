"""The addresses of upstream hosts: looked up in threads of their own, kept for a minute, and longer in need.

One rule: a name that hangs holds up nobody but those who want it. There is one look-up of a name at a time,
and what it found serves on while the next one fails or takes its time (reliability B2).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct

FRESH_SECONDS = 60.0
STALE_SECONDS = 600.0
_PATIENCE_SECONDS = 1.0
_THREADS = 8
_MOST_NAMES = 256

LookUp = Callable[[str], Sequence[str]]
"""Returns the addresses of a host name, blocking; raises `OSError`."""


def look_up(host: str) -> Sequence[str]:
    """Ask the system for the addresses of a host; raises `OSError`."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class _Known(Struct, frozen=True):
    addresses: Sequence[str]
    at: float


class Resolver:
    """Returns the addresses of hosts; `clock` gives seconds that only grow."""

    def __init__(
        self, look_up: LookUp = look_up, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look_up = look_up
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._asked: dict[str, asyncio.Task[Sequence[str]]] = {}
        self._threads = asyncio.Semaphore(_THREADS)

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of a host, an address being its own; raises `OSError`."""
        if _is_address(host):
            return [host]
        known = self._known.get(host)
        age = self._clock() - known.at if known else STALE_SECONDS
        if known and age < FRESH_SECONDS:
            return known.addresses
        task = self._asked.get(host) or self._ask(host)
        if known is None or age >= STALE_SECONDS:
            # The look-up is everybody's: who leaves takes it from nobody else.
            return await asyncio.shield(task)
        await asyncio.wait({task}, timeout=_PATIENCE_SECONDS)
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        return known.addresses

    def _ask(self, host: str) -> asyncio.Task[Sequence[str]]:
        task = asyncio.get_running_loop().create_task(self._find(host))
        self._asked[host] = task
        task.add_done_callback(lambda done: self._answered(host, done))
        return task

    def _answered(self, host: str, done: asyncio.Task[Sequence[str]]) -> None:
        del self._asked[host]
        # Whoever asked may be gone, and the error with it.
        if not done.cancelled():
            done.exception()

    async def _find(self, host: str) -> Sequence[str]:
        async with self._threads:
            found = await _in_thread(lambda: self._look_up(host))
        if not found:
            raise OSError("no address")
        self._known.pop(host, None)
        if len(self._known) >= _MOST_NAMES:
            del self._known[next(iter(self._known))]
        self._known[host] = _Known(found, self._clock())
        return found


async def _in_thread(work: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Run blocking work in a thread that the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Sequence[str]] = loop.create_future()

    def tell(result: Sequence[str] | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result or ())

    def run() -> None:
        result: Sequence[str] | None = None
        error: Exception | None = None
        try:
            result = work()
        except Exception as failure:
            error = failure
        # A loop that was closed meanwhile has nobody who waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name="oaicompat-names", daemon=True).start()
    return await done


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
