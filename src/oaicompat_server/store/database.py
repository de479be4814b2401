"""The state file: one SQLite file, one thread that writes, one that reads.

One rule: what waits to be written shares a transaction, each job with a savepoint of its own, and is told it
is done after the commit; a job that fails takes nobody along. Other processes may have the file open too.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Any, TypeVar

from msgspec import Struct

from oaicompat_server.store import StoreError
from oaicompat_server.store.file import connect, prepare
from oaicompat_server.store.worker import Job, Worker

T = TypeVar("T")


class _Outcome(Struct):
    result: Any = None
    error: Exception | None = None

    def settle(self, job: Job[Connection]) -> None:
        if self.error is None:
            job.future.set_result(self.result)
        else:
            job.future.set_exception(self.error)


class Database:
    """Runs jobs on the state file. A job may run more than once; only its last run is kept.

    Opening blocks and raises `ConfigError` for a file that is of no use; `path` is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        prepare(path)
        self._writing = connect(path)
        self._reading = connect(path, reading=True)
        self._writer = Worker("oaicompat-state-writer", self._write, self._writing.close)
        self._reader = Worker("oaicompat-state-reader", self._read, self._reading.close)

    async def write(self, job: Callable[[Connection], T]) -> T:
        """Run a job in a transaction and return its result once that is committed.

        An exception undoes what the job did; raises it, or `StoreError` where the file is the cause.
        """
        return await self._writer.do(job)

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Run a job that only reads, all of it on one state of the file; raises as `write`."""
        return await self._reader.do(job)

    async def aclose(self) -> None:
        """Finish what was begun and close the file."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _read(self, jobs: Sequence[Job[Connection]]) -> None:
        for job in jobs:
            try:
                self._reading.execute("BEGIN")
                outcome = _Outcome(job.call(self._reading))
            except Exception as error:
                outcome = _Outcome(error=_named(error))
            with suppress(sqlite3.Error):
                self._reading.execute("ROLLBACK")
            outcome.settle(job)

    def _write(self, jobs: Sequence[Job[Connection]]) -> None:
        try:
            outcomes = self._transaction(jobs)
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._write([job])
                return
            outcomes = [_Outcome(error=_named(error))]
        for job, outcome in zip(jobs, outcomes, strict=True):
            outcome.settle(job)

    def _transaction(self, jobs: Sequence[Job[Connection]]) -> list[_Outcome]:
        """Run jobs together; raises where a failure undid all of them."""
        try:
            self._writing.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            return [_Outcome(error=_named(error)) for _ in jobs]
        try:
            outcomes = [self._step(job) for job in jobs]
            self._writing.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._writing.execute("ROLLBACK")
            raise
        return outcomes

    def _step(self, job: Job[Connection]) -> _Outcome:
        self._writing.execute("SAVEPOINT job")
        try:
            outcome = _Outcome(job.call(self._writing))
        except Exception as error:
            # A full disk, among others, can undo the whole transaction and not this step alone.
            if not self._writing.in_transaction:
                raise
            self._writing.execute("ROLLBACK TO job")
            outcome = _Outcome(error=_named(error))
        self._writing.execute("RELEASE job")
        return outcome


def _named(error: Exception) -> Exception:
    """Return the error as the store tells it; SQLite's texts hold neither paths nor values."""
    return StoreError(f"{error} (SQLite)") if isinstance(error, sqlite3.Error) else error
