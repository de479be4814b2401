"""Connections to public hosts only, as httpcore's network interface.

One rule: what is connected to is the address that was checked, never a name; so a resolver that answers
differently the second time, a retry or a redirect cannot get around the check (reliability 4.8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpcore

from oaicompat_server.addresses import is_public
from oaicompat_server.network import dial
from oaicompat_server.resolver import look_up

_LOOKUPS = 4
"""Threads for look-ups: names that hang hold up other downloads, and nothing else."""
_MOST_ADDRESSES = 8

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a host name; raises `OSError`."""

Dial = Callable[[Sequence[tuple[str, int]]], Awaitable[httpcore.AsyncNetworkStream]]
"""Connects to one of these (IP address, port); raises `OSError`."""


class Names:
    """Looks names up, in threads of its own, and keeps none: what is asked for is a stranger's choice."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, "media-names")

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of a host; raises `OSError`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, look_up, host)

    def close(self) -> None:
        """Let the threads end; what was not begun is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to hosts all of whose addresses are public, without a word on why not to others.

    `resolve` and `connect` stand for the look-up and the connection to checked addresses.
    """

    def __init__(self, resolve: Resolve, connect: Dial = dial) -> None:
        self._resolve = resolve
        self._connect = connect

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look the host up, check every address, connect to one of them."""
        try:
            with anyio.fail_after(timeout):
                addresses = await self._resolve(host)
                if not addresses or not all(map(is_public, addresses)):
                    raise httpcore.ConnectError
                return await self._connect([(at, port) for at in addresses[:_MOST_ADDRESSES]])
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        except (OSError, UnicodeError):
            raise httpcore.ConnectError from None
