"""The gateway as a user runs it, every default feature on: `python -m tests.benchmarks.served UPSTREAM_PORT`.

Prints its own port first.
"""

from __future__ import annotations

import asyncio
import sys

from oaicompat_server.app import create_app
from oaicompat_server.secret import Secret
from oaicompat_server.serving import bind, loop_factory, make_server
from oaicompat_server.settings import Config, CredentialSettings, StateSettings, UpstreamSettings


async def serve(upstream_port: int) -> None:
    config = Config(
        upstream=UpstreamSettings(base_url=f"http://127.0.0.1:{upstream_port}"),
        credentials=(CredentialSettings(key=Secret("benchmark"), label="benchmark"),),
        state=StateSettings(store="memory"),
    )
    listening = bind("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    await make_server(create_app(config)).serve(sockets=[listening])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(int(sys.argv[1])))
