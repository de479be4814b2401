"""Several processes that serve as one gateway: starting them, telling them, starting again what died.

One rule: all of them accept from one socket, which is bound once and inherited. A socket for each
(SO_REUSEPORT) would have a queue for each: on Linux a connection in the queue of a process that died or is
stuck waits although others are free, and macOS does not spread at all. With one queue whoever is free takes
the next, one at a time (see `accepting`), so that bursts are spread too. Processes are started anew, not
forked: nothing is open in them but what they are given.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from oaicompat_server.settings import Config
from oaicompat_server.worker import DRAIN, HELD, LEAVE, READY, RELOAD, VARIABLE, handed_over

_STEADY_SECONDS = 10.0
_FIRST_WAIT = 0.25
_LONGEST_WAIT = 30.0
_TRIES = 5
_MORE_THAN_GRACE = 6.0
_FORCED_SECONDS = 0.8
_WRONG_SETTINGS = 2

logger = logging.getLogger("oaicompat")


def command_line(arguments: Sequence[str] | None) -> list[str]:
    """Return what starts this command once more, None for the arguments that the process was given."""
    if arguments is None:
        return [sys.executable, *sys.orig_argv[1:]]
    return [sys.executable, "-m", "oaicompat_server.cli", *arguments]


class _Process:
    """One worker's place: the process in it if there is one, and when to start the next."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.running: subprocess.Popen[bytes] | None = None
        self.line: socket.socket | None = None
        self.ready = False
        self.failures = 0
        self.began = 0.0
        self.due: float | None = None
        self._said = b""

    @property
    def hopeless(self) -> bool:
        """Tell whether nothing runs here, and what did never came to serve however often it was started."""
        return self.running is None and not self.ready and self.failures >= _TRIES

    def start(self, command: Sequence[str], listening: socket.socket, settings: bytes) -> None:
        """Start a process, which waits with signals until it can handle them."""
        ours, theirs = socket.socketpair()
        given = (listening.fileno(), theirs.fileno())
        environment = os.environ | {VARIABLE: f"{self.index} {given[0]} {given[1]}"}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            self.running = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=given, env=environment
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self.line, self._said = ours, b""
        self.ready, self.began, self.due = False, time.monotonic(), None
        with suppress(OSError):
            ours.sendall(settings)

    def tell(self, order: bytes) -> None:
        """Send an order, where there is anybody."""
        if self.line is not None:
            with suppress(OSError):
                self.line.sendall(order + b"\n")

    def heard(self) -> list[bytes] | None:
        """Return the lines that have come, None when the line broke."""
        assert self.line is not None
        try:
            said = self.line.recv(4096)
        except OSError:
            said = b""
        *lines, self._said = (self._said + said).split(b"\n")
        return lines if said else None

    def ended(self) -> int:
        """Return the exit status of the process whose line broke, and be ready for the next."""
        assert self.running is not None
        assert self.line is not None
        self.line.close()
        try:
            status = self.running.wait(_FORCED_SECONDS)
        except subprocess.TimeoutExpired:
            self.running.kill()
            status = self.running.wait()
        self.running = self.line = None
        return status


class Supervisor:
    """Keeps `config.server.workers` processes of `command` serving on `listening`.

    `announce` is called once, when the gateway serves.
    """

    def __init__(
        self,
        config: Config,
        listening: socket.socket,
        command: Sequence[str],
        announce: Callable[[], None],
    ) -> None:
        self._places = [_Process(number + 1) for number in range(config.server.workers)]
        self._grace = config.server.grace
        self._settings = handed_over(config)
        self._listening = listening
        self._command = command
        self._announce: Callable[[], None] | None = announce
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._deadline: float | None = None
        self._forced = False
        self._served = False
        self._status = 0

    def run(self) -> int:
        """Serve until a signal ends it; return the exit status."""
        with self._woken_by_signals() as woken, self._selector:
            self._selector.register(woken, selectors.EVENT_READ)
            # What is wrong with the settings or the store is found, and told, by the first alone.
            self._start(self._places[0])
            try:
                while self._goes_on():
                    self._turn()
            finally:
                self._end()
        return self._status

    @contextmanager
    def _woken_by_signals(self) -> Iterator[socket.socket]:
        woken, waking = socket.socketpair()
        with woken, waking:
            for each in (woken, waking):
                each.setblocking(False)
            former = signal.set_wakeup_fd(waking.fileno())
            before = {each: signal.signal(each, self._note) for each in HELD}
            try:
                yield woken
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(former)

    def _note(self, number: int, frame: object) -> None:
        self._signals.append(number)

    def _goes_on(self) -> bool:
        """Tell whether a process runs, or is to be started."""
        return any(each.running is not None or each.due is not None for each in self._places)

    def _turn(self) -> None:
        """Wait for the next thing to happen, and do what it asks for."""
        for key, _ in self._selector.select(self._wait()):
            if isinstance(key.data, _Process):
                self._hear(key.data)
            else:
                with suppress(BlockingIOError):
                    while key.fileobj.recv(64):  # type: ignore[union-attr]
                        pass
        while self._signals:
            self._signal(self._signals.pop(0))
        now = time.monotonic()
        if self._deadline is not None and now > self._deadline:
            self._kill()
        for each in self._places:
            if each.due is not None and each.due <= now:
                self._start(each)

    def _wait(self) -> float | None:
        times = [each.due for each in self._places if each.due is not None]
        times += [self._deadline] if self._deadline is not None else []
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _start(self, place: _Process) -> None:
        place.start(self._command, self._listening, self._settings)
        assert place.line is not None
        self._selector.register(place.line, selectors.EVENT_READ, place)

    def _hear(self, place: _Process) -> None:
        """Take what a worker says; when its line breaks, it has ended."""
        assert place.line is not None
        lines = place.heard()
        if lines is not None:
            for line in lines:
                self._take(place, line)
            return
        self._selector.unregister(place.line)
        status = place.ended()
        if self._deadline is not None:
            self._status = self._status or (0 if self._forced or not status else 1)
        elif self._served:
            self._again(place, status)
        else:
            self._refused(status)

    def _take(self, place: _Process, line: bytes) -> None:
        """Take note that a worker serves; everything else is for the others."""
        if line != READY:
            for each in self._places:
                if each is not place:
                    each.tell(line)
            return
        place.ready = True
        if self._deadline is None:
            self._others()
            self._tell_once()

    def _others(self) -> None:
        """Have the others started once the first serves."""
        if not self._served:
            for each in self._places[1:]:
                each.due = 0.0
        self._served = True

    def _tell_once(self) -> None:
        """Tell that the gateway serves, when each worker has had its try."""
        tried = all(each.ready or each.failures for each in self._places)
        if self._announce is not None and tried:
            self._announce()
            self._announce = None

    def _refused(self, status: int) -> None:
        """End with a first worker that did not come to serve; wrong settings it has told itself."""
        self._status = status if status == _WRONG_SETTINGS else 1
        if status != _WRONG_SETTINGS:
            logger.error("the first worker ended before it served (%s)", _shown(status))

    def _again(self, place: _Process, status: int) -> None:
        """Have a worker that died started again, later each time when it dies soon."""
        steady = place.ready and time.monotonic() - place.began > _STEADY_SECONDS
        place.failures = 0 if steady else place.failures + 1
        if all(each.hopeless for each in self._places):
            logger.error("no worker comes up: giving up after %d tries each", _TRIES)
            self._status = 1
            for each in self._places:
                each.due = None
            return
        wait = 0.0 if steady else min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (place.failures - 1))
        logger.warning(
            "worker %d ended (%s): another one starts in %g s", place.index, _shown(status), wait
        )
        place.due = time.monotonic() + wait
        self._tell_once()

    def _signal(self, number: int) -> None:
        """Pass a signal on: settings anew, or the end; the second of the end is at once."""
        if number not in (signal.SIGINT, signal.SIGTERM):
            self._tell(RELOAD)
        elif self._deadline is None:
            # The workers close it as well; as long as anybody listens, connections are taken and not answered.
            self._listening.close()
            for each in self._places:
                each.due = None
            self._deadline = time.monotonic() + self._grace + _MORE_THAN_GRACE
            self._tell(DRAIN)
        else:
            self._forced = True
            self._deadline = min(self._deadline, time.monotonic() + _FORCED_SECONDS)
            self._tell(LEAVE)

    def _tell(self, order: bytes) -> None:
        for each in self._places:
            each.tell(order)

    def _kill(self) -> None:
        """End at once whoever is left after the time for it."""
        for each in self._places:
            if each.running is not None:
                each.running.kill()
        self._deadline = time.monotonic() + _FORCED_SECONDS

    def _end(self) -> None:
        """Leave nobody behind, whatever ended this."""
        self._listening.close()
        for each in self._places:
            if each.running is not None:
                each.running.kill()
                each.running.wait()
            if each.line is not None:
                each.line.close()


def _shown(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
