"""Requests as bytes, each on a connection of its own, and what came back.

One rule: nothing between the test and the wire: a target, a Host or a header is sent as it is written.
"""

from __future__ import annotations

from tests.support import raw
from tests.support.gateway import Gateway


def line(
    method: bytes,
    target: bytes,
    *headers: bytes,
    host: bytes | None = b"localhost:%d",
    body: bytes = b"",
) -> bytes:
    """Return one request that ends its connection; `%d` in it is replaced by the port when it is sent."""
    hosts = [] if host is None else [b"Host: " + host]
    length = [b"Content-Length: " + str(len(body)).encode()] if body else []
    start = b" ".join((method, target, b"HTTP/1.1"))
    return b"\r\n".join([start, *hosts, b"Connection: close", *length, *headers, b"", body])


def send(served: Gateway, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes and read to the end: status (0 where nothing came), headers (lower case), body."""
    with raw.connect(served.port) as plug:
        plug.sendall(data.replace(b"%d", str(served.port).encode()))
        top, _, body = raw.read(plug).partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines[1:])}
    return int(lines[0].split(" ")[1]) if top else 0, headers, body


def status(served: Gateway, data: bytes) -> int:
    """Send bytes and return the status of the answer, 0 where there is none."""
    return send(served, data)[0]
