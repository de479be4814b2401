"""Keeps what passes between clients of Responses and the gateway, and has the shared checker look at it.

One rule: only answers that ended are judged, each with the request it answers. Without the checker beside the
checkout nothing is judged.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.responses_client import findings
from tests.support.shared import CHECKER
from tests.support.shared import findings as plain_findings

from oaicompat_server.auth import App
from oaicompat_server.framing import Message, Receive, Scope, Send

_OPEN_LIST = "response/error/code:"
"""The SDK lists the codes that are published; the live API and its clients know more (openai-wire, 4)."""


class Seen:
    """One request and its answer, as far as it came."""

    def __init__(self, path: str, headers: dict[str, str]) -> None:
        self.path = path
        self.headers = headers
        self.sent = b""
        self.status = 0
        self.content_type = ""
        self.received = b""
        self.ended = False

    @property
    def body(self) -> Any:
        """Return the request's body as data."""
        return json.loads(self.sent)

    @property
    def kind(self) -> str:
        """Tell which rules the answer has to keep."""
        if self.status >= 400:
            return "error"
        return "response-stream" if "event-stream" in self.content_type else "response"

    def judge(self) -> list[str]:
        """Return what the checker finds wrong."""
        if not (self.ended and CHECKER.exists()):
            return []
        if self.kind == "error":
            return [str(found) for found in plain_findings("error", self.received)]
        found = findings(self.kind, self.received, self.body)
        return [str(each) for each in found if not each[3].startswith(_OPEN_LIST)]


class Witness:
    """An application around an application: it hands everything on and keeps a copy."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.seen: list[Seen] = []

    @property
    def state(self) -> Any:
        """Return the state of the application within."""
        inner: Any = self.app
        return inner.state

    def take(self) -> list[Seen]:
        """Return what was seen since the last time."""
        taken, self.seen = self.seen, []
        return taken

    def check(self) -> None:
        """Fail the test where an answer since the last time was not what the API promises."""
        for seen in self.take():
            if wrong := seen.judge():
                told = "\n".join(wrong)
                pytest.fail(f"{seen.path} {seen.status}\n{told}\n{seen.received!r}", pytrace=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, and keep it where it is one of Responses."""
        if scope.get("method") != "POST" or not scope["path"].endswith("/responses"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        seen = Seen(scope["path"], headers)
        self.seen.append(seen)

        async def take() -> Message:
            message = await receive()
            seen.sent += message.get("body", b"")
            return message

        async def give(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                given = {name.lower(): value for name, value in message["headers"]}
                seen.content_type = given.get(b"content-type", b"").decode()
            elif message["type"] == "http.response.body":
                seen.received += message.get("body", b"")
                seen.ended = not message.get("more_body", False)
            await send(message)

        await self.app(scope, take, give)
