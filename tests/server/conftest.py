"""What tests of the gateway share: a Redis server of their own.

One rule: it listens on a socket in a directory of its own, keeps nothing, and ends with the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_START_SECONDS = 10.0


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Skip where there is no redis-server, or fail where there must be one (REQUIRE_CLIENTS)."""
    binary = shutil.which("redis-server")
    if binary is None:
        reason = "redis-server is not installed"
        if os.environ.get("REQUIRE_CLIENTS"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory, "redis.sock")
        settings = {"port": "0", "unixsocket": str(socket), "dir": directory}
        settings |= {"save": "", "appendonly": "no", "logfile": str(Path(directory, "log"))}
        arguments = [each for name, value in settings.items() for each in (f"--{name}", value)]
        with subprocess.Popen([binary, *arguments]) as process:
            try:
                _wait_for(socket, process)
                yield f"unix://{socket}"
            finally:
                process.terminate()


def _wait_for(socket: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while not socket.exists():
        assert process.poll() is None, "redis-server ended"
        assert time.monotonic() < until, "redis-server does not listen"
        time.sleep(0.01)
