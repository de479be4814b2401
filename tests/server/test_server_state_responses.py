"""What is asked about stored responses, over real sockets: the object, its events, its input, its end."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.support.asking import Json, ask, check, event, message, run, running_response
from tests.support.gateway import Gateway, gateway
from tests.support.responses_client import findings
from tests.support.shared import needs_checker

from oaicompat.events import Frame
from oaicompat_server.secret import Secret
from oaicompat_server.settings import AnswerSettings, AuthSettings, Config
from oaicompat_server.store import StoredResponse, StoreError

CONFIG = Config(answer=AnswerSettings(keepalive=0.2))
_NAMES = iter(range(10**6))


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway(CONFIG) as running_gateway:
        yield running_gateway


@pytest.fixture(scope="module")
def client(served: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as official:
        yield official


def create(served: Gateway, **fields: Any) -> Json:
    reply = ask(served, "POST", "/v1/responses", {"model": "gpt-4o", "input": "hello", **fields})
    assert reply.status == 200, reply.content
    body: Json = reply.data
    return body


def begin(served: Gateway, seconds: float = 30.0, **more: Any) -> str:
    """Put a response into the store that runs nowhere; return its id."""
    response, frames = running_response(f"resp_{next(_NAMES)}", time.time() + seconds, **more)
    run(served, served.relay.store.save("", response, frames, time.time()))
    return response.id


def read(content: bytes) -> list[Json]:
    lines = [line[6:] for line in content.decode().split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def texts(listed: Json) -> list[str]:
    return [item["content"][0]["text"] for item in listed["data"]]


def test_a_response_is_retrieved_as_it_was_given(served: Gateway, client: openai.OpenAI) -> None:
    made = create(served, metadata={"a": "b"})
    reply = ask(served, "GET", f"/v1/responses/{made['id']}?include[]=reasoning.encrypted_content")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.data == made
    check("Response", reply.data)
    head = ask(served, "HEAD", f"/v1/responses/{made['id']}?stream=true")
    assert (head.status, head.content) == (200, b"")
    assert head.headers["content-type"] == "application/json"
    assert client.responses.retrieve(made["id"]).output_text == "hello"


@pytest.mark.parametrize("streamed", [True, False])
def test_the_events_of_a_response_are_replayed(served: Gateway, streamed: bool) -> None:
    asked = {"model": "gpt-4o", "input": "hello", "stream": streamed}
    first = ask(served, "POST", "/v1/responses", asked).content
    made = read(first)[-1]["response"] if streamed else json.loads(first)
    again = ask(served, "GET", f"/v1/responses/{made['id']}?stream=true")
    assert again.headers["content-type"] == "text/event-stream; charset=utf-8"
    if streamed:
        assert again.content == first
    events = read(again.content)
    assert events[-1]["response"] == made
    for after in (0, 3, len(events) - 1, 1000):
        path = f"/v1/responses/{made['id']}?stream=true&starting_after={after}"
        assert read(ask(served, "GET", path).content) == events[after + 1 :]


def test_the_clients_stream_goes_on_where_it_was_cut(
    served: Gateway, client: openai.OpenAI
) -> None:
    made = create(served)
    every = list(client.responses.retrieve(made["id"], stream=True))
    later = client.responses.retrieve(made["id"], stream=True, starting_after=2)
    assert [each.sequence_number for each in later] == list(range(3, len(every)))


@needs_checker
def test_a_replay_keeps_the_rules_of_a_stream(served: Gateway) -> None:
    made = create(served, input="#script:tool hello")
    raw = ask(served, "GET", f"/v1/responses/{made['id']}?stream=true").content
    assert not findings("response-stream", raw)


def test_a_running_response_is_followed_to_its_end(served: Gateway) -> None:
    made = begin(served)
    store, until = served.relay.store, time.time() + 30
    path = f"/v1/responses/{made}?stream=true&starting_after=0"
    replies: list[bytes] = []
    reader = threading.Thread(target=lambda: replies.append(ask(served, "GET", path).content))
    reader.start()
    time.sleep(0.3)
    assert run(served, store.append("", made, [event(2, "response.in_progress")], until))
    time.sleep(0.1)
    body = json.dumps({"id": made, "background": True, "status": "completed"}).encode()
    ending = [event(3, "response.completed"), Frame(b"[DONE]")]
    ended = StoredResponse(made, 1.0, body)
    assert run(served, store.save("", ended, ending, time.time()))
    reader.join(5)
    assert [each["sequence_number"] for each in read(replies[0])] == [1, 2, 3]
    assert replies[0].count(b"[DONE]") == 1
    assert b"\n: keepalive\n" in replies[0]


def test_a_background_response_is_followed_by_the_client(
    served: Gateway, client: openai.OpenAI
) -> None:
    made = client.responses.create(
        model="gpt-4o", input="#script:pace:60 one two three", background=True
    )
    events = list(client.responses.retrieve(made.id, stream=True))
    assert [each.sequence_number for each in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert client.responses.retrieve(made.id).status == "completed"


def test_a_lost_response_has_failed_for_everybody(served: Gateway) -> None:
    made = begin(served, seconds=-1.0)
    done = message("msg_done", "whole", "assistant")
    store = served.relay.store
    frames = [
        event(2, "response.in_progress"),
        event(3, "response.output_item.done", output_index=0, item=json.loads(done.body)),
    ]
    run(served, store.append("", made, frames, time.time() - 1))
    stream = ask(served, "GET", f"/v1/responses/{made}?stream=true")
    events = read(stream.content)
    assert [each["type"] for each in events[-2:]] == ["error", "response.failed"]
    assert [each["sequence_number"] for each in events] == list(range(6))
    body = ask(served, "GET", f"/v1/responses/{made}").data
    assert body == events[-1]["response"]
    assert (body["status"], body["error"]["code"]) == ("failed", "server_error")
    assert "interrupted" in body["error"]["message"]
    assert body["output"] == [json.loads(done.body)]
    check("Response", body)
    assert ask(served, "GET", f"/v1/responses/{made}?stream=true").content == stream.content
    assert run(served, store.find("", made)).output == (done,)
    assert not run(served, store.append("", made, frames, time.time() + 30))


def test_a_response_that_is_lost_while_it_is_followed_ends(served: Gateway) -> None:
    made = begin(served, seconds=0.3)
    events = read(ask(served, "GET", f"/v1/responses/{made}?stream=true").content)
    assert events[-1]["type"] == "response.failed"


def test_a_response_that_is_deleted_while_it_is_followed_ends(served: Gateway) -> None:
    made = begin(served)
    path = f"/v1/responses/{made}?stream=true"
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        plug.sendall(
            b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n"
            % (path.encode(), served.port)
        )
        assert b"response.created" in plug.recv(65536)
        assert ask(served, "DELETE", f"/v1/responses/{made}").status == 200
        rest = b"".join(iter(lambda: plug.recv(65536), b""))
    assert b"event: error" in rest
    assert b"not found" in rest


def test_a_client_that_leaves_ends_the_watching(served: Gateway) -> None:
    made = begin(served)
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        plug.sendall(
            b"GET /v1/responses/%s?stream=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"
            % (made.encode(), served.port)
        )
        assert b"response.created" in plug.recv(65536)
        assert served.idle()["tasks"] == 1
    for _ in range(50):
        if served.idle()["tasks"] == 0:
            break
        time.sleep(0.02)
    assert served.idle()["tasks"] == 0


def test_a_response_without_events_is_not_streamed(served: Gateway) -> None:
    response = StoredResponse("resp_quiet", 1.0, b'{"id":"resp_quiet"}')
    run(served, served.relay.store.save("", response, (), time.time()))
    reply = ask(served, "GET", "/v1/responses/resp_quiet?stream=true")
    assert (reply.status, reply.error["param"]) == (400, "stream")


def test_a_deleted_response_is_gone(served: Gateway, client: openai.OpenAI) -> None:
    made = create(served)
    reply = ask(served, "DELETE", f"/v1/responses/{made['id']}")
    assert (reply.status, reply.data) == (
        200,
        {"id": made["id"], "object": "response", "deleted": True},
    )
    for method in ("GET", "DELETE"):
        gone = ask(served, method, f"/v1/responses/{made['id']}")
        assert gone.status == 404
        assert gone.error["message"] == f"Response with id '{made['id']}' not found."
        assert gone.error["type"] == "invalid_request_error"
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(made["id"])


def test_only_the_background_can_be_cancelled(served: Gateway, client: openai.OpenAI) -> None:
    made = create(served)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(made["id"])
    assert ask(served, "POST", f"/v1/responses/{made['id']}/cancel", {}).status == 400


def test_what_has_ended_stays_as_it_is_when_cancelled(
    served: Gateway, client: openai.OpenAI
) -> None:
    made = client.responses.create(model="gpt-4o", input="hello", background=True)
    list(client.responses.retrieve(made.id, stream=True))
    assert client.responses.cancel(made.id).status == "completed"


def test_a_running_response_is_cancelled(served: Gateway, client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="gpt-4o", input="#script:pace:5000 #script:long:50 x", background=True
    )
    cancelled = client.responses.cancel(made.id)
    assert (cancelled.status, cancelled.error) == ("cancelled", None)
    body = ask(served, "GET", f"/v1/responses/{made.id}").data
    assert body["status"] == "cancelled"
    check("Response", body)
    again = client.responses.cancel(made.id)
    assert again.status == "cancelled"


def test_a_response_that_runs_elsewhere_is_cancelled_in_the_store(served: Gateway) -> None:
    made = begin(served)
    reply = ask(served, "POST", f"/v1/responses/{made}/cancel")
    assert (reply.status, reply.data["status"], reply.data["error"]) == (200, "cancelled", None)
    check("Response", reply.data)
    store = served.relay.store
    assert not run(served, store.append("", made, [event(2, "x")], time.time() + 30))
    events = read(ask(served, "GET", f"/v1/responses/{made}?stream=true").content)
    assert [each["type"] for each in events[-2:]] == ["error", "response.failed"]


def test_the_input_is_listed(served: Gateway, client: openai.OpenAI) -> None:
    made = create(served, input=[{"role": "user", "content": f"{number}"} for number in range(5)])
    path = f"/v1/responses/{made['id']}/input_items"
    every = ask(served, "GET", path).data
    check("ResponseItemList", every)
    assert texts(every) == ["4", "3", "2", "1", "0"]
    assert (every["object"], every["has_more"]) == ("list", False)
    assert every["first_id"] == every["data"][0]["id"]
    assert every["last_id"] == every["data"][-1]["id"]
    page = ask(served, "GET", f"{path}?limit=2&order=asc&after={every['data'][3]['id']}").data
    assert page["data"] == [every["data"][2], every["data"][1]]
    assert page["has_more"] is True
    listed = client.responses.input_items.list(made["id"], limit=2)
    assert [item.id for item in listed] == [item["id"] for item in every["data"]]
    assert ask(served, "HEAD", path).status == 200


def test_the_input_begins_with_what_was_continued(served: Gateway) -> None:
    first = create(served, input="one")
    second = create(served, input="two", previous_response_id=first["id"])
    path = f"/v1/responses/{second['id']}/input_items?order=asc"
    assert texts(ask(served, "GET", path).data) == ["one", "one", "two"]
    ask(served, "DELETE", f"/v1/responses/{first['id']}")
    assert texts(ask(served, "GET", path).data) == ["two"]


def test_an_empty_list_is_valid(served: Gateway) -> None:
    made = begin(served)
    listed = ask(served, "GET", f"/v1/responses/{made}/input_items").data
    assert listed["data"] == []
    check("ResponseItemList", listed)


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=101", "limit", "integer_above_max_value"),
        ("limit=many", "limit", "invalid_type"),
        ("limit=1_0", "limit", "invalid_type"),
        ("limit=%D9%A1", "limit", "invalid_type"),
        ("order=up", "order", "invalid_value"),
        ("after=msg_nowhere", "after", "invalid_value"),
    ],
)
def test_values_that_mean_nothing_are_refused_for_lists(
    served: Gateway, query: str, param: str, code: str
) -> None:
    made = begin(served)
    reply = ask(served, "GET", f"/v1/responses/{made}/input_items?{query}")
    assert (reply.status, reply.error["param"], reply.error["code"]) == (400, param, code)
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=perhaps", "stream"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("stream=true&starting_after=x", "starting_after"),
        ("starting_after=99999999999999999999999999999", "starting_after"),
        ("include_obfuscation=5", "include_obfuscation"),
    ],
)
def test_values_that_mean_nothing_are_refused(served: Gateway, query: str, param: str) -> None:
    reply = ask(served, "GET", f"/v1/responses/resp_x?{query}")
    assert (reply.status, reply.error["param"]) == (400, param)


@pytest.mark.parametrize(
    "name",
    ["resp_x", "resp%20x", "..%2e", "%00", "%25", "x%0Ay", "%C3%A9", "%ff", "a" * 300, "'", "-"],
)
@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")]
)
def test_an_unknown_or_odd_id_is_not_found(
    served: Gateway, name: str, method: str, rest: str
) -> None:
    reply = ask(served, method, f"/v1/responses/{name}{rest}")
    assert reply.status == 404
    assert reply.error["message"].startswith("Response with id '")
    assert reply.error["message"].isprintable()


def test_ids_are_decoded_once(served: Gateway) -> None:
    made = create(served)["id"]
    escaped = "".join(f"%{ord(each):02x}" for each in made)
    assert ask(served, "GET", f"/v1/responses/{escaped}").status == 200
    assert ask(served, "GET", f"/v1/responses/{escaped.replace('%', '%25')}").status == 404


@pytest.mark.parametrize(
    "prefix", ["", "/v1", "/v1/v1", "/v1/chat/completions", "/chat/completions/v1"]
)
@pytest.mark.parametrize("end", ["", "/"])
def test_every_spelling_reaches_a_response(served: Gateway, prefix: str, end: str) -> None:
    made = begin(served)
    base = f"{prefix}/responses/{made}"
    assert ask(served, "GET", f"{base}{end}").status == 200
    assert ask(served, "GET", f"{base}/input_items{end}").status == 200
    assert ask(served, "POST", f"{base}/cancel{end}").status == 200
    assert ask(served, "DELETE", f"{base}{end}").status == 200


def test_wrong_methods_are_told_the_right_ones(served: Gateway) -> None:
    for method, rest, allowed in (
        ("PUT", "", "GET, HEAD, DELETE, OPTIONS"),
        ("POST", "", "GET, HEAD, DELETE, OPTIONS"),
        ("GET", "/cancel", "POST, OPTIONS"),
        ("DELETE", "/input_items", "GET, HEAD, OPTIONS"),
    ):
        reply = ask(served, method, f"/v1/responses/resp_x{rest}")
        assert (reply.status, reply.headers["allow"]) == (405, allowed)
    assert ask(served, "GET", "/v1/responses/resp_x/else").status == 404


def test_somebody_elses_response_is_not_there() -> None:
    keys = (Secret("sk-a"), Secret("sk-b"))
    with gateway(Config(auth=AuthSettings(mode="strict", keys=keys))) as locked:
        asked = {"model": "gpt-4o", "input": "secret", "background": True}
        made = ask(locked, "POST", "/v1/responses", asked, key="sk-a").data["id"]
        for method, rest in (
            ("GET", ""), ("GET", "?stream=true"), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", ""),
        ):  # fmt: skip
            path = f"/v1/responses/{made}{rest}"
            assert ask(locked, method, path, key="sk-b").status == 404
            assert ask(locked, method, path, key="wrong").status == 401
        assert ask(locked, "GET", f"/v1/responses/{made}", key="sk-a").status == 200


class _Broken:
    """A store that works for so many calls."""

    def __init__(self, store: Any, calls: int) -> None:
        self._store = store
        self._left = calls

    def __getattr__(self, name: str) -> Any:
        async def call(*values: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise StoreError("the disk is full")
            return await getattr(self._store, name)(*values)

        return call


def test_what_cannot_be_an_id_is_not_asked_for(served: Gateway) -> None:
    with breaking(served, 0):
        assert ask(served, "GET", "/v1/responses/resp_x").status == 503
        assert ask(served, "GET", "/v1/responses/resp%20x").status == 404
        assert ask(served, "GET", "/v1/conversations/conv_x").status == 503
        assert ask(served, "GET", "/v1/conversations/conv%20x").status == 404


@contextlib.contextmanager
def breaking(served: Gateway, calls: int) -> Iterator[None]:
    working = served.relay.store
    served.relay.store = _Broken(working, calls)
    try:
        yield
    finally:
        served.relay.store = working


@pytest.mark.parametrize(
    ("method", "rest", "works"),
    [("GET", "", 0), ("DELETE", "", 1), ("GET", "/input_items", 0), ("GET", "?stream=true", 1)],
)
def test_a_store_that_fails_is_a_503(served: Gateway, method: str, rest: str, works: int) -> None:
    made = begin(served)
    with breaking(served, works):
        reply = ask(served, method, f"/v1/responses/{made}{rest}")
    assert (reply.status, reply.error["code"]) == (503, "state_unavailable")
    assert reply.error["type"] == "server_error"


def test_a_store_that_fails_later_ends_the_stream_in_band(served: Gateway) -> None:
    made = begin(served)
    with breaking(served, 3):
        content = ask(served, "GET", f"/v1/responses/{made}?stream=true").content
    last = json.loads(content.decode().rstrip().rpartition("data: ")[2])
    assert (last["type"], last["sequence_number"], last["code"]) == (
        "error",
        2,
        "state_unavailable",
    )
