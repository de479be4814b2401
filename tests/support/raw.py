"""Clients that do what HTTP libraries do not: send in pieces, stop reading, leave, reset.

One rule: a socket is all there is, so that what a test does is what happens on the wire.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.gateway import Gateway

_NOTHING = {"active": 0, "waiting": 0, "leases": 0, "tasks": 0}
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def connect(port: int, *, buffer: int | None = None) -> socket.socket:
    """Open a connection; `buffer` bounds what the kernel takes in for a client that does not read."""
    plug = socket.socket()
    plug.settimeout(10)
    if buffer is not None:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    try:
        plug.connect(("127.0.0.1", port))
    except OSError:
        plug.close()
        raise
    plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plug


def head(port: int, path: str, length: int | None, *more: str, method: str = "POST") -> bytes:
    """Return a request's head; without a length its body is chunked."""
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = (f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{port}", *more)
    lines = (*lines, "content-type: application/json", size) if method == "POST" else lines
    return "\r\n".join([*lines, "", ""]).encode()


def words(path: str, text: str, *, stream: bool = False) -> dict[str, Any]:
    """Return the body of a request for this route."""
    asked = {"input": text, "store": False}
    if path == CHAT:
        asked = {"messages": [{"role": "user", "content": text}]}
    return {"model": "gpt-4o", "stream": stream, **asked}


def request(port: int, path: str, body: object, *more: str) -> bytes:
    """Return a whole request as bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(port, path, len(data), *more) + data


def read(plug: socket.socket, mark: bytes = b"") -> bytes:
    """Read until `mark` is there, or to the end of the connection."""
    data = b""
    try:
        while not (mark and mark in data) and (piece := plug.recv(65536)):
            data += piece
    except ConnectionError:
        pass
    return data


def answer(plug: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer that tells its length: status, headers (lower case), body."""
    data = read(plug, b"\r\n\r\n")
    top, _, body = data.partition(b"\r\n\r\n")
    lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        piece = plug.recv(65536)
        assert piece, "the answer was cut"
        body += piece
    return int(lines[0].split(" ")[1]), headers, body


def reset(plug: socket.socket) -> None:
    """Close with RST."""
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plug.close()


def refused(port: int) -> bool:
    """Tell whether nobody listens there."""
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return True
    return False


def until(true: Callable[[], Any], seconds: float = 2.0) -> float:
    """Wait for a condition that has to come true; return how many seconds that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it did not come true in time"
        time.sleep(0.002)
    return time.monotonic() - began


def calls(gateway: Gateway) -> list[Any]:
    """Return the upstream calls of requests so far."""
    return [each for each in gateway.simulator.requests if each.method == "POST"]


def asked(gateway: Gateway, plug: socket.socket, sent: bytes, count: int = 1) -> Any:
    """Send bytes and wait until the upstream is asked; return the record of the last call."""
    before = len(calls(gateway))
    plug.sendall(sent)
    until(lambda: len(calls(gateway)) >= before + count, 5)
    return calls(gateway)[-1]


@contextmanager
def left_idle(gateway: Gateway) -> Iterator[Gateway]:
    """Fail where, a second after the block, anything of its requests is left."""

    def tasks() -> int:
        return len(asyncio.all_tasks(gateway.serving.loop))

    before: int = gateway.serving.call(tasks)

    def idle() -> bool:
        return (
            gateway.idle() == _NOTHING
            and gateway.relay.bodies.used == 0
            and gateway.serving.call(tasks) <= before
        )

    yield gateway
    until(idle, 1.5)
