"""What a request fails with becomes its answer, however far it came, and nothing of it is kept."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat_server.bodies import BodyBudget, ClientLeft, Reading
from oaicompat_server.framing import Message, Receive, Scope, Send
from oaicompat_server.handlers.context import CONTEXT, Context, Route
from oaicompat_server.isolating import Isolated
from oaicompat_server.store import StoreError

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


def answered(
    failure: Exception, *, come: bool = True, started: bool = False, mute: bool = False
) -> tuple[int, Any, dict[bytes, bytes]]:
    """Return status, body and headers of the answer to a request that fails, status 0 where there is none.

    `come`: as far as the handlers; `started`: after the head; `mute`: where the handlers can send nothing.
    """
    sent: list[Message] = []
    budget = BodyBudget(1_000_000)
    scope: Scope = {"type": "http", "headers": [(b"x-request-id", b"mine")]}

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start" and sent:
            raise RuntimeError("sent twice")
        sent.append(message)

    async def unsent(message: Message) -> None:
        raise ValueError("an inner secret")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if come:
            reading = Reading(receive, budget)
            reading.cover(500_000)
            way = unsent if mute else send
            scope[CONTEXT] = Context(scope, {}, reading, way, Route(""), "mine", 0.0, "POST", "")
        if started:
            await send(START)
        raise failure

    asyncio.run(Isolated(app)(scope, receive, send))
    assert CONTEXT not in scope
    assert budget.used == 0
    if not sent:
        return 0, None, {}
    body = b"".join(each.get("body", b"") for each in sent)
    return sent[0]["status"], json.loads(body) if body else None, dict(sent[0]["headers"])


@pytest.mark.parametrize("come", [True, False])
def test_an_error_is_its_own_answer(come: bool, caplog: pytest.LogCaptureFixture) -> None:
    failure = InvalidRequestError("No.", param="model", status=422)
    status, body, headers = answered(failure, come=come)
    assert (status, body["error"]["param"]) == (422, "model")
    assert headers[b"x-request-id"] == b"mine"
    assert not caplog.records


@pytest.mark.parametrize("come", [True, False])
def test_an_error_tells_when_to_come_again(come: bool) -> None:
    failure = OaicompatError("Later.", status=503, retry_after=1.5, should_retry=True)
    _, _, headers = answered(failure, come=come)
    assert (headers[b"retry-after"], headers[b"x-should-retry"]) == (b"2", b"true")


@pytest.mark.parametrize("come", [True, False])
def test_a_fault_is_told_the_log_alone(come: bool, caplog: pytest.LogCaptureFixture) -> None:
    status, body, _ = answered(KeyError("an inner secret"), come=come)
    assert status == 500
    assert "mine" in body["error"]["message"]
    assert "secret" not in json.dumps(body)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


def test_a_store_that_fails_may_be_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    status, body, _ = answered(StoreError("busy"))
    assert status == 503
    assert body["error"]["code"] == "state_unavailable"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_handler_that_cannot_answer_is_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    status, body, headers = answered(InvalidRequestError("No."), mute=True)
    assert (status, headers[b"connection"]) == (500, b"close")
    assert "secret" not in json.dumps(body)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("come", [True, False])
def test_an_answer_that_has_begun_is_left_without_an_end(
    come: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert answered(KeyError(), come=come, started=True)[:2] == (200, None)
    assert caplog.records[-1].message == "request mine had been answered in part"


def test_a_client_that_left_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    assert answered(ClientLeft())[0] == 0
    assert not caplog.records


def test_a_fault_of_a_websocket_is_the_servers_to_end(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError

    made: Any = None
    with pytest.raises(KeyError):
        asyncio.run(Isolated(app)({"type": "websocket", "headers": []}, made, made))
    assert not caplog.records
