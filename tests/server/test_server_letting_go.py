"""What a request held is let go of with its end, not when the garbage collector comes by.

One rule: the collector is off. Its thresholds count objects, not bytes: a request of many megabytes that holds
itself is kept until hundreds of others have come.
"""

from __future__ import annotations

import gc
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from tests.support import raw
from tests.support.gateway import Gateway, gateway
from websockets.sync.client import connect

from oaicompat.errors import InvalidRequestError
from oaicompat.exchange import Exchange
from oaicompat_server.background import Run
from oaicompat_server.session import Session

_KINDS = (Exchange, Session, Run)
_MESSAGE = {"role": "user"}


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway(keys=("first", "second")) as started:
        yield started


@contextmanager
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _left() -> int:
    return sum(isinstance(each, _KINDS) for each in gc.get_objects())


def _ask(served: Gateway, path: str, body: dict[str, Any]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    try:
        data = json.dumps({"model": "gpt-4o", **body}).encode()
        connection.request("POST", path, data, {"content-type": "application/json"})
        connection.getresponse().read()
    finally:
        connection.close()
    served.relay.pool.reset()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (raw.CHAT, {"messages": [{**_MESSAGE, "content": "hello"}]}),
        (raw.CHAT, {"messages": [{**_MESSAGE, "content": "hello"}], "stream": True}),
        (raw.CHAT, {"messages": [{**_MESSAGE, "content": "#script:error:400"}]}),
        (raw.CHAT, {"messages": [{**_MESSAGE, "content": "#script:error:429"}]}),
        (raw.CHAT, {"messages": [{**_MESSAGE, "content": "#script:malformed-call"}]}),
        (
            raw.CHAT,
            {"messages": [{**_MESSAGE, "content": "#script:reset-after:1"}], "stream": True},
        ),
        (raw.RESPONSES, {"input": "hello"}),
        (raw.RESPONSES, {"input": "hello", "stream": True}),
        (raw.RESPONSES, {"input": "hello", "background": True}),
        (raw.RESPONSES, {"input": "#script:error:400", "background": True}),
        (raw.RESPONSES, {"input": "hello", "previous_response_id": "resp_unknown"}),
    ],
)
def test_nothing_of_a_request_outlives_it(served: Gateway, path: str, body: dict[str, Any]) -> None:
    """However it ends, a request is not kept by itself: neither in cycles nor by the error it ended with."""
    with raw.left_idle(served), _uncollected():
        _ask(served, path, body)
        raw.until(lambda: not _left())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choices", [1, 3])
def test_nothing_is_left_of_a_request_whose_client_leaves(
    served: Gateway, choices: int, stream: bool
) -> None:
    """Several calls at once were kept by their tasks, which kept their bodies: 3 MB each, hundreds of them."""
    message = {**_MESSAGE, "content": "#script:slow:3000 hello"}
    asked = {"model": "gemini-3-pro-preview", "n": choices, "stream": stream, "messages": [message]}
    before = len(served.simulator.requests)
    with raw.left_idle(served), _uncollected():
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
        connection.request(
            "POST", raw.CHAT, json.dumps(asked), {"content-type": "application/json"}
        )
        raw.until(lambda: len(served.simulator.requests) >= before + choices)
        connection.close()
        raw.until(lambda: not _left())


def test_nothing_is_left_of_a_turn_whose_client_leaves(served: Gateway) -> None:
    """Over WebSocket as well, where a connection's turns are the tasks of a group."""
    before = len(served.simulator.requests)
    with raw.left_idle(served), _uncollected():
        with connect(f"ws://127.0.0.1:{served.port}/v1/responses") as connection:
            asked = {
                "type": "response.create",
                "model": "gpt-4o",
                "input": "#script:slow:3000 hello",
            }
            connection.send(json.dumps(asked))
            raw.until(lambda: len(served.simulator.requests) > before)
        raw.until(lambda: not _left())


def test_a_body_that_cannot_be_read_is_not_kept_by_its_error() -> None:
    """What refuses a body holds frames, and these hold the body; they must not hold what refuses it."""
    with _uncollected():
        with suppress(InvalidRequestError):
            Exchange("chat", {"model": "gpt-4o", "messages": [_MESSAGE]})
        assert not _left()
