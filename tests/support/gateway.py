"""The real server on a loopback port, in a thread, in front of the simulator.

One rule: what runs here is what `oaicompat serve` runs (uvicorn, guard, gate, relay, httpcore), with ports
chosen by the system; leaving the context stops all of it.

    with gateway() as served:
        openai.OpenAI(base_url=served.url, api_key="any").chat.completions.create(...)
        served.simulator.requests
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from msgspec import structs
from tests.support.witness import Witness

from oaicompat_server.app import create_app
from oaicompat_server.auth import App
from oaicompat_server.limits import Limits
from oaicompat_server.pool import SourceOf
from oaicompat_server.relay import Relay
from oaicompat_server.secret import Secret
from oaicompat_server.serving import Server, bind, loop_factory, make_server
from oaicompat_server.settings import Config, CredentialSettings, ServerSettings, UpstreamSettings
from oaicompat_server.simulator import Simulator, running


class Serving:
    """An application being served: its port, its event loop and the application."""

    def __init__(
        self, app: App, server: Server, loop: asyncio.AbstractEventLoop, port: int
    ) -> None:
        self.app = app
        self.server = server
        self.loop = loop
        self.port = port

    def call(self, work: Any) -> Any:
        """Run a plain function in the server's event loop and return its result."""
        done: Future[Any] = Future()
        self.loop.call_soon_threadsafe(lambda: done.set_result(work()))
        return done.result(5)


class Gateway:
    """A running gateway; `url` is what clients take as base URL, `witness` has what passed."""

    def __init__(
        self, serving: Serving, simulator: Simulator, witness: Witness | None = None
    ) -> None:
        self.port = serving.port
        self.origin = f"http://127.0.0.1:{serving.port}"
        self.url = f"{self.origin}/v1"
        self.simulator = simulator
        self.witness = witness
        self.serving = serving

    @property
    def relay(self) -> Any:
        """Return the shared parts, for a look at counters."""
        state: Any = self.serving.app
        return state.state.relay

    def check(self) -> None:
        """Fail the test where a client of Responses was told what the API does not allow."""
        if self.witness is not None:
            self.witness.check()

    def idle(self) -> dict[str, int]:
        """Return what must be nothing when no request runs."""
        relay = self.relay

        def look() -> dict[str, int]:
            return {
                "active": relay.admission.active,
                "waiting": relay.admission.waiting,
                "leases": relay.leases,
                "tasks": len(self.serving.server.server_state.tasks),
            }

        found: dict[str, int] = self.serving.call(look)
        return found


@contextmanager
def serving(
    app: App, limits: Limits | None = None, relay: Relay | None = None
) -> Iterator[Serving]:
    """Serve any ASGI application as the gateway is served; `relay` is told of the shutdown."""
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = make_server(app, limits, relay=relay)
    loops: Future[asyncio.AbstractEventLoop] = Future()

    def run() -> None:
        async def serve() -> None:
            loops.set_result(asyncio.get_running_loop())
            await server.serve(sockets=[listening])

        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="gateway", daemon=True)
    thread.start()
    try:
        loop = loops.result(10)
        until = time.monotonic() + 10
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.001)
        yield Serving(app, server, loop, port)
    finally:
        server.should_exit = True
        thread.join(3)
        server.force_exit = True
        thread.join(20)
        listening.close()


@contextmanager
def gateway(
    config: Config | None = None,
    upstream: Simulator | None = None,
    *,
    keys: tuple[str, ...] = ("first-key",),
    limits: Limits | None = None,
    witnessed: bool = False,
    sources: SourceOf | None = None,
) -> Iterator[Gateway]:
    """Serve the gateway in front of a simulator (a given one must be running already).

    `config` is taken as it is but for the upstream's address, and but for the state, which is in memory unless
    a file is named; `keys` are the credentials when it lists none. With `witnessed` what clients of Responses
    send and get is kept; `sources` makes the tokens of Vertex AI.
    """
    if upstream is None:
        with (
            running(any_model=True) as simulator,
            gateway(
                config, simulator, keys=keys, limits=limits, witnessed=witnessed, sources=sources
            ) as served,
        ):
            yield served
        return
    config = config or Config()
    settings: UpstreamSettings = structs.replace(config.upstream, base_url=upstream.url)
    server: ServerSettings = structs.replace(config.server, host="127.0.0.1")
    credentials = config.credentials or tuple(
        CredentialSettings(key=Secret(key), label=key) for key in keys
    )
    config = structs.replace(config, upstream=settings, server=server, credentials=credentials)
    if config.state.store == "sqlite" and not config.state.path:
        config = structs.replace(config, state=structs.replace(config.state, store="memory"))
    app = create_app(config, tune=False, sources=sources)
    witness = Witness(app) if witnessed else None
    with serving(witness or app, limits, app.state.relay) as running_app:
        yield Gateway(running_app, upstream, witness)
