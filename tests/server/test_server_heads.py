"""What an application is told of a request is what uvicorn's own protocol tells it."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from oaicompat_server.framing import DIRECT, Receive, Scope, Send, send_body
from oaicompat_server.guard import GuardedProtocol
from oaicompat_server.leaving import LEAVING


class Wire(asyncio.Transport):
    """A client's end of the connection: what came there, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.got = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.got += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


async def told(made: Any, requests: list[bytes]) -> tuple[list[Scope], bytes, bool]:
    """Return what an application was told of requests on one connection, and what it answered."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        scopes.append({**scope, "body": message["body"]})
        for ours in (LEAVING, DIRECT):
            scopes[-1].pop(ours, None)
        await send_body(send, 200, [], message["body"])

    config = uvicorn.Config(app, lifespan="off", access_log=False, log_config=None, ws="none")
    config.load()
    protocol = made(config=config, server_state=ServerState(), app_state={"kept": 1})
    wire = Wire()
    protocol.connection_made(wire)
    for request in requests:
        if wire.closed:
            break
        protocol.data_received(request)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    return scopes, wire.got, wire.closed


TARGETS = st.text("/a%2F?#&=:@*.~é\\", max_size=12).map(lambda text: f"/{text}".encode())
FIELDS = st.sampled_from(
    [
        b"X-Note: a",
        b"x-note: b",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Expect: 100-continue",
        b"Accept:",
    ]
)
BODIES = st.binary(max_size=5)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    body = draw(BODIES)
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    line = b"%b %b HTTP/%b" % (
        draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"DELETE"])),
        draw(st.just(b"/v1") | st.just(b"*") | TARGETS),
        version,
    )
    fields = draw(st.lists(FIELDS, max_size=4))
    # Differently from uvicorn, what only HTTP/1.1 has is refused, or not heeded, in HTTP/1.0.
    if version == b"1.0":
        fields = [field for field in fields if not field.startswith(b"Expect")]
    if version == b"1.0" or draw(st.booleans()):
        fields.append(b"Content-Length: %d" % len(body))
        end = b"\r\n\r\n" + body
    else:
        fields.append(b"Transfer-Encoding: chunked")
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        end = b"\r\n\r\n" + chunk + b"0\r\n\r\n"
    return b"\r\n".join([line, b"Host: a", *fields]) + end


@settings(deadline=None)
@given(st.lists(requests(), max_size=3))
def test_an_application_is_told_what_uvicorn_tells(sent: list[bytes]) -> None:
    ours, got, closed = asyncio.run(told(GuardedProtocol, sent))
    theirs, wanted, ended = asyncio.run(told(HttpToolsProtocol, sent))
    assert ours == theirs
    if b"HTTP/1.1 400" in wanted:
        assert b"HTTP/1.1 400" in got
    else:
        assert got == wanted
    assert closed == ended
