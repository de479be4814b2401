"""The state file: who may read it, what may be wrong with it, and what survives."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection

import pytest
from tests.support import stores
from tests.support.killed import LANES, complete
from tests.support.stores import END, MEGABYTE, frame, item, response, signed

from oaicompat_server.config import ConfigError
from oaicompat_server.store import Conversation, StoreError, schema, sweeping
from oaicompat_server.store import file as state_file
from oaicompat_server.store.database import Database
from oaicompat_server.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "state.sqlite3"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with stores.sqlite(path) as opened:
        yield opened


class Held:
    """Holds the writer, so that what is written meanwhile waits together."""

    def __init__(self, store: SqliteStore) -> None:
        self._release = threading.Event()
        self._task = asyncio.ensure_future(
            store.database.write(lambda connection: self._release.wait(10))
        )

    async def __aenter__(self) -> None:
        await asyncio.sleep(0.05)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)
        self._release.set()
        await self._task


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def size(path: Path) -> int:
    return path.stat().st_size


def beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


@posix
class TestModes:
    async def test_nobody_else_can_read(self, store: SqliteStore, path: Path) -> None:
        await store.save("", response("r"), [], 1.0)
        assert mode(path.parent) == 0o700
        assert [mode(beside(path, end)) for end in ("", "-wal", "-shm")] == [0o600] * 3

    async def test_a_file_that_others_could_read_is_closed_to_them(self, tmp_path: Path) -> None:
        path = tmp_path / "state.sqlite3"
        async with stores.sqlite(path) as first:
            await first.save("", response("r"), [], 1.0)
            for end in ("", "-wal", "-shm"):
                beside(path, end).chmod(0o644)
            async with stores.sqlite(path):
                assert [mode(beside(path, end)) for end in ("", "-wal", "-shm")] == [0o600] * 3


class TestPlaces:
    @pytest.mark.skipif(sys.platform == "win32", reason="another place there")
    def test_the_default_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/somebody")
        found = state_file.default_path({"XDG_DATA_HOME": "/data"})
        assert found == Path("/data/oaicompat/state.sqlite3")
        found = state_file.default_path({"XDG_DATA_HOME": ""})
        assert found == Path("/home/somebody/.local/share/oaicompat/state.sqlite3")

    def test_no_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_home() -> Path:
            raise RuntimeError

        monkeypatch.setattr(Path, "home", no_home)
        with pytest.raises(ConfigError, match=r"set state\.path"):
            state_file.default_path({})


def garbage(path: Path) -> None:
    path.write_bytes(b"This is no database." * 500)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (a)")


def later(path: Path) -> None:
    state_file.prepare(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def torn(path: Path) -> None:
    state_file.prepare(path)
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = b"\xff" * (len(content) - 4096 * 3)
    path.write_bytes(content)


class TestAFileOfNoUse:
    @pytest.mark.parametrize(
        ("make", "why"),
        [
            (garbage, "is damaged or no state file"),
            (foreign, "belongs to another program"),
            (
                later,
                r"was written by a later version of oaicompat \(schema 99, this one knows \d+\)",
            ),
            (torn, "is damaged"),
            (Path.mkdir, "is not a file"),
        ],
    )
    def test_stops_the_start_untouched(
        self, tmp_path: Path, make: Callable[[Path], None], why: str
    ) -> None:
        path = tmp_path / "state.sqlite3"
        make(path)
        path.chmod(0o755)
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(ConfigError, match=rf"^state\.path: .*state\.sqlite3 {why}.*memory"):
            Database(path)
        assert (path.read_bytes() if path.is_file() else None) == before
        assert mode(path) == 0o755

    @pytest.mark.parametrize("below", ["", "more"])
    def test_a_place_that_cannot_be_written(self, tmp_path: Path, below: str) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(ConfigError, match=r"state\.path: .* cannot be written \(.+\); or"):
            Database(tmp_path / "file" / below / "state.sqlite3")

    async def test_damage_that_shows_later(self, store: SqliteStore) -> None:
        await store.save("", response("r"), [frame(0)], 1.0)

        def damage(connection: Connection) -> None:
            connection.execute("UPDATE frames SET packed = X'00'")

        await store.database.write(damage)
        with pytest.raises(StoreError, match="damaged"):
            await store.frames("", "r", -1)
        assert await store.find("", "r") is not None


class TestOpening:
    async def test_everything_is_there_again(self, path: Path) -> None:
        kept = response("r", input=[item("i")], output=[item("o")], conversation="c")
        async with stores.sqlite(path) as store:
            await store.create_conversation("", Conversation("c", 1.0, {"a": "b"}), [])
            await store.save("", kept, [frame(0), END], 2.0)
            await store.save("", response("gone"), [], 2.0)
            await store.delete("", "gone")
            await store.keep_signatures([signed("s")], 2.0)
        assert not beside(path, "-wal").exists()
        async with stores.sqlite(path) as store:
            assert await store.find("", "r") == kept
            assert await store.frames("", "r", -1) == (frame(0), END)
            assert await store.conversation_items("", "c", 3.0) == (item("i"), item("o"))
            assert await store.find_signatures("", ["s"], 3.0) == {"s": signed("s").signature}
            assert not await store.save("", response("gone"), [], 2.0)

    def test_many_at_once(self, path: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(state_file.prepare, [path] * 8))
        with closing(state_file.connect(path)) as connection:
            seen = connection.execute("PRAGMA user_version").fetchone()[0]
            journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
        assert (seen, journal) == (len(schema.MIGRATIONS), "wal")

    def test_while_another_process_writes(self, path: Path) -> None:
        path.parent.mkdir()
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            timer = threading.Timer(0.1, other.execute, ["COMMIT"])
            timer.start()
            state_file.prepare(path)
            timer.join()

    async def test_a_file_of_an_earlier_version(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with stores.sqlite(path) as store:
            await store.save("", response("r"), [], 1.0)
        more = ("CREATE TABLE more (a)", "INSERT INTO more VALUES (7)")
        monkeypatch.setattr(state_file, "MIGRATIONS", (*schema.MIGRATIONS, more))
        for _ in range(2):
            async with stores.sqlite(path) as store:
                assert await store.find("", "r") == response("r")
                rows = await store.database.read(
                    lambda connection: connection.execute("SELECT a FROM more").fetchall()
                )
                assert rows == [(7,)]

    async def test_a_file_without_signatures_gets_them(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(state_file, "MIGRATIONS", schema.MIGRATIONS[:2])
            async with stores.sqlite(path) as store:
                await store.save("", response("r"), [], 1.0)
                with pytest.raises(StoreError, match="no such table: signatures"):
                    await store.keep_signatures([signed("s")], 2.0)
        async with stores.sqlite(path) as store:
            assert await store.find("", "r") == response("r")
            await store.keep_signatures([signed("s")], 2.0)
            assert await store.find_signatures("", ["s"], 3.0) == {"s": signed("s").signature}

    async def test_a_migration_that_fails_leaves_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state_file.prepare(path)
        broken = ("CREATE TABLE more (a)", "INSERT INTO nowhere VALUES (7)")
        with monkeypatch.context() as patch:
            patch.setattr(state_file, "MIGRATIONS", (*schema.MIGRATIONS, broken))
            with pytest.raises(ConfigError, match="nowhere"):
                Database(path)
        with closing(state_file.connect(path)) as connection:
            names = connection.execute("SELECT name FROM sqlite_master").fetchall()
        assert ("more",) not in names
        state_file.prepare(path)

    async def test_a_closed_store_says_so(self, path: Path) -> None:
        async with stores.sqlite(path) as store:
            pass
        await store.aclose()
        with pytest.raises(StoreError, match="closed"):
            await store.find("", "r")
        with pytest.raises(StoreError, match="closed"):
            await store.save("", response("r"), [], 1.0)


class TestTheWriter:
    async def test_what_waits_shares_a_transaction(self, store: SqliteStore) -> None:
        statements: list[str] = []
        await store.database.write(
            lambda connection: connection.set_trace_callback(statements.append)
        )
        statements.clear()
        async with Held(store):
            statements.clear()
            saving = [
                asyncio.ensure_future(store.save("", response(f"r{each}"), [], 1.0))
                for each in range(20)
            ]
        assert await asyncio.gather(*saving) == [True] * 20
        assert statements.count("COMMIT") == 2
        assert statements.count("RELEASE job") == 21

    async def test_one_that_fails_takes_nobody_along(self, store: SqliteStore) -> None:
        def fail(connection: Connection) -> None:
            connection.execute("DELETE FROM responses")
            raise ValueError("wrong")

        def misspell(connection: Connection) -> None:
            connection.execute("DELETE FROM responses")
            connection.execute("DELETE FROM nowhere")

        async with Held(store):
            saving = asyncio.gather(
                store.save("", response("a"), [], 1.0),
                store.database.write(fail),
                store.save("", response("b"), [], 1.0),
                store.database.write(misspell),
                store.save("", response("c"), [], 1.0),
                return_exceptions=True,
            )
            await asyncio.sleep(0)
        first, wrong, second, misspelt, third = await saving
        assert (first, second, third) == (True, True, True)
        assert isinstance(wrong, ValueError)
        assert isinstance(misspelt, StoreError)
        assert [bool(await store.find("", each)) for each in "abc"] == [True] * 3

    async def test_a_commit_that_fails_fails_whom_it_must(self, store: SqliteStore) -> None:
        def orphan(connection: Connection) -> None:
            connection.execute("PRAGMA defer_foreign_keys = ON")
            connection.execute("INSERT INTO bodies VALUES (99, X'')")

        async with Held(store):
            saving = asyncio.gather(
                store.save("", response("a"), [], 1.0),
                store.database.write(orphan),
                store.save("", response("b"), [], 1.0),
                return_exceptions=True,
            )
            await asyncio.sleep(0)
        first, failed, second = await saving
        assert (first, second) == (True, True)
        assert isinstance(failed, StoreError)
        assert [bool(await store.find("", each)) for each in "ab"] == [True] * 2

    async def test_who_goes_away_before_the_turn_leaves_nothing(self, store: SqliteStore) -> None:
        async with Held(store):
            gone = asyncio.ensure_future(store.save("", response("gone"), [], 1.0))
            kept = asyncio.ensure_future(store.save("", response("kept"), [], 1.0))
            await asyncio.sleep(0)
            gone.cancel()
        assert await kept
        assert gone.cancelled()
        assert await store.find("", "gone") is None

    async def test_what_was_begun_is_finished(self, store: SqliteStore) -> None:
        begun, release = threading.Event(), threading.Event()

        def slow(connection: Connection) -> None:
            begun.set()
            release.wait(10)
            connection.execute("DELETE FROM responses")

        await store.save("", response("r"), [], 1.0)
        task = asyncio.ensure_future(store.database.write(slow))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        assert await store.save("", response("s"), [], 1.0)
        assert await store.find("", "r") is None

    async def test_readers_do_not_wait_for_it(self, store: SqliteStore) -> None:
        await store.save("", response("r"), [], 1.0)
        async with Held(store):
            assert await asyncio.wait_for(store.find("", "r"), 5) is not None

    async def test_a_reader_cannot_write(self, store: SqliteStore) -> None:
        with pytest.raises(StoreError, match="readonly"):
            await store.database.read(lambda connection: connection.execute("DELETE FROM items"))


class TestAFullDisk:
    @pytest.fixture
    async def full(self, store: SqliteStore) -> SqliteStore:
        """Leave room for small things alone."""
        await store.save("", response("before"), [frame(0)], 1.0)

        def limit(connection: Connection) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 20}")

        await store.database.write(limit)
        return store

    async def test_is_told_and_leaves_nothing(self, full: SqliteStore) -> None:
        big = response("big", output=[item("o")], body=bytes(MEGABYTE))
        with pytest.raises(StoreError, match=r"^database or disk is full \(SQLite\)$"):
            await full.save("", big, [frame(0)], 1.0)
        assert await full.find("", "big") is None
        assert await full.items("", ["o"]) == {}
        assert await full.find("", "before") is not None

    async def test_does_not_stop_what_has_room(self, full: SqliteStore) -> None:
        big = response("big", body=bytes(MEGABYTE))
        async with Held(full):
            saving = asyncio.gather(
                full.save("", response("small"), [], 1.0),
                full.save("", big, [], 1.0),
                full.save("", response("tiny"), [], 1.0),
                return_exceptions=True,
            )
            await asyncio.sleep(0)
        small, failed, tiny = await saving
        assert (small, tiny) == (True, True)
        assert isinstance(failed, StoreError)
        assert await full.find("", "small") is not None
        assert await full.find("", "tiny") is not None

    async def test_is_over_when_there_is_room(self, full: SqliteStore) -> None:
        big = response("big", body=bytes(MEGABYTE))
        with pytest.raises(StoreError):
            await full.save("", big, [], 1.0)
        await full.database.write(
            lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchall()
        )
        assert await full.save("", big, [], 1.0)


class TestOtherProcesses:
    async def test_share_the_file(self, store: SqliteStore, path: Path) -> None:
        async with stores.sqlite(path) as other:
            await asyncio.gather(
                *(
                    each.save("", response(f"{name}{number}"), [], 1.0)
                    for number in range(50)
                    for name, each in (("a", store), ("b", other))
                )
            )
            for number in range(50):
                assert await store.find("", f"b{number}") is not None
                assert await other.find("", f"a{number}") is not None
            await store.save("", response("r", until=9.0), [], 1.0)
            ended = await asyncio.gather(
                store.save("", response("r"), [], 1.0), other.save("", response("r"), [], 1.0)
            )
            assert sorted(ended) == [False, True]

    async def test_that_hold_it_for_long_are_an_error(self, store: SqliteStore, path: Path) -> None:
        await store.database.write(
            lambda connection: connection.execute("PRAGMA busy_timeout = 50").fetchall()
        )
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await store.save("", response("r"), [], 1.0)
            assert await store.find("", "r") is None
            other.execute("ROLLBACK")
        assert await store.save("", response("r"), [], 1.0)


class TestSweeping:
    async def test_does_not_keep_others_waiting(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sweeping, "_STEP_SECONDS", 0.0)
        await asyncio.gather(
            *(store.save("", response(f"r{each}"), [], 1.0) for each in range(100))
        )
        sweep = asyncio.ensure_future(store.sweep(1e9))
        await asyncio.sleep(0)
        assert await store.save("", response("new"), [], 1e9)
        assert not sweep.done()
        await sweep
        assert await store.find("", "new") is not None
        assert await store.find("", "r99") is None

    async def test_makes_the_file_smaller(self, path: Path) -> None:
        noise = random.Random(1).randbytes
        async with stores.sqlite(path, max_bytes=2 * MEGABYTE) as store:
            for each in range(8):
                await store.save("", response(f"r{each}", body=noise(MEGABYTE)), [], float(each))
            await store.sweep(9.0)
            assert await store.find("", "r7") is not None
        assert MEGABYTE < size(path) <= 2 * MEGABYTE

    async def test_shared_items_go_with_the_last_who_holds_them(self, store: SqliteStore) -> None:
        await store.create_conversation("", Conversation("c", 1.0), [])
        kept = response("r", output=[item("o")], conversation="c")
        await store.save("", kept, [frame(0)], 1.0)
        await store.sweep(1e9)
        for table in ("items", "bodies", "frames", "responses", "conversations"):
            query = f"SELECT count(*) FROM {table}"
            left = await store.database.read(
                lambda connection, query=query: connection.execute(query).fetchone()  # type: ignore[misc]
            )
            assert left == (0,), table


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.support.killed import saving

asyncio.run(saving(Path(sys.argv[1]), sys.argv[2]))
"""


class TestKilled:
    async def test_what_was_acknowledged_is_there_whole(self, path: Path) -> None:
        chance = random.Random()
        told: list[str] = []
        for turn in range(4):
            told += await asyncio.to_thread(self.run_and_kill, path, turn, chance.uniform(0, 0.3))
        assert len(told) > 40
        async with stores.sqlite(path) as store:
            for id in told:
                assert await complete(store, id), id
            for turn in range(4):
                for lane in range(LANES):
                    prefix = f"r-{turn}-{lane}-"
                    next_one = sum(id.startswith(prefix) for id in told)
                    await complete(store, f"{prefix}{next_one}")
                    assert await store.find("", f"{prefix}{next_one + 1}") is None

    def run_and_kill(self, path: Path, turn: int, delay: float) -> list[str]:
        """Return the ids that a process acknowledged before it was killed."""
        root = Path(__file__).parents[2]
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(turn)],
            stdout=subprocess.PIPE,
            cwd=root,
        ) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            time.sleep(delay)
            child.kill()
            lines = first + child.stdout.read()
        # A line without its end was not told wholly.
        return lines.decode().split("\n")[:-1]
