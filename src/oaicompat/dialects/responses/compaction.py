"""Compaction: a conversation becomes one item that holds a summary of it.

The model is asked, after all that was said, to write down what is needed to go on; its text travels sealed in
the `encrypted_content` of a `compaction` item. One rule: an answer without a summary is an error, since the
client lets go of the conversation for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from oaicompat.dialects.responses.output import Data
from oaicompat.dialects.responses.writing import Item, Sink
from oaicompat.errors import UpstreamError
from oaicompat.events import Cited, Delta, TokenLogprob
from oaicompat.messages import Message, Part, Request, Text, ToolChoice
from oaicompat.notes import Notes
from oaicompat.signatures import Sealed, seal

_ASK = (
    "The conversation so far is about to be removed and replaced by what you write now. Write a summary from"
    " which somebody who has read nothing else can carry on with the work without a break: what the user asked"
    " for and every constraint and preference they stated; what was done, with the exact names, paths,"
    " commands, values, identifiers and results that still matter; what was decided and why; what was tried"
    " and failed; what is unfinished, and the next step. Quote exactly where the wording matters. Do not"
    " greet, do not comment on this request, do not call tools. Write the summary and nothing else."
)


def asked_to_compact(request: Request, notes: Notes) -> Request:
    """Return the request for a summary of a conversation."""
    if request.output is not None:
        notes.dropped(request.output.path, "a summary is plain text")
    if request.tool_choice is not None:
        notes.dropped(request.tool_choice.path, "a summary calls no tools", inert=True)
    if request.stop:
        notes.dropped("stop", "a summary is written to its end", inert=True)
    asked = Message("user", (Text(_ASK),), "input")
    choice = ToolChoice("none") if request.tools else None
    return replace(
        request, messages=(*request.messages, asked), tool_choice=choice, output=None, stop=()
    )


class Summary:
    """Builds the one item of an answer that is a summary; satisfies what `Assembly` does."""

    def __init__(self, sink: Sink, token: str, *, covers: bool) -> None:
        self.token = token
        self.items: list[Data] = []
        self._sink = sink
        self._covers = covers
        self._pieces: list[str] = []
        self._text = False

    def start(self, part: Part) -> None:
        """Take the start of a part; only text counts."""
        self._text = isinstance(part, Text)
        if isinstance(part, Text):
            self._pieces.append(part.text)

    def delta(self, event: Delta) -> None:
        """Take more of the open part."""
        if self._text:
            self._pieces.append(event.decoded())

    def end(self) -> None:
        """Take the end of the open part."""
        self._text = False

    def cite(self, cited: Cited) -> None:
        """Take sources, which a summary does not show."""

    def measure(self, tokens: Sequence[TokenLogprob]) -> None:
        """Take log probabilities, which a summary does not show."""

    def finish(self, status: str) -> None:
        """Write the item; raises `UpstreamError` where there is no summary, or only a part of one."""
        summary = "".join(self._pieces).strip()
        if not summary or status != "completed":
            raise UpstreamError(
                "The model gave no whole summary of the conversation.",
                status=502,
                code="upstream_empty",
                cause="empty",
            )
        item = Item(self._sink, 0, f"cmp_{self.token}_0")
        sealed = seal(Sealed(summary=summary, covers=self._covers))
        data: Data = {"type": "compaction", "id": item.id, "encrypted_content": sealed}
        item.added(data)
        self.items.append(item.done(data))

    def abandon(self) -> None:
        """Leave what there is: a piece of a summary is of no use."""
