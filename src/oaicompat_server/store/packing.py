"""Frames and ids as they are kept outside of memory.

One rule: frames lie in compressed chunks, so that a replay reads what it needs: a chunk tells the highest
number in it, and one that holds a frame without a number (the end mark) is wanted by every replay.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from oaicompat.events import Frame
from oaicompat_server.store import StoreError

HIGHEST = 2**53
"""Above every sequence number that a client can name."""

_CHUNK_BYTES = 256 * 1024
_PACK_HERE = 16 * 1024
# The least effort already halves what repeats in every event; more costs time at every answer.
_LEVEL = 1

_Plain = tuple[int, str, bytes]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Plain]).decode


class Chunk(Struct, frozen=True):
    """Some frames; `last` is the highest number, `HIGHEST` with the end mark."""

    last: int
    packed: bytes


def key_of(text: str) -> bytes:
    """Return an id or owner as bytes; every string has its own, also one that is no Unicode."""
    return text.encode("utf-8", "surrogatepass")


def text_of(key: bytes) -> str:
    """Return the string that `key_of` took."""
    return key.decode("utf-8", "surrogatepass")


async def pack_apart(frames: Sequence[Frame]) -> tuple[Chunk, ...]:
    """Return what `pack` does, from a thread where that takes longer than to change threads."""
    if sum(len(each.data) for each in frames) <= _PACK_HERE:
        return pack(frames)
    return await asyncio.to_thread(pack, frames)


def pack(frames: Sequence[Frame]) -> tuple[Chunk, ...]:
    """Return the frames in chunks of bounded size."""
    return tuple(_chunk(part) for part in _parts(frames))


def unpack(packed: Iterable[bytes], after: int) -> tuple[Frame, ...]:
    """Return the frames of these chunks whose number is greater than `after`, then those without one.

    Raises `StoreError` for what `pack` did not make.
    """
    try:
        frames = [
            Frame(data, name, sequence)
            for each in packed
            for sequence, name, data in _decode(zlib.decompress(each))
        ]
    except (zlib.error, msgspec.DecodeError):
        raise StoreError("events of a response are damaged") from None
    numbered = [each for each in frames if each.sequence > max(after, -1)]
    return (*numbered, *(each for each in frames if each.sequence < 0))


def _parts(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    part: list[Frame] = []
    size = 0
    for frame in frames:
        part.append(frame)
        size += len(frame.data)
        if size >= _CHUNK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _chunk(frames: Sequence[Frame]) -> Chunk:
    plain = [(each.sequence, each.name, each.data) for each in frames]
    numbers = [each.sequence for each in frames]
    last = HIGHEST if min(numbers) < 0 else max(numbers)
    return Chunk(last, zlib.compress(_encode(plain), _LEVEL))
