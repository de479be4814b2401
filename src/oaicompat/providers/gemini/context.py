"""What every part of the request encoder is handed: the request, where it goes, and where to report.

One rule: it is read, never changed; only the notes, and the list of media met on the way, grow.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from oaicompat.messages import Media, Request
from oaicompat.notes import Notes
from oaicompat.providers.gemini.endpoints import Target
from oaicompat.providers.gemini.profiles import Profile

EMPTY_OBJECT = Raw(b"{}")
_decode_any = msgspec.json.Decoder().decode


class EncodeOptions(Struct, frozen=True):
    """What the configuration adds to a request.

    `thoughts` shows thoughts where the client did not say; `safety_settings` is sent where the client sent
    none (JSON, as Gemini spells it).
    """

    thoughts: bool | None = None
    safety_settings: Raw | None = None


class Context(Struct, frozen=True, gc=False):
    """One attempt to encode one request; `names` holds the tool names that change on the way."""

    request: Request
    target: Target
    profile: Profile
    notes: Notes
    names: Mapping[str, str]
    options: EncodeOptions
    sentinel: bool = False
    media: list[Media] = []

    @property
    def on_vertex(self) -> bool:
        """Tell whether the request goes to Vertex AI."""
        return self.target.backend == "vertex"

    def upstream_name(self, name: str) -> str:
        """Return the name a tool travels under."""
        return self.names.get(name, name)


def json_object(text: str) -> Raw | None:
    """Return the JSON text as it stands if it is one object of values that JSON can hold, else `None`."""
    try:
        found = _decode_any(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return Raw(text.strip(" \t\r\n")) if type(found) is dict else None
