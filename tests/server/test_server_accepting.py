"""Whose turn it is to take a connection, and how many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from oaicompat_server.accepting import Accepting

_CLIENTS = 100
LOOPS: dict[str, Callable[[], Any]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


async def met_by_turn(seconds: float) -> list[int]:
    """Return how many of those who come at once are met after each turn, which takes so long."""
    met: list[asyncio.BaseTransport] = []
    counts = [0]

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            met.append(transport)

    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=_CLIENTS))
        for _ in range(_CLIENTS):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        accepting = Accepting(listening, Protocol)
        until = time.monotonic() + 5
        while len(met) < _CLIENTS and time.monotonic() < until:
            time.sleep(seconds)  # noqa: ASYNC251
            await asyncio.sleep(0)
            counts.append(len(met))
        accepting.close()
        for each in met:
            each.close()
        await asyncio.sleep(0)
    assert counts[-1] == _CLIENTS
    return counts


@pytest.mark.parametrize("loop", LOOPS)
def test_a_busy_process_leaves_nobody_waiting(loop: str) -> None:
    """libuv's own server takes one connection in each turn: a busy process kept clients waiting for seconds."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        counts = runner.run(met_by_turn(0.01))
    assert len(counts) < _CLIENTS / 4


@pytest.mark.parametrize("loop", LOOPS)
def test_an_idle_process_takes_one_at_a_time(monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    """Else the worker that wakes first would get all who come at once."""
    still = SimpleNamespace(monotonic=lambda: 5.0)
    monkeypatch.setattr("oaicompat_server.accepting.time", still)
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        counts = runner.run(met_by_turn(0))
    assert max(after - before for before, after in pairwise(counts)) == 1
