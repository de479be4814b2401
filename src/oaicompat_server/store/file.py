"""The state file on disk: where it lies, who may read it, what it must hold.

One rule: what cannot be used stops the start with the way out, and is never touched: no file is emptied,
moved or repaired here.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection

from oaicompat_server.settings import ConfigError
from oaicompat_server.store.schema import APPLICATION_ID, MIGRATIONS

_BUSY_SECONDS = 10.0
_CHECK_WHOLLY = 32 * 1024 * 1024
_WAL_BYTES = 16 * 1024 * 1024


def default_path(environ: Mapping[str, str]) -> Path:
    """Return the place of the state file on this platform; raises `ConfigError` where there is no home."""
    try:
        if sys.platform == "win32":
            base = environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
        else:
            base = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    except RuntimeError:
        raise ConfigError("state.path: this user has no home directory; set state.path") from None
    return Path(base) / "oaicompat" / "state.sqlite3"


def prepare(path: Path) -> None:
    """Make the state file where it is missing, and bring it to this version; raises `ConfigError`."""
    _create(path)
    with _explained(path):
        _when_free(lambda: _set_up(path))


def connect(path: Path, *, reading: bool = False) -> Connection:
    """Open a connection that any one thread may use, without transactions of its own making."""
    connection = sqlite3.connect(
        path.absolute(), timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA foreign_keys = ON")
    # A commit is in the write-ahead log, in the system's hands, before it is told: the end of the process
    # loses nothing. Only a crash of the system can take the last commits along, and never half of one.
    # FULL would wait for the disk at every answer.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    connection.execute("PRAGMA temp_store = MEMORY")
    # Some builds fill what is deleted with zeros, which makes others wait for every big answer that goes.
    connection.execute("PRAGMA secure_delete = FAST")
    if reading:
        connection.execute("PRAGMA query_only = ON")
    return connection


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not path.is_file():
            raise _unusable(path, "is not a file")
    except OSError as error:
        raise _unusable(path, f"cannot be written ({error.strerror})") from None


def _close_to_others(path: Path) -> None:
    """Make the file readable by its owner alone; SQLite gives those beside it the same mode.

    None of them is opened here: to close one would take away the locks that this process may hold on it.
    """
    if sys.platform == "win32":
        return
    for end in ("", "-wal", "-shm"):
        each = path.with_name(path.name + end)
        try:
            if stat.S_IMODE(each.stat().st_mode) & 0o077:
                each.chmod(0o600)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unusable(
                path, f"can be read by others ({error.strerror}); chmod 600 {each}"
            ) from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise _unusable(path, f"cannot be used ({error})") from None
        raise _unusable(path, f"is damaged or no state file ({error}); move it away") from None


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f'state.path: {path} {why}; or name another file, or set state.store = "memory"'
    )


def _when_free(action: Callable[[], None]) -> None:
    """Do what SQLite does not wait for by itself: to make a file that somebody writes to a WAL file."""
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.02)


def _set_up(path: Path) -> None:
    # To close the connection undoes a transaction that was not committed.
    with closing(connect(path)) as connection:
        _check(connection, path)
        _close_to_others(path)
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        _check(connection, path)
        seen = _value(connection, "PRAGMA user_version")
        for statements in MIGRATIONS[seen:]:
            for statement in statements:
                connection.execute(statement)
        if seen < len(MIGRATIONS):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")


def _check(connection: Connection, path: Path) -> None:
    """Raise for a file of another program, of a later version, or one that is damaged."""
    if not _value(connection, "SELECT count(*) FROM sqlite_master"):
        return
    if _value(connection, "PRAGMA application_id") != APPLICATION_ID:
        raise _unusable(path, "belongs to another program")
    seen = _value(connection, "PRAGMA user_version")
    if seen > len(MIGRATIONS):
        raise _unusable(
            path,
            f"was written by a later version of oaicompat (schema {seen}, this one knows "
            f"{len(MIGRATIONS)}); install that version",
        )
    if path.stat().st_size <= _CHECK_WHOLLY:
        found: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found.splitlines()[-1])


def _value(connection: Connection, query: str) -> int:
    value: int = connection.execute(query).fetchone()[0]
    return value
