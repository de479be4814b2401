"""Rows D of the fault matrix: more work than there is room for, and bodies made to cost, over real sockets.

Loads are scaled down: a few slots take the place of many, kilobytes that of megabytes.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support import raw
from tests.support.asking import Reply, ask
from tests.support.gateway import Gateway, gateway
from tests.support.processes import KEY, gateway_process
from websockets.sync.client import connect

from oaicompat.exchange import Exchange
from oaicompat_server import relay
from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config, ServerSettings, StateSettings
from oaicompat_server.simulator import running

Json = dict[str, Any]

MEGA = 1_000_000
SMALL = ServerSettings(body_limit=MEGA, body_budget=1_500_000)
KEYS = AuthSettings(mode="strict", keys=(Secret("sk-many"), Secret("sk-few")))

paths = pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway(Config(server=SMALL)) as running_gateway:
        yield running_gateway


def timed(served: Gateway, path: str, body: object, **more: str) -> tuple[Reply, float]:
    began = time.monotonic()
    reply = ask(served, "POST", path, body, **more)
    return reply, time.monotonic() - began


def refused(reply: Reply, status: int, code: str | None) -> None:
    assert (reply.status, reply.headers["connection"]) == (status, "close")
    assert reply.error["code"] == code


def test_d1_more_than_there_are_slots_is_refused_and_the_rest_is_served() -> None:
    """Offered three times what it can do, the gateway does what it can and refuses the rest with 503 soon."""
    server = ServerSettings(max_in_flight=5, queue=5, queue_wait=0.2)
    with gateway(Config(server=server)) as served, raw.left_idle(served):
        body = raw.words(raw.CHAT, "#script:slow:100 x")
        until = time.monotonic() + 2

        def load(_: int) -> list[tuple[Reply, float]]:
            seen = []
            while time.monotonic() < until:
                seen.append(timed(served, raw.CHAT, body))
                if seen[-1][0].status == 503:
                    time.sleep(0.1)
            return seen

        with ThreadPoolExecutor(20) as pool:
            seen = [each for some in pool.map(load, range(20)) for each in some]
        refusals = [(reply, seconds) for reply, seconds in seen if reply.status == 503]
        assert {reply.status for reply, _ in seen} == {200, 503}
        assert len(seen) - len(refusals) >= 0.6 * 2 / 0.1 * 5
        assert all(reply.headers["retry-after"] == "1" for reply, _ in refusals)
        assert {reply.error["code"] for reply, _ in refusals} == {"server_is_overloaded"}
        slowest = sorted(seconds for _, seconds in refusals)
        assert slowest[len(slowest) // 2] < 0.2 + 0.3


def test_d2_a_client_that_floods_does_not_starve_the_others() -> None:
    """While one key floods the gateway, the requests of another are served at once, and none is refused."""
    server = ServerSettings(max_in_flight=4, queue=8, queue_wait=2)
    with gateway(Config(server=server, auth=KEYS)) as served, raw.left_idle(served):
        body = raw.words(raw.CHAT, "#script:slow:60 x")
        over = threading.Event()

        def flood(_: int) -> None:
            while not over.is_set():
                if ask(served, "POST", raw.CHAT, body, key="sk-many").status == 503:
                    time.sleep(0.02)

        with ThreadPoolExecutor(24) as pool:
            floods = [pool.submit(flood, each) for each in range(24)]
            try:
                raw.until(lambda: served.idle()["waiting"] == 8, 5)
                few = [timed(served, raw.CHAT, body, key="sk-few") for _ in range(8)]
            finally:
                over.set()
        assert all(each.exception() is None for each in floods)
        assert {reply.status for reply, _ in few} == {200}
        assert sorted(seconds for _, seconds in few)[4] < 0.06 * 4


def test_d2_a_slot_that_is_waited_for_goes_to_whoever_has_fewest() -> None:
    """A slot that becomes free goes to the key with the least work, however long the others wait."""
    server = ServerSettings(max_in_flight=2, queue=8, queue_wait=5)
    with gateway(Config(server=server, auth=KEYS)) as served, raw.left_idle(served):

        def send(open_ones: contextlib.ExitStack, key: str, text: str) -> Any:
            plug = open_ones.enter_context(raw.connect(served.port))
            words = raw.words(raw.CHAT, f"#script:slow:300 {text}")
            plug.sendall(raw.request(served.port, raw.CHAT, words, f"authorization: Bearer {key}"))
            return plug

        with contextlib.ExitStack() as open_ones:
            many = [send(open_ones, "sk-many", "many") for _ in range(6)]
            raw.until(lambda: served.idle()["waiting"] == 4)
            few = send(open_ones, "sk-few", "few")
            assert raw.answer(few)[0] == 200
            texts = [each.body["contents"][0]["parts"][0]["text"] for each in raw.calls(served)]
            assert texts.index("#script:slow:300 few") == 2
            for plug in many:
                assert raw.answer(plug)[0] == 200


def filled(size: int) -> bytes:
    """Return a body of exactly so many bytes that is answered shortly."""
    start = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"metadata":{"x":"'
    return start + b"x" * (size - len(start) - 3) + b'"}}'


def test_d3_a_body_at_the_limit_is_taken(served: Gateway) -> None:
    """A body as long as the limit is read whole, however it comes."""
    with raw.left_idle(served):
        assert ask(served, "POST", raw.CHAT, filled(MEGA)).status == 200
        with raw.connect(served.port) as plug:
            plug.sendall(raw.head(served.port, raw.CHAT, None))
            plug.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (MEGA, filled(MEGA)))
            assert raw.answer(plug)[0] == 200


@paths
@pytest.mark.parametrize("how", ["declared", "declared and sent", "chunked without end"])
def test_d3_a_body_above_the_limit_is_refused(served: Gateway, path: str, how: str) -> None:
    """A body above the limit gets 413 and a close: as soon as it says so, or as soon as it is."""
    with raw.left_idle(served), raw.connect(served.port) as plug:
        if how == "chunked without end":
            plug.sendall(raw.head(served.port, path, None))
            with contextlib.suppress(ConnectionError):
                for _ in range(MEGA // 10_000 + 1):
                    plug.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        else:
            plug.sendall(raw.head(served.port, path, MEGA + 1))
            if how == "declared and sent":
                plug.sendall(b" " * 100_000)
        status, headers, body = raw.answer(plug)
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body)["error"]["code"] == "request_too_large"
        assert served.relay.bodies.used == 0


def test_d3_a_length_that_lies_is_refused(served: Gateway) -> None:
    """A body with two lengths is a 400, so that nobody can read it in two ways."""
    with raw.connect(served.port) as plug:
        lying = raw.head(served.port, raw.CHAT, None, "content-length: 5")
        plug.sendall(lying + b"5\r\nhello\r\n0\r\n\r\n")
        assert raw.answer(plug)[0] == 400


def test_d4_bodies_together_have_a_budget(served: Gateway) -> None:
    """Bodies in memory at once have a budget: one more is a 503, and small ones are served meanwhile."""
    with raw.left_idle(served), raw.connect(served.port) as first:
        first.sendall(raw.head(served.port, raw.CHAT, MEGA) + b" ")
        raw.until(lambda: served.relay.bodies.used == MEGA)
        refused_now = ask(served, "POST", raw.CHAT, filled(600_000))
        refused(refused_now, 503, "server_is_overloaded")
        assert refused_now.headers["retry-after"] == "1"
        with raw.connect(served.port) as growing:
            growing.sendall(raw.head(served.port, raw.CHAT, None))
            with contextlib.suppress(ConnectionError):
                for _ in range(60):
                    growing.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
            assert raw.answer(growing)[0] == 503
        assert served.relay.bodies.used == MEGA
        for path in (raw.CHAT, raw.RESPONSES):
            assert ask(served, "POST", path, raw.words(path, "hello")).status == 200
        first.close()
        raw.until(lambda: served.relay.bodies.used == 0)
        assert ask(served, "POST", raw.CHAT, filled(600_000)).status == 200


def test_d4_a_body_counts_until_its_answer_has_ended(served: Gateway) -> None:
    """A body counts as long as its request is worked on, and no longer when its client leaves."""
    with raw.left_idle(served), raw.connect(served.port) as plug:
        words = raw.words(raw.CHAT, "#script:stall-after:0 " + "x" * 200_000)
        sent = raw.request(served.port, raw.CHAT, words)
        raw.asked(served, plug, sent)
        assert 200_000 < served.relay.bodies.used < 210_000
        plug.close()
        raw.until(lambda: served.relay.bodies.used == 0, 0.5)


def test_d4_a_body_is_counted_while_its_response_is_made_in_the_background(
    served: Gateway,
) -> None:
    """The body of a response in the background counts once, until that has ended, followed or not."""
    with raw.left_idle(served), raw.connect(served.port) as plug, raw.connect(served.port) as more:
        text = "#script:stall-after:1 #script:long:3 " + "x" * 200_000
        body = {"model": "gpt-4o", "input": text, "background": True}
        raw.asked(served, plug, raw.request(served.port, raw.RESPONSES, {**body, "stream": True}))
        assert 200_000 < served.relay.bodies.used < 210_000
        raw.asked(served, more, raw.request(served.port, raw.RESPONSES, body))
        status, _, data = raw.answer(more)
        assert (status, served.relay.bodies.used > 400_000) == (200, True)
        cancel = f"{raw.RESPONSES}/{json.loads(data)['id']}/cancel"
        more.sendall(raw.request(served.port, cancel, {}))
        assert raw.answer(more)[0] == 200
        raw.until(lambda: 200_000 < served.relay.bodies.used < 210_000)
        first = re.search(rb'"id":"(resp_[^"]+)"', raw.read(plug, b"response.in_progress"))
        assert first is not None
        cancel = f"{raw.RESPONSES}/{first[1].decode()}/cancel"
        more.sendall(raw.request(served.port, cancel, {}))
        assert raw.answer(more)[0] == 200
        raw.until(lambda: served.relay.bodies.used == 0)


def test_d4_turns_over_websocket_are_counted_too(served: Gateway) -> None:
    """Turns over WebSocket count as bodies do, also while they wait: one too many is told a 503."""

    def turn(text: str, lane: str) -> str:
        fields = {"model": "gpt-4o", "input": text, "store": False, "stream_id": lane}
        return json.dumps({"type": "response.create", **fields})

    with raw.left_idle(served):
        with connect(f"ws://127.0.0.1:{served.port}/v1/responses") as client:
            client.send(turn("#script:stall-after:0 " + "x" * MEGA, "a"))
            client.send(turn("queued behind it " + "x" * 100_000, "a"))
            raw.until(lambda: served.relay.bodies.used > MEGA + 100_000)
            client.send(turn("x" * MEGA, "b"))
            told = json.loads(client.recv(5))
            assert (told["type"], told["status"]) == ("error", 503)
            assert told["error"]["code"] == "server_is_overloaded"
            client.send(turn("small", "c"))
            while json.loads(client.recv(5))["type"] != "response.completed":
                pass
        raw.until(lambda: served.relay.bodies.used == 0)


def test_d4_what_a_request_goes_on_from_counts_like_its_body() -> None:
    """What a request goes on from may be as long as a body, and counts like one until it is answered."""
    server = ServerSettings(body_limit=500_000)
    with gateway(Config(server=server)) as served, raw.left_idle(served):

        def told(path: str, **more: object) -> Reply:
            body = {"model": "gpt-4o", "input": "x" * 150_000, **more}
            return ask(served, "POST", path, body)

        first = told(raw.RESPONSES).data["id"]
        body = {**raw.words(raw.RESPONSES, "#script:stall-after:0"), "previous_response_id": first}
        with raw.connect(served.port) as plug:
            raw.asked(served, plug, raw.request(served.port, raw.RESPONSES, body))
            assert 300_000 < served.relay.bodies.used < 310_000
        raw.until(lambda: served.relay.bodies.used == 0)
        second = told(raw.RESPONSES, previous_response_id=first)
        assert second.status == 200
        refused = told(raw.RESPONSES, previous_response_id=second.data["id"])
        assert (refused.status, refused.error["code"]) == (400, "context_length_exceeded")
        conversation = told("/v1/conversations").data["id"]
        answers = [told(raw.RESPONSES, conversation=conversation) for _ in range(3)]
        assert [each.status for each in answers] == [200, 200, 400]


def test_d4_what_a_websocket_remembers_is_bounded() -> None:
    """A WebSocket remembers no more than a body may have; the lane that was quiet longest is forgotten."""

    def turn(lane: str, **more: object) -> dict[str, Any]:
        fields = {"model": "gpt-4o", "store": False, "generate": False, "stream_id": lane, **more}
        client.send(json.dumps({"type": "response.create", **fields}))
        while True:
            event: dict[str, Any] = json.loads(client.recv(5))
            if event["type"] in ("error", "response.completed"):
                return event

    with (
        gateway(Config(server=ServerSettings(body_limit=500_000))) as served,
        raw.left_idle(served),
        connect(f"ws://127.0.0.1:{served.port}/v1/responses") as client,
    ):
        first = {each: turn(each, input="x" * 200_000)["response"]["id"] for each in ("a", "b")}
        assert turn("b", input="y", previous_response_id=first["b"])["type"] != "error"
        grown = turn("b", input="x" * 200_000, previous_response_id=first["b"])
        assert grown["error"]["code"] == "previous_response_not_found"
        assert turn("c", input="x" * 400_000)["type"] != "error"
        gone = turn("a", input="y", previous_response_id=first["a"])
        assert gone["error"]["code"] == "previous_response_not_found"


def test_d5_an_upload_without_a_key_is_not_read() -> None:
    """Without a valid key a body is refused before it is read: 401 and a close."""
    with (
        gateway(Config(auth=KEYS)) as served,
        raw.left_idle(served),
        raw.connect(served.port) as plug,
    ):
        sent = 0
        piece = b" " * 65536
        began = time.monotonic()
        plug.sendall(raw.head(served.port, raw.CHAT, 100 * MEGA, "authorization: Bearer sk-wrong"))
        with contextlib.suppress(ConnectionError):
            while sent < 100 * MEGA:
                plug.sendall(piece)
                sent += len(piece)
        assert sent < 20 * MEGA
        assert time.monotonic() - began < 2
        with raw.connect(served.port) as again:
            again.sendall(raw.head(served.port, raw.CHAT, 100 * MEGA))
            status, headers, _ = raw.answer(again)
            assert (status, headers["connection"]) == (401, "close")
        assert served.relay.bodies.used == 0
        assert raw.calls(served) == []


def test_d6_a_big_body_does_not_hold_up_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Big bodies are decoded beside the event loop, two at a time: small requests are served meanwhile."""
    hold = threading.Event()
    decoding: list[int] = []

    def slow(dialect: str, body: bytes, *more: Any) -> Exchange:
        if len(body) > 4 * MEGA:
            decoding.append(threading.get_ident())
            hold.wait(10)
        return Exchange(dialect, body, *more)

    monkeypatch.setattr(relay, "Exchange", slow)
    with gateway() as served, raw.left_idle(served), contextlib.ExitStack() as open_ones:
        big = raw.request(served.port, raw.CHAT, raw.words(raw.CHAT, "x" * 5 * MEGA))
        plugs = [open_ones.enter_context(raw.connect(served.port)) for _ in range(3)]
        open_ones.callback(hold.set)
        for plug in plugs:
            plug.sendall(big)
        raw.until(lambda: len(decoding) == 2, 5)
        for path in (raw.CHAT, raw.RESPONSES):
            reply, seconds = timed(served, path, raw.words(path, "x"))
            assert reply.status == 200
            assert seconds < 0.5
        assert len(decoding) == 2
        hold.set()
        for plug in plugs:
            assert raw.answer(plug)[0] == 200


def test_d7_a_body_in_tiny_chunks_is_refused(served: Gateway) -> None:
    """A body in one-byte chunks is refused after a thousand of them: 400 within a second."""
    with raw.left_idle(served), raw.connect(served.port) as plug:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            plug.sendall(raw.head(served.port, raw.CHAT, None) + b"1\r\n \r\n" * 2000)
        assert raw.read(plug, b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        with contextlib.suppress(ConnectionError):
            plug.sendall(b"1\r\n \r\n" * 200_000)
        assert time.monotonic() - began < 1.5


def nested(levels: int, start: str, end: str, core: str = "1") -> str:
    return start * levels + core + end * levels


def deep_bodies(path: str, levels: int) -> list[str]:
    """Return bodies that are deep in one place each."""
    plain = json.dumps(raw.words(path, "hello"))[:-1]
    schema = nested(levels, '{"type":"object","properties":{"a":', "}}", '{"type":"string"}')
    function = f'{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}'
    call = '{"id":"c","type":"function","function":{"name":"f","arguments":%s}}'
    arguments = json.dumps(nested(levels, '{"a":', "}"))
    found = [
        nested(levels, "[", "]"),
        f'{plain},"metadata":{nested(levels, "[", "]")}}}',
        f'{plain},"unknown":{nested(levels, chr(123) + chr(34) + "a" + chr(34) + ":", "}")}}}',
    ]
    if path == raw.CHAT:
        user = '{"role":"user","content":"hi"}'
        called = f'{{"role":"assistant","tool_calls":[{call % arguments}]}}'
        done = '{"role":"tool","tool_call_id":"c","content":"x"}'
        found += [
            f'{plain},"tools":[{function}]}}',
            f'{{"model":"gpt-4o","messages":[{user},{called},{done}]}}',
        ]
    else:
        item = f'{{"type":"function_call","call_id":"c","name":"f","arguments":{arguments}}}'
        done = '{"type":"function_call_output","call_id":"c","output":"x"}'
        found += [
            f'{plain},"tools":[{{"type":"function","name":"f","parameters":{schema}}}]}}',
            f'{{"model":"gpt-4o","input":[{{"role":"user","content":"hi"}},{item},{done}]}}',
        ]
    return found


@paths
@pytest.mark.parametrize("levels", [100, 1000, 10_000])
def test_d8_depth_is_refused_or_served(served: Gateway, path: str, levels: int) -> None:
    """JSON of any depth, in the body, in a schema or in arguments, is served or a 400, never a 500."""
    with raw.left_idle(served):
        for body in deep_bodies(path, levels):
            reply, seconds = timed(served, path, body.encode())
            assert reply.status in (200, 400), (body[:200], reply.content[:300])
            assert seconds < 1


VALUES = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000, "-" + "9" * 400, "9" * 19, "1e400",
    "0x10", "01", "1.", ".5", "+1", "null", "true", "[]", "{}", '""', '"\\ud800"', '"\\udc00\\ud800"',
    '"\\u0000"', '"\x00"', '"\x7f"', '"\\x41"', "'single'", '"\ufeff"', '"' + "x" * 300_000 + '"',
    "[[[]]]", '{"a":1,"a":2}', "[1,]", '{"a":1,}', "/* c */1", "1 // c", "undefined", "True", "None",
    "-0", "1E-400", "[null]", '"\u2028"', '"\U0001f600"', "1 2", "{", "]", '"', "",
)  # fmt: skip
PLACES = (
    "model",
    "stream",
    "temperature",
    "max_output_tokens",
    "stop",
    "user",
    "metadata",
    "{whole}",
)


@paths
def test_d11_strange_json_is_refused_or_served(served: Gateway, path: str) -> None:
    """Numbers, texts and spellings that JSON or Gemini does not know are a 400 or served, never a 500."""
    seen: set[int] = set()
    plain = raw.words(path, "hello")
    with raw.left_idle(served), contextlib.ExitStack() as open_ones:
        plug = open_ones.enter_context(raw.connect(served.port))
        for place in PLACES:
            rest = json.dumps({name: each for name, each in plain.items() if name != place})[1:]
            for value in VALUES:
                body = value if place == "{whole}" else f'{{"{place}":{value},{rest}'
                for start in (b"", b"\xef\xbb\xbf") if value == "1." else (b"",):
                    sent = start + body.encode("utf-8", "surrogatepass")
                    plug.sendall(raw.request(served.port, path, sent, "accept: */*"))
                    status, headers, content = answered(plug)
                    assert status in (200, 400, 404), (body[:100], content[:300])
                    seen.add(status)
                    if headers.get("connection") == "close":
                        plug = open_ones.enter_context(raw.connect(served.port))
    assert seen >= {200, 400}


def answered(plug: Any) -> tuple[int, dict[str, str], bytes]:
    """Read one answer of either kind, whole or streamed."""
    data = raw.read(plug, b"\r\n\r\n")
    top, _, body = data.partition(b"\r\n\r\n")
    names = dict(line.split(": ", 1) for line in top.decode("latin-1").split("\r\n")[1:])
    if "transfer-encoding" in names:
        while not body.endswith(b"0\r\n\r\n"):
            body += plug.recv(65536)
    while len(body) < int(names.get("content-length", 0)):
        body += plug.recv(65536)
    return int(top.split(b" ")[1]), names, body


@paths
def test_d11_what_is_not_text_is_refused(served: Gateway, path: str) -> None:
    """Bytes that are not UTF-8 are a 400 in every place."""
    for bad in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82"):
        text = json.dumps(raw.words(path, "PLACE")).encode().replace(b"PLACE", bad)
        reply = ask(served, "POST", path, text)
        assert reply.status == 400
        assert reply.error["type"] == "invalid_request_error"


def test_d12_without_descriptors_it_recovers(tmp_path: Path) -> None:
    """A gateway that has run out of descriptors serves again when they are back, and its log stays small."""
    with (
        running(any_model=True) as upstream,
        gateway_process(upstream.url, tmp_path, 40) as served,
    ):
        with contextlib.ExitStack() as crowd:
            words = raw.words(raw.CHAT, "#script:long:30 #script:pace:50", stream=True)
            sent = raw.request(served.port, raw.CHAT, words, f"authorization: Bearer {KEY}")
            for _ in range(100):
                plug = crowd.enter_context(raw.connect(served.port))
                with contextlib.suppress(ConnectionError):
                    plug.sendall(sent)
            time.sleep(0.5)
        assert raw.until(lambda: serves(served.port), 3) < 3
        assert served.log.stat().st_size < 100_000


def serves(port: int) -> bool:
    with contextlib.suppress(OSError, IndexError), raw.connect(port) as plug:
        words = raw.words(raw.CHAT, "hello")
        plug.sendall(raw.request(port, raw.CHAT, words, f"authorization: Bearer {KEY}"))
        return raw.answer(plug)[0] == 200
    return False


def test_d14_what_is_stored_is_bounded() -> None:
    """Of responses that are stored the least recently used are forgotten above the bound, and no others."""
    state = StateSettings(store="memory", max_bytes=1_000_000)
    with gateway(Config(state=state)) as served, raw.left_idle(served):
        made: list[str] = []
        for number in range(60):
            body = {"model": "gpt-4o", "input": f"{number} " + "x" * 5000}
            made.append(ask(served, "POST", raw.RESPONSES, body).data["id"])
        statuses = [ask(served, "GET", f"{raw.RESPONSES}/{each}").status for each in made]
        assert statuses == sorted(statuses, reverse=True)
        assert 5 < statuses.count(200) < 50


@paths
def test_d15_a_compressed_body_is_refused_unread(served: Gateway, path: str) -> None:
    """A body with a content coding gets 415 and is not inflated, whatever it would become."""
    bomb = gzip.compress(b" " * 50 * MEGA, 1)
    for coding in ("gzip", "deflate", "br", "zstd", "identity, gzip", "x-unknown"):
        reply, seconds = timed(served, path, bomb, content_encoding=coding)
        assert (reply.status, reply.error["type"]) == (415, "invalid_request_error")
        assert seconds < 1
    body = json.dumps(raw.words(path, "hello")).encode()
    assert ask(served, "POST", path, body, content_encoding="identity").status == 200
