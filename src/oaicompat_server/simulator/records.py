"""What the simulator remembers of each request, for assertions.

The one rule: no secret is kept. Credentials are replaced by the name of the scripted key, or by a short
fingerprint; headers and query strings lose them.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

SECRET_HEADERS = frozenset({"authorization", "x-goog-api-key", "proxy-authorization", "cookie"})
_HIDDEN = "[hidden]"


class HttpRequest:
    """A request as it came off the wire: method, path with query, headers (lower-case names), body."""

    def __init__(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        split = urlsplit(target)
        self.path = split.path
        self.query = dict(parse_qsl(split.query, keep_blank_values=True))

    def header(self, name: str) -> str | None:
        """Return the first header called `name` (lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)


class Record:
    """One request and its fate.

    `body` is the decoded JSON (None when there was none or it was broken), `key` names the credential,
    `arrived` and `ended_at` are monotonic seconds, `connection` numbers the connection (reuse shows), and
    `ended` says how it ended: `complete`, `client left`, or the fault that was asked for (`reset`, `closed`).
    """

    def __init__(self, request: HttpRequest, *, key: str, arrived: float, connection: int) -> None:
        self.method = request.method
        self.path = request.path
        self.query = {
            name: _HIDDEN if name == "key" else value for name, value in request.query.items()
        }
        self.headers = {
            name: _HIDDEN if name in SECRET_HEADERS else value for name, value in request.headers
        }
        self.key = key
        self.arrived = arrived
        self.connection = connection
        self.body: Any = None
        self.size = len(request.body)
        self.model = ""
        self.status: int | None = None
        self.ended: str | None = None
        self.ended_at: float | None = None
        self._done = threading.Event()

    @property
    def target(self) -> str:
        """Return path and query as they were asked for, without a key."""
        query = urlencode(self.query)
        return f"{self.path}?{query}" if query else self.path

    def end(self, how: str, now: float) -> None:
        """Note how the exchange ended; only the first end counts."""
        if self.ended is None:
            self.ended, self.ended_at = how, now
            self._done.set()

    def wait(self, timeout: float = 5.0) -> str | None:
        """Block until the exchange has ended (from another thread only); return how, None on timeout."""
        self._done.wait(timeout)
        return self.ended

    def __repr__(self) -> str:
        return f"<Record {self.method} {self.target} key={self.key!r} {self.status} {self.ended}>"


def credential(request: HttpRequest) -> tuple[str, str]:
    """Return (kind, value) of the credential shown: kind is "key", "bearer" or an empty string."""
    bearer = request.header("authorization") or ""
    if bearer.lower().startswith("bearer "):
        return "bearer", bearer[7:].strip()
    key = request.header("x-goog-api-key") or request.query.get("key") or ""
    return ("key", key) if key else ("", "")


def fingerprint(secret: str) -> str:
    """Return a short mark of a secret that does not give it away."""
    return "#" + hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()[:8]
