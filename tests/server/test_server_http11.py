"""The fast connection: what it sends, which replies it refuses, httpcore's interface, and TLS."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import ssl
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import httpcore
import pytest
from msgspec import Struct
from tests.support import faulty
from tests.support.certificates import make_certificates, over_tls, serving, trusting

from oaicompat.errors import UpstreamError
from oaicompat_server.connection import Waits, head_of
from oaicompat_server.http11 import Http11Connection
from oaicompat_server.network import AsyncioBackend, AsyncioStream
from oaicompat_server.reply import HEAD_BYTES, ReplyParser
from oaicompat_server.settings import UpstreamSettings
from oaicompat_server.upstream import Upstream

OK = b"HTTP/1.1 200 OK\r\n"
HINT = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Get(Struct, frozen=True):
    """The smallest request."""

    url: str
    method: str = "GET"
    body: bytes = b""


def parsed(data: bytes, step: int, end: bool = False) -> tuple[int, bytes, bool, bool]:
    """Return status, body, completeness and reusability of a reply that came in pieces of `step` bytes."""
    parser = ReplyParser()
    parser.begin("POST")
    body = b""
    for at in range(0, len(data), step):
        parser.feed(data[at : at + step])
        body += parser.take()
    if end and not parser.complete:
        parser.end()
    return parser.status, body, parser.complete, parser.reusable()


GOOD = {
    "length": (OK + b"Content-Length: 3\r\n\r\nabc", b"abc", True),
    "chunked": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", b"abc", True),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n", b"abc", True),
    "until close": (OK + b"\r\nabc", b"abc", False),
    "asked to close": (OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc", b"abc", False),
    "old version": (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", False),
    "interim": (HINT * 16 + OK + b"Content-Length: 3\r\n\r\nabc", b"abc", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "more than asked for": (OK + b"Content-Length: 3\r\n\r\nabc" + OK + b"\r\n", b"abc", False),
    "garbage behind": (OK + b"Content-Length: 3\r\n\r\nabc\x00\x00", b"abc", False),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_replies_with_one_length_are_read(name: str, step: int) -> None:
    data, body, reusable = GOOD[name]
    status, found, complete, again = parsed(data, step, end=True)
    assert (status // 100, found, complete, again) == (2, body, True, reusable)


BAD = {
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "equal lengths": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length and chunks": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "another coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding without chunks": OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "negative length": OK + b"Content-Length: -3\r\n\r\nabc",
    "a length of thousands of digits": OK + b"Content-Length: " + b"0" * 5000 + b"3\r\n\r\nabc",
    "bad chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    "switched protocol": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "too many interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 17,
    "an interim reply with a body": b"HTTP/1.1 104 X\r\nContent-Length: 3\r\n\r\nabc"
    + OK
    + b"\r\n",
    "a status below all": b"HTTP/1.1 099 X\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nabc",
    "many header bytes": OK + b"A: 1234567\r\n" * (HEAD_BYTES // 8) + b"\r\n",
    "one long header": OK + b"A: " + b"x" * (2 * HEAD_BYTES),
    "long trailers": OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: 1234567\r\n" * 8192,
    "long chunk extension": OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * (2 * HEAD_BYTES),
    "not HTTP": b"SSH-2.0-OpenSSH_9.0\r\n",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("step", [997, 1_000_000])
def test_ambiguous_and_endless_replies_are_refused(name: str, step: int) -> None:
    with pytest.raises(httpcore.RemoteProtocolError):
        parsed(BAD[name], step)


@pytest.mark.parametrize(
    "cut", [b"Content-Length: 9\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nab"]
)
def test_cut_replies_are_no_ends(cut: bytes) -> None:
    with pytest.raises(httpcore.RemoteProtocolError):
        parsed(OK + cut, 5, end=True)


@asynccontextmanager
async def _listening(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await reader.readuntil(b"\r\n\r\n"):
        body = b"" if b"content-length: 5" not in head.lower() else await reader.readexactly(5)
        missing = 1 if b"/half" in head else 0
        length = len(head + body) + missing
        writer.write(OK + b"Content-Length: %d\r\n\r\n%s" % (length, head + body))


def test_httpcores_interface_is_served_over_the_same_connection() -> None:
    async def run() -> None:
        async with _listening(_hello) as port:
            origin = httpcore.Origin(b"http", b"127.0.0.1", port)
            connection = Http11Connection(origin)
            for _ in range(2):
                reply = await connection.request(
                    "POST", f"http://127.0.0.1:{port}/a?b=c", content=b"12345"
                )
                assert reply.status == 200
                assert reply.content.startswith(b"POST /a?b=c HTTP/1.1\r\n")
                assert reply.content.endswith(b"\r\n\r\n12345")
                assert connection.is_idle()
            url = f"http://127.0.0.1:{port}/"
            async with connection.stream("GET", url + "half") as unread:
                assert unread.status == 200
                with pytest.raises(httpcore.ConnectionNotAvailable):
                    await connection.request("GET", url)
            assert not connection.is_available()
            with pytest.raises(httpcore.LocalProtocolError):
                await Http11Connection(origin).request("GET", url, headers=[(b"a", b"b\r\nc: d")])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("sent", "raised"),
    [
        (None, httpcore.ConnectError),
        (b"", httpcore.RemoteProtocolError),
        (b"SMTP\r\n\r\n", httpcore.RemoteProtocolError),
    ],
)
def test_httpcores_interface_raises_httpcores_errors(
    sent: bytes | None, raised: type[Exception]
) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent or b"")

    async def run() -> None:
        async with _listening(reply) as port:
            asked = 1 if sent is None else port
            connection = Http11Connection(httpcore.Origin(b"http", b"127.0.0.1", asked))
            with pytest.raises(raised):
                await connection.request("GET", f"http://127.0.0.1:{asked}/")
            assert connection.is_closed()

    asyncio.run(run())


def test_a_pool_of_httpcore_can_hold_it_and_a_mock_network_carry_it() -> None:
    class Pool(httpcore.AsyncConnectionPool):
        def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
            return Http11Connection(origin, backend=self._network_backend)

    async def run() -> None:
        network = httpcore.AsyncMockBackend([OK + b"Content-Length: 5\r\n\r\n", b"hello"])
        async with Pool(network_backend=network) as pool:
            reply = await pool.request("GET", "http://example.com/")
            assert (reply.status, reply.content) == (200, b"hello")

    asyncio.run(run())


def test_a_large_body_is_sent_whole_although_the_upstream_reads_slowly() -> None:
    sent = bytes(range(256)) * 40_000

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await anyio.sleep(0.1)
        assert await reader.readexactly(len(sent)) == sent
        writer.write(OK + b"Content-Length: 2\r\n\r\nok")

    async def run() -> None:
        async with _listening(slow) as port:
            upstream = Upstream(UpstreamSettings(first_byte_timeout=3))
            request = Get(f"http://127.0.0.1:{port}/", "POST", sent)
            async with upstream.open(request) as response:
                assert [chunk async for chunk in response] == [b"ok"]
            await upstream.aclose()

    asyncio.run(run())


def test_a_head_that_drips_ends_at_its_deadline() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in OK * 20:
            writer.write(bytes([byte]))
            await anyio.sleep(0.05)

    async def run() -> None:
        async with _listening(drip) as port:
            upstream = Upstream(UpstreamSettings(first_byte_timeout=0.3))
            with anyio.fail_after(1), pytest.raises(UpstreamError) as caught:
                async with upstream.open(Get(f"http://127.0.0.1:{port}/")):
                    pass
            assert caught.value.status == 504

    asyncio.run(run())


def test_waits_that_end_in_time_cost_no_timer_and_others_end_at_theirs() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        stream = AsyncioStream()
        with mock.patch.object(loop, "call_later", wraps=loop.call_later) as timers:
            for seconds in (0.05, 0.1, 5.0, 0.2):
                for _ in range(10):
                    loop.call_soon(stream.data_received, b"x")
                    assert await stream.read(9, seconds) == b"x"
        assert [call.args[0] for call in timers.mock_calls] == [pytest.approx(0.05, abs=0.04)]
        for seconds in (0.2, 0.01, 0.1):
            loop.call_soon(stream.data_received, b"x")
            await stream.read(9, 60.0)
            began = time.monotonic()
            with pytest.raises(httpcore.ReadTimeout):
                await stream.read(9, seconds)
            assert seconds - 0.002 <= time.monotonic() - began < seconds + 0.1
        stream.eof_received()
        assert await stream.read(9, 1.0) == b""

    asyncio.run(run())


def test_a_wait_without_end_outlives_the_alarm_of_one_before() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        stream = AsyncioStream()
        loop.call_soon(stream.data_received, b"x")
        await stream.read(9, 0.02)
        with mock.patch.object(loop, "call_later", wraps=loop.call_later) as timers:
            reading = asyncio.ensure_future(stream.read(9, None))
            await asyncio.wait([reading], timeout=0.06)
        assert not reading.done()
        assert math.inf not in [call.args[0] for call in timers.mock_calls]
        stream.data_received(b"late")
        assert await reading == b"late"

    asyncio.run(run())


def test_an_alarm_rings_for_nobody_once_its_stream_is_cut() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        for cut in (AsyncioStream.abort, lambda stream: stream.connection_lost(None)):
            stream = AsyncioStream()
            with mock.patch.object(loop, "call_later", wraps=loop.call_later) as timers:
                reading = asyncio.ensure_future(stream.read(9, 600.0))
                loop.call_soon(cut, stream)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert timers.call_count == 1
            gone = weakref.ref(stream)
            reading.cancel()
            await asyncio.wait([reading])
            del stream, reading, timers
            gc.collect()
            assert gone() is None

    asyncio.run(run())


def test_the_next_address_is_tried_when_the_first_one_refuses() -> None:
    async def both(_: str) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async def run() -> None:
        async with _listening(_hello) as port:
            stream = await AsyncioBackend(both).connect_tcp("two.example", port, 2)
            assert stream.get_extra_info("server_addr") == ("127.0.0.1", port)
            await stream.aclose()

    asyncio.run(run())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def _tls_fetch(certificates: Path, server: str, http: str, handler: Handler = _hello) -> bytes:
    async def run() -> bytes:
        settings = UpstreamSettings(connect_timeout=0.5, http=http)  # type: ignore[arg-type]
        upstream = Upstream(settings, context=trusting(certificates))
        context = None if server == "plain" else serving(certificates, server)
        async with _listening(handler, context) as port:
            try:
                async with upstream.open(Get(f"https://localhost:{port}/x")) as response:
                    return b"".join([chunk async for chunk in response])
            finally:
                await upstream.aclose()
                await anyio.sleep(0.01)

    return asyncio.run(run())


@pytest.mark.parametrize("http", ["fast", "httpcore"])
def test_a_verified_host_is_served_over_tls(certificates: Path, http: str) -> None:
    assert _tls_fetch(certificates, "good", http).startswith(b"GET /x HTTP/1.1\r\n")


class _Late(AsyncioBackend):
    """A network on which something comes between a connection and its TLS."""

    async def connect_tcp(self, *arguments: Any, **named: Any) -> AsyncioStream:
        stream = await super().connect_tcp(*arguments, **named)
        with anyio.fail_after(5):
            while not stream.get_extra_info("is_readable"):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        return stream


def test_what_came_before_tls_is_no_reply(certificates: Path) -> None:
    """Who sits on the way could answer in clear, and have the host itself do the handshake."""
    answer = over_tls(certificates, "good")

    def injecting(plug: socket.socket) -> None:
        plug.sendall(OK + b"Content-Length: 8\r\n\r\ninjected")
        with suppress(OSError):
            answer(plug)

    async def fetch(port: int) -> None:
        origin = httpcore.Origin(b"https", b"localhost", port)
        connection = Http11Connection(origin, trusting(certificates), _Late())
        head = head_of("GET", f"https://localhost:{port}/", (("host", "localhost"),))
        with pytest.raises(UpstreamError) as caught:
            await connection.exchange(head, b"", Waits(5.0, 5.0, 5.0))
        assert caught.value.status == 502
        await connection.aclose()

    with faulty.listening(injecting, "https") as listener:
        asyncio.run(fetch(int(listener.url.rpartition(":")[2])))


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("http", ["fast", "httpcore"])
@pytest.mark.parametrize(
    ("server", "handler", "status"),
    [
        ("other", _hello, 502),
        ("old", _hello, 502),
        ("plain", _hello, 502),
        ("plain", _silent, 504),
    ],
)
def test_tls_that_fails_is_told_without_its_details(
    certificates: Path, http: str, server: str, handler: Handler, status: int
) -> None:
    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server == "plain" and handler is _hello:
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        else:
            await handler(reader, writer)

    with pytest.raises(UpstreamError) as caught:
        _tls_fetch(certificates, server, http, answering)
    assert caught.value.status == status
    shown = str(caught.value).lower()
    assert not [word for word in ("localhost", "certificate", "ssl") if word in shown]
