"""What an exchange wants from outside and what it wants kept, as data.

The core does no I/O: it names ids and addresses, a transport finds what it can, and the request is completed
with that. Memory, files and databases are all the same to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set

from msgspec import Struct
from msgspec.structs import replace

from oaicompat.events import Frame
from oaicompat.media import Remote, classify, refused
from oaicompat.messages import Media, Message, Part, Signature, ToolCall, ToolResult


class Item(Struct, frozen=True):
    """One item of a stored conversation: its id, and the JSON of the whole item."""

    id: str
    body: bytes


class Needs(Struct, frozen=True):
    """What is wanted: signatures by call id, media by URL, stored things by id. False when nothing is.

    `responses` are continued: their items and those of all they continue; `conversations` likewise.
    """

    signatures: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    responses: tuple[str, ...] = ()
    conversations: tuple[str, ...] = ()
    items: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(
            self.signatures or self.media or self.responses or self.conversations or self.items
        )

    def without(self, asked: Set[str]) -> Needs:
        """Return what of the signatures and media was not asked before, each once."""
        return Needs(
            tuple(dict.fromkeys(each for each in self.signatures if each not in asked)),
            tuple(dict.fromkeys(each for each in self.media if each not in asked)),
        )


NOTHING = Needs()


class Supplies(Struct, frozen=True):
    """What was found: signatures by call id; media by URL, as (MIME type, base64); stored things by id.

    The items of `responses` and `conversations` are all there are, oldest first. `refused` has the media, by
    URL, without which the request fails, each with the reason in words for the client.
    """

    signatures: Mapping[str, Signature] = {}
    media: Mapping[str, tuple[str, str]] = {}
    responses: Mapping[str, tuple[Item, ...]] = {}
    conversations: Mapping[str, tuple[Item, ...]] = {}
    items: Mapping[str, Item] = {}
    refused: Mapping[str, str] = {}


class RememberSignature(Struct, frozen=True, tag=True):
    """Keep the signature of a call for a client that will not send it back."""

    call_id: str
    signature: Signature


class KeepResponse(Struct, frozen=True, tag=True):
    """Keep a response; one with `store` false only as long as the connection it was asked on.

    `body` is the Response object, `input` what its request added to what it continues (`previous`,
    `conversation`: ids, empty where there is none), `output` its items, `frames` all events it consists of so
    far. `running` tells that it has only begun; the whole one follows. `failed` that it did not succeed.
    """

    id: str
    created: int
    body: bytes
    input: tuple[Item, ...] = ()
    output: tuple[Item, ...] = ()
    previous: str = ""
    conversation: str = ""
    frames: tuple[Frame, ...] = ()
    store: bool = True
    running: bool = False
    failed: bool = False


Effect = RememberSignature | KeepResponse


def needs(messages: Sequence[Message], *, media: bool) -> Needs:
    """Return what these messages want: signatures of calls that came without, and https media if asked.

    Addresses that only the provider can read (its own files, YouTube, gs:) are never wanted.
    """
    signatures = []
    for message in messages:
        if message.role == "assistant":
            for part in message.parts:
                if type(part) is ToolCall and part.signature is None and part.id:
                    signatures.append(part.id)
    found = (
        [part.uri for part in _parts(messages) if isinstance(part, Media) and _remote(part)]
        if media
        else ()
    )
    return Needs(tuple(signatures), tuple(found)) if signatures or found else NOTHING


def _parts(messages: Sequence[Message]) -> Iterator[Part]:
    for message in messages:
        for part in message.parts:
            yield part
            if isinstance(part, ToolResult):
                yield from part.parts


def _remote(media: Media) -> bool:
    if not media.uri:
        return False
    found = classify(media.uri, media.path)
    return isinstance(found, Remote) and found.kind == "https"


def supplied(messages: Sequence[Message], found: Supplies) -> tuple[Message, ...]:
    """Return the messages with what was found put in its place.

    Raises `InvalidRequestError` at the first medium that is refused.
    """
    return tuple(
        replace(message, parts=tuple(_completed(part, found) for part in message.parts))
        for message in messages
    )


def _completed(part: Part, found: Supplies) -> Part:
    match part:
        case ToolCall(signature=None) if part.id in found.signatures:
            return replace(part, signature=found.signatures[part.id])
        case Media():
            return _downloaded(part, found)
        case ToolResult():
            inner = tuple(
                _downloaded(each, found) if isinstance(each, Media) else each for each in part.parts
            )
            return replace(part, parts=inner)
        case _:
            return part


def _downloaded(part: Media, found: Supplies) -> Media:
    if part.uri in found.refused:
        raise refused(found.refused[part.uri], part.path)
    if part.uri not in found.media:
        return part
    mime, data = found.media[part.uri]
    return replace(part, uri="", mime=mime or part.mime, data=data)
