"""What a process does to a state file until it is killed, and what must be there afterwards.

One rule: an id is printed once its response was acknowledged, begun, continued and ended.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.stores import END, frame, item, response, sqlite

from oaicompat.events import Frame
from oaicompat_server.store import Store, StoredResponse

LANES = 6
_FAR = 9e9


async def saving(path: Path, turn: str) -> None:
    """Save responses for ever, several at a time."""
    async with sqlite(path) as store:
        await asyncio.gather(*(_lane(store, f"r-{turn}-{lane}-") for lane in range(LANES)))


async def _lane(store: Store, prefix: str) -> None:
    number = 0
    while True:
        id = f"{prefix}{number}"
        frames = _frames(id)
        assert await store.save("", _begun(id), frames[:1], 1.0)
        assert await store.append("", id, frames[1:3], _FAR)
        assert await store.save("", _ended(id), frames[3:], 2.0)
        print(id, flush=True)
        number += 1


async def complete(store: Store, id: str) -> bool:
    """Tell whether a response has ended; fails where there is half of one."""
    found = await store.find("", id)
    frames = await store.frames("", id, -1)
    if found is None:
        assert frames == ()
        return False
    if found.running_until:
        assert found == _begun(id)
        assert frames in (_frames(id)[:1], _frames(id)[:3])
        return False
    assert found == _ended(id)
    assert frames == _frames(id)
    assert await store.history("", id, 3.0) == (*found.input, *found.output)
    return True


def _begun(id: str) -> StoredResponse:
    return response(id, input=[item(f"i{id}")], body=b"begun", until=_FAR)


def _ended(id: str) -> StoredResponse:
    outputs = [item(f"{each}{id}", "text " * 400) for each in "opq"]
    return response(id, input=[item(f"i{id}")], output=outputs, body=b"ended" * 2000)


def _frames(id: str) -> tuple[Frame, ...]:
    return (*(frame(each, id * 50) for each in range(9)), END)
