"""Responses over WebSocket, with a real client over real sockets.

Tests named after rows of the public compliance suite begin with `test_row_`.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpcore
import pytest
from openai import OpenAI
from tests.support.gateway import Gateway, gateway, serving
from tests.support.responses_client import findings
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from oaicompat_server import websocket
from oaicompat_server.auth import App
from oaicompat_server.limits import Limits
from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config, ServerSettings
from oaicompat_server.upgraded import DRAIN

Json = dict[str, Any]
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


class Client:
    """One connection; `turn` sends a `response.create` and reads to its end."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": "response.create", "model": "gpt-4o", **fields}))

    def event(self) -> Json:
        event: Json = json.loads(self.socket.recv(10))
        return event

    def rest(self) -> list[Json]:
        events = [self.event()]
        while events[-1]["type"] not in TERMINAL and not is_error(events[-1]):
            events.append(self.event())
        return events

    def turn(self, **fields: Any) -> list[Json]:
        self.send(**fields)
        return self.rest()

    def response(self, **fields: Any) -> Json:
        last = self.turn(**fields)[-1]
        assert last["type"] == "response.completed", last
        response: Json = last["response"]
        return response

    def error(self, **fields: Any) -> Json:
        """Return the error a turn is refused with, before any event of a response."""
        (event,) = self.turn(**fields)
        assert is_error(event)
        error: Json = event["error"]
        return error


def is_error(event: Json) -> bool:
    return event["type"] == "error" and "status" in event


@contextmanager
def connected(served: Gateway, path: str = "/v1/responses", **headers: str) -> Iterator[Client]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with connect(
        f"ws://127.0.0.1:{served.port}{path}", additional_headers=named, max_size=None
    ) as socket:
        yield Client(socket)


def said(served: Gateway) -> list[str]:
    body = served.simulator.requests[-1].body
    return [part.get("text", "") for content in body["contents"] for part in content["parts"]]


def idle(served: Gateway) -> bool:
    for _ in range(100):
        found = served.idle()
        if found["leases"] == found["active"] == 0:
            return True
        time.sleep(0.02)
    return False


def refused(served: Gateway, path: str, **headers: str) -> tuple[int, Json]:
    with pytest.raises(InvalidStatus) as caught, connected(served, path, **headers):
        pass
    response = caught.value.response
    assert response.body is not None
    body: Json = json.loads(response.body)
    return response.status_code, body


def test_row_websocket_response(served: Gateway) -> None:
    with connected(served) as client:
        events = client.turn(input=[{"role": "user", "content": "Say hello."}])
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    stream = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
    assert findings("response-stream", f"{stream}data: [DONE]\n\n".encode()) == []


def test_row_websocket_sequential_responses(served: Gateway) -> None:
    with connected(served) as client:
        first = client.response(input="one", store=False)
        second = client.response(input="two", store=False)
    assert first["id"] != second["id"]


def test_row_websocket_continuation(served: Gateway) -> None:
    with connected(served) as client:
        first = client.response(input="My dog is Rex.", store=False)
        second = client.response(input="Who?", store=False, previous_response_id=first["id"])
        client.response(input="Sure?", store=False, previous_response_id=second["id"])
    assert said(served)[0] == "My dog is Rex."
    assert len(said(served)) == 5


def test_row_websocket_reconnect_store_false_recovery(served: Gateway) -> None:
    with connected(served) as client:
        first = client.response(input="one", store=False)
    with connected(served) as client:
        error = client.error(input="two", store=False, previous_response_id=first["id"])
        assert error["code"] == "previous_response_not_found"
        client.response(input="anew", store=False)


def test_row_websocket_previous_response_not_found(served: Gateway) -> None:
    with connected(served) as client:
        client.send(input="x", previous_response_id="resp_invented")
        event = client.event()
    assert (event["type"], event["status"]) == ("error", 400)
    assert event["error"] == {
        "type": "invalid_request_error",
        "code": "previous_response_not_found",
        "message": "Previous response with id 'resp_invented' not found.",
        "param": "previous_response_id",
    }


def test_row_websocket_failed_continuation_evicts_cache(served: Gateway) -> None:
    with connected(served) as client:
        first = client.response(input="one", store=False)
        unknown = {"type": "function_call_output", "call_id": "call_x", "output": "y"}
        client.error(input=[unknown], store=False, previous_response_id=first["id"])
        error = client.error(input="three", store=False, previous_response_id=first["id"])
    assert error["code"] == "previous_response_not_found"


def test_row_websocket_compact_new_chain(served: Gateway) -> None:
    reply = httpcore.request(
        "POST",
        f"{served.url}/responses/compact",
        headers={"content-type": "application/json"},
        content=json.dumps({"model": "gpt-4o", "input": "My dog is Rex."}).encode(),
    )
    assert reply.status == 200
    output = json.loads(reply.content)["output"]
    with connected(served) as client:
        client.response(input=[*output, {"role": "user", "content": "Who?"}])
    assert said(served)[0] == "My dog is Rex."


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/responses", "/v1/v1/responses", "/v1/chat/completions/responses"]
)
def test_every_alias_is_served(served: Gateway, path: str) -> None:
    with connected(served, path) as client:
        assert client.response(input="x")["status"] == "completed"


def test_what_codex_sends(served: Gateway) -> None:
    """A warm-up without generating, then turns with only what is new (openai-wire section 7)."""
    common: Json = {
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "tools": [LOOK],
        "instructions": "Be brief.",
    }
    with connected(served, openai_beta="responses_websockets=2026-02-06") as client:
        before = len(served.simulator.requests)
        developer = {"type": "message", "role": "developer", "content": "You are an agent."}
        warm = client.turn(input=[developer], generate=False, **common)
        assert [event["type"] for event in warm] == [
            "response.created",
            "response.in_progress",
            "response.completed",
        ]
        assert len(served.simulator.requests) == before
        call = '#script:tool-then-text #call:{"name": "look", "args": {"at": "sky"}}'
        asked = {"type": "message", "role": "user", "content": call}
        second = client.response(
            input=[asked], previous_response_id=warm[-1]["response"]["id"], **common
        )
        (called,) = [item for item in second["output"] if item["type"] == "function_call"]
        found = {"type": "function_call_output", "call_id": called["call_id"], "output": "blue"}
        third = client.response(input=[found], previous_response_id=second["id"], **common)
    (message,) = [item for item in third["output"] if item["type"] == "message"]
    assert "blue" in message["content"][0]["text"]
    roles = [content["role"] for content in served.simulator.requests[-1].body["contents"]]
    assert roles == ["user", "model", "user"]


def test_what_is_stored_outlives_the_connection(served: Gateway) -> None:
    with connected(served) as client:
        first = client.response(input="one")
    assert first["store"] is True
    with connected(served) as client:
        client.response(input="two", previous_response_id=first["id"])
    assert said(served)[0] == "one"


def test_an_older_response_of_the_connection_is_gone(served: Gateway) -> None:
    with connected(served) as client:
        first = client.response(input="one", store=False)
        client.response(input="two", store=False)
        error = client.error(input="three", store=False, previous_response_id=first["id"])
    assert error["code"] == "previous_response_not_found"


def test_lanes_run_beside_each_other(served: Gateway) -> None:
    with connected(served) as client:
        client.send(input="#script:long:3 #script:pace:150 slow", stream_id="a")
        client.send(input="fast", stream_id="b.1")
        events: list[Json] = []
        while sum(event["type"] in TERMINAL for event in events) < 2:
            events.append(client.event())
        ended = [event["stream_id"] for event in events if event["type"] in TERMINAL]
        assert ended == ["b.1", "a"]
        for lane in ("a", "b.1"):
            numbers = [e["sequence_number"] for e in events if e["stream_id"] == lane]
            assert numbers == list(range(len(numbers)))


def test_turns_of_a_lane_wait_for_each_other(served: Gateway) -> None:
    with connected(served) as client:
        client.send(input="#script:long:2 #script:pace:100 first")
        client.send(input="second")
        first, second = client.rest(), client.rest()
    assert len({event["response"]["id"] for event in (first[0], first[-1])}) == 1
    assert first[-1]["response"]["id"] != second[-1]["response"]["id"]


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ("not json", None, None),
        ("[]", None, None),
        ('"response.create"', None, None),
        ("{}", "type", "invalid_value"),
        ('{"type":"response.cancel"}', "type", "invalid_value"),
        ('{"type":"response.create"}', "input", "missing_required_parameter"),
        ('{"type":"response.create","model":"m","input":5}', "input", "invalid_type"),
        ('{"type":"response.create","stream_id":""}', "stream_id", "invalid_value"),
        ('{"type":"response.create","stream_id":"a b"}', "stream_id", "invalid_value"),
        ('{"type":"response.create","stream_id":7}', "stream_id", "invalid_value"),
        ('{"type":"response.create","stream_id":1e9999}', "stream_id", "invalid_value"),
        (b"\x00", None, None),
    ],
)
def test_what_cannot_be_read_is_told_and_the_connection_goes_on(
    served: Gateway, message: str | bytes, param: str | None, code: str | None
) -> None:
    with connected(served) as client:
        client.socket.send(message)
        event = client.event()
        assert (event["type"], event["status"]) == ("error", 400)
        assert (event["error"]["param"], event["error"]["code"]) == (param, code)
        assert client.response(input="x")["status"] == "completed"


def test_background_and_stream_are_ignored(served: Gateway) -> None:
    with connected(served) as client:
        response = client.response(
            input="x", stream=False, background=True, stream_options={"include_obfuscation": True}
        )
    assert response["background"] is False


def test_a_failure_within_a_response_is_told_in_its_events(served: Gateway) -> None:
    with connected(served) as client:
        events = client.turn(input="#script:long:9 #script:reset-after:3")
        assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
        assert client.response(input="x")["status"] == "completed"


def test_an_upstream_failure_before_it_is_an_error() -> None:
    with gateway() as fresh, connected(fresh) as client:
        client.send(input="#script:error:400:location")
        event = client.event()
        assert is_error(event)
        assert event["status"] >= 400


def test_too_many_lanes_and_too_many_waiting(served: Gateway) -> None:
    with connected(served) as client:
        for number in range(17):
            client.send(input="#script:slow:100 x", stream_id=f"lane{number}")
        events = [client.event() for _ in range(4)]
        (told,) = [event for event in events if is_error(event)]
        assert told["error"]["param"] == "stream_id"
    with connected(served) as client:
        for _ in range(18):
            client.send(input="#script:slow:200 x")
        first = client.event()
        assert (first["type"], first["status"]) == ("error", 429)
    assert idle(served)


def test_a_client_that_leaves_ends_its_turns(served: Gateway) -> None:
    with connected(served) as client:
        client.send(input="#script:long:500 #script:pace:50 x")
        client.event()
        assert served.idle()["leases"] == 1
    began = time.monotonic()
    assert idle(served)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("key", ["sk-wrong", ""])
def test_a_wrong_key_is_refused_before_the_upgrade(key: str) -> None:
    locked = Config(auth=AuthSettings(mode="strict", keys=(Secret("sk-right"),)))
    with gateway(locked) as strict:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        status, body = refused(strict, "/v1/responses", **headers)
        assert status == 401
        assert body["error"]["type"] == "invalid_request_error"
        with connected(strict, authorization="Bearer sk-right") as client:
            assert client.response(input="x")["status"] == "completed"


def test_a_page_of_another_site_is_refused(served: Gateway) -> None:
    assert refused(served, "/v1/responses", origin="https://evil.example")[0] == 403
    assert refused(served, "/v1/responses", sec_fetch_site="cross-site")[0] == 403


def test_a_rebound_name_is_refused(served: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", served.port), 5) as raw:
        raw.sendall(
            b"GET /v1/responses HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 403")


def test_other_routes_and_switched_off_answer_426(served: Gateway) -> None:
    assert refused(served, "/v1/chat/completions")[0] == 426
    with gateway(Config(server=ServerSettings(websocket=False))) as off:
        assert refused(off, "/v1/responses")[0] == 426


def test_a_plain_get_is_told_what_to_do(served: Gateway) -> None:
    reply = httpcore.request("GET", f"{served.url}/responses")
    assert reply.status == 426
    assert (b"upgrade", b"websocket") in reply.headers
    assert json.loads(reply.content)["error"]["type"] == "invalid_request_error"


def test_a_message_above_the_limit_ends_the_connection() -> None:
    with gateway(limits=Limits(message_bytes=2000)) as small, connected(small) as client:
        client.send(input="x" * 3000)
        with pytest.raises(ConnectionClosed) as caught:
            client.event()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


def test_a_connection_ends_after_its_time() -> None:
    with gateway() as fresh:
        relay = fresh.relay

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                await websocket.Connection(
                    relay, scope, receive, send, owner="", lifetime=0.3
                ).serve()
            else:
                await fresh.serving.app(scope, receive, send)

        short: App = app
        with serving(short) as running:
            again = Gateway(running, fresh.simulator)
            with connected(again) as client:
                client.send(input="#script:long:5 #script:pace:100 x")
                assert client.rest()[-1]["type"] == "response.completed"
                event = client.event()
                assert event["error"]["code"] == "websocket_connection_limit_reached"
                with pytest.raises(ConnectionClosed):
                    client.event()


@pytest.mark.anyio
async def test_a_connection_that_ends_twice_is_closed_once(served: Gateway) -> None:
    """Its time is over while a shutdown comes: ASGI servers take one close and fail on another one."""
    told = anyio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        if not sent:
            return {"type": "websocket.connect"}
        await told.wait()
        return {"type": DRAIN}

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "websocket.send":
            told.set()
            await anyio.sleep(0.05)

    scope: dict[str, Any] = {"headers": []}
    await websocket.Connection(served.relay, scope, receive, send, owner="", lifetime=0.01).serve()
    kinds = [message["type"] for message in sent]
    assert kinds == ["websocket.accept", "websocket.send", "websocket.close"]


def test_a_shutdown_lets_the_turn_finish() -> None:
    with gateway() as stopping, connected(stopping) as client:
        client.send(input="#script:long:5 #script:pace:100 x")
        client.event()
        stopping.serving.server.should_exit = True
        assert client.rest()[-1]["type"] == "response.completed"
        with pytest.raises(ConnectionClosed) as caught:
            client.event()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1012


def test_a_reader_that_stops_is_cut() -> None:
    with gateway(limits=Limits(write_stall_seconds=0.5)) as stalled:
        with connect(
            f"ws://127.0.0.1:{stalled.port}/v1/responses",
            max_queue=1,
            max_size=None,
            close_timeout=0.1,
        ) as raw:
            client = Client(raw)
            client.send(input="#script:huge:12000000")
            began = time.monotonic()
            while stalled.idle()["leases"] or stalled.idle()["active"]:
                assert time.monotonic() - began < 10
                time.sleep(0.05)
        assert idle(stalled)


def test_pongs_do_not_pile_up_for_a_client_that_does_not_read() -> None:
    """Pings of a client that does not read stay unanswered, however many they are."""
    ping = b"\x89\xfd" + bytes(4) + b"p" * 125
    with gateway(limits=Limits(write_stall_seconds=30)) as served, socket.socket() as plug:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plug.settimeout(10)
        plug.connect(("127.0.0.1", served.port))
        plug.sendall(
            b"GET /v1/responses HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % served.port
        )
        plug.recv(1024)
        for _ in range(60):
            plug.sendall(ping * 1000)

        def unsent() -> int:
            connections = served.serving.server.server_state.connections
            return sum(each.transport.get_write_buffer_size() for each in connections)

        assert served.serving.call(unsent) < 256 * 1024


@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")
def test_the_openai_library_connects(served: Gateway) -> None:
    with (
        OpenAI(base_url=served.url, api_key="any") as client,
        client.responses.connect() as connection,
    ):
        connection.response.create(model="gpt-4o", input="hello over there")
        texts = []
        for event in connection:
            if event.type == "response.output_text.delta":
                texts.append(event.delta)
            if event.type == "response.completed":
                break
    assert "".join(texts) == "hello over there"
