"""How an assistant turn travels through a client and comes back as it was.

Chat's message has one text, one list of calls and no order between them, so what it cannot hold rides along
in `extra_content.google`, a field Google's own OpenAI endpoint uses and many clients echo: a versioned list of
descriptors, one for each part in the model's order, tagged with the backend that made the signatures. A
descriptor carries no text, only how many code points of the message it covers and their digest: where a
client changed the text the carrier is ignored, with a note, and never applied to other words. Responses keeps
the order itself; there descriptors travel sealed in the `encrypted_content` of reasoning items.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2s
from typing import Any, assert_never

import msgspec
from msgspec import Raw, Struct

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    Code,
    CodeResult,
    Media,
    Part,
    Refusal,
    ServerTool,
    Signature,
    Text,
    Thought,
    ToolCall,
    ToolResult,
)
from oaicompat.notes import Notes
from oaicompat.wire import sound

VERSION = 1
SEAL = "oaic1."
"""How sealed content begins: whose it is, and the version of what follows."""

_SUM = 9


class Descriptor(Struct, frozen=True, omit_defaults=True):
    """One part of the turn.

    `kind` is text, thought, call, media or part; `length` counts the code points of the message's content (of
    its reasoning for a thought) that stand for this part and `digest` proves them; `id` names a call; `part`
    holds a part whole that the dialect has no field for. Where an item does not say it, `mime` is the type of a
    medium and `arguments` are a call's own.
    """

    kind: str
    length: int = 0
    digest: str = ""
    id: str = ""
    signature: str = ""
    thought: bool = False
    part: Code | CodeResult | ServerTool | Media | None = None
    mime: str = ""
    arguments: str = ""


class Sealed(Struct, frozen=True, omit_defaults=True):
    """What the `encrypted_content` of one reasoning or compaction item holds.

    `backend` made the signatures. `before` describes parts of the item before it, `here` the thoughts of its
    own summary and parts that are no item, `after` the one item that follows. `summary` is the text of a
    compacted conversation; it `covers` all that came before it in what is stored.
    """

    backend: str = ""
    before: list[Descriptor] = []
    here: list[Descriptor] = []
    after: Descriptor | None = None
    summary: str = ""
    covers: bool = False


def seal(content: Sealed) -> str:
    """Return content as opaque text that shows whether it was damaged."""
    payload = msgspec.json.encode(content)
    return SEAL + urlsafe_b64encode(_sum(payload) + payload).decode()


def unseal(text: str) -> Sealed | None:
    """Return what a text seals, or `None` for one that is not ours or not as it was."""
    if not text.startswith(SEAL):
        return None
    try:
        data = urlsafe_b64decode(text[len(SEAL) :].encode())
        payload = Raw(data[_SUM:])
        if data[:_SUM] != _sum(bytes(payload)):
            return None
        return msgspec.json.decode(sound(payload, ""), type=Sealed)
    except (InvalidRequestError, msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _sum(payload: bytes) -> bytes:
    return blake2s(payload, digest_size=_SUM).digest()


class Carrier(Struct, frozen=True, omit_defaults=True):
    """The value of `extra_content.google` on a message."""

    carrier: int = 0
    backend: str = ""
    parts: list[Descriptor] = []


def digest(text: str) -> str:
    """Return a short digest of a text."""
    return blake2s(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def needed(parts: Sequence[Part]) -> bool:
    """Tell whether a turn would lose something without a carrier.

    It would not where it is at most one text, then media, then calls, none of them signed: a chat message
    holds just that.
    """
    rank = -1
    for part in parts:
        if type(part) is Text and part.signature is None:
            if rank >= 0:
                return True
            rank = 0
        elif type(part) is ToolCall and part.signature is None and not part.thought:
            rank = 2
        elif type(part) is Media and part.signature is None and not part.thought:
            if rank > 1:
                return True
            rank = 1
        elif type(part) is not Refusal:
            return True
    return False


def describe(part: Part, shown: str) -> Descriptor | None:
    """Describe one part; `shown` is the text that stands for it in the message.

    Returns `None` for a refusal, which is ours and does not go back.
    """
    match part:
        case Text() | Thought():
            kind = "text" if isinstance(part, Text) else "thought"
            return Descriptor(kind, len(shown), digest(shown), signature=_value(part.signature))
        case Media():
            return Descriptor(
                "media", len(shown), signature=_value(part.signature), thought=part.thought
            )
        case ToolCall():
            return Descriptor(
                "call", id=part.id, signature=_value(part.signature), thought=part.thought
            )
        case Code() | CodeResult() | ServerTool():
            bare = msgspec.structs.replace(part, signature=None)
            return Descriptor("part", len(shown), signature=_value(part.signature), part=bare)
        case Refusal() | ToolResult():
            return None
        case _:
            assert_never(part)


def _value(signature: Signature | None) -> str:
    return signature.value if signature else ""


class _Mismatch(Exception):
    """The message is not the one the carrier was made for."""


class _Restorer:
    """Walks the descriptors over the message they describe."""

    def __init__(
        self,
        backend: str,
        content: str,
        reasoning: str,
        calls: Sequence[ToolCall],
        media: Sequence[Media],
    ) -> None:
        self.backend = backend
        self.content = content
        self.reasoning = reasoning
        self.calls = list(calls)
        self.media = list(media)
        self.at = 0
        self.reasoned = 0

    def part(self, descriptor: Descriptor) -> Part | None:
        signature = Signature(descriptor.signature, self.backend) if descriptor.signature else None
        match descriptor.kind:
            case "text":
                return Text(self._text(descriptor), signature)
            case "thought":
                thought = self._thought(descriptor)
                carried = signature or Signature("", self.backend)
                return None if thought is None else Thought(thought, carried)
            case "call":
                if not self.calls or self.calls[0].id != descriptor.id:
                    raise _Mismatch("the calls differ")
                return self._signed(self.calls.pop(0), descriptor, signature)
            case "media":
                self.at += descriptor.length
                if not self.media:
                    raise _Mismatch("an image is missing")
                return self._signed(self.media.pop(0), descriptor, signature)
            case "part" if descriptor.part is not None:
                self.at += descriptor.length
                return msgspec.structs.replace(descriptor.part, signature=signature)
            case _:
                raise _Mismatch("it has a part of an unknown kind")

    def _signed(
        self, part: ToolCall | Media, descriptor: Descriptor, signature: Signature | None
    ) -> Part:
        return msgspec.structs.replace(
            part, signature=signature or part.signature, thought=descriptor.thought
        )

    def _text(self, descriptor: Descriptor) -> str:
        text = self.content[self.at : self.at + descriptor.length]
        self.at += descriptor.length
        if digest(text) != descriptor.digest:
            raise _Mismatch("the text was changed")
        return text

    def _thought(self, descriptor: Descriptor) -> str | None:
        """Most clients drop `reasoning_content`: then the thought is gone and the rest still fits."""
        if not self.reasoning:
            return None if descriptor.length else ""
        text = self.reasoning[self.reasoned : self.reasoned + descriptor.length]
        self.reasoned += descriptor.length
        if digest(text) != descriptor.digest:
            raise _Mismatch("the reasoning was changed")
        return text


def restore(
    carrier: Raw,
    *,
    content: str,
    reasoning: str,
    calls: Sequence[ToolCall],
    images: Sequence[Media],
    path: str,
    notes: Notes,
) -> tuple[Part, ...] | None:
    """Rebuild an assistant turn from a message and its carrier.

    `carrier` is the JSON of `extra_content.google`; `content` and `reasoning` are the message's texts, `calls`
    and `images` what it holds of those, in order. A thought without a signature comes back with an empty one,
    which says that the carrier vouches for it. Returns `None`, with a note at `path` where there was a
    carrier, if the message is not the one the carrier describes.
    """
    where = f"{path}.extra_content.google.parts"
    try:
        found = msgspec.json.decode(carrier, type=Carrier)
    except (msgspec.MsgspecError, RecursionError):
        notes.dropped(where, "not a carrier of this library", inert=True)
        return None
    if not found.parts:
        return None
    if found.carrier != VERSION:
        notes.dropped(where, f"carrier version {found.carrier} is not known", inert=True)
        return None
    walk = _Restorer(found.backend, content, reasoning, calls, images)
    try:
        parts = [part for each in found.parts if (part := walk.part(each)) is not None]
        if walk.at != len(content) or walk.calls or walk.media:
            raise _Mismatch("the message has more than it describes")
    except _Mismatch as mismatch:
        notes.rewritten(where, f"the carrier is ignored: {mismatch}")
        return None
    return tuple(parts)


def carrier(descriptors: Sequence[Descriptor], backend: str) -> dict[str, Any]:
    """Return the value of `extra_content.google` for these descriptors, as plain data."""
    return {"carrier": VERSION, "backend": backend, "parts": list(descriptors)}
