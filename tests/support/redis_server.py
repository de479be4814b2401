"""A Redis server for tests.

One rule: it listens on a socket in a directory of its own, keeps nothing, and ends with its context.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARY = shutil.which("redis-server")

_START_SECONDS = 10.0


@contextmanager
def redis_server(directory: str | None = None) -> Iterator[str]:
    """Run a server; yields its URL. With `directory`, the URL is the same every time."""
    with tempfile.TemporaryDirectory() as own:
        place = Path(directory or own)
        path = place / "redis.sock"
        settings = {"port": "0", "unixsocket": str(path), "dir": str(place)}
        settings |= {"save": "", "appendonly": "no", "logfile": str(place / "log")}
        arguments = [each for name, value in settings.items() for each in (f"--{name}", value)]
        with subprocess.Popen([BINARY or "redis-server", *arguments]) as process:
            try:
                _wait_for(path, process)
                yield f"unix://{path}"
            finally:
                process.terminate()


def _wait_for(place: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while not _listens(place):
        assert process.poll() is None, "redis-server ended"
        assert time.monotonic() < until, "redis-server does not listen"
        time.sleep(0.01)


def _listens(place: Path) -> bool:
    # It is there before anybody listens on it.
    with socket.socket(socket.AF_UNIX) as plug:
        return plug.connect_ex(str(place)) == 0
