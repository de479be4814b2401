"""What a request's head may say beyond what the parser checks, and how an offer to upgrade is declined.

One rule: what no honest client sends is told apart here, from the head alone (reliability 4.5); the parser has
refused what is not HTTP.
"""

from __future__ import annotations

import urllib.parse
from typing import Any, Literal, Protocol

import httptools

from oaicompat_server.framing import Fields, Headers

_OFFER = (b"upgrade", b"http2-settings")


def wrong_line(method: bytes, target: bytes, version: str) -> str | None:
    """Return why a request line is refused, or None."""
    if method == b"CONNECT":
        return "No tunnels are made here."
    if version not in ("1.1", "1.0"):
        return "Only HTTP/1.1 is served."
    if not (target.startswith(b"/") or target == b"*"):
        return "The request target must be a path."
    return None


def wrong_fields(version: str, headers: Headers, fields: Fields) -> str | None:
    """Return why headers are refused, or None; `fields` has one value of each."""
    doubled = len(fields) != len(headers)
    if b"host" not in fields or (doubled and len(_values(headers, b"host")) > 1):
        return "Exactly one Host header is needed."
    if b"transfer-encoding" in fields:
        codings = [value.strip().lower() for value in _values(headers, b"transfer-encoding")]
        if codings != [b"chunked"]:
            return "The only transfer coding understood is chunked."
        if version == "1.0":
            return "HTTP/1.0 has no transfer codings."
    return None


def longest(target: bytes, headers: Headers) -> int:
    """Return the length of the target or of the longest header, whichever is more."""
    return max(len(target), *(len(name) + len(value) for name, value in headers), 0)


class Ends(Protocol):
    """What a scope says of the two ends of a connection, and of where the application is."""

    root_path: str
    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: Literal["http", "https"] | None


def line_scope(method: bytes, target: bytes, version: str, ends: Ends) -> dict[str, Any]:
    """Return what of an ASGI scope a request line says, with room for what the rest of the head does."""
    root_path = ends.root_path
    parsed = httptools.parse_url(target)
    path = parsed.path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": version,
        "method": method.decode("ascii"),
        "root_path": root_path,
        "path": root_path + (urllib.parse.unquote(path) if "%" in path else path),
        "raw_path": root_path.encode("ascii") + parsed.path,
        "query_string": parsed.query or b"",
        "headers": [],
        "state": {},
        "server": ends.server,
        "client": ends.client,
        "scheme": ends.scheme,
    }


def wants_continue(headers: Headers) -> bool:
    """Tell whether the client waits to be told that it may send the body."""
    return any(value.lower() == b"100-continue" for value in _values(headers, b"expect"))


def wants_websocket(headers: Headers) -> bool:
    """Tell whether the offer to upgrade is one that can be accepted."""
    return any(b"websocket" in value.lower() for value in _values(headers, b"upgrade"))


def without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """Return a request's head without the offer to upgrade.

    The parser takes the body of such a request for another protocol, yet Java's HTTP client offers `h2c`
    with every first request; a server that declines has to read it as plain HTTP/1.1.
    """
    kept = [
        name + b": " + (_without_offer(value) if name == b"connection" else value)
        for name, value in headers
        if name not in _OFFER
    ]
    line = b"%b %b HTTP/%b" % (method, target, version.encode("ascii"))
    return b"\r\n".join([line, *kept, b"", b""])


def _without_offer(connection: bytes) -> bytes:
    options = (option.strip() for option in connection.split(b","))
    return b", ".join(option for option in options if option.lower() not in _OFFER)


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]
