"""New settings without a restart: on SIGHUP, and when a file they came from has changed.

One rule: settings are read and checked whole before any of them is in force, and what is wrong with them is
said while the old ones stay. A file is read only once it has stopped changing.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from msgspec.structs import replace

from oaicompat_server.auth import plan_access
from oaicompat_server.beside import beside
from oaicompat_server.config import ConfigError, Loaded, files_of, secrets_of
from oaicompat_server.logs import redact
from oaicompat_server.pool import SourceOf
from oaicompat_server.relay import Relay
from oaicompat_server.snapshot import pinned, snapshot

LOOK_SECONDS = 2.0

logger = logging.getLogger("oaicompat")

_State = tuple[tuple[int, int, int] | None, ...]


class Reloader:
    """Puts what `load` returns in force; `load` raises `ConfigError` for settings that are of no use."""

    def __init__(
        self, relay: Relay, load: Callable[[], Loaded], sources: SourceOf | None = None
    ) -> None:
        self._relay = relay
        self._load = load
        self._sources = sources
        self._again = asyncio.Event()
        self._files: tuple[Path, ...] = ()

    def reload(self) -> bool:
        """Load the settings and put them in force; False, said in the log, where that cannot be."""
        before = self._relay.settings
        try:
            loaded = self._load()
            if before.config.credentials and not loaded.config.credentials:
                raise ConfigError("no credentials are left")
            plan_access(loaded.config)
            config, fixed = pinned(before.config, loaded.config)
            new = snapshot(config, self._sources)
        except ConfigError as error:
            logger.error("settings are not loaded, the old ones stay: %s", error)
            return False
        except Exception as error:
            # A file can go while it is looked at. The text of such an error is not ours and may quote anything.
            kind = type(error).__name__
            logger.error("settings are not loaded, the old ones stay: unexpected %s", kind)
            return False
        self._files = files_of(loaded)
        redact(secrets_of(loaded.config))
        for warning in loaded.warnings:
            logger.warning("%s", warning)
        self._relay.swap(replace(new, number=before.number + 1))
        if fixed:
            logger.warning("changed, but in force only after a restart: %s", ", ".join(fixed))
        logger.info("settings loaded: %d credentials", len(loaded.config.credentials))
        return True

    def request(self) -> None:
        """Have the settings loaded soon."""
        self._again.set()

    async def run(self, loaded: Loaded, every: float = LOOK_SECONDS) -> None:
        """Load when asked for, and when a file of what was loaded has changed and stayed so for a look."""
        self._files = files_of(loaded)
        known: _State = _states(self._files)
        pending: _State | None = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await self._again.wait()
            seen = await asyncio.to_thread(_states, self._files)
            if self._again.is_set() or seen == pending:
                self._again.clear()
                before = self._files
                self.reload()
                # What changed since it was looked at is still to be seen.
                known = seen if self._files == before else _states(self._files)
                pending = None
            else:
                pending = seen if seen != known else None


@asynccontextmanager
async def reloading(
    reloader: Reloader, loaded: Loaded, every: float = LOOK_SECONDS
) -> AsyncIterator[None]:
    """Reload on SIGHUP, where there is such a signal, and on a change of files, as long as this lasts."""
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        loop.add_signal_handler(signal.SIGHUP, reloader.request)
    try:
        async with beside(reloader.run(loaded, every)):
            yield
    finally:
        if sys.platform != "win32":
            loop.remove_signal_handler(signal.SIGHUP)


def _states(files: Sequence[Path]) -> _State:
    return tuple(map(_state, files))


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
