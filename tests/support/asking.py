"""Plain HTTP questions to a running gateway, and its store from another thread."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from tests.support.gateway import Gateway
from tests.support.shared import checker, schemas

from oaicompat.events import Frame
from oaicompat_server.store import Item, StoredResponse

T = TypeVar("T")
Json = dict[str, Any]


class Reply:
    """One reply: its status, its headers (lower case), its bytes."""

    def __init__(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.status = status
        self.headers = headers
        self.content = content

    @property
    def data(self) -> Any:
        """Return the body as data."""
        return json.loads(self.content)

    @property
    def error(self) -> Json:
        """Return the error object of a refusal."""
        data: Json = self.data
        assert list(data) == ["error"]
        error: Json = data["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


def ask(
    served: Gateway, method: str, path: str, body: object = None, *, key: str = "any", **more: str
) -> Reply:
    """Send one request on a connection of its own."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}"} | {
        name.replace("_", "-"): value for name, value in more.items()
    }
    if data is not None:
        headers = {"content-type": "application/json"} | headers
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    try:
        connection.request(method, path, data, headers)
        reply = connection.getresponse()
        content = reply.read()
        found = {name.lower(): value for name, value in reply.getheaders()}
        return Reply(reply.status, found, content)
    finally:
        connection.close()


def run(served: Gateway, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the gateway's event loop."""
    return asyncio.run_coroutine_threadsafe(work, served.serving.loop).result(10)


def message(item_id: str, text: str, role: str = "user") -> Item:
    """Return a message as it is stored."""
    part: Json = {"type": "input_text", "text": text}
    if role == "assistant":
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    data = {"type": "message", "id": item_id, "role": role, "status": "completed"}
    return Item(item_id, json.dumps({**data, "content": [part]}).encode())


def running_response(
    response_id: str, until: float, *, status: str = "queued", **more: Any
) -> tuple[StoredResponse, list[Frame]]:
    """Return a response that has only begun, and its first frames."""
    body = {
        "id": response_id, "object": "response", "created_at": 1, "status": status, "background": True,
        "error": None, "incomplete_details": None, "instructions": None, "model": "m", "tools": [],
        "output": [], "parallel_tool_calls": True, "metadata": {}, "tool_choice": "auto",
        "temperature": 1.0, "top_p": 1.0, "usage": None, "completed_at": None,
    }  # fmt: skip
    frames = [
        event(number, f"response.{name}", response=body)
        for number, name in enumerate(("created", "queued"))
    ]
    stored = StoredResponse(
        response_id, 1.0, json.dumps(body).encode(), running_until=until, **more
    )
    return stored, frames


def event(sequence: int, kind: str, **fields: Any) -> Frame:
    """Return one event as a frame."""
    data = {"type": kind, "sequence_number": sequence, **fields}
    return Frame(json.dumps(data).encode(), kind, sequence)


def check(schema: str, data: Any) -> None:
    """Fail where data is not what OpenAI's schema says; nothing is checked without the schemas."""
    try:
        found = schemas()
    except FileNotFoundError:
        return
    report = checker().Report()
    found.check(report, schema, data, schema)
    if report.items:
        pytest.fail(f"{[str(each) for each in report.items]}\n{data}", pytrace=False)
