"""The gateway as a user runs it, every default feature on: `… UPSTREAM_PORT STORE`.

Prints its own port first.
"""

from __future__ import annotations

import asyncio
import sys
from tempfile import TemporaryDirectory
from typing import Literal

from oaicompat_server.app import create_app
from oaicompat_server.secret import Secret
from oaicompat_server.serving import bind, loop_factory, make_server
from oaicompat_server.settings import Config, CredentialSettings, StateSettings, UpstreamSettings

_STORES: dict[str, Literal["memory", "sqlite"]] = {"memory": "memory", "sqlite": "sqlite"}


async def serve(upstream_port: int, state: StateSettings) -> None:
    config = Config(
        upstream=UpstreamSettings(base_url=f"http://127.0.0.1:{upstream_port}"),
        credentials=(CredentialSettings(key=Secret("benchmark"), label="benchmark"),),
        state=state,
    )
    listening = bind("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    await make_server(create_app(config)).serve(sockets=[listening])


if __name__ == "__main__":
    with (
        TemporaryDirectory() as place,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        kept = StateSettings(store=_STORES[sys.argv[2]], path=f"{place}/state.sqlite3")
        runner.run(serve(int(sys.argv[1]), kept))
