"""Calls of Redis: bounded in time and number, finished once begun, told in words that name no address.

One rule: nothing is tried twice. What was sent may have been done before the connection broke, and to do it
again would tell a gateway that its own response was ended by another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from oaicompat_server.secret import Secret
from oaicompat_server.store import StoreError

T = TypeVar("T")

_CONNECTIONS = 32
_ANSWER_SECONDS = 5.0
_CALL_SECONDS = 20.0


class Client:
    """Calls one Redis; raises `ValueError` for a URL that cannot name one."""

    def __init__(self, url: Secret) -> None:
        pool = BlockingConnectionPool.from_url(
            url.reveal(),
            max_connections=_CONNECTIONS,
            timeout=_ANSWER_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            decode_responses=False,
        )
        self._redis: Redis = Redis(connection_pool=pool)
        self._scripts: dict[str, Any] = {}
        self._calls: set[asyncio.Task[Any]] = set()

    async def script(self, text: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        """Run a script; raises `StoreError`."""
        script = self._scripts.get(text)
        if script is None:
            script = self._scripts[text] = self._redis.register_script(text)
        return await self._call(lambda: script(keys=keys, args=arguments))

    async def many(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run commands that only read; raises `StoreError`."""

        async def run() -> list[Any]:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute()
                return answers

        return await self._call(run)

    async def one(self, *command: Any) -> Any:
        """Run a command; raises `StoreError`."""
        (answer,) = await self.many([command])
        return answer

    async def aclose(self) -> None:
        """Finish what was begun and close the connections."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=_ANSWER_SECONDS)
        await self._redis.connection_pool.disconnect()

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        # A task of its own: a caller that goes away must not leave a connection in the middle of an answer.
        task = asyncio.ensure_future(_timed(call))
        self._calls.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            # Its caller may be gone; then nobody else asks for the error.
            task.exception()


async def _timed(call: Callable[[], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            return await call()
    except (RedisError, OSError) as error:
        raise StoreError(_named(error)) from None


def _named(error: Exception) -> str:
    """Say what went wrong without the texts of Redis, which may hold addresses and names."""
    if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
        return "Redis refuses the name or password"
    match error:
        case TimeoutError() | asyncio.TimeoutError():
            return "Redis does not answer in time"
        case ResponseError():
            return f"Redis refuses ({type(error).__name__})"
        case ConnectionError() | OSError():
            return "Redis cannot be reached"
        case _:
            return f"Redis cannot be used ({type(error).__name__})"
