"""Responses that continue each other, over real sockets: what is kept, when, and for whom."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpcore
import pytest
from tests.support.gateway import Gateway, gateway

from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config, RequestSettings
from oaicompat_server.simulator import running
from oaicompat_server.store import StoreError

Json = dict[str, Any]


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway() as running_gateway:
        yield running_gateway


def post(served: Gateway, path: str, body: Json, key: str = "any") -> tuple[int, Json]:
    reply = httpcore.request(
        "POST",
        f"{served.origin}{path}",
        headers={"content-type": "application/json", "authorization": f"Bearer {key}"},
        content=json.dumps(body).encode(),
    )
    return reply.status, json.loads(reply.content)


def create(served: Gateway, **fields: Any) -> Json:
    status, body = post(served, "/v1/responses", {"model": "gpt-4o", **fields})
    assert status == 200, body
    return body


def events(served: Gateway, **fields: Any) -> list[Json]:
    reply = httpcore.request(
        "POST",
        f"{served.origin}/v1/responses",
        headers={"content-type": "application/json"},
        content=json.dumps({"model": "gpt-4o", "stream": True, **fields}).encode(),
    )
    assert reply.status == 200, reply.content
    lines = [line[6:] for line in reply.content.decode().split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def said(served: Gateway) -> list[str]:
    """Return the texts of the last upstream request."""
    body = served.simulator.requests[-1].body
    return [part.get("text", "") for content in body["contents"] for part in content["parts"]]


def kept(served: Gateway, work: Any) -> Any:
    """Run a coroutine of the store in the gateway's event loop."""
    return asyncio.run_coroutine_threadsafe(work, served.serving.loop).result(5)


def test_a_response_is_continued(served: Gateway) -> None:
    first = create(served, input="My dog is called Rex.")
    assert first["store"] is True
    second = create(served, input="What is it called?", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    assert said(served)[0] == "My dog is called Rex."
    assert said(served)[-1] == "What is it called?"
    third = create(served, input="Sure?", previous_response_id=second["id"])
    assert len(said(served)) == 5
    assert third["id"] not in (first["id"], second["id"])


def test_a_streamed_response_is_continued(served: Gateway) -> None:
    first = events(served, input="one")[-1]["response"]
    create(served, input="two", previous_response_id=first["id"])
    assert said(served)[0] == "one"


def test_what_is_not_stored_cannot_be_continued(served: Gateway) -> None:
    first = create(served, input="one", store=False)
    assert first["store"] is False
    body = {"model": "gpt-4o", "input": "two", "previous_response_id": first["id"]}
    status, answer = post(served, "/v1/responses", body)
    assert status == 400
    assert answer["error"]["code"] == "previous_response_not_found"
    assert answer["error"]["param"] == "previous_response_id"


def test_items_are_found_by_id(served: Gateway) -> None:
    first = create(served, input="one")
    (message,) = first["output"]
    create(
        served,
        input=[
            {"role": "user", "content": "a"},
            {"type": "item_reference", "id": message["id"]},
            {"role": "user", "content": "b"},
        ],
    )
    assert said(served) == ["a", message["content"][0]["text"], "b"]


def test_somebody_elses_response_is_not_there() -> None:
    keys = (Secret("sk-a"), Secret("sk-b"))
    with gateway(Config(auth=AuthSettings(mode="strict", keys=keys))) as locked:
        asked = {"model": "gpt-4o", "input": "secret"}
        status, first = post(locked, "/v1/responses", asked, "sk-a")
        assert status == 200
        again = {"model": "gpt-4o", "input": "x", "previous_response_id": first["id"]}
        assert post(locked, "/v1/responses", again, "sk-b")[0] == 400
        named = {"model": "gpt-4o", "input": [{"id": first["output"][0]["id"]}]}
        assert post(locked, "/v1/responses", named, "sk-b")[0] == 404
        assert post(locked, "/v1/responses", again, "sk-a")[0] == 200


def test_an_answer_that_cannot_be_kept_is_an_error() -> None:
    class Full:
        def __getattr__(self, name: str) -> Any:
            async def refuse(*values: Any) -> None:
                raise StoreError("the disk is full")

            return refuse

    with gateway() as broken:
        working, broken.relay.store = broken.relay.store, Full()
        status, body = post(broken, "/v1/responses", {"model": "gpt-4o", "input": "x"})
        assert (status, body["error"]["code"]) == (503, "state_unavailable")
        told = events(broken, input="x")
        assert [event["type"] for event in told[-2:]] == ["error", "response.failed"]
        assert [event["sequence_number"] for event in told] == list(range(len(told)))
        assert create(broken, input="x", store=False)["status"] == "completed"
        broken.relay.store = working
        assert broken.idle() == {"active": 0, "waiting": 0, "leases": 0, "tasks": 0}


def test_the_background_answers_at_once_and_goes_on(served: Gateway) -> None:
    begun = create(served, input="later", background=True)
    assert begun["status"] == "queued"
    assert begun["background"] is True
    store = served.relay.store
    for _ in range(100):
        found = kept(served, store.find("", begun["id"]))
        body = json.loads(found.body)
        if body["status"] not in ("queued", "in_progress"):
            break
        time.sleep(0.02)
    assert body["status"] == "completed"
    frames = kept(served, store.frames("", begun["id"], -1))
    numbers = [frame.sequence for frame in frames]
    assert numbers == [*range(len(frames) - 1), -1]
    create(served, input="and then?", previous_response_id=begun["id"])
    assert said(served)[0] == "later"


def test_a_background_stream_is_followed(served: Gateway) -> None:
    told = events(served, input="hello", background=True)
    names = [event["type"] for event in told]
    assert names[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert names[-1] == "response.completed"
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert told[-1]["response"]["background"] is True


def test_the_background_needs_the_store(served: Gateway) -> None:
    body = {"model": "gpt-4o", "input": "x", "background": True, "store": False}
    status, answer = post(served, "/v1/responses", body)
    assert (status, answer["error"]["param"]) == (400, "background")


def test_a_failure_in_the_background_is_a_failed_response() -> None:
    with (
        running(any_model=True, keys={"bad": ["400:bad*"]}) as simulator,
        gateway(upstream=simulator, keys=("bad",)) as failing,
    ):
        begun = create(failing, input="x", background=True)
        for _ in range(100):
            body = json.loads(kept(failing, failing.relay.store.find("", begun["id"])).body)
            if body["status"] == "failed":
                break
            time.sleep(0.02)
        assert body["status"] == "failed"
        assert body["error"]["message"]


def test_a_gateway_that_stops_says_so_of_what_ran() -> None:
    with running(any_model=True) as simulator:
        with gateway(upstream=simulator) as stopping:
            begun = create(stopping, input="#script:pace:5000 #script:long:50 x", background=True)
            store = stopping.relay.store
            store.aclose = _nothing
        body = json.loads(asyncio.run(store.find("", begun["id"])).body)
        assert body["status"] == "failed"
        assert "shut down" in body["error"]["message"]


async def _nothing() -> None:
    return None


def test_strict_mode_takes_what_is_stored() -> None:
    with gateway(Config(request=RequestSettings(strict=True))) as strict:
        first = create(strict, input="one")
        create(strict, input="two", previous_response_id=first["id"], store=True)
