"""What tells one conversation from another, so that its requests can stay with one credential.

One rule: what the client says of it comes first; else it is known by how it begins. The provider's caches, and
signatures that only the project which made them takes, are the reason to ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from oaicompat.messages import Media, Message, Text


class _Named(Struct):
    """What a body says of its conversation, the most telling first."""

    prompt_cache_key: Any = None
    user: Any = None
    safety_identifier: Any = None


def conversation_key(
    source: bytes, messages: Sequence[Message], *, session: str = "", system: bool = True
) -> str:
    """Return a name for the conversation of a request, 32 hexadecimal digits.

    `source` is the body as it came, `session` what the transport knows of it (a header). Where neither names
    it, its first user message does, together with the system's where `system` says that it comes every time.
    """
    told = _told(source) or (f"session {session}" if session else "")
    digest = blake2b(digest_size=16)
    for text in (told,) if told else _opening(messages, system):
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def _told(source: bytes) -> str:
    try:
        named = msgspec.json.decode(source, type=_Named)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    for field in _Named.__struct_fields__:
        value = getattr(named, field)
        if isinstance(value, str) and value:
            return f"{field} {value}"
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
