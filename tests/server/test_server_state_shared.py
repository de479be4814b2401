"""State that outlives a gateway, or is shared by two: real processes, killed while clients ask them.

One rule: what a client was told is there afterwards, in whichever gateway it asks next.
"""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support import stores
from tests.support.lanes import LANES, Lane, Told, run_and_kill, words_of
from tests.support.processes import KEY, OTHER_KEY, GatewayProcess, gateway_process

from oaicompat_server.simulator import Record, Simulator, running

Json = dict[str, Any]
ROUNDS = 4
Pair = tuple[GatewayProcess, GatewayProcess]
SLOW = "#script:pace:300 #script:long:200"


def check_file(path: Path, copies: Path, told: int) -> None:
    """Look at a copy of the file, so that it is the next gateway that has to mend it."""
    copies.mkdir()
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, copies)
    with closing(sqlite3.connect(copies / path.name)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("SELECT count(*) FROM responses").fetchone()[0] >= told


def texts(items: list[Json]) -> list[str]:
    return [part["text"] for item in items for part in item["content"]]


def questions(items: list[Json]) -> list[str]:
    asked = texts([item for item in items if item["role"] == "user"])
    return [words_of(each) for each in asked]


def check_told(served: GatewayProcess, told: Told) -> None:
    """Fail where something of a response is not there."""
    response = told.response
    assert served.data("GET", f"/responses/{response['id']}") == response
    assert served.ask("GET", f"/responses/{response['id']}", key=OTHER_KEY).status == 404
    (*_, last) = served.events(f"/responses/{response['id']}?stream=true")
    assert last["response"] == response
    if not told.conversation:
        given = served.items(f"/responses/{response['id']}/input_items")
        assert questions(given) == list(told.words)


def check_continued(served: GatewayProcess, told: Told) -> None:
    """Fail where a response cannot be gone on from."""
    after = {"conversation": told.conversation}
    if not told.conversation:
        after = {"previous_response_id": told.response["id"]}
    made = served.create(f"After {told.response['id']}.", **after)
    assert made["status"] == "completed"


def check_conversation(served: GatewayProcess, lane: Lane) -> None:
    items = served.items(f"/conversations/{lane.told[0].conversation}/items")
    asked = questions(items)
    # The last of them may have been kept although nobody was told.
    assert asked[: len(lane.told)] == [told.words[-1] for told in lane.told]
    assert len(asked) <= len(lane.told) + 1
    kept = {item["id"] for item in items}
    assert kept >= {item["id"] for told in lane.told for item in told.response["output"]}


def check_untold(served: GatewayProcess, lane: Lane) -> None:
    """Fail where there is half a response."""
    whole = {told.response["id"] for told in lane.told}
    for response_id in set(lane.begun) - whole:
        reply = served.ask("GET", f"/responses/{response_id}")
        assert reply.status == 404 or reply.data["status"] == "completed"
    for response_id in lane.queued:
        found = served.data("GET", f"/responses/{response_id}")
        assert found["status"] in ("queued", "in_progress", "completed")
        assert served.items(f"/responses/{response_id}/input_items")


def check_lanes(served: GatewayProcess, lanes: list[Lane]) -> list[Told]:
    """Look at everything that clients were told before the gateway was killed; return it."""
    every = [told for lane in lanes for told in lane.told]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda told: check_told(served, told), every))
        list(threads.map(lambda lane: check_untold(served, lane), lanes))
        check_conversation(served, lanes[0])
        list(threads.map(lambda told: check_continued(served, told), every))
    return every


def said(record: Record) -> list[str]:
    found: list[Json] = record.body["contents"]
    return [part.get("text", "") for content in found for part in content["parts"]]


def check_upstream(simulator: Simulator, every: list[Told]) -> None:
    """Fail where the model was not given what a response was gone on from."""
    asked = {found[-1]: found for found in map(said, list(simulator.requests))}
    for told in every:
        given = asked[f"After {told.response['id']}."]
        users = [words_of(each) for each in given[:-1:2]]
        if told.conversation:
            assert told.words[-1] in users
        else:
            assert users == list(told.words)
            assert given[-2] == "".join(texts(told.response["output"]))


def test_what_a_client_was_told_survives_the_sudden_end(tmp_path: Path) -> None:
    path = tmp_path / "state" / "state.sqlite3"
    settings = {"OAICOMPAT_STATE__STORE": "sqlite", "OAICOMPAT_STATE__PATH": str(path)}
    chance = random.Random()
    lanes: list[Lane] = []
    every: list[Told] = []
    with running(any_model=True) as simulator:
        for turn in range(ROUNDS + 1):
            with gateway_process(simulator.url, tmp_path, **settings) as served:
                if lanes:
                    found = check_lanes(served, lanes)
                    check_upstream(simulator, found)
                    every += found
                if turn < ROUNDS:
                    lanes = run_and_kill(served, turn, chance.uniform(0, 0.4))
                    told_now = sum(len(lane.told) for lane in lanes)
                    check_file(path, tmp_path / f"copy{turn}", len(every) + told_now)
                else:
                    for told in every:
                        check_told(served, told)
    assert len(every) >= ROUNDS * LANES
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert "fault of the gateway" not in log


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running(any_model=True) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def pair(
    redis_url: str, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    with (
        on_redis(redis_url, simulator, tmp_path_factory.mktemp("first")) as first,
        on_redis(redis_url, simulator, tmp_path_factory.mktemp("second")) as second,
    ):
        yield first, second
        for served in (first, second):
            assert "Traceback" not in served.log.read_text()


def on_redis(
    url: str, simulator: Simulator, place: Path, **more: str
) -> AbstractContextManager[GatewayProcess]:
    settings = more | {"OAICOMPAT_STATE__STORE": "redis", "OAICOMPAT_STATE__REDIS_URL": url}
    return gateway_process(simulator.url, place, **settings)


def record(simulator: Simulator, words: str) -> Record:
    """Return the upstream request whose last text this is, as soon as it is there."""
    for _ in range(500):
        for found in reversed(list(simulator.requests)):
            if said(found)[-1] == words:
                return found
        time.sleep(0.01)
    pytest.fail(f"nobody asked {words!r}")


def ended(served: GatewayProcess, response_id: str) -> Json:
    """Return a response once it runs no more."""
    for _ in range(500):
        found: Json = served.data("GET", f"/responses/{response_id}")
        if found["status"] not in ("queued", "in_progress"):
            return found
        time.sleep(0.01)
    pytest.fail(f"{found['status']} still")


def test_a_chain_goes_on_in_the_other_gateway(pair: Pair, simulator: Simulator) -> None:
    first, second = pair
    one = first.create("My dog is Rex.")
    two = second.create("He is old.", previous_response_id=one["id"])
    (*_, last) = first.events(
        "/responses",
        {"model": "gpt-4o", "input": "Who?", "previous_response_id": two["id"], "stream": True},
    )
    three = last["response"]
    chain = ["My dog is Rex.", "My dog is Rex.", "He is old.", "He is old.", "Who?"]
    assert said(record(simulator, "Who?")) == chain
    for made in (one, two, three):
        path = f"/responses/{made['id']}"
        for served in pair:
            assert served.data("GET", path) == made
        assert list(first.events(f"{path}?stream=true")) == list(
            second.events(f"{path}?stream=true")
        )
    for served in pair:
        assert texts(served.items(f"/responses/{three['id']}/input_items")) == chain


def test_a_conversation_goes_on_in_the_other_gateway(pair: Pair, simulator: Simulator) -> None:
    first, second = pair
    begun = first.data("POST", "/conversations", {"metadata": {"topic": "cats"}})
    path = f"/conversations/{begun['id']}"
    assert second.data("GET", path) == begun
    first.create("My cat is Tom.", conversation=begun["id"])
    second.create("Is he young?", conversation={"id": begun["id"]})
    first.create("Are you sure?", conversation=begun["id"])
    told = ["My cat is Tom."] * 2 + ["Is he young?"] * 2
    assert said(record(simulator, "Are you sure?")) == [*told, "Are you sure?"]
    for served in pair:
        assert texts(served.items(f"{path}/items")) == [*told, "Are you sure?", "Are you sure?"]
    assert second.data("DELETE", path)["deleted"] is True
    assert first.ask("GET", path).status == 404
    body = {"model": "gpt-4o", "input": "x", "conversation": begun["id"]}
    assert first.ask("POST", "/responses", body).status == 404


def test_a_background_response_is_followed_in_the_other_gateway(
    pair: Pair, simulator: Simulator
) -> None:
    first, second = pair
    words = "A story. #script:long:24 #script:pace:80"
    made = first.create(words, background=True)
    path = f"/responses/{made['id']}"
    assert second.data("GET", path)["status"] in ("queued", "in_progress")
    asked = record(simulator, words)
    told: list[Json] = []
    early = 0
    for event in second.events(f"{path}?stream=true"):
        told.append(event)
        early += event["type"] == "response.output_text.delta" and asked.ended is None
    assert early > 0
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert told[-1]["type"] == "response.completed"
    assert list(first.events(f"{path}?stream=true")) == told
    for served in pair:
        assert served.data("GET", path) == told[-1]["response"]
    again = second.create("And then?", previous_response_id=made["id"])
    assert again["status"] == "completed"


def test_a_background_response_is_cancelled_in_the_other_gateway(
    pair: Pair, simulator: Simulator
) -> None:
    first, second = pair
    words = f"Cancelled there. {SLOW}"
    made = first.create(words, background=True)
    asked = record(simulator, words)
    cancelled = second.data("POST", f"/responses/{made['id']}/cancel")
    assert (cancelled["status"], cancelled["error"]) == ("cancelled", None)
    assert asked.wait() == "client left"
    for served in pair:
        assert ended(served, made["id"]) == cancelled
        told = list(served.events(f"/responses/{made['id']}?stream=true"))
        assert [event["type"] for event in told[-2:]] == ["error", "response.failed"]


def test_what_is_deleted_is_gone_in_the_other_gateway(pair: Pair) -> None:
    first, second = pair
    made = first.create("Forget this.")
    (item,) = made["output"]
    again = {"model": "gpt-4o", "input": "x", "previous_response_id": made["id"]}
    named = {"model": "gpt-4o", "input": [{"type": "item_reference", "id": item["id"]}]}
    assert second.ask("POST", "/responses", again).status == 200
    assert first.data("DELETE", f"/responses/{made['id']}")["deleted"] is True
    for served in pair:
        for method, rest in (("GET", ""), ("GET", "/input_items"), ("DELETE", "")):
            assert served.ask(method, f"/responses/{made['id']}{rest}").status == 404
        refused = served.ask("POST", "/responses", again)
        assert (refused.status, refused.error["code"]) == (400, "previous_response_not_found")
        assert served.ask("POST", "/responses", named).status == 404


def test_a_background_response_that_is_deleted_elsewhere_stops(
    pair: Pair, simulator: Simulator
) -> None:
    first, second = pair
    words = f"Deleted there. {SLOW}"
    made = first.create(words, background=True)
    asked = record(simulator, words)
    assert second.data("DELETE", f"/responses/{made['id']}")["deleted"] is True
    assert asked.wait() == "client left"
    for served in pair:
        assert served.ask("GET", f"/responses/{made['id']}").status == 404


def test_nobody_elses_responses_are_in_either_gateway(pair: Pair) -> None:
    first, second = pair
    made = first.create("A secret.")
    conversation = first.data("POST", "/conversations", {})
    for path in (f"/responses/{made['id']}", f"/conversations/{conversation['id']}"):
        assert second.ask("GET", path, key=KEY).status == 200
        for served in pair:
            assert served.ask("GET", path, key=OTHER_KEY).status == 404
    body = {"model": "gpt-4o", "input": "x", "previous_response_id": made["id"]}
    refused = second.ask("POST", "/responses", body, key=OTHER_KEY)
    assert refused.error["code"] == "previous_response_not_found"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_other_gateway_tells_what_a_stopped_one_was_at(
    pair: Pair, redis_url: str, simulator: Simulator, tmp_path: Path
) -> None:
    grace = {"OAICOMPAT_SERVER__GRACE": "0.3"}
    with on_redis(redis_url, simulator, tmp_path, **grace) as stopping:
        words = f"Stopped. {SLOW}"
        made = stopping.create(words, background=True)
        record(simulator, words)
        stopping.process.send_signal(signal.SIGTERM)
        assert stopping.process.wait(15) is not None
    found = pair[0].data("GET", f"/responses/{made['id']}")
    assert found["status"] == "failed"
    assert "shutting down" in found["error"]["message"]


def test_the_other_gateway_gives_up_what_a_dead_one_was_at(
    pair: Pair, redis_url: str, simulator: Simulator, tmp_path: Path
) -> None:
    with on_redis(redis_url, simulator, tmp_path) as dying:
        words = f"Died. {SLOW}"
        made = dying.create(words, background=True)
        record(simulator, words)
        dying.kill()
    path = f"/responses/{made['id']}"
    for served in pair:
        assert served.data("GET", path)["status"] in ("queued", "in_progress")
    owner = sha256(KEY.encode()).hexdigest()

    async def outlast() -> None:
        async with stores.redis(redis_url) as store:
            assert await store.append(owner, made["id"], (), time.time() - 1)

    anyio.run(outlast)
    found = [served.data("GET", path) for served in pair]
    assert found[0] == found[1]
    assert found[0]["status"] == "failed"
    assert "interrupted" in found[0]["error"]["message"]
    (*_, last) = pair[1].events(f"{path}?stream=true")
    assert (last["type"], last["response"]) == ("response.failed", found[0])
