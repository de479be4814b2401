"""Several processes that serve as one gateway: real ones, told, killed and started again.

One rule: which worker answers is chance, so that a test that needs a certain one asks until it has that one.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support import raw
from tests.support.asking import ask
from tests.support.gateway import gateway
from tests.support.processes import KEY, OTHER_KEY, GatewayProcess, gateway_process

from oaicompat_server import supervising
from oaicompat_server.accepting import Accepting
from oaicompat_server.cli import main
from oaicompat_server.config import load
from oaicompat_server.secret import Secret
from oaicompat_server.settings import (
    Config,
    ConfigError,
    CredentialSettings,
    ServerSettings,
    StateSettings,
    share,
)
from oaicompat_server.simulator import Simulator, running
from oaicompat_server.snapshot import pinned
from oaicompat_server.supervising import Supervisor
from oaicompat_server.worker import VARIABLE, Worker, handed_over

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

TWO = {"OAICOMPAT_SERVER__WORKERS": "2"}
ENDING = "#script:long:12 #script:pace:80"
ENDLESS = "#script:long:500 #script:pace:60"


def workers_of(served: GatewayProcess) -> set[int]:
    """Return the processes that a supervisor has started."""
    pid = served.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def lives(pid: int) -> bool:
    """Return whether a process runs; one that nobody has waited for yet does not."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def status_on(connection: http.client.HTTPConnection) -> Any:
    headers = {"authorization": f"Bearer {KEY}"}
    connection.request("GET", "/v1/oaicompat/status", headers=headers)
    return json.loads(connection.getresponse().read())


def connected_to(served: GatewayProcess, index: int) -> http.client.HTTPConnection:
    """Return a connection to a certain worker."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
        if status_on(connection)["worker"] == {"index": index, "of": 2}:
            return connection
        connection.close()
    raise AssertionError(f"worker {index} does not answer: {served.log.read_text()}")


def loaded_by(served: GatewayProcess, index: int) -> int:
    """Return how often a worker has loaded its settings."""
    connection = connected_to(served, index)
    try:
        loaded: int = status_on(connection)["settings"]["loaded"]
        return loaded
    finally:
        connection.close()


def begun(served: GatewayProcess, text: str) -> socket.socket:
    """Return the connection of a stream that has begun."""
    plug = raw.connect(served.port)
    body = raw.words(raw.CHAT, text, stream=True)
    plug.sendall(raw.request(served.port, raw.CHAT, body, f"authorization: Bearer {KEY}"))
    assert b"200 OK" in plug.recv(65536)
    return plug


@pytest.fixture(scope="module")
def upstream() -> Iterator[Simulator]:
    with running(any_model=True) as found:
        yield found


@pytest.fixture(scope="module")
def shared(
    upstream: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """Give a gateway of two workers that tests may do anything to but end it."""
    with gateway_process(upstream.url, tmp_path_factory.mktemp("workers"), **TWO) as served:
        yield served


def test_every_worker_takes_its_part_of_a_burst(shared: GatewayProcess) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(raw.connect(shared.port)) for _ in range(80)]
        head = raw.head(
            shared.port, "/v1/oaicompat/status", None, f"authorization: Bearer {KEY}", method="GET"
        )
        for plug in opened:
            plug.sendall(head)
        taken = Counter(json.loads(raw.answer(plug)[2])["worker"]["index"] for plug in opened)
    assert set(taken) == {1, 2}
    assert min(taken.values()) >= 4, taken


def test_a_conversation_goes_on_in_another_worker(
    shared: GatewayProcess, upstream: Simulator
) -> None:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    previous = None
    for turn, index in enumerate((1, 2, 1)):
        connection = connected_to(shared, index)
        body = {"model": "gpt-4o", "input": f"turn {turn}", "previous_response_id": previous}
        connection.request("POST", "/v1/responses", json.dumps(body), headers)
        reply = connection.getresponse()
        made = json.loads(reply.read())
        assert reply.status == 200, made
        previous = made["id"]
        connection.close()
    sent = upstream.requests[-1].body["contents"]
    asked = [content["parts"][0]["text"] for content in sent if content["role"] == "user"]
    assert asked == ["turn 0", "turn 1", "turn 2"]


def test_a_hangup_has_every_worker_load_the_settings(shared: GatewayProcess) -> None:
    before = {index: loaded_by(shared, index) for index in (1, 2)}
    shared.process.send_signal(signal.SIGHUP)
    for index in (1, 2):
        raw.until(lambda index=index: loaded_by(shared, index) == before[index] + 1, 5)  # type: ignore[misc]


def test_a_reset_is_told_to_the_other_worker(shared: GatewayProcess, upstream: Simulator) -> None:
    connections = {index: connected_to(shared, index) for index in (1, 2)}

    def cells(index: int) -> list[Any]:
        found: list[Any] = status_on(connections[index])["pool"]["cells"]
        return found

    upstream.behave("upstream-key", ["429:rate:60*"])
    assert shared.ask("POST", "/chat/completions", raw.words(raw.CHAT, "hello")).status == 429
    upstream.behave("upstream-key", [])
    raw.until(lambda: cells(1) and cells(2), 5)
    model = cells(1)[0]["model"]
    # A part is not told through the store.
    assert shared.ask("POST", "/oaicompat/reset", {"model": model}).status == 200
    raw.until(lambda: not cells(1) and not cells(2), 1)
    for each in connections.values():
        each.close()


def test_a_worker_that_is_killed_is_replaced_and_the_other_goes_on(shared: GatewayProcess) -> None:
    before = workers_of(shared)
    assert len(before) == 2
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    raw.until(lambda: not lives(killed))
    # Whoever is left takes what comes; nothing waits for the one that is gone.
    for _ in range(5):
        assert shared.ask("GET", "/oaicompat/status").status == 200
    raw.until(lambda: len(workers_of(shared) - {killed}) == 2, 10)
    assert workers_of(shared) & before == before - {killed}
    for index in (1, 2):
        connected_to(shared, index).close()
    assert "(signal 9): another one starts in" in shared.log.read_text()


def test_no_command_line_holds_a_secret(shared: GatewayProcess) -> None:
    pids = {shared.process.pid, *workers_of(shared)}
    lines = {Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
    (line,) = lines
    assert line.split(b"\0")[1:-1] == [b"-m", b"oaicompat_server.cli", b"serve", b"--port", b"0"]
    for secret in (KEY, OTHER_KEY, "upstream-key"):
        assert secret.encode() not in line


def test_sigterm_lets_streams_end_in_every_worker(upstream: Simulator, tmp_path: Path) -> None:
    with gateway_process(upstream.url, tmp_path, **TWO) as served, ExitStack() as plugs:
        streams = [plugs.enter_context(begun(served, ENDING)) for _ in range(4)]
        served.process.send_signal(signal.SIGTERM)
        raw.until(lambda: raw.refused(served.port), 0.6)
        assert served.process.poll() is None
        for plug in streams:
            assert raw.read(plug).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert served.process.wait(5) == 0
        assert served.process.stdout is not None
        # The banner was there already.
        assert "oaicompat serves" not in served.process.stdout.read()
        log = served.log.read_text()
        assert "[1] stopping" in log or "[2] stopping" in log
        assert "Traceback" not in log


def test_only_the_supervisors_second_signal_cuts(upstream: Simulator, tmp_path: Path) -> None:
    """A terminal sends its signals to every process; a worker does not take its own for a second one."""
    with gateway_process(upstream.url, tmp_path, **TWO) as served, begun(served, ENDLESS) as plug:
        everybody = {served.process.pid, *workers_of(served)}
        for pid in everybody:
            os.kill(pid, signal.SIGINT)
        time.sleep(0.2)
        # The other worker has nothing to wait for.
        for pid in filter(lives, everybody - {served.process.pid}):
            os.kill(pid, signal.SIGINT)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            assert plug.recv(65536)
        assert served.process.poll() is None
        began = time.monotonic()
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(5) == 0
        assert time.monotonic() - began < 1.5
        assert not any(map(lives, everybody))


def test_workers_do_not_outlive_their_supervisor(upstream: Simulator, tmp_path: Path) -> None:
    with gateway_process(upstream.url, tmp_path, **TWO) as served, begun(served, ENDLESS):
        workers = workers_of(served)
        assert len(workers) == 2
        served.kill()
        raw.until(lambda: not any(map(lives, workers)), 2)
        assert raw.refused(served.port)


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--port", "{taken}"], {}, "cannot listen on 127.0.0.1:{taken}"),
        ([], {"STATE__STORE": "memory"}, "server.workers: more than 1"),
        (["--demo"], {}, "server.workers: more than 1"),
        (["--demo"], {"STATE__STORE": "sqlite"}, "--demo runs in one process"),
        (["--workers", "0"], {}, "flag --workers: server.workers"),
        (["--workers", "many"], {}, "--workers"),
    ],
)
def test_a_start_that_cannot_be_is_one_clear_line(
    arguments: list[str],
    environment: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name, value in ({"CREDENTIALS": "upstream-key", "PORT": "0"} | environment).items():
        monkeypatch.setenv(f"OAICOMPAT_{name}", value)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        try:
            status = main(
                ["serve", "--workers", "2", *(each.format(taken=taken) for each in arguments)]
            )
        except SystemExit as ended:
            status = int(str(ended.code))
    assert status == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    *_, line = printed.err.splitlines()
    assert line.startswith("oaicompat")
    assert said.format(taken=taken) in line


def test_windows_has_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert load(environ={"APPDATA": "/nowhere"}).config.server.workers == 1
    with pytest.raises(ConfigError, match=r"server\.workers: only 1 on Windows"):
        load(environ={"APPDATA": "/nowhere", **TWO})


def test_what_the_first_worker_cannot_open_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    settings = {"CREDENTIALS": "upstream-key", "PORT": "0", "STATE__PATH": "/proc/none/state"}
    for name, value in settings.items():
        monkeypatch.setenv(f"OAICOMPAT_{name}", value)
    assert main(["serve", "--workers", "2"]) == 2
    printed = capfd.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("oaicompat: state.path: ")
    assert printed.out == ""


@pytest.mark.parametrize(
    ("whole", "workers", "part"), [(10, 1, 10), (10, 4, 2), (3, 4, 1), (0, 4, 0), (2048, 2, 1024)]
)
def test_a_workers_part_of_a_limit(whole: int, workers: int, part: int) -> None:
    assert share(whole, workers) == part


def test_a_worker_takes_its_part_of_what_runs_at_once() -> None:
    settings = ServerSettings(workers=2, max_in_flight=2, queue=0)
    with gateway(Config(server=settings)) as served, raw.connect(served.port) as plug:
        body = raw.words(raw.CHAT, ENDLESS, stream=True)
        raw.asked(served, plug, raw.request(served.port, raw.CHAT, body))
        refusal = ask(served, "POST", raw.CHAT, raw.words(raw.CHAT, "one more"))
        assert (refusal.status, refusal.error["code"]) == (503, "server_is_overloaded")


def test_a_worker_that_starts_later_keeps_what_is_read_at_the_start() -> None:
    state = StateSettings(store="redis", redis_url=Secret("redis://:word@host"))
    begun_with = Config(
        server=ServerSettings(workers=2, queue=7),
        state=state,
        credentials=(CredentialSettings(key=Secret("upstream-key")),),
    )
    ours, theirs = socket.socketpair()
    listening = socket.create_server(("127.0.0.1", 0))
    line = handed_over(begun_with)
    assert b"upstream-key" not in line
    with ours, listening:
        ours.sendall(line)
        environ = {VARIABLE: f"2 {os.dup(listening.fileno())} {theirs.detach()}", "HOME": "/"}
        worker = Worker.given(environ)
        assert worker is not None
        assert (worker.index, environ) == (2, {"HOME": "/"})
        now = Config(state=StateSettings(path="/elsewhere"))
        assert pinned(worker.settings(), now)[0].state == state
        worker.ready()
        assert ours.recv(100) == b"ready\n"
        worker.listening.close()
        worker._orders.close()
        worker._line.close()


def supervised(command: list[str]) -> int:
    """Run a supervisor of such commands; return its status."""
    config = Config(server=ServerSettings(workers=2))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return Supervisor(config, listening, command, lambda: print("up")).run()


@pytest.mark.parametrize(("own", "status"), [(2, 2), (7, 1)])
def test_a_first_worker_that_does_not_come_up_ends_the_start(
    own: int, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Status 2 is that of wrong settings, which the worker has told."""
    command = [sys.executable, "-SEc", f"raise SystemExit({own})"]
    with caplog.at_level(logging.INFO, "oaicompat"):
        assert supervised(command) == status
    assert len(caplog.records) == (own != 2)


ONCE = """
import os, sys
try:
    os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL))
except FileExistsError:
    sys.exit(9)
os.write(int(os.environ["_OAICOMPAT_WORKER"].split()[2]), b"ready\\n")
"""


def test_it_gives_up_when_no_worker_comes_up_any_more(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each try waits longer than the one before; only the first worker ever serves here, and that once."""
    monkeypatch.setattr(supervising, "_FIRST_WAIT", 0.001)
    with caplog.at_level(logging.INFO, "oaicompat"):
        assert supervised([sys.executable, "-SEc", ONCE, str(tmp_path / "once")]) == 1
    *tries, last = [record.getMessage() for record in caplog.records]
    assert last == "no worker comes up: giving up after 5 tries each"
    waits = [float(each.split()[-2]) for each in tries if each.startswith("worker 2")]
    assert waits[:4] == [0.001, 0.002, 0.004, 0.008]
    assert capsys.readouterr().out == "up\n"


STUBBORN = """
import os, time
os.write(int(os.environ["_OAICOMPAT_WORKER"].split()[2]), b"ready\\n")
time.sleep(60)
"""


def test_a_worker_that_does_not_end_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervising, "_MORE_THAN_GRACE", 0.1)
    config = Config(server=ServerSettings(workers=2, grace=0.1))
    listening = socket.create_server(("127.0.0.1", 0))

    def announced() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    supervisor = Supervisor(config, listening, [sys.executable, "-SEc", STUBBORN], announced)
    assert supervisor.run() == 1
    assert time.monotonic() - began < 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


OBEDIENT = """
import os, socket
line = socket.socket(fileno=int(os.environ["_OAICOMPAT_WORKER"].split()[2]))
line.sendall(b"ready\\n")
for each in line.makefile("rb"):
    if each == b"leave\\n":
        break
"""


def test_the_second_signal_has_workers_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "_FORCED_SECONDS", 20.0)
    config = Config(server=ServerSettings(workers=2))
    listening = socket.create_server(("127.0.0.1", 0))

    def announced() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)

    began = time.monotonic()
    command = [sys.executable, "-SEc", OBEDIENT]
    assert Supervisor(config, listening, command, announced).run() == 0
    assert time.monotonic() - began < 3


class Exhausted(socket.socket):
    """A listening socket for which there are no descriptors, for some tries."""

    tries = 1

    def accept(self) -> Any:
        if self.tries:
            self.tries -= 1
            raise OSError(errno.EMFILE, "none left")
        return super().accept()


def test_without_descriptors_accepting_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oaicompat_server.accepting._PAUSE_SECONDS", 0.2)

    async def accepted() -> float:
        met = anyio.Event()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transport.close()
                met.set()

        with Exhausted() as listening, socket.socket() as client:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            accepting = Accepting(listening, Protocol)
            client.connect(listening.getsockname())
            began = time.monotonic()
            with anyio.fail_after(5):
                await met.wait()
            accepting.close()
            return time.monotonic() - began

    assert 0.15 < anyio.run(accepted) < 2
