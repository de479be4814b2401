"""Shapes of Responses requests over real sockets: all aliases, bodies of the other API, items and tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.support.asking import ask
from tests.support.gateway import Gateway, gateway

from oaicompat.testing import responses_requests
from oaicompat_server.settings import Config, RequestSettings

Json = dict[str, Any]

ALIASES = ["/v1/responses", "/responses", "/v1/v1/responses", "/v1/chat/completions/responses"]
CHAT: Json = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
RESPONSES: Json = {"model": "gpt-4o", "input": "hello", "instructions": "Be brief."}


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway(witnessed=True) as running:
        yield running


def said(response: Json) -> str:
    parts = [part for item in response["output"] for part in item.get("content") or ()]
    return "".join(part.get("text", "") for part in parts)


@pytest.mark.parametrize("body", [RESPONSES, CHAT], ids=["responses", "chat"])
@pytest.mark.parametrize("path", ALIASES)
def test_the_route_decides_the_shape_of_the_answer(served: Gateway, path: str, body: Json) -> None:
    plain = ask(served, "POST", path, body)
    assert (plain.status, plain.data["object"]) == (200, "response")
    assert said(plain.data) == "hello"
    streamed = ask(served, "POST", path, body | {"stream": True})
    events = [
        json.loads(line[6:]) for line in streamed.content.split(b"\n") if line[:7] == b"data: {"
    ]
    assert events[0]["type"] == "response.created"
    assert said(events[-1]["response"]) == "hello"
    assert streamed.content.endswith(b"data: [DONE]\n\n")
    served.check()


def test_a_responses_body_is_understood_where_chat_is_answered(served: Gateway) -> None:
    reply = ask(served, "POST", "/v1/chat/completions", RESPONSES)
    assert reply.data["object"] == "chat.completion"
    assert reply.data["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "computer_use_preview", "environment": "mac"}]}, "tools[0]"),
        ({"tools": [{"type": "file_search"}]}, "tools[0]"),
        ({"previous_response_id": "resp_unknown"}, "previous_response_id"),
        ({"background": True, "store": False}, "background"),
        ({"reasoning": {"effort": "vast"}}, "reasoning.effort"),
    ],
)
def test_what_cannot_be_served_is_a_400_that_names_the_field(
    served: Gateway, fields: Json, param: str
) -> None:
    reply = ask(served, "POST", "/v1/responses", RESPONSES | fields)
    assert reply.status in (400, 404)
    assert (reply.error["param"] or "").startswith(param), reply.error
    served.check()


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0]"),
        ({"input": [{"role": "user", "content": "hello"}, {"type": "unheard_of"}]}, "input[1]"),
        ({"truncation": "auto"}, "truncation"),
    ],
)
def test_what_is_left_out_is_noted_and_refused_by_strict_mode(
    served: Gateway, fields: Json, path: str
) -> None:
    reply = ask(served, "POST", "/v1/responses", RESPONSES | fields)
    assert reply.status == 200
    assert path in reply.headers["x-oaicompat-notes"]
    with gateway(Config(request=RequestSettings(strict=True))) as strict:
        refused = ask(strict, "POST", "/v1/responses", RESPONSES | fields)
        assert (refused.status, refused.error["param"]) == (400, path)


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(body=responses_requests())
def test_every_generated_request_is_answered(served: Gateway, body: Json) -> None:
    if body.get("store") is False:
        body.pop("background", None)
    reply = ask(served, "POST", "/v1/responses", body)
    assert reply.status == 200, (reply.content, body)
    served.check()
