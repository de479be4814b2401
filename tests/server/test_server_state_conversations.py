"""Conversations over real sockets: what they are, the items in them, and answers that go into them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.support.asking import Json, ask, check
from tests.support.gateway import Gateway, gateway

from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config

BASE = "/v1/conversations"
HELLO: Json = {"role": "user", "content": "hello"}


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway() as running_gateway:
        yield running_gateway


@pytest.fixture(scope="module")
def client(served: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as official:
        yield official


def create(served: Gateway, **fields: Any) -> str:
    reply = ask(served, "POST", BASE, fields)
    assert reply.status == 200, reply.content
    made: str = reply.data["id"]
    return made


def listed(served: Gateway, made: str, query: str = "") -> Json:
    reply = ask(served, "GET", f"{BASE}/{made}/items{query}")
    assert reply.status == 200, reply.content
    found: Json = reply.data
    check("ResponseItemList", found)
    return found


def test_a_conversation_lives(served: Gateway) -> None:
    made = ask(served, "POST", BASE, {"metadata": {"a": "b"}, "items": [HELLO]})
    assert made.status == 200
    check("ConversationResource", made.data)
    assert made.data["id"].startswith("conv_")
    assert (made.data["object"], made.data["metadata"]) == ("conversation", {"a": "b"})
    assert type(made.data["created_at"]) is int
    path = f"{BASE}/{made.data['id']}"
    assert ask(served, "GET", path).data == made.data
    assert ask(served, "HEAD", path).status == 200
    changed = ask(served, "POST", path, {"metadata": {"c": "d"}})
    assert changed.data == made.data | {"metadata": {"c": "d"}}
    assert ask(served, "GET", path).data == changed.data
    deleted = ask(served, "DELETE", path)
    assert deleted.data == {
        "id": made.data["id"], "object": "conversation.deleted", "deleted": True,
    }  # fmt: skip
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/items"), ("GET", "/items/msg_x")):
        gone = ask(served, method, f"{path}{rest}")
        assert gone.status == 404
        assert gone.error["message"] == f"Conversation with id '{made.data['id']}' not found."
        assert gone.error["type"] == "invalid_request_error"
    for rest, body in (("", {"metadata": {}}), ("/items", {"items": [HELLO]})):
        assert ask(served, "POST", f"{path}{rest}", body).status == 404


@pytest.mark.parametrize("body", [None, b"", {}, {"items": None, "metadata": None}])
def test_a_conversation_needs_nothing(served: Gateway, body: object) -> None:
    made = ask(served, "POST", BASE, body)
    assert (made.status, made.data["metadata"]) == (200, {})
    assert listed(served, made.data["id"])["data"] == []


def test_items_are_completed_and_kept_in_order(served: Gateway) -> None:
    made = create(served, items=[HELLO])
    call = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"x": 1.50}'}
    added = ask(
        served,
        "POST",
        f"{BASE}/{made}/items?include[]=message.output_text.logprobs",
        {
            "items": [
                {"role": "assistant", "content": "hi", "phase": "final_answer"},
                call,
                {"type": "function_call_output", "call_id": "call_1", "output": "2"},
                {"type": "message", "role": "user", "id": "msg_mine", "content": [
                    {"type": "input_text", "text": "text"},
                    {"type": "input_image", "image_url": "https://example.com/x.png", "detail": "low"},
                ]},
            ]
        },
    ).data  # fmt: skip
    check("ResponseItemList", added)
    assert [item["type"] for item in added["data"]] == [
        "message", "function_call", "function_call_output", "message",
    ]  # fmt: skip
    ids = [item["id"] for item in added["data"]]
    assert [each.partition("_")[0] for each in ids] == ["msg", "fc", "fco", "msg"]
    assert ids[3] == "msg_mine"
    assert len(set(ids)) == 4
    assert added["data"][0]["content"] == [
        {"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}
    ]
    assert added["data"][0]["phase"] == "final_answer"
    assert added["data"][1]["arguments"] == call["arguments"]
    assert {item["status"] for item in added["data"]} == {"completed"}
    every = listed(served, made, "?order=asc")
    assert every["data"][0]["content"] == [{"type": "input_text", "text": "hello"}]
    assert every["data"][1:] == added["data"]
    assert listed(served, made)["data"] == every["data"][::-1]


def test_items_are_listed_by_page(served: Gateway, client: openai.OpenAI) -> None:
    made = create(served, items=[HELLO] * 20)
    ask(served, "POST", f"{BASE}/{made}/items", {"items": [HELLO] * 5})
    every = listed(served, made, "?limit=100")["data"]
    assert len(every) == 25
    first = listed(served, made)
    assert (len(first["data"]), first["has_more"]) == (20, True)
    second = listed(served, made, f"?after={first['last_id']}")
    assert (len(second["data"]), second["has_more"]) == (5, False)
    assert first["data"] + second["data"] == every
    found = client.conversations.items.list(made, limit=7, order="asc")
    assert [item.id for item in found] == [item["id"] for item in reversed(every)]


def test_an_id_that_comes_again_is_one_item(served: Gateway, client: openai.OpenAI) -> None:
    made = create(served, items=[{**HELLO, "id": name} for name in ("msg_a", "msg_b", "msg_c")])
    changed = {"role": "user", "content": "changed", "id": "msg_a"}
    assert ask(served, "POST", f"{BASE}/{made}/items", {"items": [changed]}).status == 200
    found = list(client.conversations.items.list(made, limit=1, order="asc"))
    assert [item.id for item in found] == ["msg_a", "msg_b", "msg_c"]
    shown = listed(served, made, "?order=asc")["data"][0]
    assert shown["content"][0]["text"] == "changed"
    assert ask(served, "GET", f"{BASE}/{made}/items/msg_a").data == shown


def test_single_items_are_retrieved_and_deleted(served: Gateway, client: openai.OpenAI) -> None:
    odd = "mine/with a slash é"
    made = create(
        served, items=[{**HELLO, "id": "msg_a"}, {**HELLO, "id": odd}], metadata={"a": "b"}
    )
    path = f"{BASE}/{made}/items"
    assert ask(served, "GET", f"{path}/msg_a").data["id"] == "msg_a"
    assert ask(served, "HEAD", f"{path}/msg_a").status == 200
    assert client.conversations.items.retrieve(odd, conversation_id=made).id == odd
    left = client.conversations.items.delete(odd, conversation_id=made)
    assert (left.id, left.metadata) == (made, {"a": "b"})
    assert [item["id"] for item in listed(served, made)["data"]] == ["msg_a"]
    deleted = ask(served, "DELETE", f"{path}/msg_a")
    assert deleted.data == ask(served, "GET", f"{BASE}/{made}").data
    for method in ("GET", "DELETE"):
        gone = ask(served, method, f"{path}/msg_a")
        assert (gone.status, gone.error["message"]) == (404, "Item with id 'msg_a' not found.")


def test_answers_go_into_their_conversation(served: Gateway, client: openai.OpenAI) -> None:
    made = client.conversations.create(items=[{"role": "user", "content": "one"}])
    answer = client.responses.create(model="gpt-4o", input="two", conversation=made.id)
    assert answer.conversation is not None
    assert answer.conversation.id == made.id
    texts = [item["content"][0]["text"] for item in listed(served, made.id, "?order=asc")["data"]]
    assert texts == ["one", "two", answer.output_text]
    body = served.simulator.requests[-1].body
    assert [part["text"] for content in body["contents"] for part in content["parts"]] == texts[:2]


@pytest.mark.parametrize("background", [True, False])
def test_an_answer_whose_conversation_was_deleted_meanwhile_has_failed(
    served: Gateway, client: openai.OpenAI, background: bool
) -> None:
    made = create(served)
    with client.responses.stream(
        model="gpt-4o",
        input="#script:pace:700 one two three",
        conversation=made,
        background=background,
    ) as events:
        first = next(iter(events))
        assert first.type == "response.created"
        assert ask(served, "DELETE", f"{BASE}/{made}").status == 200
        with pytest.raises(openai.APIError, match=f"'{made}' not found"):
            list(events)
    told = ask(served, "GET", f"/v1/responses/{first.response.id}").data
    assert (told["status"], told["conversation"]) == ("failed", {"id": made})
    assert f"'{made}' not found" in told["error"]["message"]


@pytest.mark.parametrize(
    ("items", "param", "code"),
    [
        ([HELLO] * 21, "items", "array_above_max_length"),
        ("hello", "items", "invalid_type"),
        ([5], "items[0]", "invalid_type"),
        ([HELLO, {"role": "king", "content": "x"}], "items[1].role", "invalid_value"),
        ([{"role": "user"}], "items[0].content", "missing_required_parameter"),
        ([{"type": "message", "content": "x"}], "items[0].role", "missing_required_parameter"),
        ([{"role": "user", "content": [{"type": "x"}]}], "items[0].content[0].type", "invalid_value"),
        ([{"type": "no such"}], "items[0].type", "invalid_value"),
        ([{"id": "msg_1"}], "items[0].type", "invalid_value"),
        ([{**HELLO, "id": "msg_1"}] * 2, "items[1].id", "invalid_value"),
        ([{"type": "function_call", "name": "f", "arguments": "{}"}], "items[0].call_id",
         "missing_required_parameter"),
        ([{**HELLO, "x": json.loads("[" * 150 + "]" * 150)}], "items[0]", "invalid_value"),
    ],
)  # fmt: skip
def test_items_that_are_none_are_refused(
    served: Gateway, items: object, param: str, code: str
) -> None:
    made = create(served)
    for path in (BASE, f"{BASE}/{made}/items"):
        reply = ask(served, "POST", path, {"items": items})
        assert (reply.status, reply.error["param"], reply.error["code"]) == (400, param, code)
    assert listed(served, made)["data"] == []


@pytest.mark.parametrize(
    ("metadata", "param", "code"),
    [
        ({f"{number}": "x" for number in range(17)}, "metadata", "object_above_max_properties"),
        ({"k" * 65: "x"}, "metadata", "string_above_max_length"),
        ({"k": "x" * 513}, "metadata.k", "string_above_max_length"),
        ({"k": 5}, "metadata", "invalid_type"),
        (["k"], "metadata", "invalid_type"),
    ],
)
def test_metadata_that_is_none_is_refused(
    served: Gateway, metadata: object, param: str, code: str
) -> None:
    made = create(served, metadata={"a": "b"})
    for path in (BASE, f"{BASE}/{made}"):
        reply = ask(served, "POST", path, {"metadata": metadata})
        assert (reply.status, reply.error["param"], reply.error["code"]) == (400, param, code)
    assert ask(served, "GET", f"{BASE}/{made}").data["metadata"] == {"a": "b"}


def test_metadata_at_its_limits_is_kept(served: Gateway) -> None:
    most = {f"{number:064}": "é" * 512 for number in range(16)}
    made = create(served, metadata=most)
    assert ask(served, "GET", f"{BASE}/{made}").data["metadata"] == most
    assert ask(served, "POST", f"{BASE}/{made}", {"metadata": None}).data["metadata"] == {}
    missing = ask(served, "POST", f"{BASE}/{made}", {})
    assert (missing.status, missing.error["param"]) == (400, "metadata")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"items": [{]}', b"\xff", b'{"metadata": "\\ud800"}']
)
def test_bodies_that_are_no_json_are_refused(served: Gateway, body: bytes) -> None:
    made = create(served)
    for path in (BASE, f"{BASE}/{made}", f"{BASE}/{made}/items"):
        assert ask(served, "POST", path, body).status == 400
        assert ask(served, "POST", path, body, content_type="text/plain").status == 415


def test_numbers_out_of_range_are_refused(served: Gateway) -> None:
    body = b'{"items": [{"role": "user", "content": "x", "more": 1e999}]}'
    reply = ask(served, "POST", BASE, body)
    assert (reply.status, reply.error["param"]) == (400, "items[0]")


@pytest.mark.parametrize("query", ["limit=0", "limit=1000", "order=newest", "after=msg_nowhere"])
def test_values_that_mean_nothing_are_refused(served: Gateway, query: str) -> None:
    reply = ask(served, "GET", f"{BASE}/{create(served)}/items?{query}")
    assert (reply.status, reply.error["param"]) == (400, query.partition("=")[0])


@pytest.mark.parametrize("name", ["conv_x", "conv%20x", "%00", "x%0Ay", "%C3%A9", "a" * 300])
def test_an_unknown_or_odd_id_is_not_found(served: Gateway, name: str) -> None:
    for method, rest, body in (
        ("GET", "", None), ("DELETE", "", None), ("POST", "", {"metadata": {}}), ("GET", "/items", None),
        ("POST", "/items", {"items": [HELLO]}), ("GET", "/items/msg_x", None), ("DELETE", "/items/msg_x", None),
    ):  # fmt: skip
        reply = ask(served, method, f"{BASE}/{name}{rest}", body)
        assert reply.status == 404
        assert reply.error["message"].startswith("Conversation with id '")


@pytest.mark.parametrize("prefix", ["", "/v1/v1", "/v1/chat/completions", "/chat/completions/v1"])
@pytest.mark.parametrize("end", ["", "/"])
def test_every_spelling_reaches_a_conversation(served: Gateway, prefix: str, end: str) -> None:
    made = ask(served, "POST", f"{prefix}/conversations{end}", {"items": [HELLO]}).data["id"]
    base = f"{prefix}/conversations/{made}"
    (item,) = ask(served, "GET", f"{base}/items{end}").data["data"]
    assert ask(served, "GET", f"{base}/items/{item['id']}{end}").data == item
    assert ask(served, "DELETE", f"{base}{end}").status == 200


def test_wrong_methods_are_told_the_right_ones(served: Gateway) -> None:
    for method, rest, allowed in (
        ("GET", "", "POST, OPTIONS"),
        ("PUT", "/conv_x", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("DELETE", "/conv_x/items", "GET, HEAD, POST, OPTIONS"),
        ("POST", "/conv_x/items/msg_x", "GET, HEAD, DELETE, OPTIONS"),
    ):
        reply = ask(served, method, f"{BASE}{rest}")
        assert (reply.status, reply.headers["allow"]) == (405, allowed)


def test_somebody_elses_conversation_is_not_there() -> None:
    keys = (Secret("sk-a"), Secret("sk-b"))
    with gateway(Config(auth=AuthSettings(mode="strict", keys=keys))) as locked:
        sent = {"items": [{**HELLO, "id": "msg_a"}]}
        made = ask(locked, "POST", BASE, sent, key="sk-a").data["id"]
        for method, rest, body in (
            ("GET", "", None), ("POST", "", {"metadata": {}}), ("GET", "/items", None),
            ("POST", "/items", {"items": [HELLO]}), ("GET", "/items/msg_a", None),
            ("DELETE", "/items/msg_a", None), ("DELETE", "", None),
        ):  # fmt: skip
            path = f"{BASE}/{made}{rest}"
            assert ask(locked, method, path, body, key="sk-b").status == 404
            assert ask(locked, method, path, body, key="wrong").status == 401
        kept = ask(locked, "GET", f"{BASE}/{made}/items", key="sk-a").data
        assert [item["id"] for item in kept["data"]] == ["msg_a"]
