"""Where the sources of an answer stand in its text.

Gemini counts UTF-8 bytes and leaves a zero start out; OpenAI's annotations count characters, which here are
code points (the Python client slices so). An offset is believed only if it cuts out the segment's own text;
otherwise a unique occurrence is searched, and failing that the source is attached to the end. Nothing here
fails on odd metadata: a source without an address is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from oaicompat.events import Citation, Search
from oaicompat.providers.gemini.answer_schema import (
    CitationMetadata,
    GroundingChunk,
    GroundingMetadata,
    GroundingSupport,
    GroundingWeb,
    Segment,
    UrlContextMetadata,
)

_decode_grounding = msgspec.json.Decoder(GroundingMetadata).decode
_decode_citations = msgspec.json.Decoder(CitationMetadata | None).decode
_decode_pages = msgspec.json.Decoder(UrlContextMetadata | None).decode


class Sources:
    """Gathers the grounding of one candidate over its stream."""

    def __init__(self) -> None:
        self._queries: dict[str, None] = {}
        self._chunks: list[GroundingChunk] = []
        self._supports: list[GroundingSupport] = []
        self._recited: list[tuple[int, int, str, str]] = []
        self._pages: dict[str, None] = {}

    def add_grounding(self, raw: Raw) -> None:
        """Take one `groundingMetadata`; raises `msgspec.DecodeError` when it is not one."""
        if bytes(raw) == b"null":
            return
        found = _decode_grounding(raw)
        self._queries.update(dict.fromkeys(found.web_search_queries or ()))
        self._chunks.extend(found.grounding_chunks or ())
        self._supports.extend(found.grounding_supports or ())

    def add_citations(self, raw: Raw) -> None:
        """Take one `citationMetadata`."""
        found = _decode_citations(raw)
        for source in (found and (found.citation_sources or found.citations)) or ():
            if source.uri:
                span = (
                    source.start_index or 0,
                    source.end_index or 0,
                    source.uri,
                    source.title or "",
                )
                if span not in self._recited:
                    self._recited.append(span)

    def add_pages(self, raw: Raw) -> None:
        """Take one `urlContextMetadata`: the pages that were really read."""
        found = _decode_pages(raw)
        for page in (found and found.url_metadata) or ():
            if page.retrieved_url and page.url_retrieval_status in (
                None,
                "URL_RETRIEVAL_STATUS_SUCCESS",
            ):
                self._pages[page.retrieved_url] = None

    def __bool__(self) -> bool:
        return bool(self._queries or self._chunks or self._recited or self._pages)

    def citations(self, parts: Sequence[str]) -> tuple[Citation, ...]:
        """Locate the sources in the visible text, given as the candidate's text parts in order."""
        text = "".join(parts)
        located = dict.fromkeys(self._supported(parts, text))
        for start, end, uri, title in self._recited:
            span = _code_points(text.encode(), start, end) or (len(text), len(text))
            located[Citation(*span, uri, title or uri)] = None
        cited = {citation.url for citation in located}
        for page in self._pages:
            if page not in cited:
                located[Citation(len(text), len(text), page, page)] = None
        return tuple(located)

    def _supported(self, parts: Sequence[str], text: str) -> list[Citation]:
        found = []
        for support in self._supports:
            start, end = _locate(support.segment or Segment(), parts, text)
            for index in support.grounding_chunk_indices or ():
                source = self._source(index)
                if source and source.uri:
                    found.append(Citation(start, end, source.uri, source.title or source.uri))
        return found

    def _source(self, index: int) -> GroundingWeb | None:
        if not 0 <= index < len(self._chunks):
            return None
        chunk = self._chunks[index]
        return chunk.web or chunk.maps or chunk.retrieved_context

    def search(self) -> Search | None:
        """Return what was searched and every source seen, or `None` where nothing was."""
        if not self._queries and not self._chunks:
            return None
        sources = (self._source(index) for index in range(len(self._chunks)))
        seen = {
            (source.uri, source.title or source.uri): None
            for source in sources
            if source and source.uri
        }
        return Search(tuple(self._queries), tuple(seen))


def _code_points(encoded: bytes, start: int, end: int) -> tuple[int, int] | None:
    if not 0 <= start <= end <= len(encoded):
        return None
    try:
        before = len(encoded[:start].decode())
        return before, before + len(encoded[start:end].decode())
    except UnicodeDecodeError:
        return None


def _locate(segment: Segment, parts: Sequence[str], text: str) -> tuple[int, int]:
    """Return the code point span of a segment in the joined text; its end where it cannot be placed."""
    start, end, wanted = segment.start_index or 0, segment.end_index or 0, segment.text
    bases = [0]
    if segment.part_index and segment.part_index < len(parts):
        bases.insert(0, len("".join(parts[: segment.part_index]).encode()))
    encoded = text.encode()
    for base in bases:
        span = _code_points(encoded, base + start, base + end)
        if span and (wanted is None or text[span[0] : span[1]] == wanted):
            return span
    if wanted and text.count(wanted) == 1:
        at = text.index(wanted)
        return at, at + len(wanted)
    return len(text), len(text)
