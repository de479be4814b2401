"""The guarded protocol on a real socket: deadlines, caps, and requests no honest client sends."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Collection, Iterator

import anyio
import pytest
from tests.support.gateway import Serving, serving

from oaicompat_server import guard
from oaicompat_server.framing import Receive, Scope, Send
from oaicompat_server.limits import Limits

LIMITS = Limits(
    header_seconds=0.5,
    header_bytes=4096,
    header_count=20,
    body_gap_seconds=0.5,
    write_stall_seconds=0.6,
)
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, then answer its length; `/slow` waits, `/flood` never ends, `/early` reads nothing."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    size = 0
    while scope["path"] != "/early":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    if scope["path"].startswith("/told"):
        told = [scope["method"], scope["http_version"], scope["query_string"], scope["raw_path"]]
        told += [scope["path"], sorted(scope["headers"])]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": repr(told).encode()})
        return
    if scope["path"] == "/slow":
        await anyio.sleep(0.9)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/flood":
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await anyio.sleep(0.001)
    await send({"type": "http.response.body", "body": b"%d" % size, "more_body": False})


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with serving(_app, LIMITS) as running:
        yield running


def _connect(served: Serving) -> socket.socket:
    plug = socket.create_connection(("127.0.0.1", served.port), timeout=5)
    plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plug


def _until_closed(plug: socket.socket) -> tuple[bytes, float]:
    """Read until the connection ends; return what came and after how many seconds it ended."""
    started = time.monotonic()
    data = b""
    try:
        while piece := plug.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data, time.monotonic() - started


def _talk(served: Serving, sent: bytes) -> bytes:
    with _connect(served) as plug:
        with contextlib.suppress(ConnectionError):
            plug.sendall(sent)
        return _until_closed(plug)[0]


def _status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1]) if reply else 0


@pytest.mark.parametrize("start", [b"", b"GET /x HT", b"GET /x HTTP/1.1\r\nHost: a\r\nX-", b"\r\n"])
def test_unfinished_head_is_dropped_at_its_deadline(served: Serving, start: bytes) -> None:
    with _connect(served) as plug:
        plug.sendall(start)
        data, seconds = _until_closed(plug)
    assert data == b""
    assert 0.3 < seconds < 1.5


def test_dripped_head_does_not_extend_its_deadline(served: Serving) -> None:
    with _connect(served) as plug:
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for _ in range(60):
                plug.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - started < 1.5


def test_stray_line_end_between_requests_does_not_hold_the_connection(served: Serving) -> None:
    with _connect(served) as plug:
        plug.sendall(GET)
        assert _status(plug.recv(65536)) == 200
        plug.sendall(b"\r\n")
        assert 0.3 < _until_closed(plug)[1] < 1.5


def test_keep_alive_and_pipelining_are_untouched(served: Serving) -> None:
    with _connect(served) as plug:
        for _ in range(3):
            plug.sendall(GET)
            assert _status(plug.recv(65536)) == 200
        time.sleep(0.7)
        plug.sendall(GET + GET.replace(b"a\r\n", b"a\r\nConnection: close\r\n"))
        assert _until_closed(plug)[0].count(b"200 OK") == 2


def test_slow_answer_outlives_the_header_deadline(served: Serving) -> None:
    reply = _talk(served, b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert _status(reply) == 200


def test_body_that_stalls_is_answered_with_408(served: Serving) -> None:
    with _connect(served) as plug:
        plug.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        data, seconds = _until_closed(plug)
    assert _status(data) == 408
    assert 0.3 < seconds < 1.5
    assert json.loads(data.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


def test_body_that_moves_is_given_time(served: Serving) -> None:
    with _connect(served) as plug:
        plug.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            time.sleep(0.1)
            plug.sendall(b"x")
        assert plug.recv(65536).endswith(b"8\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX-Big: " + b"x" * 5000 + b"\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX-Big: " + b"x" * 50000, 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 30 + b"\r\n", 431),
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 400),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"CONNECT /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 400),
        (b"CONNECT * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /x\r\n\r\n", 400),
        (b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)  # fmt: skip
def test_what_no_honest_client_sends_gets_one_answer(
    served: Serving, request_bytes: bytes, status: int
) -> None:
    reply = _talk(served, request_bytes)
    assert reply.count(b"connection: close") == 1
    assert _status(reply) == status
    assert "error" in json.loads(reply.partition(b"\r\n\r\n")[2])


def test_tiny_chunks_are_refused_and_fair_ones_are_not(served: Serving) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    started = time.monotonic()
    assert _status(_talk(served, head + b"1\r\nx\r\n" * 100_000)) in (0, 400)
    assert time.monotonic() - started < 2
    fair = head + b"64\r\n" + b"x" * 100 + b"\r\n"
    reply = _talk(served, fair + (b"64\r\n" + b"x" * 100 + b"\r\n") * 2000 + b"0\r\n\r\n")
    assert _status(reply) == 200


def test_expect_continue_works(served: Serving) -> None:
    with _connect(served) as plug:
        plug.sendall(
            b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert plug.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        plug.sendall(b"ok")
        assert _status(plug.recv(65536)) == 200


def test_reader_that_stops_is_cut(served: Serving) -> None:
    with socket.socket() as plug:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plug.connect(("127.0.0.1", served.port))
        connections = served.server.server_state.connections
        plug.sendall(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.3)
        assert len(connections) == 1
        until = time.monotonic() + 3
        while connections and time.monotonic() < until:
            time.sleep(0.05)
        assert not connections


def test_connections_are_capped() -> None:
    with serving(_app, Limits(connections=5)) as running:
        plugs = [_connect(running) for _ in range(9)]
        time.sleep(0.2)
        assert len(running.server.server_state.connections) == 5
        plugs[0].sendall(GET)
        assert _status(plugs[0].recv(65536)) == 200
        for plug in plugs:
            plug.close()
        time.sleep(0.1)
        with _connect(running) as plug:
            plug.sendall(GET)
            assert _status(plug.recv(65536)) == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /x HTTP/1.1\r\nX-Request-Id: mine\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nX-Request-Id: mine\r\nHost: a\r\nX: " + b"x" * 5000, 431),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nContent-Length: 9\r\n\r\na", 408),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_regression_the_guards_own_replies_carry_our_headers(
    served: Serving, sent: bytes, status: int
) -> None:
    head = _talk(served, sent).partition(b"\r\n\r\n")[0]
    assert _status(head) == status
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    sane = lines[b"x-request-id"].startswith(b"req_")
    assert lines[b"x-request-id"] == b"mine" or (sane and b"mine" not in sent)
    assert int(lines[b"openai-processing-ms"]) < 3000
    assert lines[b"openai-version"] == b"2020-10-01"


def test_each_request_of_a_connection_has_what_its_own_head_says(served: Serving) -> None:
    asked = [
        (b"GET", b"/told", "/told", b"", b"a"),
        (b"GET", b"/told", "/told", b"", b"b"),
        (b"POST", b"/told", "/told", b"", b"b"),
        (b"POST", b"/told?x=%2F?y#z", "/told", b"x=%2F?y", b"b"),
        (b"POST", b"/told/%C3%A9%2f", "/told/\u00e9/", b"", b"b"),
        (b"GET", b"/told", "/told", b"", b"a"),
    ]
    with _connect(served) as plug:
        for method, target, path, query, value in asked:
            plug.sendall(b"%b %b HTTP/1.1\r\nHost: a\r\nX-A: %b\r\n\r\n" % (method, target, value))
            raw = target.partition(b"?")[0]
            headers = [(b"host", b"a"), (b"x-a", value)]
            told = repr([method.decode(), "1.1", query, raw, path, headers]).encode()
            assert told in plug.recv(65536)
        plug.sendall(b"GET /told HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        assert b"'1.0'" in _until_closed(plug)[0]


def test_a_long_field_that_began_behind_another_request_is_refused(served: Serving) -> None:
    with _connect(served) as plug:
        plug.sendall(GET + b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 4000)
        assert _status(plug.recv(65536)) == 200
        plug.sendall(b"x" * 200 + b"\r\n\r\n")
        assert _status(_until_closed(plug)[0]) == 431


def test_trailers_count_as_header_fields(served: Serving) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with _connect(served) as plug:
        plug.sendall(head + b"X: y\r\n" * 18 + b"\r\n")
        assert _status(plug.recv(65536)) == 200
        plug.sendall(head + b"X: y\r\n" * 19 + b"\r\n")
        assert _status(_until_closed(plug)[0]) == 431


def test_a_head_is_read_anew_once(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    offer = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert [
        _talk(served, offer * 2 + GET[:-2] + b"Connection: close\r\n\r\n").count(b"200 OK")
    ] == [3]
    monkeypatch.setattr(guard, "without_upgrade", lambda *_: offer)
    assert _status(_talk(served, offer)) == 400


@pytest.mark.parametrize("pause", [0, 0.1])
def test_an_upgrade_behind_an_unanswered_request_leaves_that_one_its_answer(
    served: Serving, pause: float
) -> None:
    offer = (
        b"GET /v1/responses HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    )
    offer += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    with _connect(served) as plug:
        plug.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" + (b"" if pause else offer))
        if pause:
            time.sleep(pause)
            plug.sendall(offer)
        reply = _until_closed(plug)[0]
    assert _status(reply) == 200
    assert reply.count(b"HTTP/1.1 ") == 1


CHUNKED = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
EARLY = b"GET /early HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"


@pytest.fixture
def soon_idle(served: Serving, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """The server, which closes connections that begin now after 0.4 s without a request."""
    monkeypatch.setattr(served.server.config, "timeout_keep_alive", 0.4)
    return served


def test_a_connection_whose_body_ends_after_its_answer_is_idle(soon_idle: Serving) -> None:
    with _connect(soon_idle) as plug:
        plug.sendall(EARLY)
        assert _status(plug.recv(65536)) == 200
        plug.sendall(b"hello")
        assert _until_closed(plug)[1] < 1.5


def test_a_request_behind_a_late_body_is_given_its_time(soon_idle: Serving) -> None:
    with _connect(soon_idle) as plug:
        plug.sendall(EARLY)
        assert _status(plug.recv(65536)) == 200
        plug.sendall(b"hello" + GET.replace(b"/x", b"/slow"))
        assert _until_closed(plug)[0].count(b"200 OK") == 1


@pytest.mark.parametrize("rest", [b"", b"he"])
def test_a_body_that_never_comes_has_no_second_answer(served: Serving, rest: bytes) -> None:
    with _connect(served) as plug:
        plug.sendall(EARLY)
        assert _status(plug.recv(65536)) == 200
        plug.sendall(rest)
        assert _until_closed(plug)[0] == b""


@pytest.mark.parametrize("begin", [b"0\r\nX: ", b"5;a="])
@pytest.mark.parametrize(("path", "status"), [(b"/x", 431), (b"/early", 200)])
def test_what_is_around_a_body_has_its_bound(
    served: Serving, begin: bytes, path: bytes, status: int
) -> None:
    with _connect(served) as plug:
        plug.sendall(CHUNKED % path + begin)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 200_000:
                plug.sendall(b"x" * 1000)
                sent += 1000
                time.sleep(0.001)
        assert sent < 100_000
        reply = _until_closed(plug)[0]
    assert reply.count(b"HTTP/1.1 ") <= 1
    assert _status(reply) in (0, status)


def test_no_byte_of_a_body_pays_for_much_around_it(served: Serving) -> None:
    with _connect(served) as plug:
        plug.sendall(CHUNKED % b"/x")
        sent = 0
        with contextlib.suppress(ConnectionError):
            for sent in range(300):  # noqa: B007
                plug.sendall(b"1;" + b"a" * 1000 + b"\r\nx\r\n")
                time.sleep(0.002)
        assert sent < 200


def test_nothing_is_said_to_http_1_0_before_its_answer(served: Serving) -> None:
    with _connect(served) as plug:
        plug.sendall(
            b"POST /x HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        time.sleep(0.1)
        plug.sendall(b"ok")
        assert _status(_until_closed(plug)[0]) == 200


def _until_none(connections: Collection[object]) -> None:
    until = time.monotonic() + 3
    while connections and time.monotonic() < until:
        time.sleep(0.02)
    assert not connections


@pytest.mark.parametrize(
    "last", [b"", GET[:-2] + b"Connection: close\r\n\r\n", b"nonsense\r\n\r\n", None]
)
def test_a_connection_is_closed_though_its_client_takes_nothing(
    soon_idle: Serving, last: bytes | None
) -> None:
    connections = soon_idle.server.server_state.connections
    _until_none(connections)
    with socket.socket() as plug:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plug.connect(("127.0.0.1", soon_idle.port))
        plug.sendall(GET)
        assert _status(plug.recv(65536)) == 200
        transport = next(iter(connections)).transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        for _ in range(3000):
            plug.sendall(GET)
            time.sleep(0.001)
            if transport.get_write_buffer_size() > 1000:
                break
        assert 0 < transport.get_write_buffer_size() < 65536
        if last is None:
            plug.shutdown(socket.SHUT_WR)
        else:
            plug.sendall(last)
        _until_none(connections)
