"""Settings that change while the gateway runs, and what outlives it: rows C11, H4, H9."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.asking import Reply, ask
from tests.support.gateway import Gateway, gateway
from tests.support.processes import GatewayProcess, gateway_process

from oaicompat_server.config import files_of, load
from oaicompat_server.reload import Reloader
from oaicompat_server.secret import Secret
from oaicompat_server.settings import Config, CredentialSettings, ModelSettings
from oaicompat_server.simulator import running

BROKEN = [
    "",
    "[[credentials]]",
    "[[credentials]]\nkey = 'k'\nkye = 1",
    "[[credentials]]\nkey = 'k'\nkind = 'gold'",
    "[[credentials]]\nkey = 'k'\nweight = 0",
    "[[credentials]]\nkey = 'k'\nweight = -1",
    "[[credentials]]\nkey = 'k'\nweight = nan",
    "[[credentials]]\nkey = 'k'\npriority = -1",
    "[[credentials]]\nkey = 'k'\nproxy = 'ftp://x:1'",
    "[[credentials]]\nkey = 'k'\nproxy = 'http://x'",
    "[[credentials]]\nkey = 'k'\nbase_url = 'https://u:p@x'",
    "[[credentials]]\nkey = 'k'\nproject = 'p'",
    "[[credentials]]\nkey = 'k'\nlocation = 'global'",
    "[[credentials]]\nkey = 'k'\nkey_env = 'K'",
    "[[credentials]]\nkey_env = 'NOT_THERE'",
    "[[credentials]]\nkey_file = '/not/there'",
    "[[credentials]]\nkind = 'bearer'\nkey = 'k'",
    "[[credentials]]\nkind = 'bearer'\nkey = 'k'\nproject = 'x#y.example'",
    "[[credentials]]\nkind = 'bearer'\nkey = 'k'\nproject = 'abcde'\nlocation = 'evil.example'",
    "[[credentials]]\nkind = 'service_account'\nkey = 'k'",
    "[[credentials]]\nkind = 'service_account'\nkey = '{\"type\": \"service_account\"}'",
    "[[credentials]]\nkind = 'adc'\nkey = 'k'",
    '[[credentials]]\nkey = "k\\u0000"',
    "[[credentials]]\nkey = 'é'",
    "[credentials]\nkey = 'k'",
    "credentials = 'k'",
    *(
        f"[[credentials]]\nkey = 'k'\n{text}"
        for text in (
            "[server]\nprot = 1",
            "[server]\nport = 'x'",
            "[server]\nport = 70000",
            "[server]\nhost = '0.0.0.0'",
            "[server]\nhost = '0.0.0.0'\n[auth]\nmode = 'off'",
            "[server]\ncheck_hosts = false",
            "[auth]\nmode = 'strict'",
            "[auth]\nmode = 'all_except_health'",
            "[auth]\nmode = 'on'",
            "[auth]\nkeys = 'one'",
            "[auth]\nkeys = [1]",
            "[upstream]\nattempts = 0",
            "[upstream]\nattempts = 4",
            "[upstream]\nhttp = 'curl'",
            "[upstream]\nconnect_timeout = 0",
            "[upstream]\nbase_url = 'x.com/v1'",
            "[models]\npreset = 'best'",
            "[models.aliases]\ngpt-4o = ''",
            "[models.aliases]\ngpt-4o = []",
            "[models.aliases]\ngpt-4o = ['a', '']",
            "[models.aliases]\ngpt-4o = 1",
            "[answer]\nimages = 'none'",
            "[answer]\nkeepalive = 0",
            "[state]\nstore = 'stone'",
            "[state]\nretention_days = 0",
            "[request]\nstrict = 'maybe'",
            "[headers]\naccount = 1.5",
            "[sever]",
            "[server",
            "= 1",
            "\x00",
        )
    ),
]
"""Settings that are of no use beside one credential that works."""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text("[[credentials]]\nkey = 'old-key'\nlabel = 'old'\n")
    path.chmod(0o600)
    return path


def reloader(served: Gateway, path: Path) -> Callable[[], bool]:
    """Return what loads the settings of this file in the gateway's loop."""
    made = Reloader(
        served.relay,
        lambda: load(path, environ={}, flags={"upstream.base_url": served.simulator.url}),
    )
    return lambda: bool(served.serving.call(made.reload))


def asked(served: Gateway, model: str = "gpt-4o") -> tuple[int, dict[str, str]]:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    reply = ask(served, "POST", "/v1/chat/completions", body)
    return reply.status, reply.headers


def wait_for(process: GatewayProcess, text: str, times: int = 1) -> None:
    """Wait until the log says something."""
    until = time.monotonic() + 10
    while process.log.read_text().count(text) < times:
        assert time.monotonic() < until, process.log.read_text()
        time.sleep(0.02)


def chat(process: GatewayProcess) -> Reply:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
    return process.ask("POST", "/chat/completions", body)


class TestH4:
    @pytest.mark.parametrize("text", BROKEN)
    def test_h4_a_broken_file_changes_nothing_and_says_so(
        self, text: str, settings: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Settings that are of no use leave the old ones in force, and the log says what is wrong."""
        relay: Any = type("Standing", (), {})()
        relay.settings = type("Settings", (), {})()
        relay.settings.config = Config(credentials=(CredentialSettings(key=Secret("old")),))
        settings.write_text(text)
        found = Reloader(relay, lambda: load(settings, environ={}))
        with caplog.at_level(logging.ERROR, "oaicompat"):
            assert found.reload() is False
        (record,) = caplog.records
        assert record.getMessage().startswith("settings are not loaded, the old ones stay: ")

    def test_h4_a_file_that_goes_while_it_is_read_ends_nothing(
        self, settings: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What goes wrong unforeseen leaves the old settings in force too, and its text is not logged."""
        relay: Any = type("Standing", (), {"settings": None})()

        def gone() -> Any:
            raise FileNotFoundError(f"{settings}: a secret")

        with caplog.at_level(logging.ERROR, "oaicompat"):
            assert Reloader(relay, gone).reload() is False
        assert "FileNotFoundError" in caplog.text
        assert "a secret" not in caplog.text

    def test_h4_a_key_is_rotated_under_load(self, settings: Path) -> None:
        """A key that was taken out of the settings is not used once the requests that had it have ended."""
        with gateway(keys=("old-key",)) as served:
            stop = threading.Event()
            failed: list[int] = []

            def load_it() -> None:
                while not stop.is_set():
                    status = asked(served)[0]
                    if status != 200:
                        failed.append(status)

            served.simulator.behave("new-key", [])
            threads = [threading.Thread(target=load_it) for _ in range(4)]
            for thread in threads:
                thread.start()
            settings.write_text("[[credentials]]\nkey = 'new-key'\nlabel = 'new'\n")
            reload = reloader(served, settings)
            time.sleep(0.1)
            assert reload()
            assert served.relay.settings.number == 2
            time.sleep(0.1)
            mark = len(served.simulator.requests)
            time.sleep(0.2)
            stop.set()
            for thread in threads:
                thread.join()
            after = [record.key for record in served.simulator.requests[mark:]]
            assert failed == []
            assert set(after) == {"new-key"}
            assert served.idle()["leases"] == 0

    def test_h4_a_call_that_waits_shows_its_key_only_where_it_was_set_for(
        self, settings: Path
    ) -> None:
        """A retry uses the address and the key that its call began with, whatever is in force by then."""
        replies: list[int] = []
        with gateway(keys=("old-key",)) as served, running(any_model=True) as other:
            served.simulator.behave("old-key", ["429:rate:1"])
            other.behave("new-key", [])
            thread = threading.Thread(target=lambda: replies.append(asked(served)[0]))
            thread.start()
            until = time.monotonic() + 5
            while not served.simulator.requests:
                assert time.monotonic() < until
                time.sleep(0.01)
            settings.write_text("[[credentials]]\nkey = 'new-key'\n")
            flags = {"upstream.base_url": other.url}
            made = Reloader(served.relay, lambda: load(settings, environ={}, flags=flags))
            assert served.serving.call(made.reload)
            thread.join()
            assert replies == [200]
            assert [record.key for record in served.simulator.requests] == ["old-key"] * 2
            assert other.requests == []
            assert asked(served)[0] == 200
            assert [record.key for record in other.requests] == ["new-key"]

    def test_h4_what_rests_goes_on_resting(self, settings: Path) -> None:
        """Cooldowns are kept when settings are loaded anew."""
        with gateway(keys=("old-key",)) as served:
            served.simulator.behave("old-key", ["429:rate:60*"])
            assert asked(served)[0] == 429
            assert reloader(served, settings)()
            mark = len(served.simulator.requests)
            status, headers = asked(served)
            assert status == 429
            assert 50 <= int(headers["retry-after"]) <= 60
            assert len(served.simulator.requests) == mark

    def test_h4_what_is_read_at_the_start_is_named(
        self, settings: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A change that is in force only after a restart is named, and the rest is in force at once."""
        with gateway(Config(models=ModelSettings(aliases={"mine": "gemini-2.5-pro"}))) as served:
            text = "[server]\nport = 1\n[models.aliases]\nmine = 'gemini-2.5-flash'\n"
            settings.write_text(settings.read_text() + text)
            with caplog.at_level(logging.WARNING, "oaicompat"):
                assert reloader(served, settings)()
            assert "server.port" in caplog.text
            assert served.relay.config.server.port != 1
            assert asked(served, "mine")[1]["x-mapped-model"] == "gemini-2.5-flash"

    def test_h4_keys_of_clients_change_at_once(self, settings: Path) -> None:
        """A client's key that is new in the settings opens, and one that is gone does not."""
        with gateway() as served:
            assert asked(served)[0] == 200
            settings.write_text(settings.read_text() + "[auth]\nkeys = ['sk-new']\n")
            assert reloader(served, settings)()
            assert asked(served)[0] == 401


FROM_FILE = {"OAICOMPAT_CREDENTIALS": "", "OAICOMPAT_BASE_URL": ""}


def write(place: Path, upstream: str, label: str) -> None:
    """Write the settings where the gateway of this home looks for them."""
    path = place / ".config" / "oaicompat" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"[upstream]\nbase_url = '{upstream}'\n[[credentials]]\nkey = 'old-key'\nlabel = '{label}'\n"
    )
    path.chmod(0o600)


def test_h4_a_signal_and_a_changed_file_reload(tmp_path: Path) -> None:
    """SIGHUP loads the settings, and so does a file that has changed."""
    with running(any_model=True) as simulator:
        write(tmp_path, simulator.url, "old")
        with gateway_process(simulator.url, tmp_path, **FROM_FILE) as started:
            assert chat(started).headers["x-account-email"] == "old"
            write(tmp_path, simulator.url, "by-signal")
            started.process.send_signal(signal.SIGHUP)
            wait_for(started, "settings loaded")
            assert chat(started).headers["x-account-email"] == "by-signal"
            write(tmp_path, simulator.url, "by-file")
            wait_for(started, "settings loaded", 2)
            assert chat(started).headers["x-account-email"] == "by-file"
            write(tmp_path, "sentinel-secret", "x")
            wait_for(started, "the old ones stay")
            assert chat(started).status == 200
            assert "sentinel-secret" not in started.log.read_text()


def test_c11_cooldowns_outlive_a_kill(tmp_path: Path) -> None:
    """What rested when the gateway was killed rests when it is started again, and no key is in the file."""
    with running(any_model=True) as simulator:
        simulator.behave("upstream-key", ["429:rate:600*"])
        with gateway_process(simulator.url, tmp_path) as started:
            assert chat(started).status == 429
            time.sleep(1.3)
            started.kill()
        simulator.behave("upstream-key", [])
        mark = len(simulator.requests)
        with gateway_process(simulator.url, tmp_path) as again:
            refused = chat(again)
            assert refused.status == 429
            assert 500 < int(refused.headers["retry-after"]) <= 600
            assert len(simulator.requests) == mark
            status = again.data("GET", "/oaicompat/status")
            (cell,) = status["pool"]["cells"]
            assert (cell["state"], cell["kind"], cell["reason"]["cause"]) == (
                "resting",
                "limit",
                "rate",
            )
            assert again.data("POST", "/oaicompat/reset", {})["pool"]["cells"] == []
            assert chat(again).status == 200
    files = list(tmp_path.rglob("state.sqlite3*"))
    assert files
    assert not any(b"upstream-key" in file.read_bytes() for file in files)


def test_files_of_settings_are_the_file_and_the_keys(tmp_path: Path) -> None:
    path, key = tmp_path / "settings.toml", tmp_path / "key"
    key.write_text("secret")
    path.write_text(f"[[credentials]]\nkey_file = '{key}'\n")
    assert files_of(load(path, environ={})) == (path, key)
    assert files_of(load(environ={"XDG_CONFIG_HOME": str(tmp_path / "none")})) == ()


def fill(path: Path) -> None:
    """Write until there is no room left."""
    with suppress(OSError), path.open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_h9_a_full_disk_stops_no_answer(tmp_path: Path) -> None:
    """With no room left on the disk answers that need no state go on, and the log says what is not kept."""
    disk = tmp_path / "full"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with running(any_model=True) as simulator:
            state = {"OAICOMPAT_STATE__PATH": str(disk / "state.sqlite3")}
            with gateway_process(simulator.url, tmp_path, **state) as started:
                fill(disk / "filler")
                simulator.behave("upstream-key", ["429:rate:0.1"])
                assert chat(started).status == 200
                asked = {"model": "gpt-4o", "input": "hello " * 50_000}
                assert started.ask("POST", "/responses", asked).status == 503
                assert started.ask("POST", "/responses", asked | {"store": False}).status == 200
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_the_watch_waits_until_a_file_has_stopped_changing(settings: Path) -> None:
    asyncio.run(watched(settings))


async def watched(settings: Path) -> None:
    loads: list[float] = []

    class Counting(Reloader):
        def reload(self) -> bool:
            loads.append(time.monotonic())
            return True

    watch = Counting(None, lambda: load(settings, environ={}))  # type: ignore[arg-type]
    task = asyncio.ensure_future(watch.run(load(settings, environ={}), every=0.05))
    for number in range(8):
        await asyncio.sleep(0.03)
        await asyncio.to_thread(settings.write_text, f"# {number} {'x' * number}\n")
    written = time.monotonic()
    await asyncio.sleep(0.3)
    task.cancel()
    assert len(loads) == 1
    assert loads[0] > written
