"""Stored responses as they are seen later, without a server around them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from msgspec.structs import replace
from tests.support.asking import event, running_response

from oaicompat.events import Frame
from oaicompat_server.store.memory import MemoryStore
from oaicompat_server.stored import Stored, in_background

DONE = Frame(b"[DONE]")


class _Runs:
    """What runs here: `run`, or nothing."""

    def __init__(self, run: Any = None) -> None:
        self.run = run

    def find(self, owner: str, response_id: str) -> Any:
        return self.run


async def _sequences(stored: Stored, *asked: Any) -> list[int]:
    return [frame.sequence async for frames in stored.follow(*asked) for frame in frames]


def test_what_ended_since_it_was_found_ends_once() -> None:
    async def main() -> list[int]:
        store = MemoryStore()
        begun, frames = running_response("resp_x", time.time() + 30)
        await store.save("", begun, frames, 0.0)
        ended = replace(begun, running_until=0.0)
        await store.save("", ended, [event(2, "response.completed"), DONE], 0.0)
        return await _sequences(Stored(store, _Runs(), ""), begun, -1, 5.0)

    assert asyncio.run(main()) == [0, 1, 2, -1]


def test_what_runs_here_is_not_lost_however_late_its_claim_is() -> None:
    async def main() -> tuple[float, float]:
        store = MemoryStore()
        begun, frames = running_response("resp_x", 1.0)
        await store.save("", begun, frames, 0.0)
        here = await Stored(store, _Runs(object()), "").find("resp_x")
        elsewhere = await Stored(store, _Runs(), "").find("resp_x")
        assert here is not None
        assert elsewhere is not None
        return here.running_until, elsewhere.running_until

    assert asyncio.run(main()) == (1.0, 0.0)


def test_a_lost_response_leaves_its_conversation_alone() -> None:
    async def main() -> tuple[Any, Any]:
        store = MemoryStore()
        begun, frames = running_response("resp_x", 1.0, conversation="conv_gone")
        await store.save("", begun, frames, 0.0)
        found = await Stored(store, _Runs(), "").find("resp_x")
        return found, await store.find("", "resp_x")

    found, kept = asyncio.run(main())
    assert found == kept
    assert b'"failed"' in found.body


def test_what_ended_while_it_was_given_up_stays_as_it_ended() -> None:
    class Racing(MemoryStore):
        async def frames(self, owner: str, response_id: str, after: int) -> tuple[Frame, ...]:
            found = await self.find(owner, response_id)
            if found is not None and found.running_until:
                ended = replace(found, running_until=0.0, body=b'{"status":"completed"}')
                await self.save(owner, ended, [DONE], 0.0)
            return await super().frames(owner, response_id, after)

    async def main() -> Any:
        store = Racing()
        begun, frames = running_response("resp_x", 1.0)
        await store.save("", begun, frames, 0.0)
        return await Stored(store, _Runs(), "").find("resp_x")

    assert asyncio.run(main()).body == b'{"status":"completed"}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b'{"background":true}', True), (b'{"background":null}', False), (b"{}", False)],
)
def test_who_waited_is_told_by_the_object(body: bytes, expected: bool) -> None:
    response, _ = running_response("resp_x", 0.0)
    assert in_background(replace(response, body=body)) is expected
