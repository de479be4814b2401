"""Turns a reply into steps on the connection, right or wrong on purpose.

Owns the step types and the table of delivery directives (delays, cuts, resets, broken framing). The one
rule: a directive changes a `Plan`, a plan becomes steps, and only `connection` performs them, so every fault
can be looked at without a socket. Faults: reliability table B.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable

import msgspec

from .bodies import encode
from .outages import outage
from .turns import Turn

_BREAK = b"\r\n\r\n"


class Head(msgspec.Struct, frozen=True, tag=True):
    """The status line and headers; `framing` is "chunked", "length" or "close"; `length` may lie."""

    status: int = 200
    content_type: str = "application/json; charset=UTF-8"
    headers: tuple[tuple[str, str], ...] = ()
    framing: str = "length"
    length: int | None = None


class Body(msgspec.Struct, frozen=True, tag=True):
    """One piece of the body, framed as the head says."""

    data: bytes


class Drip(msgspec.Struct, frozen=True, tag=True):
    """Body bytes one at a time with `pause` seconds after each."""

    data: bytes
    pause: float


class Repeat(msgspec.Struct, frozen=True, tag=True):
    """The same piece of body for ever, `pause` seconds apart, until the client leaves."""

    data: bytes
    pause: float


class Raw(msgspec.Struct, frozen=True, tag=True):
    """Bytes onto the connection as they are, outside any framing."""

    data: bytes


class Wait(msgspec.Struct, frozen=True, tag=True):
    """A pause in seconds."""

    seconds: float


class Finish(msgspec.Struct, frozen=True, tag=True):
    """The proper end of the body; the connection stays open unless the framing ends by closing."""


class Close(msgspec.Struct, frozen=True, tag=True):
    """The connection is closed with FIN, wherever the body is."""


class HalfClose(msgspec.Struct, frozen=True, tag=True):
    """Our side is closed with FIN, the other stays open until the client leaves."""


class Reset(msgspec.Struct, frozen=True, tag=True):
    """The connection is reset with RST."""


class Stall(msgspec.Struct, frozen=True, tag=True):
    """Nothing more comes; the connection stays open until the client leaves."""


Step = Head | Body | Drip | Repeat | Raw | Wait | Finish | Close | HalfClose | Reset | Stall


class Plan(msgspec.Struct, frozen=True):
    """A reply on its way to becoming steps: head, body pieces, ending, pauses in seconds."""

    head: Head | None
    pieces: tuple[bytes, ...]
    streaming: bool = False
    before: tuple[Step, ...] = ()
    ending: Step = Finish()
    after: tuple[Step, ...] = ()
    pause: float = 0
    drip: float | None = None
    repeat: bool = False
    model: str = ""


def steps(plan: Plan, turn: Turn | None = None) -> list[Step]:
    """Return the steps that deliver `plan`, changed by the turn's delivery directives in table order."""
    for name, change in CHANGES.items():
        if turn is not None and name in turn.directives:
            plan = change(plan, turn)
    return _lay_out(plan)


def _lay_out(plan: Plan) -> list[Step]:
    laid: list[Step] = list(plan.before)
    if plan.head is not None:
        laid.append(_measured(plan.head, plan.pieces))
        for at, piece in enumerate(plan.pieces):
            if at and plan.pause:
                laid.append(Wait(plan.pause))
            laid.append(Body(piece) if plan.drip is None else Drip(piece, plan.drip))
        if plan.repeat and plan.pieces:
            laid.append(Repeat(plan.pieces[0], plan.pause or 0.01))
    return [*laid, plan.ending, *plan.after]


def _measured(head: Head, pieces: tuple[bytes, ...]) -> Head:
    if head.framing != "length" or head.length is not None:
        return head
    return msgspec.structs.replace(head, length=sum(map(len, pieces)))


def _change(plan: Plan, **fields: object) -> Plan:
    return msgspec.structs.replace(plan, **fields)


def _change_head(plan: Plan, **fields: object) -> Plan:
    if plan.head is None:
        return plan
    return _change(plan, head=msgspec.structs.replace(plan.head, **fields))


def _first(plan: Plan, count: int) -> tuple[bytes, ...]:
    """Keep the first events of a stream; of a unary body keep half."""
    if plan.streaming:
        return plan.pieces[:count]
    whole = b"".join(plan.pieces)
    return (whole[: len(whole) // 2],) if count else ()


def _end_after(plan: Plan, count: int, ending: Step) -> Plan:
    if not count:
        return _change(plan, head=None, pieces=(), ending=ending)
    kept = _change_head(plan, length=sum(map(len, plan.pieces)))
    return _change(kept, pieces=_first(plan, count), ending=ending)


def _reset(plan: Plan, turn: Turn) -> Plan:
    return _end_after(plan, turn.number("reset-after"), Reset())


def _stall(plan: Plan, turn: Turn) -> Plan:
    return _end_after(plan, turn.number("stall-after"), Stall())


def _half_close(plan: Plan, turn: Turn) -> Plan:
    return _end_after(plan, turn.number("half-close-after"), HalfClose())


def _close(plan: Plan, turn: Turn) -> Plan:
    return _end_after(plan, turn.number("close-after"), Close())


def _cut(plan: Plan, turn: Turn) -> Plan:
    count = turn.number("cut-after")
    if plan.streaming:
        count = min(count, len(plan.pieces) - 1)
    return _change(plan, pieces=_first(plan, count))


def _cut_bytes(plan: Plan, turn: Turn) -> Plan:
    whole = b"".join(plan.pieces)
    kept = _change_head(plan, length=len(whole))
    return _change(kept, pieces=(whole[: turn.number("cut-bytes")],), ending=Close())


def _wrong_length(plan: Plan, turn: Turn) -> Plan:
    length = sum(map(len, plan.pieces)) + turn.number("wrong-length", 100)
    return _change(_change_head(plan, framing="length", length=length), ending=Close())


def _framing(plan: Plan, turn: Turn) -> Plan:
    return _change_head(plan, framing=turn.argument("framing", "close"))


def _error_block(plan: Plan, turn: Turn, name: str) -> bytes:
    code = turn.directives[name][1] if len(turn.directives[name]) > 1 else "503"
    return encode(outage(int(code) if code.isdecimal() else 503, model=plan.model).body())


def _error_after(plan: Plan, turn: Turn) -> Plan:
    block = _error_block(plan, turn, "error-after")
    if not plan.streaming:
        return _change(_change_head(plan, status=503), pieces=(block,))
    return _change(plan, pieces=(*plan.pieces[: turn.number("error-after")], block + b"\n"))


def _framed_error_after(plan: Plan, turn: Turn) -> Plan:
    block = _error_block(plan, turn, "framed-error-after")
    if not plan.streaming:
        return _change(_change_head(plan, status=503), pieces=(block,))
    event = b"data: " + msgspec.json.format(block, indent=-1) + _BREAK
    return _change(plan, pieces=(*plan.pieces[: turn.number("framed-error-after")], event))


def _garbage(plan: Plan, turn: Turn) -> Plan:
    broken = b'{"candidates": [{"content": {"parts": [{"text": \x00 oops'
    if not plan.streaming:
        return _change(plan, pieces=(broken,))
    return _change(plan, pieces=(*plan.pieces[:1], b"data: " + broken + _BREAK))


def _huge(plan: Plan, turn: Turn) -> Plan:
    size = turn.number("huge", 1 << 20)
    filler = b'{"candidates": [{"content": {"parts": [{"text": "' + b"x" * size + b'"}]}}]}'
    if not plan.streaming:
        return _change(plan, pieces=(filler,))
    return _change(plan, pieces=(b"data: " + filler + _BREAK, *plan.pieces))


def _newline(plan: Plan, turn: Turn) -> Plan:
    mark = {"lf": b"\n", "cr": b"\r", "crlf": b"\r\n"}.get(turn.argument("newline", "lf"), b"\n")
    return _change(plan, pieces=tuple(piece.replace(b"\r\n", mark) for piece in plan.pieces))


def _bom(plan: Plan, turn: Turn) -> Plan:
    return _change(plan, pieces=(b"\xef\xbb\xbf", *plan.pieces))


def _comments(plan: Plan, turn: Turn) -> Plan:
    return _change(plan, pieces=tuple(b": comment\r\n" + piece for piece in plan.pieces))


def _html(plan: Plan, turn: Turn) -> Plan:
    code = turn.number("html", 502)
    page = (
        f"<!DOCTYPE html>\n<html lang=en>\n<title>Error {code} (Server Error)!!1</title>\n"
        f"<p><b>{code}.</b> <ins>This is an error.</ins>\n<p>Please try again in 30 seconds.\n"
    )
    head = Head(status=code, content_type="text/html; charset=UTF-8")
    return _change(plan, head=head, pieces=(page.encode(),), streaming=False)


def _redirect(plan: Plan, turn: Turn) -> Plan:
    where = (("Location", "http://169.254.169.254/computeMetadata/v1/"),)
    head = Head(status=turn.number("redirect", 302), headers=where)
    return _change(plan, head=head, pieces=(), streaming=False)


def _gzip(plan: Plan, turn: Turn) -> Plan:
    packed = gzip.compress(b"".join(plan.pieces) + b" " * turn.number("gzip"), mtime=0)
    return _change(_change_head(plan, headers=(("Content-Encoding", "gzip"),)), pieces=(packed,))


def _headers(plan: Plan, turn: Turn) -> Plan:
    count = turn.number("headers", 40)
    leaking = tuple((f"X-Goog-Simulated-{at}", f"simulated-{at}") for at in range(count))
    cookie = ("Set-Cookie", "simulated=1; Path=/; Secure; HttpOnly")
    return _change_head(plan, headers=(cookie, ("Alt-Svc", 'h3=":443"'), *leaking))


def _informational(plan: Plan, turn: Turn) -> Plan:
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n" * turn.number("informational", 1)
    return _change(plan, before=(*plan.before, Raw(early)))


def _endless(plan: Plan, turn: Turn) -> Plan:
    return _change(plan, pieces=plan.pieces[:1], repeat=True)


def _seconds(turn: Turn, name: str, default: int) -> float:
    return turn.number(name, default) / 1000


def _slow(plan: Plan, turn: Turn) -> Plan:
    return _change(plan, before=(Wait(_seconds(turn, "slow", 100)), *plan.before))


def _pace(plan: Plan, turn: Turn) -> Plan:
    return _change(plan, pause=_seconds(turn, "pace", 10))


def _drip(plan: Plan, turn: Turn) -> Plan:
    return _change(plan, drip=_seconds(turn, "drip", 1))


def _idle_close(plan: Plan, turn: Turn) -> Plan:
    return _change(plan, after=(Wait(_seconds(turn, "idle-close", 0)), Close()))


CHANGES: dict[str, Callable[[Plan, Turn], Plan]] = {
    "html": _html,
    "redirect": _redirect,
    "garbage": _garbage,
    "huge": _huge,
    "error-after": _error_after,
    "framed-error-after": _framed_error_after,
    "newline": _newline,
    "bom": _bom,
    "comments": _comments,
    "gzip": _gzip,
    "headers": _headers,
    "informational": _informational,
    "framing": _framing,
    "endless": _endless,
    "cut-after": _cut,
    "cut-bytes": _cut_bytes,
    "wrong-length": _wrong_length,
    "close-after": _close,
    "half-close-after": _half_close,
    "stall-after": _stall,
    "reset-after": _reset,
    "idle-close": _idle_close,
    "slow": _slow,
    "pace": _pace,
    "drip": _drip,
}
