"""Linked media through the whole gateway: what reaches the upstream, what the client is told."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.asking import Reply, ask
from tests.support.gateway import Gateway, gateway
from tests.support.media_hosts import (
    PNG,
    PUBLIC,
    MediaHosts,
    Step,
    make_certificate,
    media_hosts,
    reply,
)
from websockets.sync.client import connect

from oaicompat_server.bodies import BodyBudget
from oaicompat_server.settings import Config, MediaSettings

CDN, OTHER = "cdn.example.com", "images.example.org"
LINK = f"https://{CDN}/a.png"
QUICK = MediaSettings(fetch=True, timeout=3.0)
_DRIPPING: Sequence[Step] = (PNG, 0.05) * 100
UNREACHABLE = "The media at this link could not be fetched."


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("certificates")
    make_certificate(place, CDN, OTHER)
    return place


@pytest.fixture
def hosts(certificates: Path) -> Iterator[MediaHosts]:
    names = {CDN: PUBLIC, OTHER: PUBLIC, "unnamed.example.net": PUBLIC}
    with media_hosts(certificates, names) as served:
        served.pages[f"{CDN}/a.png"] = [reply(PNG)]
        yield served


@pytest.fixture
def served(hosts: MediaHosts) -> Iterator[Gateway]:
    with gateway(Config(media=QUICK)) as running:
        relay = running.relay
        relay.media.close()
        relay.media = hosts.fetcher()
        yield running


def _chat(served: Gateway, *links: str) -> Reply:
    parts = [{"type": "image_url", "image_url": {"url": link}} for link in links]
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}
    return ask(served, "POST", "/v1/chat/completions", {"model": "gpt-4o", "messages": [message]})


def _upstream_parts(served: Gateway) -> list[dict[str, Any]]:
    body = served.simulator.requests[-1].body
    return [part for content in body["contents"] for part in content["parts"]]


INLINE = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PNG).decode()}}


def test_chat_sends_what_was_fetched(served: Gateway) -> None:
    assert _chat(served, LINK, LINK).status == 200
    assert _upstream_parts(served)[1:] == [INLINE, INLINE]


def test_responses_send_what_was_fetched_and_fetch_the_history_again(
    served: Gateway, hosts: MediaHosts
) -> None:
    content = [{"type": "input_image", "image_url": LINK}, {"type": "input_file", "file_url": LINK}]
    body = {"model": "gpt-4o", "input": [{"role": "user", "content": content}]}
    reply = ask(served, "POST", "/v1/responses", body)
    assert reply.status == 200
    assert _upstream_parts(served) == [INLINE, INLINE]
    body = {"model": "gpt-4o", "input": "And?", "previous_response_id": reply.data["id"]}
    assert ask(served, "POST", "/v1/responses", body).status == 200
    assert _upstream_parts(served)[:2] == [INLINE, INLINE]
    assert len(hosts.heads) == 2


def test_media_count_among_the_bodies_until_the_answer_is_there(
    served: Gateway, hosts: MediaHosts
) -> None:
    hosts.pages[f"{CDN}/b.png"] = [reply(PNG * 200)]
    size = len(base64.b64encode(PNG * 200))
    image = {"type": "input_image", "image_url": f"https://{CDN}/b.png"}
    content = [{"type": "input_text", "text": "#script:slow:400 x"}, image]
    body = {"model": "gpt-4o", "input": [{"role": "user", "content": content}]}
    asking = threading.Thread(target=ask, args=(served, "POST", "/v1/responses", body))
    asking.start()
    assert _within(2, lambda: served.relay.bodies.used == size)
    asking.join()
    assert served.relay.bodies.used == 0
    assert ask(served, "POST", "/v1/responses", {**body, "background": True}).status == 200
    assert served.relay.bodies.used == size
    assert _within(2, lambda: served.relay.bodies.used == 0)


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.005)
    return False


def test_media_beyond_the_budget_of_bodies_are_refused_for_now(served: Gateway) -> None:
    served.relay.bodies = BodyBudget(len(PNG))
    reply = _chat(served, LINK)
    assert (reply.status, reply.error["code"]) == (503, "server_is_overloaded")
    assert served.relay.bodies.used == 0


def test_what_only_gemini_can_read_is_not_fetched(served: Gateway, hosts: MediaHosts) -> None:
    links = (
        "https://www.youtube.com/watch?v=abc",
        "https://generativelanguage.googleapis.com/v1beta/files/abc-1",
        "files/abc-2",
    )
    assert _chat(served, *links).status == 200
    assert all("fileData" in part for part in _upstream_parts(served)[1:])
    assert hosts.asked == []


def test_a_link_that_cannot_be_fetched_is_the_clients_400_and_names_the_part(
    served: Gateway, hosts: MediaHosts
) -> None:
    reply = _chat(served, LINK, "https://intranet.example.com/secret/path")
    assert reply.status == 400
    assert reply.error == {
        "message": UNREACHABLE,
        "type": "invalid_request_error",
        "param": "messages[0].content[2].image_url.url",
        "code": "invalid_image_url",
    }
    file = {"type": "input_file", "file_url": "https://localtest.me/x.pdf"}
    body = {"model": "gpt-4o", "input": [{"role": "user", "content": [file]}]}
    reply = ask(served, "POST", "/v1/responses", body)
    assert reply.status == 400
    assert reply.error["param"] == "input[0].content[0].file_url"
    assert hosts.private == 0
    assert served.simulator.requests == []


# The simulator takes any link, so a 200 here is one that was passed on.
@pytest.mark.parametrize("fetch", [False, True])
@pytest.mark.parametrize(
    "link",
    [
        *(
            "file:///etc/passwd",
            "file:/etc/passwd",
            "file://localhost/etc/passwd",
            "FILE:///etc/passwd",
        ),
        *("/etc/passwd", "etc/passwd", "../etc/passwd", "C:\\etc\\passwd", "\\\\host\\etc\\passwd"),
        *("~/etc/passwd", "http://host.example/etc/passwd", "HTTP://host.example/etc/passwd"),
        *("gs://bucket/etc/passwd", "s3://bucket/etc/passwd", "ftp://host.example/etc/passwd"),
        *("javascript:etc/passwd", "blob:https://host.example/etc/passwd", "data:etc/passwd"),
        *("data:image/png;base64,etc/passwd!", "attachment://etc/passwd", "files/../etc/passwd"),
        *("https://user:etc@host.example/passwd", "https://host.example\\etc/passwd"),
    ],
)
def test_other_schemes_are_refused_without_repeating_them(
    hosts: MediaHosts, shared: dict[bool, Gateway], fetch: bool, link: str
) -> None:
    reply = _chat(shared[fetch], link)
    assert reply.status == 400
    assert reply.error["code"] == "invalid_image_url"
    assert reply.error["param"] == "messages[0].content[1].image_url.url"
    assert "etc" not in reply.error["message"]
    assert shared[fetch].simulator.requests == []


@pytest.fixture(scope="module")
def shared() -> Iterator[dict[bool, Gateway]]:
    with gateway() as off, gateway(Config(media=QUICK)) as on:
        yield {False: off, True: on}


def test_nothing_is_fetched_unless_it_is_switched_on(hosts: MediaHosts) -> None:
    with gateway() as off:
        off.relay.media = hosts.fetcher()
        assert _chat(off, LINK).status == 200
        assert _upstream_parts(off)[1] == {
            "fileData": {"mimeType": "image/png", "fileUri": LINK},
        }
    assert hosts.asked == []


@pytest.mark.parametrize("fetch", [False, True])
def test_ten_thousand_parts_are_refused_at_once(shared: dict[bool, Gateway], fetch: bool) -> None:
    served = shared[fetch]
    links = [f"https://host.example/{number}.png" for number in range(10_000)]
    chat = [{"type": "image_url", "image_url": {"url": link}} for link in links]
    responses = [{"type": "input_image", "image_url": link} for link in links]
    for path, name, parts in (
        ("/v1/chat/completions", "messages", chat),
        ("/v1/responses", "input", responses),
    ):
        body = {"model": "gpt-4o", name: [{"role": "user", "content": parts}]}
        data = json.dumps(body).encode()
        took = []
        for _ in range(5):
            began = time.monotonic()
            reply = ask(served, "POST", path, data)
            took.append(time.monotonic() - began)
            assert reply.status == 400
            assert reply.error["param"] == f"{name}[0].content"
        # The best of them, because the machine may have other things to do as well.
        assert min(took) < 0.2
    assert served.simulator.requests == []


def test_a_turn_over_a_websocket_fetches_too(served: Gateway) -> None:
    image = {"type": "input_image", "image_url": LINK}
    turn = {
        "type": "response.create",
        "model": "gpt-4o",
        "input": [{"role": "user", "content": [image]}],
    }
    with connect(f"ws://127.0.0.1:{served.port}/v1/responses") as socket:
        for _ in range(2):
            socket.send(json.dumps(turn))
            while json.loads(socket.recv(10))["type"] != "response.completed":
                pass
            assert _upstream_parts(served) == [INLINE]
            assert _within(1, lambda: served.relay.bodies.used == 0)
