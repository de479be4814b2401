"""Several calls write one answer: whatever the client's pace, frames go out in the order they came."""

from __future__ import annotations

import anyio
import pytest

from oaicompat.events import Frame
from oaicompat_server.framing import Answer, Message


@pytest.mark.parametrize("slow", ["http.response.start", "http.response.body"])
def test_frames_of_several_writers_keep_their_order(slow: str) -> None:
    sent: list[Message] = []
    begun: list[Message] = []

    async def send(message: Message) -> None:
        if message["type"] == slow and message["type"] not in [each["type"] for each in begun]:
            begun.append(message)
            await anyio.sleep(0.02)
        sent.append(message)

    async def write() -> None:
        answer = Answer(send, True, list)
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(answer.write, [Frame(b'{"n":%d}' % number)])
                await anyio.sleep(0.004)
        await answer.end()

    anyio.run(write)
    assert [message["type"] for message in sent].count("http.response.start") == 1
    assert sent[0]["type"] == "http.response.start"
    body = b"".join(message.get("body", b"") for message in sent[1:])
    assert body == b"".join(b'data: {"n":%d}\n\n' % number for number in range(4))
    assert [message["more_body"] for message in sent[1:]][-2:] == [True, False]


def test_a_writer_waits_for_the_client_though_another_one_writes() -> None:
    released: list[str] = []

    async def write() -> None:
        gate = anyio.Event()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                await gate.wait()

        answer = Answer(send, True, list)

        async def one(name: str) -> None:
            await answer.write([Frame(b"{}")])
            released.append(name)

        async with anyio.create_task_group() as group:
            group.start_soon(one, "first")
            group.start_soon(one, "second")
            await anyio.sleep(0.02)
            assert released == []
            gate.set()

    anyio.run(write)
    assert sorted(released) == ["first", "second"]
