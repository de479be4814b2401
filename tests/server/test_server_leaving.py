"""A client that leaves is told of once, by our own server and by any other."""

from __future__ import annotations

import asyncio
from typing import Any

from oaicompat_server.framing import Message
from oaicompat_server.leaving import LEAVING, Leaving, listen


async def unasked() -> Message:
    raise AssertionError("our own server tells, nobody waits for its messages")


def promised() -> tuple[dict[str, Any], Leaving]:
    leaving = Leaving()
    return {LEAVING: leaving}, leaving


def test_a_server_that_promises_to_tell_does() -> None:
    left: list[str] = []
    scope, leaving = promised()
    listen(scope, unasked, lambda: left.append("left"))
    assert not left
    leaving.tell()
    assert left == ["left"]


def test_who_listens_late_is_told_at_once() -> None:
    left: list[str] = []
    scope, leaving = promised()
    leaving.tell()
    listen(scope, unasked, lambda: left.append("left"))
    assert left == ["left"]


def test_who_ignores_is_not_told() -> None:
    left: list[str] = []
    scope, leaving = promised()
    listen(scope, unasked, lambda: left.append("left"))()
    leaving.tell()
    assert not left


async def watched(messages: list[Message], ignoring: bool) -> list[str]:
    left: list[str] = []
    waiting = list(messages)

    async def receive() -> Message:
        await asyncio.sleep(0)
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    ignore = listen({}, receive, lambda: left.append("left"))
    if ignoring:
        ignore()
    for _ in range(8):
        await asyncio.sleep(0)
    ignore()
    await asyncio.sleep(0)
    return left


def test_under_any_other_server_the_message_tells() -> None:
    body: Message = {"type": "http.request", "body": b"", "more_body": False}
    gone: Message = {"type": "http.disconnect"}
    assert asyncio.run(watched([body, gone], ignoring=False)) == ["left"]
    assert asyncio.run(watched([body], ignoring=False)) == []
    assert asyncio.run(watched([gone], ignoring=True)) == []
