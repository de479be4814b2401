"""A stream that is silent for the interval gets a beat, one that moves does not."""

from __future__ import annotations

import asyncio
import time

from oaicompat_server.heartbeat import Heartbeat


def beats(moves: float, seconds: float, interval: float = 0.04) -> int:
    async def work() -> int:
        beaten = 0

        async def beat() -> None:
            nonlocal beaten
            beaten += 1

        heart = Heartbeat(interval, beat)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(moves)
            heart.moved = time.monotonic()
        heart.stop()
        before = beaten
        await asyncio.sleep(interval * 2)
        assert beaten == before
        return beaten

    return asyncio.run(work())


def test_a_silent_stream_gets_beats_until_it_stops() -> None:
    assert beats(moves=0.4, seconds=0.3) >= 2


def test_a_stream_that_moves_gets_none() -> None:
    assert beats(moves=0.002, seconds=0.2, interval=0.15) == 0


def test_stopping_stops_a_beat_under_way() -> None:
    async def work() -> list[str]:
        done: list[str] = []

        async def beat() -> None:
            done.append("begun")
            await asyncio.sleep(0.05)
            done.append("ended")

        heart = Heartbeat(0.01, beat)
        await asyncio.sleep(0.03)
        heart.stop()
        await asyncio.sleep(0.06)
        return done

    assert asyncio.run(work()) == ["begun"]
