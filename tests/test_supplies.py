"""Media as a need: what is asked for, what is put in its place, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oaicompat.errors import InvalidRequestError
from oaicompat.exchange import Exchange, Options
from oaicompat.providers.gemini.endpoints import Target
from oaicompat.supplies import Supplies

LINK = "https://host.example/a.png"
FETCHING = Options(fetch_media=True)


def _exchange(*links: str, options: Options = FETCHING) -> Exchange:
    images = [{"type": "image_url", "image_url": {"url": link}} for link in links]
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": images}]}
    return Exchange("chat", body, options=options)


def _parts(exchange: Exchange) -> list[dict[str, Any]]:
    (call,) = exchange.calls()
    body = json.loads(exchange.begin_attempt(call, Target()).body)
    parts: list[dict[str, Any]] = body["contents"][0]["parts"]
    return parts


def test_links_are_asked_for_once_however_often_and_in_whatever_case_they_come() -> None:
    exchange = _exchange(LINK, "HTTPS://Host.example/b", LINK)
    assert exchange.needs().media == (LINK, "HTTPS://Host.example/b")
    exchange.supply(Supplies(media={LINK: ("image/webp", "AAAA")}))
    assert not exchange.needs()
    assert [part.get("inlineData", {}).get("mimeType") for part in _parts(exchange)] == [
        "image/webp",
        None,
        "image/webp",
    ]


@pytest.mark.parametrize(
    "link",
    [
        "https://www.youtube.com/watch?v=abc",
        "https://youtu.be/abc",
        "https://generativelanguage.googleapis.com/v1beta/files/abc",
        "files/abc",
        "gs://bucket/a.png",
        "data:image/png;base64,iVBORw0KGgo=",
    ],
)
def test_what_only_the_provider_reads_is_no_need(link: str) -> None:
    assert not _exchange(link).needs()


def test_nothing_is_asked_for_unless_the_transport_fetches() -> None:
    assert not _exchange(LINK, options=Options()).needs()


def test_a_refused_link_is_the_clients_400_at_its_field() -> None:
    exchange = _exchange("https://host.example/b", LINK)
    exchange.needs()
    with pytest.raises(InvalidRequestError, match="Out of reach") as raised:
        exchange.supply(Supplies(refused={LINK: "Out of reach."}))
    assert raised.value.param == "messages[0].content[1].image_url.url"
    assert raised.value.code == "invalid_image_url"


def test_a_refused_link_in_a_tool_result_is_named_too() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    image = {"type": "input_image", "image_url": LINK}
    output = {"type": "function_call_output", "call_id": "c1", "output": [image]}
    body = {"model": "gpt-4o", "input": [{"role": "user", "content": "Look."}, call, output]}
    exchange = Exchange("responses", body, options=FETCHING)
    assert exchange.needs().media == (LINK,)
    with pytest.raises(InvalidRequestError) as raised:
        exchange.supply(Supplies(refused={LINK: "Out of reach."}))
    assert raised.value.param == "input[2].output[0].image_url"
