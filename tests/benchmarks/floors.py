"""The floors: a bare Starlette pass-through over httpcore, nothing converted.

`python -m tests.benchmarks.floors pass|passc UPSTREAM_PORT` prints its port. `pass` uses httpcore's stock
pool, `passc` its public connections in a free list.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator

import httpcore
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

HEADERS = [
    (b"host", b"127.0.0.1"),
    (b"content-type", b"application/json"),
    (b"x-goog-api-key", b"k"),
]


class FreeList:
    """Connections of one origin, the last used first."""

    def __init__(self, origin: httpcore.Origin) -> None:
        self.origin = origin
        self.idle: list[httpcore.AsyncHTTPConnection] = []

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        connection = self.idle.pop() if self.idle else httpcore.AsyncHTTPConnection(self.origin)
        request.extensions["connection"] = connection
        return await connection.handle_async_request(request)

    async def release(self, request: httpcore.Request) -> None:
        self.idle.append(request.extensions["connection"])


def app(kind: str, port: int) -> Starlette:
    origin = httpcore.Origin(b"http", b"127.0.0.1", port)
    free, pool = FreeList(origin), httpcore.AsyncConnectionPool(max_connections=None)

    async def relay(request: Request) -> Response:
        body = await request.body()
        streamed = b'"stream": true' in body
        verb = "streamGenerateContent?alt=sse" if streamed else "generateContent"
        upstream = httpcore.Request(
            "POST",
            f"http://127.0.0.1:{port}/v1beta/models/m:{verb}",
            headers=[*HEADERS, (b"content-length", str(len(body)).encode())],
            content=body,
        )
        answer = await (free if kind == "passc" else pool).handle_async_request(upstream)

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in answer.aiter_stream():
                yield piece
            await answer.aclose()
            if kind == "passc":
                await free.release(upstream)

        if streamed:
            return StreamingResponse(pieces(), media_type="text/event-stream")
        return Response(
            b"".join([piece async for piece in pieces()]), media_type="application/json"
        )

    return Starlette(routes=[Route("/v1/chat/completions", relay, methods=["POST"])])


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app(sys.argv[1], int(sys.argv[2])),
        access_log=False,
        log_level="error",
        loop="uvloop",
        http="httptools",
    )
    uvicorn.Server(config).run(sockets=[listener])
