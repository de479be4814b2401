"""The processes under measurement: how they are started, what they used, what they hold.

One rule: the gateway is started as a user starts it, by its command and the environment, with a key to ask for
and a file for its state; nothing of the machine's own settings reaches it.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

ROOT = Path(__file__).parents[2]
KEY = "sk-benchmark"
FLOORS = ("passc", "pass")
STORES = {"unstored": "memory", "memory": "memory", "sqlite": "sqlite"}
"""The gateway as a server of Responses, by what becomes of them, and the store behind it."""

_WORKERS = {"two workers": 2}
_TICKS = os.sysconf("SC_CLK_TCK")
_OURS = re.compile("OAICOMPAT_|GEMINI_|GOOGLE_")
_PORT = re.compile(r"(\d+)(?:/v1)?\s*$")
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class Target(Struct, frozen=True):
    """Something that answers: the process whose cost is asked for, its children's too, and where it listens."""

    pid: int
    port: int

    def cpu(self) -> float:
        """Return the seconds of CPU used so far, user and system."""
        return sum(map(_cpu, _tree(self.pid)))

    def pss(self) -> float:
        """Return the proportional set size in MB."""
        return sum(map(_pss, _tree(self.pid)))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from _tree(int(child))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _pss(pid: int) -> float:
    found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert found is not None
    return int(found[1]) / 1024


def raise_descriptor_limit() -> None:
    """Let this process, and what it starts, open as many descriptors as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def child(command: list[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command, end it afterwards."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as running:
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()


def port_of(running: subprocess.Popen[str]) -> int:
    """Wait for the line that tells the port; the process listens by then."""
    assert running.stdout is not None
    line = running.stdout.readline()
    found = _PORT.search(line)
    if found is None:
        raise RuntimeError(f"{running.args!r} did not start: {line!r}")
    return int(found[1])


@contextmanager
def upstream(delay: float, chunks: int, pace: float) -> Iterator[Target]:
    """Run the canned Gemini API."""
    command = [sys.executable, "-m", "tests.benchmarks.upstream", str(delay), str(chunks)]
    with child([*command, str(pace)], os.environ) as running:
        yield Target(running.pid, port_of(running))


def command_of(name: str, upstream_port: int, scratch: str) -> tuple[list[str], Mapping[str, str]]:
    """Return how a server is started: a floor, or the gateway with a store of that name."""
    environment = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
    if name in FLOORS:
        module = [sys.executable, "-m", "tests.benchmarks.floors"]
        return [*module, name, str(upstream_port)], environment
    settings = {
        "XDG_CONFIG_HOME": scratch,
        "GEMINI_API_KEY": "benchmark",
        "OAICOMPAT_API_KEY": KEY,
        "OAICOMPAT_BASE_URL": f"http://127.0.0.1:{upstream_port}",
        "OAICOMPAT_STATE__STORE": STORES.get(name, "sqlite"),
        "OAICOMPAT_STATE__PATH": f"{scratch}/state.sqlite3",
    }
    script = str(Path(sys.executable).with_name("oaicompat"))
    workers = str(_WORKERS.get(name, 1))
    return [script, "serve", "--port", "0", "--workers", workers], environment | settings


@contextmanager
def servers(names: tuple[str, ...], behind: Target) -> Iterator[dict[str, Target]]:
    """Run servers against an upstream; `direct` is the upstream itself."""
    with ExitStack() as stack:
        running: dict[str, subprocess.Popen[str]] = {}
        for name in names:
            if name == "direct":
                continue
            scratch = stack.enter_context(TemporaryDirectory())
            started = command_of(name, behind.port, scratch)
            running[name] = stack.enter_context(child(*started))
        targets = {"direct": behind} | {
            name: Target(each.pid, port_of(each)) for name, each in running.items()
        }
        yield {name: targets[name] for name in names}
