"""The head of an answer goes out with the first bytes of its body, and never waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from oaicompat_server.joining import Joining

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.written.append(b"closed")

    def is_closing(self) -> bool:
        return b"closed" in self.written


def written(*steps: Callable[[Joining], None], turns: int = 2) -> list[bytes]:
    async def work() -> list[bytes]:
        wire = Wire()
        joining = Joining(wire, asyncio.get_running_loop())
        for step in steps:
            step(joining)
        for _ in range(turns):
            await asyncio.sleep(0)
        assert joining.is_closing() == (b"closed" in wire.written)
        return wire.written

    return asyncio.run(work())


def writing(data: bytes) -> Callable[[Joining], None]:
    return lambda joining: joining.write(data)


def test_head_and_body_are_one_write() -> None:
    assert written(writing(HEAD), writing(b"body"), writing(b"more")) == [HEAD + b"body", b"more"]


def test_a_head_without_a_body_goes_out_in_the_same_turn() -> None:
    assert written(writing(HEAD), turns=1) == [HEAD]


def test_a_head_is_sent_before_the_connection_closes() -> None:
    assert written(writing(HEAD), Joining.close) == [HEAD, b"closed"]


def test_an_interim_answer_does_not_hold_the_next_one_up() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert b"".join(written(writing(interim), writing(HEAD), writing(b"body"))) == (
        interim + HEAD + b"body"
    )
