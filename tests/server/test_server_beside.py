"""Work that goes on beside something else."""

from __future__ import annotations

import asyncio

import pytest

from oaicompat_server.beside import beside


def test_work_has_ended_when_the_context_is_left() -> None:
    said: list[str] = []

    async def work() -> None:
        try:
            said.append("begun")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            said.append("ended")

    async def run() -> None:
        async with beside(work()):
            await asyncio.sleep(0)
            assert said == ["begun"]
        assert said == ["begun", "ended"]

    asyncio.run(run())


def test_a_failure_of_the_work_is_raised_at_the_end() -> None:
    async def work() -> None:
        raise RuntimeError("broken")

    async def run() -> None:
        async with beside(work()):
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(run())
