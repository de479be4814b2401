"""What is fuzzed: each target takes any bytes, and anything but its own kind of error is a find.

One rule: a target has no state and no clock, so that a find is found again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from oaicompat import Exchange, OaicompatError
from oaicompat.events import Frame
from oaicompat.providers.gemini.endpoints import Target
from oaicompat.providers.gemini.errors import decode_error
from oaicompat.retry import retry_after
from oaicompat.sse import Decoder
from oaicompat.supplies import Supplies
from oaicompat_server.config import ConfigError, load
from oaicompat_server.snapshot import snapshot

FuzzTarget = Callable[[bytes], None]

_CHAT = b'{"model":"gemini-3-pro-preview","messages":[{"role":"user","content":"hi"}],"stream":%s}'
_RESPONSES = b'{"model":"gemini-3-pro-preview","input":"hi","stream":%s}'


def _request(dialect: str) -> FuzzTarget:
    def target(data: bytes) -> None:
        try:
            exchange = Exchange(dialect, data)
            while exchange.needs():
                exchange.supply(Supplies())
            for call in exchange.calls():
                exchange.begin_attempt(call, Target())
        except OaicompatError:
            pass

    return target


def _answer(dialect: str, template: bytes, streamed: bool) -> FuzzTarget:
    def target(data: bytes) -> None:
        body = template % (b"true" if streamed else b"false")
        cut = len(data) // 2
        outcomes = [
            _answered(dialect, body, pieces) for pieces in ([data], [data[:cut], data[cut:]])
        ]
        assert outcomes[0] == outcomes[1], "the cut changes the answer"

    return target


def _answered(dialect: str, body: bytes, pieces: list[bytes]) -> list[bytes] | str:
    """Return the frames of an answer made of these pieces, or the refusal."""
    exchange = Exchange(dialect, body)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, Target())
    frames: list[Frame] = []
    try:
        exchange.receive_head(call, 200, {"content-type": "text/event-stream"})
        for piece in pieces:
            frames += exchange.feed(call, piece)
        frames += exchange.close(call)
    except OaicompatError as error:
        return f"{type(error).__name__} {error.code}"
    frames += exchange.conclude()
    return [frame.data for frame in frames]


def _sse(data: bytes) -> None:
    whole = _events([data])
    cut = len(data) // 3
    assert whole == _events([data[:cut], data[cut : 2 * cut], data[2 * cut :]])
    assert whole == _events([data[at : at + 1] for at in range(len(data))])


def _events(pieces: list[bytes]) -> list[object]:
    decoder = Decoder()
    found: list[object] = []
    for piece in pieces:
        found += decoder.feed(piece)
    return found + list(decoder.close())


def _error(data: bytes) -> None:
    status = 100 + (data[0] if data else 0) * 2
    error = decode_error(status, {"content-type": "application/json"}, data[1:], model="m")
    assert 400 <= error.status <= 599
    wait = retry_after({"retry-after": data[:40].decode("latin-1")}, data)
    assert wait is None or 0 <= wait <= 86400


def _settings(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_bytes(data)
        with suppress(ConfigError):
            snapshot(load(file.name, environ={}).config)


TARGETS: Mapping[str, FuzzTarget] = {
    "chat": _request("chat"),
    "responses": _request("responses"),
    "compact": _request("responses/compact"),
    "input-tokens": _request("responses/input_tokens"),
    "chat-stream": _answer("chat", _CHAT, True),
    "chat-answer": _answer("chat", _CHAT, False),
    "responses-stream": _answer("responses", _RESPONSES, True),
    "responses-answer": _answer("responses", _RESPONSES, False),
    "sse": _sse,
    "errors": _error,
    "settings": _settings,
}
