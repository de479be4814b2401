"""Gateways in processes of their own, as `oaicompat serve` runs them, and what is asked of them.

One rule: nothing of the person who runs the tests reaches them, and they end with their context.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.asking import Reply

Json = dict[str, Any]

KEY = "sk-first"
OTHER_KEY = "sk-second"
"""Two clients that every gateway knows."""


class GatewayProcess:
    """A gateway in a process; `log` is what it wrote of itself."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def open(self, method: str, path: str, body: object, key: str) -> http.client.HTTPConnection:
        """Send a request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, f"/v1{path}", data, headers)
        except BaseException:
            connection.close()
            raise
        return connection

    def ask(self, method: str, path: str, body: object = None, *, key: str = KEY) -> Reply:
        """Ask one question; raises `OSError` or `HTTPException` where there is no whole answer."""
        connection = self.open(method, path, body, key)
        try:
            reply = connection.getresponse()
            content = reply.read()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, found, content)
        finally:
            connection.close()

    def data(self, method: str, path: str, body: object = None) -> Any:
        """Ask one question that has to succeed; return the answer as data."""
        reply = self.ask(method, path, body)
        assert reply.status == 200, (reply.status, reply.content)
        return reply.data

    def create(self, words: str, **more: Any) -> Json:
        """Make a response."""
        made: Json = self.data("POST", "/responses", {"model": "gpt-4o", "input": words, **more})
        return made

    def events(self, path: str, body: object = None) -> Iterator[Json]:
        """Yield the events of a stream, each as soon as its data is there."""
        connection = self.open("GET" if body is None else "POST", path, body, KEY)
        try:
            reply = connection.getresponse()
            assert reply.status == 200, reply.read()
            for line in reply:
                if line.startswith(b"data: {") and line.endswith(b"\n"):
                    yield json.loads(line[6:])
        finally:
            connection.close()

    def items(self, path: str) -> list[Json]:
        """Return every item of a list, the oldest first."""
        found: list[Json] = []
        more = True
        while more:
            after = f"&after={found[-1]['id']}" if found else ""
            page = self.data("GET", f"{path}?order=asc&limit=100{after}")
            found += page["data"]
            more = page["has_more"]
        return found

    def kill(self) -> None:
        """End it at once, as by the loss of power."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def gateway_process(
    upstream: str, place: Path, descriptors: int = 0, /, **settings: str
) -> Iterator[GatewayProcess]:
    """Run a gateway in front of the simulator at `upstream`.

    `place` is its home, `settings` its environment; one that is empty is not set. `descriptors` is how many it
    may have open, 0 for as many as there are.
    """
    limited = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"] if descriptors else []
    kept = ("OAICOMPAT_", "GEMINI_", "GOOGLE_", "XDG_")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(kept)}
    environment |= {"HOME": str(place), "USERPROFILE": str(place), "APPDATA": str(place)}
    environment |= {"OAICOMPAT_CREDENTIALS": "upstream-key", "OAICOMPAT_BASE_URL": upstream}
    environment |= {"OAICOMPAT_API_KEYS": f"{KEY},{OTHER_KEY}", "OAICOMPAT_AUTH_MODE": "strict"}
    environment = {name: text for name, text in (environment | settings).items() if text}
    log = place / "log"
    with (
        log.open("a") as output,
        subprocess.Popen(
            [*limited, sys.executable, "-m", "oaicompat_server.cli", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", process.stdout.readline())
            assert found, log.read_text()
            yield GatewayProcess(process, int(found[1]), log)
        finally:
            process.kill()
