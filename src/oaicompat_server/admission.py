"""How many requests are worked on at once, how many may wait for their turn, and whose turn it is.

One rule: a request is refused at once when the queue is full and after a short wait when it is not, with a
503 that asks for one more try; whoever leaves while waiting frees the place. Among clients that wait the one
with the least work is next, and a full queue makes room for it, so that nobody is kept out by another's flood.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType

import anyio

from oaicompat.errors import OaicompatError


class _Turn:
    """One request that waits; `granted` is None as long as nothing is decided."""

    __slots__ = ("decided", "granted")

    def __init__(self) -> None:
        self.decided = anyio.Event()
        self.granted: bool | None = None

    def decide(self, granted: bool) -> None:
        self.granted = granted
        self.decided.set()


class Admission:
    """Hands out `slots`; at most `queue` requests wait up to `wait` seconds for one."""

    def __init__(self, slots: int, queue: int, wait: float) -> None:
        self._slots = slots
        self._queue = queue
        self._wait = wait
        self._running: dict[str, int] = {}
        self._turns: dict[str, deque[_Turn]] = {}
        self.active = 0
        self.waiting = 0

    def slot(self, owner: str) -> Slot:
        """Return a context that holds a slot for this client; to enter it raises what `acquire` does."""
        return Slot(self, owner)

    def take(self, owner: str) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self.waiting or self.active >= self._slots:
            return False
        self.active += 1
        self._running[owner] = self._running.get(owner, 0) + 1
        return True

    async def acquire(self, owner: str) -> None:
        """Take a slot, at once or when it is this client's turn; raises the 503 of `OaicompatError`."""
        if self.take(owner):
            return
        if self.waiting >= self._queue and not self._make_room(owner):
            raise overloaded()
        turn = _Turn()
        self._turns.setdefault(owner, deque()).append(turn)
        self.waiting += 1
        try:
            with anyio.move_on_after(self._wait):
                await turn.decided.wait()
        except BaseException:
            self._leave(owner, turn)
            raise
        if not turn.granted:
            self._leave(owner, turn)
            raise overloaded()

    def release(self, owner: str) -> None:
        """Give a slot back; it goes to the client with the least work of those that wait."""
        self.active -= 1
        left = self._running.pop(owner) - 1
        if left:
            self._running[owner] = left
        if self._turns:
            next_owner = min(self._turns, key=lambda each: self._running.get(each, 0))
            self.active += 1
            self._running[next_owner] = self._running.get(next_owner, 0) + 1
            self._pop(next_owner, newest=False).decide(granted=True)

    def _pop(self, owner: str, *, newest: bool) -> _Turn:
        turns = self._turns[owner]
        turn = turns.pop() if newest else turns.popleft()
        self.waiting -= 1
        if not turns:
            del self._turns[owner]
        return turn

    def _leave(self, owner: str, turn: _Turn) -> None:
        """Take one that waits no longer out of the queue, or give back what it was granted meanwhile."""
        if turn.granted:
            self.release(owner)
        elif turn.granted is None:
            self._turns[owner].remove(turn)
            self.waiting -= 1
            if not self._turns[owner]:
                del self._turns[owner]

    def _make_room(self, owner: str) -> bool:
        """Send the newest of the client with the longest queue away, for one whose own is shorter."""
        if not self._turns:
            return False
        longest = max(self._turns, key=lambda each: len(self._turns[each]))
        if len(self._turns[longest]) <= len(self._turns.get(owner, ())) + 1:
            return False
        self._pop(longest, newest=True).decide(granted=False)
        return True


class Slot:
    """Holds one slot of a client while its context lasts."""

    __slots__ = ("_admission", "_owner")

    def __init__(self, admission: Admission, owner: str) -> None:
        self._admission = admission
        self._owner = owner

    async def __aenter__(self) -> None:
        await self._admission.acquire(self._owner)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._admission.release(self._owner)


def overloaded() -> OaicompatError:
    """Return the refusal of one more request, which may come again soon."""
    return OaicompatError(
        "The server is overloaded. Please try again in 1s.",
        status=503,
        type="service_unavailable_error",
        code="server_is_overloaded",
        retry_after=1,
    )
