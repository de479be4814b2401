"""The simulator as an object: start, stop, look at what came in.

The one rule: whoever starts it stops it; after `stop` neither a task nor a socket is left. `Simulator` lives
in a running event loop, `running` puts one into a thread of its own for code that is not asynchronous.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .connection import Connection
from .faults import Step
from .records import HttpRequest, Record
from .service import Service, Settings


class Simulator:
    """A Gemini API and a Vertex AI on one loopback port that answer by script.

    `keys` maps a credential to its behaviours (see `KeyBook`); every other credential works unless it
    contains "invalid". `foreign_signatures` lets thought signatures pass that were minted elsewhere.
    `any_model` serves unknown model names as the newest kind of model instead of a 404. `helpful` calls the
    tool `get_weather` when a question is about the weather, and its like, without being told.
    """

    def __init__(
        self,
        *,
        keys: Mapping[str, Sequence[str]] | None = None,
        foreign_signatures: bool = False,
        any_model: bool = False,
        helpful: bool = False,
    ) -> None:
        settings = Settings(foreign_signatures, any_model, helpful)
        scripted = {name: list(steps) for name, steps in (keys or {}).items()}
        self.requests: list[Record] = []
        self._service = Service(settings, scripted)
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._opened = 0
        self._queued: list[list[Step]] = []
        self._scheme = "http"

    @property
    def url(self) -> str:
        """Return the base address, for instance `http://127.0.0.1:40123`."""
        if self._server is None:
            raise RuntimeError("the simulator is not running")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def port(self) -> int:
        """Return the port it listens on."""
        return int(self.url.rpartition(":")[2])

    @property
    def connections(self) -> int:
        """Return how many connections are open now."""
        return len(self._connections)

    @property
    def connections_opened(self) -> int:
        """Return how many connections were ever opened."""
        return self._opened

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None
    ) -> Simulator:
        """Listen on `host` and `port` (0: any free one) and return the simulator."""
        loop = asyncio.get_running_loop()
        self._scheme = "http" if tls is None else "https"
        self._server = await loop.create_server(lambda: Connection(self, loop), host, port, ssl=tls)
        return self

    async def stop(self) -> None:
        """Stop listening, drop every connection and wait until all of it is gone."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        tasks = [connection.task for connection in connections if connection.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in connections:
            await connection.lost.wait()
        await server.wait_closed()

    async def __aenter__(self) -> Simulator:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    def behave(self, key: str, steps: Iterable[str]) -> None:
        """Script what `key` does from the next request on."""
        self._service.keys.set(key, steps)

    def enqueue(self, steps: Iterable[Step]) -> None:
        """Answer the next request by exactly these steps, whatever it asks for."""
        self._queued.append(list(steps))

    def bodies(self) -> list[Any]:
        """Return the decoded JSON bodies of all requests, in order of arrival."""
        return [record.body for record in self.requests]

    async def ended(self, record: Record, seconds: float = 5.0) -> str | None:
        """Wait until a recorded exchange has ended; return how, None when it has not after `seconds`."""
        return await asyncio.to_thread(record.wait, seconds)

    def arrived(self, request: HttpRequest, connection: int) -> tuple[Record, list[Step]]:
        """Record a request and return the steps that answer it."""
        now = asyncio.get_running_loop().time()
        name = self._service.key_name(request)
        record = Record(request, key=name, arrived=now, connection=connection)
        self.requests.append(record)
        answer = self._service.answer(request, record)
        return record, self._queued.pop(0) if self._queued else answer

    def opened(self, connection: Connection) -> int:
        """Register a connection and return its number."""
        self._connections.add(connection)
        self._opened += 1
        return self._opened

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)


@contextlib.contextmanager
def running(
    simulator: Simulator | None = None, *, host: str = "127.0.0.1", port: int = 0, **options: Any
) -> Iterator[Simulator]:
    """Run a simulator in a thread with a loop of its own; `options` are those of `Simulator`.

    Raises:
        OSError: the port cannot be had.
    """
    simulator = simulator or Simulator(**options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run_loop, args=(loop,), name="simulator", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(simulator.start(host, port), loop).result()
        try:
            yield simulator
        finally:
            asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def serve(host: str = "127.0.0.1", port: int = 8046) -> None:
    """Run a simulator until the task is cancelled; any model name is served."""
    simulator = Simulator(any_model=True, helpful=True)
    await simulator.start(host, port)
    try:
        await asyncio.Event().wait()
    finally:
        await simulator.stop()
