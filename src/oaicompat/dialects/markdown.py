"""Images that an answer showed as Markdown, found again in the text the client sends back.

Sent back as text they would be megabytes of tokens (gateway section 2.4). One rule: text is the client's data,
so only what is beyond doubt an image becomes one (a data URI with sound base64 of the type it names, outside
code); everything else stays as it is. Every step costs time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from oaicompat.media import sniff
from oaicompat.messages import Media, Part, Text
from oaicompat.notes import Notes

MARK = "](data:image/"

_IMAGE = re.compile(
    r"!\[[^\[\]\n]{0,100}\]\(data:(image/[a-z0-9.+-]{1,32});base64,([A-Za-z0-9+/]++={0,2})\)"
)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_PARAGRAPH_END = re.compile(r"\n[ \t]*(?=\n)")
_TICKS = re.compile(r"`+")
_SPELLINGS = {"image/jpg": "image/jpeg"}

Span = tuple[int, int]


def split_images(text: str, path: str, notes: Notes | None = None) -> tuple[Part, ...]:
    """Split a text of the model's at the Markdown images it holds as data URIs, noting each at `path`."""
    if MARK not in text:
        return (Text(text),)
    parts: list[Part] = []
    start = 0
    code = _code(text)
    span = next(code, None)
    for found in _IMAGE.finditer(text):
        while span is not None and span[1] <= found.start():
            span = next(code, None)
        if span is not None and span[0] < found.end():
            continue
        mime = _SPELLINGS.get(found[1], found[1])
        if len(found[2]) % 4 or sniff(found[2]) != mime:
            continue
        if found.start() > start:
            parts.append(Text(text[start : found.start()]))
        parts.append(Media(mime, found[2], path=path))
        start = found.end()
    if not start:
        return (Text(text),)
    if notes is not None:
        notes.rewritten(path, "images in Markdown are sent as images", inert=True)
    if start < len(text):
        parts.append(Text(text[start:]))
    return tuple(parts)


def _code(text: str) -> Iterator[Span]:
    """Yield where code stands, in order: fenced blocks, and spans of backticks in what is between them."""
    start = 0
    for fence in _fences(text):
        yield from _paragraph_spans(text, start, fence[0])
        yield fence
        start = fence[1]
    yield from _paragraph_spans(text, start, len(text))


def _fences(text: str) -> Iterator[Span]:
    opened, start = "", 0
    for line in _FENCE.finditer(text):
        mark, rest = line[1], line[2]
        if not opened:
            if mark[0] == "~" or "`" not in rest:
                opened, start = mark, line.start()
        elif mark.startswith(opened) and not rest.strip():
            yield start, line.end()
            opened = ""
    if opened:
        yield start, len(text)


def _paragraph_spans(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield the code spans between two positions; none reaches over a blank line."""
    for blank in _PARAGRAPH_END.finditer(text, start, end):
        yield from _spans(text, start, blank.start())
        start = blank.end()
    yield from _spans(text, start, end)


def _spans(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield the code spans of a paragraph: from a run of backticks to the next run as long."""
    runs = [(run.start(), run.end()) for run in _TICKS.finditer(text, start, end)]
    closing: list[int | None] = [None] * len(runs)
    latest: dict[int, int] = {}
    for index in range(len(runs) - 1, -1, -1):
        length = runs[index][1] - runs[index][0]
        closing[index] = latest.get(length)
        latest[length] = index
    index = 0
    while index < len(runs):
        closed = closing[index]
        if closed is None:
            index += 1
            continue
        yield runs[index][0], runs[closed][1]
        index = closed + 1
