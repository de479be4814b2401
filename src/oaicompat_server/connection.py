"""What the free list needs of a connection to an upstream, and the errors all its implementations raise.

One rule: no message of ours quotes a header, a key or an address. httpcore's exceptions end here, without
their text and without a chain.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Mapping
from typing import Protocol

import httpcore
from msgspec import Struct

from oaicompat.errors import UpstreamError

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAMES = {
    spelled.encode("ascii"): name
    for name in (
        "alt-svc",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "server",
        "server-timing",
        "transfer-encoding",
        "vary",
        "x-content-type-options",
        "x-frame-options",
        "x-xss-protection",
    )
    for spelled in (name, name.title())
}
"""The names of headers that nearly every reply has, by how they are spelled."""
_URL = re.compile(r"(https?://[^/?#\x00-\x20\x7f]+)(/[\x21\x22\x24-\x7e]*)?")


class Head(Struct, frozen=True):
    """The head of a request: header names lower-case, without the length, which is the body's.

    `origin` is scheme, host and port; `wire` the head as it is sent, up to the length. Made by `head_of`.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    origin: str
    wire: bytes


class Waits(Struct, frozen=True):
    """How long to wait, in seconds: for the connection, for the head of the reply, between its reads."""

    connect: float
    first_byte: float
    idle: float
    write: float = 30.0


class Connection(Protocol):
    """One connection; one request at a time."""

    @property
    def received(self) -> bool:
        """Tell whether a byte of the reply to the current request has come, or may have."""
        ...

    async def exchange(
        self, head: Head, body: bytes, waits: Waits
    ) -> tuple[int, Mapping[str, str]]:
        """Send the request and return status and headers of the reply; raises `UpstreamError`."""
        ...

    async def read(self) -> bytes:
        """Return the next bytes of the body as they come, b"" at its end; raises `UpstreamError`."""
        ...

    def ready(self) -> bytes | None:
        """Return what `read` would at once, None where it would wait, or that is not known."""
        ...

    def spare(self) -> bool:
        """End the request if that takes no waiting; tell whether it did, and another one can be served."""
        ...

    async def finish(self) -> bool:
        """End the request; tell whether the connection can serve another one, else it is closed."""
        ...

    def usable(self) -> bool:
        """Tell whether an idle connection is still open."""
        ...

    async def aclose(self) -> None:
        """Close at once, whatever goes on."""
        ...


_TIMEOUTS = {
    httpcore.ConnectTimeout: "Connecting to the upstream timed out.",
    httpcore.ReadTimeout: "The upstream did not answer in time.",
    httpcore.WriteTimeout: "The upstream did not take the request in time.",
}
FAILURES = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    httpcore.ProxyError,
)
"""The exceptions of httpcore that a connection can end with."""


def our_error(failure: Exception, received: bool) -> UpstreamError:
    """Return our error for one of `FAILURES`; `received`: part of the reply had come."""
    if isinstance(failure, httpcore.TimeoutException):
        if received and isinstance(failure, httpcore.ReadTimeout):
            return network_error("The upstream stopped sending.", 504)
        return network_error(_TIMEOUTS.get(type(failure), "The upstream is too slow."), 504)
    if isinstance(failure, httpcore.ConnectError):
        return network_error("The upstream cannot be reached.")
    if isinstance(failure, httpcore.ProxyError):
        return network_error("The proxy did not connect to the upstream.")
    if isinstance(failure, (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol)):
        return unsendable()
    return network_error("The upstream closed the connection before its answer was complete.")


def check_sendable(headers: Iterable[tuple[str, str]]) -> None:
    """Raise `UpstreamError` for a header that would break the request."""
    for name, value in headers:
        clean = value.isascii() and value.isprintable() and value.strip() == value != ""
        if not (clean and _is_name(name)):
            raise unsendable()


def head_of(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> Head:
    """Return the head of a request; raises `UpstreamError` for one that must not be written."""
    check_sendable(headers)
    parts = _URL.fullmatch(url)
    if parts is None:
        raise unsendable()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    wire = f"{method} {parts[2] or '/'} HTTP/1.1\r\n{lines}".encode("ascii")
    return Head(method, url, headers, parts[1], wire)


def length_of(method: str, body: bytes) -> bytes:
    """Return what `content-length` says, b"" where a request has none."""
    return b"%d" % len(body) if body or method == "POST" else b""


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def header_map(lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by lower-case name, repeated ones joined with commas."""
    found: dict[str, str] = {}
    for raw, value in lines:
        name = _NAMES.get(raw) or raw.decode("latin-1").lower()
        text = value.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def unsendable() -> UpstreamError:
    """Return the error for a request that must not be written, nor its parts be quoted."""
    return UpstreamError("The upstream request could not be sent.", status=502, cause="network")


def network_error(message: str, status: int = 502) -> UpstreamError:
    """Return the error for a connection that failed: worth another attempt, since nothing was decided."""
    return UpstreamError(message, status=status, cause="network", retryable=True)


def origin_of(url: str) -> httpcore.Origin:
    """Return scheme, host and port of an absolute URL."""
    return httpcore.URL(url).origin


def tls_context() -> ssl.SSLContext:
    """Build the TLS context (verification always on); costs tens of milliseconds, so it is shared."""
    context = httpcore.default_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
