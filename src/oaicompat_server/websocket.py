"""Responses over one WebSocket: a turn for every `response.create`, in order on each lane.

One rule: what a turn leaves with `store: false` lives in its connection only, the newest response of each lane
and no older one; a turn that fails to go on from it takes it away (openai-wire section 7). The connection is
always being read, so that a client that leaves ends its turns.
"""

from __future__ import annotations

import logging
import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import anyio
import msgspec
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec import Raw, Struct

from oaicompat.dialects.responses.output import error_data
from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat.events import Frame
from oaicompat.supplies import Effect, Item, KeepResponse, Needs, Supplies
from oaicompat_server.bodies import counted
from oaicompat_server.framing import (
    Headers,
    Receive,
    Send,
    common_headers,
    fields_of,
    request_id_of,
    session_of,
)
from oaicompat_server.recall import Recall, size_of
from oaicompat_server.relay import Incoming, Relay
from oaicompat_server.session import Session
from oaicompat_server.upgraded import DRAIN

LIFETIME_SECONDS = 3600.0
_LANES = 16
_WAITING = 16
_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_IGNORED = ("type", "stream_id", "stream", "stream_options", "background", "generate")
_RESTARTING, _NORMAL = 1012, 1000

logger = logging.getLogger("oaicompat")


class _Kept(Struct, frozen=True):
    """The newest response of a lane, with all it continued."""

    id: str
    items: tuple[Item, ...]


class _Turn(Struct, frozen=True):
    body: bytes
    silent: bool


class Connection:
    """One WebSocket; `serve` runs it to its end. `lifetime` is seconds."""

    def __init__(
        self,
        relay: Relay,
        scope: Mapping[str, Any],
        receive: Receive,
        send: Send,
        *,
        owner: str,
        lifetime: float = LIFETIME_SECONDS,
    ) -> None:
        self.relay = relay
        self.owner = owner
        self.request_id = request_id_of(scope["headers"])
        self._session = session_of(fields_of(scope["headers"]))
        self.kept: dict[str, _Kept] = {}
        self.scope = anyio.CancelScope()
        self._receive = receive
        self._send = send
        self._lifetime = lifetime
        self._lanes: dict[str, MemoryObjectSendStream[_Turn]] = {}
        self._turns = 0
        self._held = 0
        self._closing: tuple[int, OaicompatError | None] | None = None
        self._closed = False
        self._writing = anyio.Lock()

    async def serve(self) -> None:
        """Accept, and answer until one side leaves."""
        await self._receive()
        headers = common_headers(self.request_id, time.monotonic())
        await self._send({"type": "websocket.accept", "headers": headers})
        try:
            with self.scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._expire)
                    await self._read(group)
                    group.cancel_scope.cancel()
        finally:
            self._let_go(self._held)
            for queue in self._lanes.values():
                queue.close()

    async def _expire(self) -> None:
        await anyio.sleep(self._lifetime)
        minutes = round(self._lifetime / 60)
        await self._close(
            _NORMAL,
            InvalidRequestError(
                f"A WebSocket connection ends after {minutes} minutes; open another one.",
                code="websocket_connection_limit_reached",
            ),
        )

    async def _close(self, code: int, error: OaicompatError | None = None) -> None:
        """Close now, or when the turns that run have ended; no further ones begin."""
        self._closing = self._closing or (code, error)
        if self._turns or self._closed:
            return
        self._closed = True
        code, error = self._closing
        if error is not None:
            await self.tell(error, "")
        await self._send({"type": "websocket.close", "code": code})
        self.scope.cancel()

    async def _read(self, group: TaskGroup) -> None:
        while True:
            message = await self._receive()
            match message["type"]:
                case "websocket.receive":
                    await self._take(message, group)
                case _ if message["type"] == DRAIN:
                    await self._close(_RESTARTING)
                case _:
                    return

    async def _take(self, message: Mapping[str, Any], group: TaskGroup) -> None:
        lane = ""
        try:
            fields = _fields(message)
            lane = _lane(fields)
            await self._queue(lane, _turn(fields), group)
        except OaicompatError as error:
            await self.tell(error, lane)

    async def _queue(self, lane: str, turn: _Turn, group: TaskGroup) -> None:
        if self._closing is not None:
            raise InvalidRequestError(
                "This connection is about to close; open another one.",
                code="websocket_connection_limit_reached",
            )
        queue = self._lanes.get(lane)
        if queue is None:
            if len(self._lanes) >= _LANES:
                raise InvalidRequestError(
                    f"A connection carries at most {_LANES} streams.", param="stream_id"
                )
            queue, turns = anyio.create_memory_object_stream[_Turn](_WAITING)
            self._lanes[lane] = queue
            group.start_soon(self._work, lane, turns)
        size = counted(len(turn.body))
        self.relay.bodies.take(size)
        self._held += size
        try:
            queue.send_nowait(turn)
        except anyio.WouldBlock:
            self._let_go(size)
            raise InvalidRequestError(
                f"At most {_WAITING} turns may wait for the one that runs.", status=429
            ) from None
        self._turns += 1

    async def _work(self, lane: str, turns: MemoryObjectReceiveStream[_Turn]) -> None:
        with turns:
            async for turn in turns:
                try:
                    await self._answer(lane, turn)
                except BaseException as ended:
                    # The group keeps what ended a task, in a cycle: the turn must not be kept with it.
                    traceback.clear_frames(ended.__traceback__)
                    raise
                self._let_go(counted(len(turn.body)))
                self._turns -= 1
                if self._closing is not None:
                    await self._close(*self._closing)

    def _let_go(self, size: int) -> None:
        self.relay.bodies.give(size)
        self._held -= size

    async def _answer(self, lane: str, turn: _Turn) -> None:
        incoming = Incoming(
            "responses",
            turn.body,
            self.request_id,
            time.monotonic(),
            self.owner,
            streaming=True,
            silent=turn.silent,
            keep="all",
            session=self._session,
        )
        relay = self.relay
        recall = _LaneRecall(self, lane, relay.recall(self.owner))
        reply = _Turned(self, lane)
        session = Session(relay, incoming, reply, recall)
        try:
            await session.run()
        finally:
            session.stop()
        if reply.failed:
            recall.evict()

    def remember(self, lane: str, kept: _Kept) -> None:
        """Keep the newest response of a lane; what was kept first goes where all are too much."""
        self.kept.pop(lane, None)
        self.kept[lane] = kept
        size = sum(size_of(each.items) for each in self.kept.values())
        while size > self.relay.config.server.body_limit:
            size -= size_of(self.kept.pop(next(iter(self.kept))).items)

    async def tell(self, error: OaicompatError, lane: str) -> None:
        """Tell of an error outside any response; the connection stays open."""
        data = {"type": "error", "status": error.status, "error": error_data(error)}
        await self.write(msgspec.json.encode(data), lane)

    async def write(self, data: bytes, lane: str) -> None:
        """Send one event; on a lane with a name it says which."""
        if lane:
            data = b'%s,"stream_id":"%s"}' % (data[:-1], lane.encode())
        async with self._writing:
            await self._send({"type": "websocket.send", "text": data.decode()})


class _Turned:
    """The reply to one turn, as messages; satisfies `Reply`."""

    def __init__(self, connection: Connection, lane: str) -> None:
        self._connection = connection
        self._lane = lane
        self.started = self.ended = self.failed = False

    def open(self, streaming: bool, headers: Callable[[], Headers]) -> None:
        """Do nothing: there is one way to answer, and no headers."""

    async def write(self, frames: Sequence[Frame]) -> None:
        """Send what are events of the frames."""
        for frame in frames:
            if frame.name:
                self.started = True
                await self._connection.write(frame.data, self._lane)

    async def end(self) -> None:
        """Take the end; the connection stays open."""
        self.ended = True

    async def fail(self, error: OaicompatError, frames: Sequence[Frame]) -> None:
        """Tell of an error: in the events of the response where it has begun."""
        self.failed = self.ended = True
        if self.started:
            await self.write(frames)
        else:
            await self._connection.tell(error, self._lane)


class _LaneRecall:
    """Finds what the connection keeps, then what is stored."""

    def __init__(self, connection: Connection, lane: str, stored: Recall) -> None:
        self._connection = connection
        self._lane = lane
        self._stored = stored
        self._continued = ""
        self._past: tuple[Item, ...] = ()

    async def find(self, wanted: Needs) -> Supplies:
        """Return what is there of what is wanted."""
        local = {each.id: each.items for each in self._connection.kept.values()}
        elsewhere = tuple(each for each in wanted.responses if each not in local)
        found = await self._stored.find(msgspec.structs.replace(wanted, responses=elsewhere))
        here = {each: local[each] for each in wanted.responses if each in local}
        responses = {**found.responses, **here}
        for self._continued in wanted.responses:
            self._past = responses.get(self._continued, ())
        return msgspec.structs.replace(found, responses=responses)

    async def keep(self, effects: Iterable[Effect]) -> None:
        """Keep what the turn leaves: in the connection, and stored where it is to be."""
        effects = tuple(effects)
        await self._stored.keep(effects)
        for effect in effects:
            if isinstance(effect, KeepResponse) and not effect.failed:
                items = (*self._past, *effect.input, *effect.output)
                self._connection.remember(self._lane, _Kept(effect.id, items))

    def release(self) -> None:
        """Let go of what was found."""
        self._stored.release()

    def evict(self) -> None:
        """Let go of the response that a failed turn went on from."""
        kept = self._connection.kept
        for lane in [lane for lane, each in kept.items() if each.id == self._continued]:
            del kept[lane]


def _fields(message: Mapping[str, Any]) -> dict[str, Raw]:
    text = message.get("text")
    if text is None:
        raise InvalidRequestError("Messages have to be text: one JSON object each.")
    try:
        fields = msgspec.json.decode(text, type=dict[str, Raw])
        kind = msgspec.json.decode(fields.get("type", b'""'))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidRequestError(
            "We could not parse the JSON of your message; it has to be one JSON object."
        ) from None
    if kind != "response.create":
        wrong = "Invalid value: 'type' has to be 'response.create'."
        raise InvalidRequestError(wrong, param="type", code="invalid_value")
    return fields


def _lane(fields: Mapping[str, Raw]) -> str:
    if "stream_id" not in fields:
        return ""
    # A number that Python's floats cannot hold passes as raw JSON and fails here.
    with suppress(msgspec.DecodeError):
        lane = msgspec.json.decode(fields["stream_id"])
        if isinstance(lane, str) and _STREAM_ID.fullmatch(lane):
            return lane
    raise InvalidRequestError(
        "Invalid value: 'stream_id' is 1 to 256 letters, digits, dots, dashes and underscores.",
        param="stream_id",
        code="invalid_value",
    )


def _turn(fields: Mapping[str, Raw]) -> _Turn:
    silent = "generate" in fields and bytes(fields["generate"]) == b"false"
    body = {name: value for name, value in fields.items() if name not in _IGNORED}
    return _Turn(msgspec.json.encode(body), silent)
