"""Rows B1 and B3 to B6, B8, B15, B18, B19: upstreams that cannot be reached, are silent or slow, end early."""

from __future__ import annotations

import json
import random
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.support import faulty, raw
from tests.support.certificates import make_certificates, over_tls, trusting
from tests.support.faulty import Kind, answers, body_of, event, failure, kinds, replying, shapes
from tests.support.gateway import Gateway, gateway

from oaicompat_server import upstream as upstream_module
from oaicompat_server.connection import tls_context
from oaicompat_server.settings import AnswerSettings, Config
from oaicompat_server.simulator import Body, Close, Drip, Finish, Head, Raw, Repeat, Reset, Stall
from oaicompat_server.simulator.faults import Step

SLACK = 0.6
"""Seconds that a busy machine may add to a deadline."""


@pytest.fixture(scope="module", params=faulty.KINDS)
def served(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with faulty.faulty(request.param) as running:
        yield running


def closed_port() -> str:
    """Return the address of a port where nobody listens."""
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{plug.getsockname()[1]}"


@kinds
def test_b1_a_refused_connection_is_a_502(kind: Kind) -> None:
    """An upstream that refuses connections is a 502 at once."""
    with faulty.faulty(kind, closed_port()) as served, faulty.left_clean(served):
        for told in faulty.tell_all(served):
            assert failure(told)["message"] == "The upstream cannot be reached."
            assert told.reply.status == 502
            assert told.seconds < SLACK


@kinds
def test_b1_a_connection_that_is_reset_is_tried_again_up_to_the_cap(kind: Kind) -> None:
    """An upstream that resets every connection is asked as often as attempts are allowed, then it is a 502."""
    with (
        faulty.listening(raw.reset) as listener,
        faulty.faulty(kind, listener.url, attempts=2) as served,
        faulty.left_clean(served),
    ):
        for number, (path, stream) in enumerate(faulty.SHAPES):
            told = faulty.tell(served, path, stream)
            assert failure(told)["type"] == "server_error"
            assert told.reply.status == 502
            assert listener.accepted == 2 * (number + 1)


@kinds
def test_b1_a_connection_that_does_not_come_about_ends_at_its_deadline(kind: Kind) -> None:
    """An upstream that does not take connections is a 504 at the connect timeout."""
    with (
        faulty.full("127.0.0.1") as port,
        faulty.faulty(kind, f"http://127.0.0.1:{port}", connect_timeout=0.5) as served,
        faulty.left_clean(served),
    ):
        for told in faulty.tell_all(served):
            assert failure(told)["message"] == "Connecting to the upstream timed out."
            assert told.reply.status == 504
            assert 0.4 < told.seconds < 0.5 + SLACK


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def _plain(plug: socket.socket) -> None:
    plug.recv(100)
    plug.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\nspeak plainly")


def _silent(plug: socket.socket) -> None:
    while plug.recv(4096):
        pass


@kinds
@pytest.mark.parametrize("fault", ["unknown", "other", "old", "early", "plain", "silent"])
def test_b3_what_cannot_be_verified_is_not_talked_to(
    kind: Kind, fault: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that is wrong in any way, or no TLS at all, is a 502, and a handshake that stalls a 504."""
    monkeypatch.setattr(upstream_module, "tls_context", lambda: trusting(certificates))
    others = {"plain": _plain, "silent": _silent}
    serve = others.get(fault) or over_tls(certificates, fault)
    with (
        faulty.listening(serve, "https") as listener,
        faulty.faulty(kind, listener.url, connect_timeout=0.5) as served,
        faulty.left_clean(served),
    ):
        for told in faulty.tell_all(served):
            failure(told)
            assert told.reply.status == (504 if fault == "silent" else 502)
            assert told.seconds < 0.5 + SLACK
        assert listener.accepted == 4


@kinds
def test_b3_what_is_verified_is_talked_to(
    kind: Kind, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upstream whose certificate is right is talked to, and there is no setting that does without one."""
    monkeypatch.setattr(upstream_module, "tls_context", lambda: trusting(certificates))
    with (
        faulty.listening(over_tls(certificates, "good"), "https") as listener,
        faulty.faulty(kind, listener.url) as served,
    ):
        assert faulty.success(faulty.tell(served, raw.CHAT, False)) == "over TLS"
    assert structs.asdict(Config().upstream).keys() == {
        *("base_url", "http", "connect_timeout", "first_byte_timeout", "idle_timeout"),
        *("total_timeout", "total_timeout_stream", "attempts", "max_idle", "idle_expiry"),
    }
    context = tls_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


HEADLESS: dict[str, list[Step]] = {
    "nothing": [Stall()],
    "half a head": [Raw(b"HTTP/1.1 200 OK\r\nContent-Type: app"), Stall()],
    "a head that drips": [Raw(b"HTTP/1.1 200 OK\r\nX: "), Drip(b"x" * 1000, 0.05)],
    "hints for ever": [Repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.1)],
}


@pytest.mark.parametrize("name", HEADLESS)
def test_b4_a_head_that_does_not_come_is_a_504(served: Gateway, name: str) -> None:
    """An upstream that sends no whole head of a reply by the deadline is a 504."""
    with faulty.left_clean(served):
        for _ in faulty.SHAPES:
            served.simulator.enqueue(HEADLESS[name])
        for told in faulty.tell_all(served):
            failure(told)
            assert told.reply.status == 504
            assert 0.4 < told.seconds < 0.5 + SLACK


@kinds
def test_b5_a_stream_that_stalls_is_kept_alive_and_then_ends_with_an_error(kind: Kind) -> None:
    """A stall is bridged by comments, so that clients wait on, and ends at the deadline with an error."""
    config = Config(
        upstream=faulty.upstream(kind, idle_timeout=0.7),
        answer=AnswerSettings(keepalive=0.2, keepalive_responses=0.2),
    )
    with gateway(config) as served, faulty.left_clean(served):
        for told in faulty.tell_all(served, "#script:long:8 #script:stall-after:3"):
            failure(told)
            assert 0.6 < told.seconds < 0.7 + SLACK
            assert told.reply.status == (200 if told.stream else 504)
            mark = b"\n: " if told.path == raw.CHAT else b'"type":"keepalive"'
            assert told.reply.content.count(mark) >= (2 if told.stream else 0)


@kinds
def test_b6_a_drip_ends_at_the_deadline_of_the_whole_request(kind: Kind) -> None:
    """An upstream that sends byte by byte, never silent for long, is ended by the deadline of the whole."""
    deadlines = {"total_timeout": 0.7, "total_timeout_stream": 0.9}
    with faulty.faulty(kind, **deadlines) as served, faulty.left_clean(served):
        for told in faulty.tell_all(served, "#script:long:9 #script:drip:20"):
            failure(told)
            limit = 0.9 if told.stream else 0.7
            assert limit - 0.1 < told.seconds < limit + SLACK


def _unfinished(stream: bool, usage: bool, framing: str) -> list[Step]:
    chunk = event({"text": "not the whole st"})
    if usage:
        chunk["usageMetadata"] = {"promptTokenCount": 3, "totalTokenCount": 9}
    data = body_of([chunk], stream)
    return replying(data, stream, framing=framing, length=len(data))


@shapes
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("usage", [False, True])
def test_b8_an_answer_without_its_finish_is_an_error(
    served: Gateway, path: str, stream: bool, framing: str, usage: bool
) -> None:
    """A body that ends as it should, but without a finish reason, is an incomplete answer, never `stop`."""
    told = answers(served, _unfinished(stream, usage, framing), path, stream)
    assert failure(told)["code"] == "upstream_incomplete"
    assert told.reply.status == (200 if stream else 502)


@shapes
@pytest.mark.parametrize("status", [301, 302, 304, 307])
def test_b15_a_redirect_is_not_followed(
    served: Gateway, path: str, stream: bool, status: int
) -> None:
    """A redirect is a 502, and nobody connects to where it leads."""
    with faulty.listening(_plain) as elsewhere:
        head = Head(status=status, headers=(("Location", elsewhere.url),), length=0)
        told = answers(served, [head, Finish()], path, stream)
        failure(told)
        assert told.reply.status == 502
        assert elsewhere.accepted == 0


@kinds
def test_b18_connections_that_die_while_idle_cost_nothing(kind: Kind) -> None:
    """Of 200 requests on connections that the upstream closes meanwhile, each tried once, none fails."""
    with faulty.faulty(kind) as served, faulty.left_clean(served):
        for number in range(200):
            path, stream = faulty.SHAPES[number % 4]
            told = faulty.tell(served, path, stream, f"#script:idle-close:{number % 5}")
            faulty.success(told)
            time.sleep(random.Random(number).random() * 0.008)


@shapes
def test_b18_a_reused_connection_that_dies_is_replaced_once(
    served: Gateway, path: str, stream: bool
) -> None:
    """A request that kills a reused connection before a byte came is sent once more, and then it has failed."""
    assert faulty.success(faulty.tell(served, path, stream))
    before = len(raw.calls(served))
    served.simulator.enqueue([Reset()])
    assert faulty.success(faulty.tell(served, path, stream)) == "hello"
    assert len(raw.calls(served)) == before + 2
    for _ in range(2):
        served.simulator.enqueue([Close()])
    with faulty.left_clean(served):
        assert failure(faulty.tell(served, path, stream))
    assert len(raw.calls(served)) == before + 4


@shapes
def test_b18_a_connection_that_dies_with_a_byte_is_not_replaced(
    served: Gateway, path: str, stream: bool
) -> None:
    """Once a byte of the reply came, a request whose connection dies was served and is not sent again."""
    assert faulty.success(faulty.tell(served, path, stream))
    before = len(raw.calls(served))
    failure(answers(served, [Raw(b"H"), Close()], path, stream))
    assert len(raw.calls(served)) == before + 1


LEAKING = (
    *(("Set-Cookie", "sentinel=1; Path=/"), ("Alt-Svc", 'h3=":443"; ma=sentinel')),
    *(("Server-Timing", "gfet4t7; dur=sentinel"), ("Via", "1.1 sentinel")),
    *(("X-Request-Id", "sentinel"), ("OpenAI-Version", "sentinel"), ("X-Account-Email", "sentinel")),
    *(("Access-Control-Allow-Origin", "https://sentinel"), ("WWW-Authenticate", "Basic sentinel")),
    *(("Location", "https://sentinel"), ("Refresh", "0; url=sentinel"), ("X-Mapped-Model", "sentinel")),
    *((f"X-Goog-{number}", f"sentinel-{number}") for number in range(30)),
)  # fmt: skip


@shapes
@pytest.mark.parametrize("status", [200, 400, 500])
def test_b19_no_header_of_the_upstream_gets_out(
    served: Gateway, path: str, stream: bool, status: int
) -> None:
    """Of forty headers that the upstream sends, none reaches a client, neither by name nor by value."""
    assert len(LEAKING) >= 40
    data = body_of([event({"text": "fine"}, finishReason="STOP")], stream)
    if status != 200:
        data = json.dumps(
            {"error": {"code": status, "message": "no", "status": "INTERNAL"}}
        ).encode()
    kind = "text/event-stream" if stream else "application/json"
    head = Head(status, kind, LEAKING, length=len(data))
    told = answers(served, [head, Body(data), Finish()], path, stream)
    assert (told.reply.status == 200) == (status == 200)
    told_of: dict[str, Any] = told.reply.headers
    assert "sentinel" not in f"{told_of}{told.reply.content!r}"
    assert set(told_of) <= {
        *("content-type", "content-length", "transfer-encoding", "date", "connection", "cache-control"),
        *("x-accel-buffering", "x-request-id", "openai-version", "openai-processing-ms"),
        *("x-mapped-model", "x-oaicompat-notes", "x-account-email", "x-should-retry", "retry-after"),
    }  # fmt: skip
