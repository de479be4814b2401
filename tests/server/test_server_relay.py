"""One request through the whole gateway: answers, headers, faults, retries, rotation, the client's leaving."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import pytest
from msgspec import structs
from tests.support.gateway import Gateway, gateway

from oaicompat_server.settings import (
    AnswerSettings,
    Config,
    HeaderSettings,
    ModelSettings,
    RequestSettings,
    ServerSettings,
    UpstreamSettings,
)
from oaicompat_server.simulator import Body, Close, Finish, Head, Wait

QUICK = UpstreamSettings(
    connect_timeout=1,
    first_byte_timeout=0.4,
    idle_timeout=0.4,
    total_timeout=1.5,
    total_timeout_stream=1.5,
    attempts=2,
)


class Reply:
    """A whole reply: status, headers (lower case), body, and for streams the payloads of its events."""

    def __init__(self, reply: http.client.HTTPResponse) -> None:
        self.status = reply.status
        self.headers = {name.lower(): value for name, value in reply.getheaders()}
        self.body = reply.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        lines = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    @property
    def text(self) -> str:
        chunks = [event for event in self.events if event != "[DONE]" and "choices" in event]
        return "".join(
            choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
        )


def body_of(text: str, stream: bool = False, **more: object) -> bytes:
    """Return a chat request's body."""
    message = {"role": "user", "content": text}
    return json.dumps({"model": "gpt-4o", "messages": [message], "stream": stream} | more).encode()


def ask(served: Gateway, text: str = "hello", stream: bool = False, **more: object) -> Reply:
    """Send one chat request and read the whole reply."""
    return send(served, body_of(text, stream, **more))


def send(served: Gateway, body: bytes) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    reply = Reply(connection.getresponse())
    connection.close()
    return reply


def generations(served: Gateway) -> list[Any]:
    """Return what the upstream was asked to generate."""
    return [record for record in served.simulator.requests if record.method == "POST"]


@contextmanager
def leaving(served: Gateway, body: bytes) -> Iterator[socket.socket]:
    """Send a request on a raw socket that the caller closes as it likes."""
    plug = socket.create_connection(("127.0.0.1", served.port), timeout=5)
    plug.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (served.port, len(body), body)
    )
    try:
        yield plug
    finally:
        plug.close()


def wait_until(true: Any, seconds: float = 3) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.005)
    return bool(true())


def assert_idle(served: Gateway) -> None:
    """Check that no request left anything behind."""
    nothing = {"active": 0, "waiting": 0, "leases": 0, "tasks": 0}
    assert wait_until(lambda: served.idle() == nothing, 1), served.idle()


@pytest.fixture(scope="module", params=["fast", "httpcore"])
def running(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with gateway(Config(upstream=structs.replace(QUICK, http=request.param))) as started:
        yield started
        assert_idle(started)


@pytest.fixture
def served(running: Gateway) -> Gateway:
    running.relay.pool.reset()
    return running


def test_plain_answer_and_its_headers(served: Gateway) -> None:
    reply = ask(served, "héllo", user="me")
    assert reply.status == 200
    assert reply.json["choices"][0]["message"]["content"] == "héllo"
    assert reply.json["model"] == "gpt-4o"
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-mapped-model"] == "gemini-2.5-flash"
    assert reply.headers["x-account-email"] == "first-key"
    assert reply.headers["x-oaicompat-notes"] == "user=dropped"
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["openai-version"] == "2020-10-01"
    assert reply.headers["openai-processing-ms"].isdigit()
    assert int(reply.headers["content-length"]) == len(reply.body)


def test_stream_and_its_headers(served: Gateway) -> None:
    reply = ask(served, "#script:long:5", stream=True)
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["x-mapped-model"] == "gemini-2.5-flash"
    assert "content-length" not in reply.headers
    assert reply.events[-1] == "[DONE]"
    assert reply.text


def test_nothing_of_the_upstreams_headers_and_nothing_of_the_clients_passes(
    served: Gateway,
) -> None:
    reply = ask(served, "#script:headers:20")
    assert not [
        name for name in reply.headers if name.startswith(("x-goog", "set-cookie", "alt-svc"))
    ]
    assert "cookie" not in generations(served)[-1].headers


def test_upstream_connection_is_reused(served: Gateway) -> None:
    ask(served)
    opened = served.simulator.connections_opened
    for _ in range(5):
        assert ask(served).status == 200
        assert ask(served, stream=True).status == 200
    assert served.simulator.connections_opened == opened


def test_headers_can_be_switched_off_and_labels_are_made_safe() -> None:
    config = Config(headers=HeaderSettings(account=False, notes=False))
    with gateway(config) as quiet:
        reply = ask(quiet, user="me")
        assert "x-account-email" not in reply.headers
        assert "x-oaicompat-notes" not in reply.headers


@pytest.mark.parametrize(
    "name", ["snow☃man", "a b", "x" * 400, "cr\r\nX-Evil: 1", "nul\0", "%0d%0a", "ünï"]
)
def test_no_model_name_breaks_a_header(served: Gateway, name: str) -> None:
    before = len(generations(served))
    reply = ask(served, model=name)
    assert reply.status == 404
    assert reply.error["code"] == "model_not_found"
    assert "x-evil" not in reply.headers
    shown = reply.headers["x-mapped-model"]
    assert len(shown) <= 256
    assert name.startswith(unquote(shown))
    assert len(generations(served)) == before


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("error:400", 400),
        ("html:404", 502),
        ("error:413", 413),
        ("redirect:302", 502),
        ("gzip:100", 502),
        ("stall-after:0", 504),
        ("reset-after:0", 502),
        ("close-after:0", 502),
        ("garbage", 502),
        ("half-close-after:0", 502),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_faults_before_the_first_frame_have_a_status(
    served: Gateway, script: str, status: int, stream: bool
) -> None:
    reply = ask(served, f"#script:{script}", stream)
    if script == "garbage" and stream:
        assert "error" in reply.events[-1]
        return
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert "127.0.0.1" not in reply.error["message"]
    assert reply.headers["x-account-email"] == "first-key"


@pytest.mark.parametrize(
    "script",
    [
        "cut-after:2",
        "close-after:2",
        "reset-after:2",
        "stall-after:2",
        "error-after:2",
        "framed-error-after:2",
    ],
)
def test_faults_after_the_first_frame_end_in_band_and_are_never_repeated(
    served: Gateway, script: str
) -> None:
    before = len(generations(served))
    reply = ask(served, f"#script:long:6 #script:{script}", stream=True)
    assert reply.status == 200
    assert "error" in reply.events[-1]
    assert "[DONE]" not in reply.events
    assert not [
        e for e in reply.events if any(c.get("finish_reason") for c in e.get("choices", ()))
    ]
    assert len(generations(served)) == before + 1


def test_a_limit_told_in_band_cools_the_credential(served: Gateway) -> None:
    told = ask(served, "#script:long:6 #script:error-after:2:429", stream=True)
    assert told.events[-1]["error"]["code"] == "rate_limit_exceeded"
    outlook = served.relay.pool.outlook(time.monotonic(), told.headers["x-mapped-model"])
    assert outlook.wait is not None
    assert 0 < outlook.wait <= 1
    assert outlook.reason is not None
    assert outlook.reason.cause == "rate"


@pytest.mark.parametrize(
    "script", ["cut-after:1", "wrong-length:50", "close-after:1", "reset-after:1"]
)
def test_a_cut_plain_answer_is_an_error(served: Gateway, script: str) -> None:
    reply = ask(served, f"#script:{script}")
    assert reply.status >= 500
    assert reply.error["message"]


def test_stalls_end_at_their_deadlines(served: Gateway) -> None:
    for script, stream in (("stall-after:2", True), ("drip:30", False)):
        started = time.monotonic()
        reply = ask(served, f"#script:long:8 #script:{script}", stream)
        assert time.monotonic() - started < 4.5
        assert reply.status in (200, 504)


def test_connection_closed_while_idle_costs_no_attempt() -> None:
    with gateway(Config(upstream=UpstreamSettings(attempts=1))) as running:
        for _ in range(20):
            assert ask(running, "#script:idle-close:1").status == 200


RETRIED = ["408", "500", "502", "503", "504"]


@pytest.mark.parametrize("status", RETRIED)
@pytest.mark.parametrize("stream", [False, True])
def test_faults_that_pass_are_tried_again_and_overload_elsewhere(
    status: str, stream: bool, pair: Gateway
) -> None:
    pair.simulator.behave("one", [status])
    pair.simulator.behave("two", ["ok*"])
    assert ask(pair, stream=stream).status == 200
    tried = [record.key for record in generations(pair)]
    assert tried == (["one", "two"] if status == "503" else ["one", "one"])


@pytest.fixture
def pair() -> Iterator[Gateway]:
    with gateway(Config(upstream=QUICK), keys=("one", "two")) as running:
        yield running
        assert_idle(running)


def test_rate_limit_rotates_and_then_spares_the_credential(pair: Gateway) -> None:
    pair.simulator.behave("one", ["429:rate:60*"])
    for _ in range(6):
        reply = ask(pair)
        assert reply.status == 200
        assert reply.headers["x-account-email"] == "two"
    assert [record.key for record in generations(pair)].count("one") == 1
    assert ask(pair, model="gemini-2.5-pro").status == 200


def test_all_credentials_limited_is_429_with_the_earliest_return(pair: Gateway) -> None:
    pair.simulator.behave("one", ["429:rate:60*"])
    pair.simulator.behave("two", ["429:rate:30*"])
    for _ in range(5):
        reply = ask(pair, stream=True)
        assert reply.status == 429
        assert 28 <= int(reply.headers["retry-after"]) <= 31
        assert "try again in" in reply.error["message"]
    assert len(generations(pair)) == 2


def test_invalid_credential_is_out_and_the_other_serves(pair: Gateway) -> None:
    pair.simulator.behave("one", ["400:key*"])
    for _ in range(6):
        assert ask(pair).status == 200
    assert [record.key for record in generations(pair)].count("one") == 1


def test_all_credentials_invalid_tells_clients_to_stop() -> None:
    with gateway(keys=("invalid-one", "invalid-two")) as running:
        for _ in range(2):
            reply = ask(running)
            assert (reply.status, reply.headers["x-should-retry"]) == (503, "false")
        assert len(generations(running)) == 2
        assert "invalid-one" not in reply.body.decode()


@pytest.mark.parametrize(("status", "attempts"), [("400", 1), ("413", 1), ("500", 2), ("503", 2)])
def test_attempts_are_bounded(status: str, attempts: int, pair: Gateway) -> None:
    for key in ("one", "two"):
        pair.simulator.behave(key, [f"{status}*"])
    reply = ask(pair)
    assert reply.status == (503 if attempts > 1 else int(status))
    assert len(generations(pair)) == attempts
    assert ("retry-after" in reply.headers) == (attempts > 1)


def test_configured_attempts_are_kept() -> None:
    with gateway(Config(upstream=UpstreamSettings(attempts=1))) as running:
        running.simulator.behave("first-key", ["500*"])
        assert ask(running).status == 503
        assert len(generations(running)) == 1


def test_empty_stream_is_tried_again_before_anything_is_sent(served: Gateway) -> None:
    served.simulator.behave("first-key", ["cut-after:0"])
    assert ask(served, stream=True).text == "hello"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("script", ["stall-after:0", "stall-after:1", "endless"])
def test_client_that_leaves_takes_the_upstream_call_along(
    patient: Gateway, stream: bool, reset: bool, script: str
) -> None:
    before = len(generations(patient))
    body = body_of(f"#script:long:3 #script:{script} #script:framing:chunked", stream)
    with leaving(patient, body) as plug:
        assert wait_until(lambda: len(generations(patient)) > before)
        time.sleep(0.05)
        if reset:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left = time.monotonic()
        plug.close()
    record = generations(patient)[before]
    assert record.wait(2) == "client left"
    assert record.ended_at - left < 0.5
    assert_idle(patient)
    assert patient.relay.upstream.idle_count() == 0


@pytest.fixture(scope="module", params=["fast", "httpcore"])
def patient(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with gateway(Config(upstream=UpstreamSettings(http=request.param))) as running:
        yield running


def test_client_that_leaves_in_the_queue_is_forgotten() -> None:
    config = Config(server=ServerSettings(max_in_flight=1, queue_wait=5))
    with gateway(config) as running:
        with leaving(running, body_of("#script:stall-after:0")) as first:
            assert wait_until(lambda: generations(running))
            with leaving(running, body_of("gone")):
                assert wait_until(lambda: running.idle()["waiting"] == 1)
            assert wait_until(lambda: running.idle()["waiting"] == 0)
            first.close()
        assert ask(running).status == 200
        assert len(generations(running)) == 2
        assert_idle(running)


def test_client_that_leaves_during_a_backoff_stops_the_attempts() -> None:
    with gateway() as running:
        running.simulator.behave("first-key", ["429:rate:3", "ok"])
        with leaving(running, body_of("hello")):
            assert wait_until(lambda: generations(running))
            time.sleep(0.1)
        assert_idle(running)
        assert len(generations(running)) == 1


def test_full_house_is_503_at_once_and_a_full_queue_too() -> None:
    config = Config(server=ServerSettings(max_in_flight=1, queue=1, queue_wait=0.8))
    with gateway(config) as running, leaving(running, body_of("#script:stall-after:0")):
        assert wait_until(lambda: generations(running))
        replies: list[Reply] = []
        waited: list[float] = []

        def refused() -> None:
            started = time.monotonic()
            replies.append(ask(running))
            waited.append(time.monotonic() - started)

        threads = [threading.Thread(target=refused) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [reply.status for reply in replies] == [503] * 4
        assert [seconds > 0.7 for seconds in sorted(waited)] == [False, False, False, True]
        assert max(waited) < 3
        assert replies[0].headers["retry-after"] == "1"
        assert replies[0].error["code"] == "server_is_overloaded"


def test_silent_stream_gets_comments() -> None:
    with gateway(Config(answer=AnswerSettings(keepalive=0.1))) as running:
        reply = ask(running, "#script:long:3 #script:pace:350", stream=True)
        assert reply.status == 200
        assert reply.body.count(b"\n: ") >= 2
        assert reply.events[-1] == "[DONE]"


def test_frames_of_one_upstream_read_leave_in_one_write(served: Gateway) -> None:
    event = b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"x"}]},"index":0}]}\r\n\r\n'
    last = event.replace(b'"index":0', b'"finishReason":"STOP","index":0')
    head = Head(content_type="text/event-stream", framing="chunked")
    served.simulator.enqueue([head, Body(event * 20), Wait(0.2), Body(last), Finish()])
    with leaving(served, body_of("hello", stream=True)) as plug:
        data = b""
        while b"[DONE]" not in data:
            data += plug.recv(1 << 20)
    chunks = data.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2]
    assert chunks[0].count(b'"content":"x"') == 20
    assert all(chunk.endswith(b"\n\n") for chunk in chunks if chunk)


def test_bug_in_one_request_is_opaque_and_hurts_nobody_else(
    served: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("sentinel detail")

    with monkeypatch.context() as patch:
        patch.setattr(served.relay.upstream, "open", broken)
        reply = ask(served)
    assert reply.status == 500
    assert "sentinel" not in reply.body.decode()
    assert reply.headers["x-request-id"] in reply.error["message"]
    assert "sentinel detail" in caplog.text
    assert ask(served).status == 200
    assert_idle(served)


def test_strict_mode_refuses_what_would_be_dropped() -> None:
    with gateway(Config(request=RequestSettings(strict=True))) as running:
        assert ask(running).status == 200
        reply = ask(running, logit_bias={"50256": -100})
        assert reply.status == 400
        assert reply.error["param"]


def test_aliases_of_the_settings_map_models() -> None:
    aliases = {"gpt-4o": "gemini-2.5-pro", "gpt-*": "gemini-2.5-flash-lite"}
    with gateway(Config(models=ModelSettings(aliases=aliases))) as running:
        assert ask(running).headers["x-mapped-model"] == "gemini-2.5-pro"
        assert ask(running, model="gpt-x").headers["x-mapped-model"] == "gemini-2.5-flash-lite"


def test_body_of_20_mb_succeeds(served: Gateway) -> None:
    url = "data:image/png;base64,iVBORw0KGgo" + "A" * 20_000_001
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url}}]
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": parts}]})
    reply = send(served, body.encode())
    assert reply.status == 200, reply.body
    sent = generations(served)[-1]
    assert sent.size > 20_000_000


def test_pooled_connections_do_not_outlive_a_half_read_answer(served: Gateway) -> None:
    served.simulator.enqueue(
        [Head(status=500, length=200_000), Body(b"x" * 200_000), Finish(), Close()]
    )
    assert ask(served).status == 200


@pytest.mark.parametrize("script", ["long:3 #script:cut-after:1", "long:3 #script:error-after:1"])
def test_nothing_follows_the_error_of_one_of_several_calls(served: Gateway, script: str) -> None:
    for _ in range(5):
        served.relay.pool.reset()
        asked = {"model": "gemini-3.1-pro-preview", "n": 6}
        reply = ask(served, f"#script:{script}", stream=True, **asked)
        if reply.status == 200:
            wrong = [number for number, event in enumerate(reply.events) if "error" in event]
            assert wrong == [len(reply.events) - 1]


def test_the_calls_of_one_request_do_not_all_run_at_once() -> None:
    with gateway() as served:
        reply = ask(served, "#script:slow:60", model="gemini-3.1-pro-preview", n=20)
        assert reply.status == 200
        assert len(reply.json["choices"]) == 20
        calls = generations(served)
        assert wait_until(lambda: all(call.ended_at for call in calls), 2)
    open_together = max(
        sum(other.arrived <= call.arrived < (other.ended_at or 0) for other in calls)
        for call in calls
    )
    # The simulator notes an end a moment after the gateway has the last byte and begins the next call.
    assert 2 <= open_together <= 14
