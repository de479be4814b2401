"""What the rows B share: gateways over either kind of connection, each question in its four shapes, and what
of an answer says that it failed.

One rule: an answer failed when a client can tell so, and it must be able to tell whenever it did.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import pytest
from tests.support import chat_client, raw, responses_client
from tests.support.asking import Reply, ask
from tests.support.gateway import Gateway, gateway

from oaicompat_server.secret import Secret
from oaicompat_server.settings import Config, CredentialSettings, UpstreamSettings
from oaicompat_server.simulator import Body, Finish, Head
from oaicompat_server.simulator.faults import Step

Json = dict[str, Any]
Kind = Literal["fast", "httpcore"]

KINDS: tuple[Kind, ...] = ("fast", "httpcore")
SHAPES = tuple((path, stream) for path in (raw.CHAT, raw.RESPONSES) for stream in (False, True))

kinds = pytest.mark.parametrize("kind", KINDS)
shapes = pytest.mark.parametrize(
    ("path", "stream"),
    SHAPES,
    ids=["chat", "chat streamed", "responses", "responses streamed"],
)

_QUICK: Json = {
    "connect_timeout": 1.0,
    "first_byte_timeout": 0.5,
    "idle_timeout": 0.5,
    "total_timeout": 8.0,
    "total_timeout_stream": 8.0,
    "attempts": 1,
}
_INTERNAL = ("127.0.0.1", "localhost", "traceback", "httpcore", "h11", "certificate", "first-key")


class Told(NamedTuple):
    """What a client was told, and after how many seconds."""

    path: str
    stream: bool
    reply: Reply
    seconds: float

    @property
    def events(self) -> list[Json]:
        """Return what a stream consists of, without its end mark."""
        if self.path == raw.RESPONSES:
            return responses_client.events(_without_comments(self.reply.content))
        found = chat_client.payloads(self.reply.content)
        return [json.loads(each) for each in found if each != b"[DONE]"]

    @property
    def error(self) -> Json | None:
        """Return the error, or None where the client was told of none."""
        if self.reply.status != 200:
            return self.reply.error
        if not self.stream:
            return None
        last = [each for each in self.events if "error" in each]
        found: Json | None = last[-1]["error"] if last else None
        return found

    @property
    def ends(self) -> list[str]:
        """Return every way in which the answer is said to have ended well."""
        if self.reply.status != 200:
            return []
        found = self.events if self.stream else [self.reply.data]
        if self.path == raw.RESPONSES:
            objects = [each.get("response", {}) for each in found] if self.stream else found
            statuses = [str(each.get("status")) for each in objects]
            return [each for each in statuses if each in ("completed", "incomplete")]
        choices = [choice for each in found for choice in each.get("choices", ())]
        reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
        done = self.stream and b"data: [DONE]" in self.reply.content
        return [*reasons, *(["[DONE]"] if done else [])]

    @property
    def text(self) -> str:
        """Return the text of a whole answer."""
        if self.path == raw.RESPONSES:
            whole = responses_client.last(self.reply.content) if self.stream else self.reply.data
            parts = [part for item in whole["output"] for part in item.get("content") or ()]
            return "".join(part.get("text", "") for part in parts)
        content = self.reply.content
        whole = chat_client.accumulate(content) if self.stream else self.reply.data
        return whole["choices"][0]["message"].get("content") or ""


def _without_comments(content: bytes) -> bytes:
    blocks = content.split(b"\n\n")
    return b"\n\n".join(block for block in blocks if not block.startswith(b":"))


def failure(told: Told) -> Json:
    """Return the error that a client was told; fails where there is none, or where it says too much."""
    error = told.error
    assert error is not None, told.reply.content[-2000:]
    assert told.ends == [], told.reply.content[-2000:]
    shown = told.reply.content.decode().lower()
    assert [word for word in _INTERNAL if word in shown] == []
    assert error["message"]
    assert len(error["message"]) <= 700
    return error


def success(told: Told) -> str:
    """Return the text of an answer that ended well, or fail."""
    assert told.error is None, told.reply.content[-2000:]
    assert told.ends, told.reply.content[-2000:]
    return told.text


def upstream(kind: Kind, **more: Any) -> UpstreamSettings:
    """Return settings that wait for little and try once."""
    return UpstreamSettings(http=kind, **(_QUICK | more))


@contextmanager
def faulty(kind: Kind, *addresses: str, **more: Any) -> Iterator[Gateway]:
    """Run a gateway whose connections are of this kind.

    `addresses` are those of its credentials, in the order in which they are tried; without any there is one, of
    the simulator.
    """
    entries = tuple(
        CredentialSettings(key=Secret(f"key-{at}"), base_url=url, priority=at)
        for at, url in enumerate(addresses)
    )
    with gateway(Config(upstream=upstream(kind, **more), credentials=entries)) as served:
        yield served


@contextmanager
def left_clean(served: Gateway) -> Iterator[None]:
    """Fail where anything of requests is left, or a connection upstream that does not wait for the next one."""
    with raw.left_idle(served):
        yield
    raw.until(lambda: served.simulator.connections <= served.relay.upstream.idle_count(), 1.5)


def tell(served: Gateway, path: str, stream: bool, text: str = "hello") -> Told:
    """Ask in one shape."""
    began = time.monotonic()
    reply = ask(served, "POST", path, raw.words(path, text, stream=stream))
    return Told(path, stream, reply, time.monotonic() - began)


def tell_all(served: Gateway, text: str = "hello") -> list[Told]:
    """Ask in all four shapes at once."""
    with ThreadPoolExecutor(len(SHAPES)) as threads:
        return list(threads.map(lambda shape: tell(served, shape[0], shape[1], text), SHAPES))


def answers(served: Gateway, steps: Sequence[Step], path: str, stream: bool) -> Told:
    """Ask in one shape; the upstream does exactly this. Nothing may be left of it."""
    with left_clean(served):
        served.simulator.enqueue(steps)
        return tell(served, path, stream)


def event(*parts: Json, **candidate: Any) -> Json:
    """Return a chunk of an answer with one candidate."""
    said = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    return {"candidates": [said | {"index": 0} | candidate], "responseId": "r"}


def body_of(chunks: Sequence[Json | bytes], stream: bool) -> bytes:
    """Return chunks as the service sends them: as events, or the only one as it is."""
    packed = [
        each if isinstance(each, bytes) else json.dumps(each, ensure_ascii=False).encode()
        for each in chunks
    ]
    if not stream:
        return b"".join(packed)
    return b"".join(b"data: " + each + b"\r\n\r\n" for each in packed)


def replying(
    data: bytes | Sequence[bytes],
    stream: bool,
    *end: Step,
    framing: str = "chunked",
    length: int | None = None,
) -> list[Step]:
    """Return the steps of a reply with this body, which ends well unless it is said how."""
    pieces = [data] if isinstance(data, bytes) else data
    kind = "text/event-stream" if stream else "application/json"
    head = Head(content_type=kind, framing=framing, length=length)
    return [head, *(Body(each) for each in pieces), *(end or (Finish(),))]


class Listener:
    """A port that is no simulator: how many came, and where it is."""

    def __init__(self, plug: socket.socket, url: str) -> None:
        self.plug = plug
        self.url = url
        self.accepted = 0


@contextmanager
def listening(serve: Callable[[socket.socket], None], scheme: str = "http") -> Iterator[Listener]:
    """Give every connection to `serve`, in a thread; what it raises of the network is its own affair."""
    with socket.create_server(("127.0.0.1", 0)) as plug:
        host = "localhost" if scheme == "https" else "127.0.0.1"
        listener = Listener(plug, f"{scheme}://{host}:{plug.getsockname()[1]}")
        threads: list[threading.Thread] = []

        def one(connection: socket.socket) -> None:
            connection.settimeout(5)
            with connection, contextlib.suppress(OSError):
                serve(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = plug.accept()
                    listener.accepted += 1
                    threads.append(threading.Thread(target=one, args=(connection,), daemon=True))
                    threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield listener
        finally:
            plug.shutdown(socket.SHUT_RDWR)
            accepting.join(5)
            for thread in threads:
                thread.join(5)


@contextmanager
def full(host: str, port: int = 0) -> Iterator[int]:
    """Listen on a port that takes no connection any more: whoever connects waits."""
    with contextlib.ExitStack() as open_ones:
        plug = open_ones.enter_context(socket.create_server((host, port), backlog=0))
        found: int = plug.getsockname()[1]
        for _ in range(4):
            each = open_ones.enter_context(socket.socket())
            each.setblocking(False)
            each.connect_ex((host, found))
        yield found
