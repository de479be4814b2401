"""Rows H of the fault matrix: starting, ending, and faults of our own, with real signals and real sockets."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support import raw
from tests.support.gateway import Gateway, gateway
from tests.support.processes import KEY, gateway_process
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from oaicompat.exchange import Exchange
from oaicompat_server import auth, routes, session
from oaicompat_server.attempts import Attempts
from oaicompat_server.cli import main
from oaicompat_server.framing import Answer
from oaicompat_server.handlers import exchanges
from oaicompat_server.recall import StoredRecall
from oaicompat_server.relay import Relay
from oaicompat_server.routes import Router
from oaicompat_server.settings import Config, ServerSettings
from oaicompat_server.simulator import running
from oaicompat_server.upstream import Upstream

Json = dict[str, Any]

SHORT_GRACE = Config(server=ServerSettings(grace=0.6))
ENDLESS = "#script:long:500 #script:pace:60"
ENDING = "#script:long:6 #script:pace:80"
STALL = "#script:long:3 #script:stall-after:0"


def events(data: bytes) -> list[Json]:
    """Return the JSON events of a stream."""
    return [
        json.loads(line[6:])
        for line in data.replace(b"\r", b"").split(b"\n")
        if line.startswith(b"data: {")
    ]


@contextmanager
def asking(served: Gateway, path: str, text: str, *, stream: bool) -> Iterator[socket.socket]:
    """Give the connection of a request that the upstream works on."""
    with raw.connect(served.port) as plug:
        body = raw.words(path, text, stream=stream)
        raw.asked(served, plug, raw.request(served.port, path, body))
        yield plug


def stop(served: Gateway) -> None:
    """Do what the first signal does."""
    served.serving.server.should_exit = True
    raw.until(lambda: served.relay.draining)


def test_h1_sigterm_lets_streams_end_and_tells_the_rest(tmp_path: Path) -> None:
    """After SIGTERM nothing new is taken, streams end or are told `server_shutdown`, and the exit is 0."""
    texts = [(path, text) for path in (raw.CHAT, raw.RESPONSES) for text in (ENDING, ENDLESS)] * 5
    with running(any_model=True) as upstream:
        settings = {"OAICOMPAT_SERVER__GRACE": "1.2"}
        with gateway_process(upstream.url, tmp_path, **settings) as served, ExitStack() as plugs:
            streams = [
                (path, text, plugs.enter_context(begun(served.port, path, text)))
                for path, text in texts
            ]
            began = time.monotonic()
            served.process.send_signal(signal.SIGTERM)
            raw.until(lambda: raw.refused(served.port), 0.5)
            for path, text, plug in streams:
                data = raw.read(plug)
                assert data.endswith(b"0\r\n\r\n"), "the stream was cut"
                assert told_in(path, data) == (text == ENDLESS), (path, text, data[-400:])
            assert served.process.wait(5) == 0
            assert 1.0 < time.monotonic() - began < 1.2 + 5
            assert "Traceback" not in served.log.read_text()
            ends = [record.wait(1) for record in upstream.requests if record.method == "POST"]
            assert sorted(map(str, ends)) == ["client left"] * 10 + ["complete"] * 10


def begun(port: int, path: str, text: str) -> socket.socket:
    """Return the connection of a stream that has begun."""
    plug = raw.connect(port)
    body = raw.words(path, text, stream=True)
    plug.sendall(raw.request(port, path, body, f"authorization: Bearer {KEY}"))
    assert b"200 OK" in plug.recv(65536)
    return plug


def told_in(path: str, data: bytes) -> bool:
    """Return whether a whole stream ends with the news of the shutdown, and not as any other does."""
    if b"server_shutdown" not in data:
        assert b"[DONE]" in data or b"response.completed" in data
        return False
    if path == raw.RESPONSES:
        assert [event["type"] for event in events(data)[-2:]] == ["error", "response.failed"]
    else:
        assert events(data)[-1]["error"]["code"] == "server_shutdown"
        assert b"[DONE]" not in data
    return True


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
def test_h1_whoever_waits_for_a_whole_answer_is_told(path: str) -> None:
    """A request without a stream that is not done when the grace is over gets a 503 `server_shutdown`."""
    with gateway(SHORT_GRACE) as served, asking(served, path, STALL, stream=False) as plug:
        record = raw.calls(served)[-1]
        stop(served)
        status, headers, body = raw.answer(plug)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert json.loads(body)["error"]["code"] == "server_shutdown"
        assert record.wait(1) == "client left"


@pytest.mark.parametrize("part", [0, 40])
def test_h1_a_body_that_does_not_come_whole_in_time_is_refused(part: int) -> None:
    """A request whose body is still coming when the grace is over gets the same 503, and is not waited for."""
    with gateway(SHORT_GRACE) as served, raw.connect(served.port) as plug:
        sent = raw.request(served.port, raw.CHAT, raw.words(raw.CHAT, "half"), "x-request-id: mine")
        plug.sendall(sent[: sent.index(b"\r\n\r\n") + 4 + part])
        raw.until(lambda: served.serving.server.server_state.tasks)
        stop(served)
        began = time.monotonic()
        status, headers, body = raw.answer(plug)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert headers["x-request-id"] == "mine"
        assert json.loads(body)["error"]["code"] == "server_shutdown"
        assert raw.read(plug) == b""
        assert SHORT_GRACE.server.grace - 0.2 < time.monotonic() - began < 1.5
        assert raw.calls(served) == []


def test_h1_requests_that_come_while_it_drains_are_refused() -> None:
    """While it drains, kept-alive connections get 503, Retry-After and a close; only health still answers."""
    with (
        gateway() as served,
        raw.connect(served.port) as kept,
        raw.connect(served.port) as health,
        asking(served, raw.CHAT, ENDING, stream=True) as plug,
    ):
        for each in (kept, health):
            each.sendall(raw.head(served.port, "/readyz", None, method="GET"))
            assert raw.answer(each)[0] == 200
        stop(served)
        raw.until(lambda: raw.refused(served.port))
        kept.sendall(raw.request(served.port, raw.CHAT, raw.words(raw.CHAT, "late")))
        status, headers, body = raw.answer(kept)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert json.loads(body)["error"]["code"] == "server_shutdown"
        health.sendall(raw.head(served.port, "/readyz", None, method="GET"))
        status, headers, body = raw.answer(health)
        assert (status, headers["connection"]) == (503, "close")
        assert json.loads(body) == {"status": "draining"}
        assert raw.read(plug).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert len(raw.calls(served)) == 1


def test_h1_websockets_are_told_and_closed(tmp_path: Path) -> None:
    """A turn over WebSocket that outlives the grace ends in `response.failed`, and the connection with 1012."""
    bearer = {"authorization": f"Bearer {KEY}"}
    with (
        running(any_model=True) as upstream,
        gateway_process(upstream.url, tmp_path, OAICOMPAT_SERVER__GRACE="0.6") as served,
        connect(f"ws://127.0.0.1:{served.port}/v1/responses", additional_headers=bearer) as busy,
        connect(f"ws://127.0.0.1:{served.port}/v1/responses", additional_headers=bearer) as unused,
    ):
        busy.send(json.dumps({"type": "response.create", "model": "gpt-4o", "input": ENDLESS}))
        busy.recv(5)
        served.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as caught:
            unused.recv(5)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
        seen = [json.loads(busy.recv(5))]
        while seen[-1]["type"] != "response.failed":
            seen.append(json.loads(busy.recv(5)))
        with pytest.raises(ConnectionClosed) as caught:
            busy.recv(5)
        assert [event["type"] for event in seen[-2:]] == ["error", "response.failed"]
        assert seen[-2]["code"] == "server_shutdown"
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012
        assert served.process.wait(5) == 0
        assert upstream.requests[-1].wait(1) == "client left"


def test_h1_background_responses_end_as_failed_and_their_followers_hear_it(
    tmp_path: Path,
) -> None:
    """A response in the background that is cut is kept as failed, and whoever follows it is told."""
    state = {"OAICOMPAT_STATE__PATH": str(tmp_path / "state.sqlite3")}
    with running(any_model=True) as upstream:
        with gateway_process(
            upstream.url, tmp_path, **state, OAICOMPAT_SERVER__GRACE="0.5"
        ) as served:
            unfollowed = served.create(ENDLESS, background=True)
            created = {"model": "gpt-4o", "input": ENDLESS, "background": True, "stream": True}
            followed = served.events("/responses", created)
            first = next(followed)
            seen = served.events(f"/responses/{first['response']['id']}?stream=true")
            next(seen)
            served.process.send_signal(signal.SIGTERM)
            for stream in (followed, seen):
                kinds = [event["type"] for event in stream]
                assert kinds[-2:] == ["error", "response.failed"]
            assert served.process.wait(6) == 0
        with gateway_process(upstream.url, tmp_path, **state) as served:
            for each in (unfollowed["id"], first["response"]["id"]):
                assert served.data("GET", f"/responses/{each}")["status"] == "failed"


def test_h1_background_responses_have_the_grace_too(tmp_path: Path) -> None:
    """A response in the background that ends within the grace is complete, though nobody follows it."""
    state = {"OAICOMPAT_STATE__PATH": str(tmp_path / "state.sqlite3")}
    with running(any_model=True) as upstream:
        with gateway_process(upstream.url, tmp_path, **state) as served:
            made = served.create(ENDING, background=True)
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(5) == 0
        with gateway_process(upstream.url, tmp_path, **state) as served:
            assert served.data("GET", f"/responses/{made['id']}")["status"] == "completed"


def test_h2_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """A second signal ends the gateway within a second, whatever still runs."""
    with (
        running(any_model=True) as upstream,
        gateway_process(upstream.url, tmp_path) as served,
        raw.connect(served.port) as plug,
    ):
        body = raw.words(raw.CHAT, ENDLESS, stream=True)
        plug.sendall(raw.request(served.port, raw.CHAT, body, f"authorization: Bearer {KEY}"))
        assert b"200 OK" in plug.recv(65536)
        served.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert served.process.poll() is None
        began = time.monotonic()
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(3) == 0
        assert time.monotonic() - began < 1
        assert "Traceback" not in served.log.read_text()


def test_h2_a_thread_that_hangs_does_not_hold_the_exit() -> None:
    """A thread that is stuck, in a name lookup for instance, does not keep the gateway from ending."""
    code = (
        "import asyncio, time\n"
        "from oaicompat_server.serving import leave_within\n"
        "async def main():\n"
        "    asyncio.get_running_loop().run_in_executor(None, time.sleep, 30)\n"
        "    leave_within(0.1)\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=5, check=False).returncode == 0


LAYERS: list[tuple[object, str]] = [
    (auth, "_site_error"),
    (routes, "resolve"),
    (Router, "_handler"),
    (exchanges, "body_at_once"),
    (exchanges, "read_body"),
    (Relay, "exchange"),
    (Relay, "recall"),
    (Attempts, "lease"),
    (Exchange, "begin_attempt"),
    (session, "endpoint_headers"),
    (Upstream, "open"),
    (Exchange, "receive_head"),
    (Exchange, "feed"),
    (Exchange, "close"),
    (Exchange, "conclude"),
    (StoredRecall, "keep"),
    (Answer, "write"),
    (session, "common_headers"),
]


def fault(*_: object, **__: object) -> Any:
    raise RuntimeError("an inner secret")


@pytest.mark.parametrize(("owner", "name"), LAYERS, ids=[name for _, name in LAYERS])
def test_h3_a_fault_in_any_layer_is_an_opaque_500(
    shared: Gateway, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    """A fault in any layer is a 500 that tells nothing but the request's id, and the next request is served."""
    body = {"model": "gpt-4o", "input": "hello", "store": True}
    sent = raw.request(shared.port, raw.RESPONSES, body, "x-request-id: mine")
    with raw.left_idle(shared):
        with monkeypatch.context() as patched, raw.connect(shared.port) as plug:
            patched.setattr(owner, name, fault)
            plug.sendall(sent[:-1])
            # A body that is whole is not waited for.
            time.sleep(0.05 if name == "read_body" else 0.0)
            plug.sendall(sent[-1:])
            status, headers, content = raw.answer(plug)
        assert (status, headers["x-request-id"]) == (500, "mine")
        error = json.loads(content)["error"]
        assert error["type"] == "server_error"
        assert "mine" in error["message"]
        assert b"secret" not in content
        with raw.connect(shared.port) as plug:
            plug.sendall(sent)
            assert raw.answer(plug)[0] == 200


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
@pytest.mark.parametrize("name", ["feed", "close"])
def test_h3_a_fault_in_a_stream_is_told_in_it(
    shared: Gateway, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    """A fault after the first event is told in the stream, which does not end as if all were well."""
    plain = getattr(Exchange, name)

    def second(exchange: Exchange, *arguments: Any) -> Any:
        if exchange.committed:
            fault()
        return plain(exchange, *arguments)

    with raw.left_idle(shared), raw.connect(shared.port) as plug:
        monkeypatch.setattr(Exchange, name, second)
        body = raw.words(path, ENDING, stream=True)
        plug.sendall(raw.request(shared.port, path, body, "connection: close"))
        data = raw.read(plug)
        assert data.endswith(b"0\r\n\r\n")
        told = [each for each in events(data) if "error" in each or each.get("type") == "error"]
        assert told
        assert b"secret" not in data
        assert b"response.completed" not in data


def test_h3_a_fault_in_a_turn_over_websocket_leaves_the_connection(
    shared: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in a turn over WebSocket is told opaquely, and the next turn on the connection is served."""
    turn = json.dumps({"type": "response.create", "model": "gpt-4o", "input": "hello"})
    with raw.left_idle(shared), connect(f"ws://127.0.0.1:{shared.port}/v1/responses") as client:
        for name in ("begin_attempt", "receive_head", "feed", "conclude"):
            with monkeypatch.context() as patched:
                patched.setattr(Exchange, name, fault)
                client.send(turn)
                told = [str(client.recv(5))]
                while json.loads(told[-1])["type"] not in ("error", "response.failed"):
                    told.append(str(client.recv(5)))
                if json.loads(told[0])["type"] != "error":
                    told.append(str(client.recv(5)))
            assert "had an error while processing" in "".join(told), name
            assert "secret" not in "".join(told)
        client.send(turn)
        kinds = [json.loads(client.recv(5))["type"]]
        while kinds[-1] not in ("error", "response.completed"):
            kinds.append(json.loads(client.recv(5))["type"])
        assert kinds[-1] == "response.completed", kinds


@pytest.fixture(scope="module")
def shared() -> Iterator[Gateway]:
    with gateway() as served:
        yield served


def test_h6_workers_share_the_listening_socket_and_nothing_else(tmp_path: Path) -> None:
    """Workers are started anew, not forked: of all that is open they share the listening socket alone."""
    settings = {"OAICOMPAT_SERVER__WORKERS": "2"}
    with gateway_process("http://127.0.0.1:1", tmp_path, **settings) as served:
        pid = served.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        every = [opened(each) for each in (str(pid), *children)]
        assert len(every) == 3
        for one, other in itertools.combinations(every, 2):
            assert len(one & other) == 1
        assert len(set.intersection(*every)) == 1


def opened(pid: str) -> set[str]:
    """Return the sockets and pipes that a process has open, those of its input and output left out."""
    files = [file for file in Path(f"/proc/{pid}/fd").iterdir() if int(file.name) > 2]
    found = {os.readlink(file) for file in files if file.is_symlink()}
    return {name for name in found if name.startswith(("socket:", "pipe:"))}


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--port", "{taken}"], {}, "cannot listen on 127.0.0.1:{taken}"),
        (["--host", "192.0.2.1", "--port", "0"], {"API_KEY": "sk-x"}, "cannot listen on 192.0.2.1"),
        (["--host", "no such host"], {"API_KEY": "sk-x"}, "cannot listen on no such host"),
        (["--host", "0.0.0.0", "--auth-mode", "off"], {}, "auth.mode = 'off'"),
        ([], {"SERVER__GRACE": "0"}, "OAICOMPAT_SERVER__GRACE"),
        ([], {"SERVER__GRASE": "1"}, "OAICOMPAT_SERVER__GRASE"),
        (["--config", "{place}/none.toml"], {}, "no such file"),
        (["--config", "{place}"], {}, "{place}"),
        (["--config", "{place}/wrong.toml"], {}, "wrong.toml"),
        ([], {"CREDENTIALS": ""}, "no credentials"),
        ([], {"STATE__PATH": "/proc/none/state"}, "/proc/none"),
        ([], {"BASE_URL": "ftp://x"}, "upstream.base_url"),
    ],
)
def test_h7_a_start_that_cannot_be_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    taken: int,
    arguments: list[str],
    environment: dict[str, str],
    said: str,
) -> None:
    """A taken port, an address that is not ours, a wrong setting: exit status 2, one line, no traceback."""
    places = {"taken": taken, "place": tmp_path}
    (tmp_path / "wrong.toml").write_text("[server\nport = 1\n")
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"CREDENTIALS": "upstream-key"} | environment).items():
        monkeypatch.setenv(f"OAICOMPAT_{name}", value)
    assert main(["serve", *(each.format(**places) for each in arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said.format(**places) in printed.err
    assert "Traceback" not in printed.err
    assert printed.err.startswith("oaicompat: ")
    ways = 3 if said == "no credentials" else 0
    assert len(printed.err.splitlines()) == 1 + ways
