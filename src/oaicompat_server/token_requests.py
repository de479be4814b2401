"""The HTTP requests that google-auth makes, over the gateway's own connections.

One rule: what is posted goes to Google and over TLS only, whatever address a key file names, and everything
that one token needs ends by one deadline. Redirects are never followed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any
from urllib.parse import urlsplit

import anyio
from msgspec import Struct

from oaicompat.errors import UpstreamError
from oaicompat_server.connection import check_sendable
from oaicompat_server.secret import Secret
from oaicompat_server.tokens import late, unreachable, unusable
from oaicompat_server.upstream import NO_PROXY, Upstream

_REPLY_CAP = 1024 * 1024
_RETRYABLE = frozenset({408, 429})
_METADATA = ("http", "metadata.google.internal", None)


class TokenReply(Struct, frozen=True):
    """What google-auth reads of an answer."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Unanswered(Exception):
    """A request that failed; google-auth knows it not, and so does not repeat the request."""


class _Outgoing(Struct, frozen=True):
    method: str
    url: str
    body: bytes


class TokenRequest:
    """Makes the requests for one token; called from a thread that is not the loop's.

    While `probing` (a type of google-auth's) is set, failures are raised as that: it is looking for what is
    there, and a host that did not answer is not asked again. `deadline` is monotonic time, `proxy` the one
    to go through. `failure` is the last failure, `last` the last answer.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, upstream: Upstream, deadline: float, proxy: Secret
    ) -> None:
        self._loop = loop
        self._upstream = upstream
        self._proxy = proxy
        self._deadline = deadline
        self._silent: set[str] = set()
        self.probing: type[Exception] | None = None
        self.failure: UpstreamError | None = None
        self.last: TokenReply | None = None

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> TokenReply:
        """Send one request and return the answer; seconds are bounded by `timeout` and by the deadline."""
        place = urlsplit(url).netloc
        data = body.encode("utf-8") if isinstance(body, str) else body or b""
        if place in self._silent:
            raise self._failed(unreachable())
        if method == "POST" and not is_trusted(url):
            raise self._failed(_astray())
        left = self._deadline - time.monotonic()
        wait = left if timeout is None else min(left, timeout)
        try:
            check_sendable((headers or {}).items())
            self.last = reply = self._wait(_Outgoing(method, url, data), dict(headers or {}), wait)
        except (TimeoutError, FutureTimeoutError):
            self._silent.add(place)
            raise self._failed(late()) from None
        except UpstreamError as error:
            self._silent.add(place)
            raise self._failed(late() if error.status == 504 else unreachable()) from None
        if self.probing is None and (reply.status >= 500 or reply.status in _RETRYABLE):
            raise self._failed(unusable(reply.status))
        return reply

    def _wait(self, request: _Outgoing, headers: dict[str, str], seconds: float) -> TokenReply:
        if seconds <= 0:
            raise TimeoutError
        future = asyncio.run_coroutine_threadsafe(self._send(request, headers, seconds), self._loop)
        # The loop may end before it gets to this; nothing would wake this thread then.
        return future.result(seconds + 1.0)

    async def _send(
        self, request: _Outgoing, headers: dict[str, str], seconds: float
    ) -> TokenReply:
        # A metadata server is a part of the machine, which no proxy can reach.
        proxy = self._proxy if request.url.startswith("https:") else NO_PROXY
        with anyio.fail_after(seconds):
            opened = self._upstream.open(request, headers.items(), _REPLY_CAP, proxy)
            async with opened as response:
                data = b"".join([chunk async for chunk in response])
                return TokenReply(response.status, response.headers, data)

    def _failed(self, error: UpstreamError) -> Exception:
        self.failure = error
        return (self.probing or Unanswered)(error.message)


def is_trusted(url: str) -> bool:
    """Tell whether secrets may be posted to this address: Google's own, and the metadata server."""
    try:
        parts = urlsplit(url)
        place = (parts.scheme, parts.hostname or "", parts.port)
    except ValueError:
        return False
    if parts.username is not None or parts.password is not None:
        return False
    scheme, host, port = place
    ours = host == "accounts.google.com" or host.endswith(".googleapis.com")
    return place == _METADATA or (scheme == "https" and ours and port in (None, 443))


def _astray() -> UpstreamError:
    return UpstreamError(
        "The credential asks for tokens at an address that is not Google's.",
        status=503,
        should_retry=False,
        retryable=True,
        cause="credential",
    )
