"""How the simulator fails on purpose, what it remembers, and that it stops clean."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oaicompat_server.simulator import Body, Finish, Head, Reset, Simulator, running
from oaicompat_server.simulator.faults import CHANGES
from oaicompat_server.simulator.script import ANSWERS, CALLS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "simulator.md"
STREAM = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
UNARY = "/v1beta/models/gemini-2.5-flash:generateContent"
TEXT = "a text of five events or so, cut up"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running() as started:
        yield started


def request(text: str, path: str = STREAM, key: str = "k", **headers: str) -> bytes:
    data = json.dumps({"contents": [{"parts": [{"text": text}]}]}).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"x-goog-api-key: {key}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(data)}", "", ""]
    return "\r\n".join(lines).encode() + data


def read(plug: socket.socket, until: bytes | None = None) -> bytes:
    """Read until the peer ends the connection, or until the bytes end in `until`."""
    got = b""
    while until is None or not got.endswith(until):
        piece = plug.recv(65536)
        if not piece:
            break
        got += piece
    return got


def connect(simulator: Simulator) -> socket.socket:
    return socket.create_connection(("127.0.0.1", simulator.port), timeout=3)


def talk(
    simulator: Simulator, directive: str, path: str = STREAM, end: bytes | None = None
) -> bytes:
    """Return all bytes of the answer; the client asks for the connection to close after it."""
    with connect(simulator) as plug:
        plug.sendall(request(f"{TEXT} #script:{directive}", path, connection="close"))
        return read(plug, end)


def unchunk(answer: bytes) -> bytes:
    """Return the body of a chunked answer, complete or not."""
    left, body = answer.partition(b"\r\n\r\n")[2], b""
    while b"\r\n" in left:
        size, _, left = left.partition(b"\r\n")
        if int(size, 16) == 0:
            break
        body, left = body + left[: int(size, 16)], left[int(size, 16) + 2 :]
    return body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("count", [1, 2])
def test_an_unframed_error_comes_after_some_events(simulator: Simulator, count: int) -> None:
    answer = talk(simulator, f"error-after:{count}:429")
    body = unchunk(answer)
    assert status(answer) == 200
    assert body.count(b"data: ") == count
    assert json.loads(body.rpartition(b"\r\n\r\n")[2])["error"]["code"] == 429
    assert answer.endswith(b"0\r\n\r\n")


def test_a_framed_error_comes_after_some_events(simulator: Simulator) -> None:
    body = unchunk(talk(simulator, "framed-error-after:1"))
    *_, last, rest = body.split(b"\r\n\r\n")
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == 503
    assert rest == b""


def test_a_cut_stream_ends_cleanly_without_a_finish_reason(simulator: Simulator) -> None:
    for count in (1, 99):
        answer = talk(simulator, f"cut-after:{count}")
        assert answer.endswith(b"0\r\n\r\n")
        assert b"data: " in answer
        assert b"finishReason" not in answer


def test_a_body_can_be_cut_at_any_byte(simulator: Simulator) -> None:
    answer = talk(simulator, "cut-bytes:17")
    assert len(unchunk(answer)) == 17
    assert not answer.endswith(b"0\r\n\r\n")
    plain = talk(simulator, "cut-bytes:17", UNARY)
    found = re.search(rb"Content-Length: (\d+)", plain)
    assert found is not None
    assert int(found[1]) > len(plain.partition(b"\r\n\r\n")[2]) == 17


@pytest.mark.parametrize("path", [STREAM, UNARY])
@pytest.mark.parametrize("count", [0, 1])
def test_a_reset(simulator: Simulator, path: str, count: int) -> None:
    with connect(simulator) as plug:
        plug.sendall(request(f"{TEXT} #script:reset-after:{count}", path))
        time.sleep(0.05)
        with pytest.raises(ConnectionResetError):
            read(plug)
    assert simulator.requests[-1].ended == "reset"


def test_a_close_and_a_half_close(simulator: Simulator) -> None:
    with connect(simulator) as plug:
        plug.sendall(request(f"{TEXT} #script:close-after:1"))
        assert read(plug).count(b"data: ") == 1
    with connect(simulator) as plug:
        plug.sendall(request(f"{TEXT} #script:half-close-after:0"))
        assert read(plug) == b""
        assert simulator.requests[-1].ended is None
    assert simulator.requests[-1].wait() == "client left"


@pytest.mark.parametrize("count", [0, 2])
def test_a_stall_lasts_until_the_client_leaves(simulator: Simulator, count: int) -> None:
    with connect(simulator) as plug:
        plug.sendall(request(f"{TEXT} #script:stall-after:{count}"))
        plug.settimeout(0.15)
        with pytest.raises(TimeoutError):
            read(plug)
        record = simulator.requests[-1]
        assert record.ended is None
        left = time.monotonic()
    assert record.wait() == "client left"
    assert time.monotonic() - left < 1


def test_delays(simulator: Simulator) -> None:
    for directive, least in (
        ("slow:80", 0.08),
        ("pace:20", 0.06),
        ("long:2 #script:pace:50", 0.05),
    ):
        started = time.monotonic()
        talk(simulator, directive)
        assert time.monotonic() - started >= least


def test_a_drip_sends_one_byte_at_a_time(simulator: Simulator) -> None:
    body = talk(simulator, "drip:0").partition(b"\r\n\r\n")[2]
    assert body.startswith(b"1\r\nd\r\n1\r\na\r\n1\r\nt\r\n")
    assert body.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("directive", "code", "phrase"),
    [
        ("error:429", 429, b'"retryDelay": "1s"'),
        ("error:429:day", 429, b"PerDayPerProjectPerModel"),
        ("error:429:rate:7", 429, b'"retryDelay": "7s"'),
        ("error:429:bare", 429, b"Resource exhausted"),
        ("error:503", 503, b"UNAVAILABLE"),
        ("error:503:overloaded", 503, b"The model is overloaded"),
        ("error:500", 500, b"INTERNAL"),
        ("error:529", 529, b'"code": 529'),
        ("error:400", 400, b"Request contains an invalid argument."),
        ("error:400:key", 400, b"API_KEY_INVALID"),
        ("error:400:location", 400, b"FAILED_PRECONDITION"),
        ("error:403:leaked", 403, b"reported as leaked"),
        ("error:403:disabled", 403, b"SERVICE_DISABLED"),
        ("html:502", 502, b"<!DOCTYPE html>"),
        ("redirect", 302, b"Location: http://169.254.169.254/"),
        ("headers:3", 200, b"X-Goog-Simulated-2: "),
    ],
)
def test_statuses(simulator: Simulator, directive: str, code: int, phrase: bytes) -> None:
    answer = talk(simulator, directive)
    assert status(answer) == code
    assert phrase in answer


def test_broken_framing(simulator: Simulator) -> None:
    assert b"oops\r\n\r\n" in unchunk(talk(simulator, "garbage"))
    assert b"\r" not in unchunk(talk(simulator, "newline:lf"))
    assert b"\n" not in unchunk(talk(simulator, "newline:cr"))
    assert unchunk(talk(simulator, "bom")).startswith(b"\xef\xbb\xbfdata: ")
    assert unchunk(talk(simulator, "comments")).startswith(b": comment\r\ndata: ")
    assert len(unchunk(talk(simulator, "huge:5000"))) > 5000
    assert gzip.decompress(unchunk(talk(simulator, "gzip:9"))).endswith(b" " * 9)
    assert talk(simulator, "informational:2").count(b"HTTP/1.1 103 ") == 2


def test_other_framings_of_the_body(simulator: Simulator) -> None:
    closing = talk(simulator, "framing:close")
    assert b"Transfer-Encoding" not in closing
    assert b"Content-Length" not in closing
    short = talk(simulator, "wrong-length:5")
    found = re.search(rb"Content-Length: (\d+)", short)
    assert found is not None
    assert int(found[1]) == len(short.partition(b"\r\n\r\n")[2]) + 5


def test_an_endless_body_ends_with_the_client(simulator: Simulator) -> None:
    with connect(simulator) as plug:
        plug.sendall(request(f"{TEXT} #script:endless #script:pace:1"))
        got = b""
        while got.count(b"data: ") < 20:
            got += plug.recv(65536)
    assert simulator.requests[-1].wait() == "client left"


def test_an_idle_connection_can_be_closed(simulator: Simulator) -> None:
    with connect(simulator) as plug:
        plug.sendall(request(f"{TEXT} #script:idle-close:20"))
        assert read(plug).endswith(b"0\r\n\r\n")
    assert simulator.requests[-1].ended == "complete"


def test_keys_behave_as_scripted_and_keep_their_name() -> None:
    steps = ["429:day@gemini-2.5-pro*", "503", "ok", "reset-after:0", "html:502", "403:location"]
    with running(keys={"k1": steps}) as simulator:

        def ask(path: str = UNARY, key: str = "k1") -> int | None:
            with connect(simulator) as plug:
                plug.sendall(request("hi", path, key, connection="close"))
                try:
                    return status(read(plug))
                except ConnectionResetError:
                    return None

        pro = UNARY.replace("flash", "pro")
        assert ask(pro) == 429
        assert ask(key="other") == 200
        assert [ask() for _ in range(6)] == [503, 200, None, 502, 403, 200]
        assert ask(pro) == 429
        names = [record.key for record in simulator.requests]
        assert names[0] == "k1"
        assert names[1].startswith("#")
        simulator.behave("k1", ["500"])
        assert [ask(), ask()] == [500, 200]


def test_a_record_holds_the_body_and_no_secret(simulator: Simulator) -> None:
    with connect(simulator) as plug:
        path = UNARY + "?key=geheim-1"
        plug.sendall(request("hi", path, "geheim-2", authorization="Basic geheim-3"))
        read(plug, b"}\n")
    record = simulator.requests[-1]
    assert record.body == {"contents": [{"parts": [{"text": "hi"}]}]}
    assert (record.method, record.model, record.status) == ("POST", "gemini-2.5-flash", 200)
    assert "geheim" not in f"{vars(record)}{record!r}"
    assert record.key


def test_connections_are_reused_and_pipelined_requests_answered(simulator: Simulator) -> None:
    with connect(simulator) as plug:
        for _ in range(2):
            plug.sendall(request("hi", UNARY))
            read(plug, b"}\n")
        plug.sendall(request("one") + request("two"))
        got = b""
        while got.count(b"0\r\n\r\n") < 2:
            got += plug.recv(65536)
    assert got.index(b'"one"') < got.index(b'"two"')
    assert len({record.connection for record in simulator.requests[-4:]}) == 1


def test_chunked_and_awaited_request_bodies(simulator: Simulator) -> None:
    data = json.dumps({"contents": [{"parts": [{"text": "x" * 1000}]}]}).encode()
    head = f"POST {UNARY} HTTP/1.1\r\nHost: x\r\nx-goog-api-key: k\r\n"
    with connect(simulator) as plug:
        more = "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        plug.sendall((head + more).encode())
        assert plug.recv(100).startswith(b"HTTP/1.1 100 ")
        for piece in (data[:10], data[10:]):
            plug.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        plug.sendall(b"0\r\n\r\n")
        assert b"x" * 1000 in read(plug, b"}\n")


def test_a_large_body_arrives(simulator: Simulator) -> None:
    with connect(simulator) as plug:
        plug.sendall(request("y" * (20 << 20) + "#script:empty", UNARY))
        assert status(read(plug, b"}\n")) == 200
    assert simulator.requests[-1].size > 20 << 20
    simulator.requests.clear()


@pytest.mark.parametrize("data", [b"{", b"", b'{"a": "\\ud800"}', b"[" * 5000, b"\xff"])
def test_broken_json_is_a_400(simulator: Simulator, data: bytes) -> None:
    head = f"POST {UNARY} HTTP/1.1\r\nHost: x\r\nx-goog-api-key: k\r\nContent-Length: {len(data)}"
    with connect(simulator) as plug:
        plug.sendall(head.encode() + b"\r\n\r\n" + data)
        assert status(read(plug, b"}\n")) == 400


def test_what_is_no_http_is_refused(simulator: Simulator) -> None:
    with connect(simulator) as plug:
        plug.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert status(read(plug)) == 400


def test_steps_can_be_given_outright(simulator: Simulator) -> None:
    simulator.enqueue(
        [Head(content_type="text/event-stream", length=9), Body(b"data: {}\n"), Finish()]
    )
    simulator.enqueue([Head(length=9), Body(b"{"), Reset()])
    assert talk(simulator, "long:3").endswith(b"\r\n\r\ndata: {}\n")
    with pytest.raises(ConnectionResetError):
        talk(simulator, "long:3")
    assert b"chunk 1 of 3" in talk(simulator, "long:3")


def test_it_lives_in_a_loop_and_leaves_nothing_behind() -> None:
    async def scenario() -> tuple[Any, int]:
        async with Simulator() as simulator:
            _, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
            writer.write(request(f"{TEXT} #script:stall-after:1"))
            while not simulator.requests:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert simulator.connections == 1
            writer.close()
            await writer.wait_closed()
            ended = await simulator.ended(simulator.requests[0])
            _, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
            writer.write(request(f"{TEXT} #script:stall-after:1"))
            await asyncio.sleep(0.01)
        assert simulator.connections == 0
        writer.close()
        return ended, len(asyncio.all_tasks())

    assert asyncio.run(scenario()) == ("client left", 1)


def test_it_runs_and_resets_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario() -> tuple[bytes, str | None]:
        async with Simulator() as simulator:
            reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
            writer.write(request("hello there"))
            got = await reader.readuntil(b"0\r\n\r\n")
            writer.write(request("#script:reset-after:0"))
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            return got, await simulator.ended(simulator.requests[1])

    got, ended = uvloop.run(scenario())
    assert b"hello th" in got
    assert ended == "reset"


def test_it_shares_nothing_with_the_converters() -> None:
    source = Path(__file__).resolve().parents[2] / "src" / "oaicompat_server" / "simulator"
    for path in source.glob("*.py"):
        assert not re.search(r"^\s*(from|import) oaicompat\b", path.read_text(), re.MULTILINE), path


def test_the_page_lists_every_directive() -> None:
    page = DOCS.read_text()
    for name in (*ANSWERS, *CALLS, *CHANGES, "error", "thoughts", "logprobs"):
        assert re.search(rf"`{name}[`:]", page), name


def test_the_example_of_the_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(DOCS), "exec"), {"__name__": "example"})
