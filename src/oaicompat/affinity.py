"""What tells one conversation from another, so that its requests can stay with one credential.

One rule: what the client says of it comes first; else it is known by how it begins. The provider's caches, and
signatures that only the project which made them takes, are the reason to ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Protocol

import msgspec
from msgspec import Raw, Struct

from oaicompat.messages import Media, Message, Text
from oaicompat.wire import UNDEFINED


class _Named(Struct):
    """What a body says of its conversation, the most telling first."""

    prompt_cache_key: Raw = Raw()
    user: Raw = Raw()
    safety_identifier: Raw = Raw()


_decode = msgspec.json.Decoder(_Named).decode
_text = msgspec.json.Decoder(str).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


class Naming(Protocol):
    """A body as it was decoded, where that is not said otherwise."""

    @property
    def prompt_cache_key(self) -> Raw: ...
    @property
    def user(self) -> Raw: ...
    @property
    def safety_identifier(self) -> Raw: ...


def told_by(body: Naming) -> str:
    """Return what a body says of its conversation, with the name of the field; nothing if it says nothing."""
    if not (body.prompt_cache_key or body.user or body.safety_identifier):
        return ""
    for field in _Named.__struct_fields__:
        value: Raw = getattr(body, field)
        if value and value != UNDEFINED:
            try:
                text = _text(value)
            except _UNREADABLE:
                continue
            if text:
                return f"{field} {text}"
    return ""


def conversation_key(
    source: bytes,
    messages: Sequence[Message],
    *,
    session: str = "",
    system: bool = True,
    told: str | None = None,
) -> str:
    """Return a name for the conversation of a request, 32 hexadecimal digits.

    `source` is the body as it came, `told` what it says of that, where it is known already, `session` what the
    transport knows of it (a header). Where nothing names it, its first user message does, together with the
    system's where `system` says that it comes every time.
    """
    if told is None:
        told = _told(source)
    if not told and session:
        told = f"session {session}"
    digest = blake2b(digest_size=16)
    for text in (told,) if told else _opening(messages, system):
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def _told(source: bytes) -> str:
    try:
        return told_by(_decode(source))
    except _UNREADABLE:
        return ""


def _opening(messages: Sequence[Message], system: bool) -> Iterator[str]:
    for message in messages:
        if message.role == "user" or (system and message.role != "assistant"):
            for part in message.parts:
                if isinstance(part, Text):
                    yield part.text
                elif isinstance(part, Media):
                    yield part.uri or f"{len(part.data)} {part.data[:512]}"
        if message.role == "user":
            return
