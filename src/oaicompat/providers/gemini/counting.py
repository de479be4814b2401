"""Counting the tokens of a request without generating: `countTokens`.

The Gemini API takes a whole generateContent request under a field of its own; Vertex AI takes some of its
fields at the top level (gemini-wire section 11, https://ai.google.dev/api/tokens).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from oaicompat.errors import OaicompatError, UpstreamProtocolError
from oaicompat.events import Completed, Event, Failed, Metered, Opened, Usage
from oaicompat.models import upstream_name
from oaicompat.providers.gemini.endpoints import Target

_VERTEX_FIELDS = ("contents", "systemInstruction", "tools", "generationConfig")


class _Counted(Struct, rename="camel"):
    total_tokens: int = 0
    cached_content_token_count: int = 0


def count_body(body: bytes, target: Target) -> bytes:
    """Return the countTokens body for the body of a generateContent call."""
    fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Raw])
    if target.backend == "vertex":
        return msgspec.json.encode(
            {name: fields[name] for name in _VERTEX_FIELDS if name in fields}
        )
    model = upstream_name(target.model.removeprefix("models/"))
    model = model if model.startswith("tunedModels/") else f"models/{model}"
    return msgspec.json.encode({"generateContentRequest": {"model": model, **fields}})


class CountDecoder:
    """Decodes the reply of countTokens as the usage of an answer without content."""

    continuation: str | None = None

    def __init__(self) -> None:
        self._body: list[bytes] = []

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes of the body."""
        self._body.append(data)
        return []

    def close(self) -> list[Event]:
        """Take the end of the body and return the events."""
        try:
            counted = msgspec.json.decode(b"".join(self._body), type=_Counted)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return [Failed(_unreadable())]
        usage = Usage(input=counted.total_tokens, cached=counted.cached_content_token_count)
        return [Opened(), Metered(usage), Completed()]

    def resumed(self) -> CountDecoder:
        """Return a decoder that begins anew; a count is never continued."""
        return CountDecoder()


def _unreadable() -> OaicompatError:
    return UpstreamProtocolError(
        "The upstream sent data that could not be read.",
        code="upstream_malformed",
        cause="network",
        retryable=True,
    )
