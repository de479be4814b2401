"""A Gemini API that costs next to nothing: canned answers over a bare asyncio protocol.

`python -m tests.benchmarks.upstream DELAY CHUNKS PACE` prints its port; a stream has CHUNKS events, PACE
seconds apart (0: all in one write), an answer comes after DELAY seconds. One rule: a short delay is exact:
the timers of the loop are whole milliseconds, behind which less than one would hide.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop
from tests.benchmarks import samples

ANSWER = json.dumps(samples.ANSWER).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
WHOLE = HEAD % len(ANSWER) + ANSWER
_EXACT_BELOW = 0.05
_TIMER_SECONDS = 0.002


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Upstream(asyncio.Protocol):
    delay, chunks, pace = 0.0, 100, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            self.answer(b"streamgenerate" in head)

    def answer(self, streamed: bool) -> None:
        if streamed:
            self.stream()
        elif not self.delay:
            self.write(WHOLE)
        elif self.delay < _EXACT_BELOW:
            due = time.perf_counter() + self.delay
            asyncio.get_running_loop().call_later(self.delay - _TIMER_SECONDS, self.write_at, due)
        else:
            asyncio.get_running_loop().call_later(self.delay, self.write, WHOLE)

    def write_at(self, due: float) -> None:
        """Write the answer when it is due, going round the loop until then."""
        if time.perf_counter() < due:
            asyncio.get_running_loop().call_soon(self.write_at, due)
        else:
            self.write(WHOLE)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def stream(self) -> None:
        event = chunked(samples.event(samples.CHUNK))
        last = chunked(samples.event(samples.LAST)) + b"0\r\n\r\n"
        if not self.pace:
            self.write(STREAM_HEAD + event * (self.chunks - 1) + last)
            return
        loop = asyncio.get_running_loop()
        self.write(STREAM_HEAD + event)
        for number in range(1, self.chunks - 1):
            loop.call_later(self.pace * number, self.write, event)
        loop.call_later(self.pace * self.chunks, self.write, last)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    Upstream.delay, Upstream.chunks, Upstream.pace = (
        float(sys.argv[1]),
        int(sys.argv[2]),
        float(sys.argv[3]),
    )
    uvloop.run(serve())
