"""A turn of the model, put together again from its output items.

One rule: what the sealed content beside an item says of it counts only where the item is still the one it was
made for; a client's change is believed, and noted. Items without such content are read for what they show.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from oaicompat.dialects.parts import split_images
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
)
from oaicompat.notes import Notes
from oaicompat.signatures import Descriptor, Sealed, digest, unseal

_IGNORED = "the sealed content is ignored: {}"


class _Last(Struct):
    """The item before, as far as sealed content may still describe it: where its parts begin, and its text."""

    start: int
    text: str | None = None


class Turn:
    """The parts of one turn as they come in, item by item."""

    def __init__(self, notes: Notes) -> None:
        self.parts: list[Part] = []
        self._notes = notes
        self._backend = ""
        self._last: _Last | None = None
        self._next: Descriptor | None = None
        self._calls: dict[str, Descriptor] = {}

    def reasoning(self, summary: Sequence[str], encrypted: str | None, path: str) -> None:
        """Take a reasoning item."""
        sealed = unseal(encrypted) if encrypted else None
        if sealed is None:
            if encrypted:
                where, why = f"{path}.encrypted_content", "it is not from here, or damaged"
                self._notes.dropped(where, why)
            else:
                self._notes.dropped(path, "reasoning goes back only with its content", inert=True)
            return
        self._backend = sealed.backend
        self._refine(sealed, path)
        self._last = None
        self._between(sealed, list(summary), path)
        self._next = None
        if sealed.after is not None and sealed.after.kind == "call":
            self._calls[sealed.after.id] = sealed.after
        else:
            self._next = sealed.after

    def message(self, parts: Sequence[Text | Media | Refusal], path: str) -> None:
        """Take a message of the model's."""
        described, self._next = self._next, None
        texts = [part.text for part in parts if isinstance(part, Text)]
        whole = "".join(texts)
        plain = len(texts) == len(parts)
        if plain and described is not None and described.kind == "text":
            if digest(whole[: described.length]) == described.digest:
                signature = self._signature(described)
                self.parts.append(Text(whole[: described.length], signature))
                whole = whole[described.length :]
            else:
                self._ignored(path, "the text was changed")
        self._last = _Last(len(self.parts), whole) if plain else None
        if plain:
            self.parts += split_images(whole, path) if whole else ()
            return
        for part in parts:
            self.parts += split_images(part.text, path) if isinstance(part, Text) else (part,)

    def call(self, call: ToolCall) -> None:
        """Take a call."""
        self._begin()
        described = self._calls.pop(call.id, None)
        if described is not None:
            signature = self._signature(described)
            call = replace(call, signature=signature, thought=described.thought)
        self.parts.append(call)

    def arguments(self, call_id: str) -> str:
        """Return the arguments that were carried along for a call, or an empty text."""
        found = self._calls.get(call_id)
        return found.arguments if found else ""

    def image(self, image: Media, path: str) -> None:
        """Take an image."""
        described, self._next = self._next, None
        self._last = None
        if described is not None and described.kind == "media":
            image = replace(
                image,
                mime=described.mime or image.mime,
                thought=described.thought,
                signature=self._signature(described),
            )
        elif described is not None:
            self._ignored(path, "another item follows")
        self.parts.append(image)

    def code(self, code: str, logs: Sequence[str]) -> None:
        """Take code the provider ran; its results are those shown, if any."""
        self._begin()
        self._last = _Last(len(self.parts))
        self.parts.append(Code(code))
        self.parts += [CodeResult("OUTCOME_OK", each) for each in logs]

    def _begin(self) -> None:
        self._last = self._next = None

    def _refine(self, sealed: Sealed, path: str) -> None:
        """Put the parts of the item before in place of what it was read as."""
        if not sealed.before:
            return
        last = self._last
        if sealed.before[0].kind == "text":
            found = None if last is None or last.text is None else self._slices(sealed, last.text)
            if last is None or found is None:
                self._ignored(path, "the text before it was changed")
            else:
                self.parts[last.start :] = found
            return
        whole = [part for each in sealed.before if (part := self._whole(each)) is not None]
        if last is not None and last.text is None and _same_code(self.parts[last.start], whole):
            del self.parts[last.start :]
        elif last is not None and last.text is None:
            self._ignored(path, "the code before it was changed")
            return
        self.parts += whole

    def _slices(self, sealed: Sealed, text: str) -> list[Part] | None:
        parts: list[Part] = []
        at = 0
        for each in sealed.before:
            piece = text[at : at + each.length]
            at += each.length
            if each.kind != "text" or digest(piece) != each.digest:
                return None
            parts.append(Text(piece, self._signature(each)))
        return [*parts, Text(text[at:])] if text[at:] else parts

    def _between(self, sealed: Sealed, summary: list[str], path: str) -> None:
        for each in sealed.here:
            if each.kind == "thought":
                self._thought(each, summary, path)
            elif each.kind == "text":
                self.parts.append(Text("", self._signature(each)))
            elif (part := self._whole(each)) is not None:
                self.parts.append(part)

    def _thought(self, described: Descriptor, summary: list[str], path: str) -> None:
        text = summary.pop(0) if described.length and summary else ""
        if digest(text) != described.digest:
            self._ignored(path, "the summary was changed")
            return
        signature = self._signature(described) or Signature("", self._backend)
        self.parts.append(Thought(text, signature))

    def _whole(self, described: Descriptor) -> Code | CodeResult | ServerTool | Media | None:
        part = described.part
        if part is None:
            return None
        return replace(part, signature=self._signature(described))

    def _signature(self, described: Descriptor) -> Signature | None:
        if not described.signature:
            return None
        return Signature(described.signature, self._backend)

    def _ignored(self, path: str, why: str) -> None:
        self._notes.rewritten(path, _IGNORED.format(why))


def _same_code(shown: Part, whole: Sequence[Part]) -> bool:
    first = whole[0] if whole else None
    return isinstance(shown, Code) and isinstance(first, Code) and shown.code == first.code
