"""Gemini answers as they are streamed: cut into chunks, framed, cut again into network reads.

One rule: a stream says exactly what its answer says. Only texts and thoughts without a signature come in
pieces; everything else comes whole, as on the wire.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

from oaicompat.testing.answers import candidate_count, gemini_answers
from oaicompat.testing.values import Json

Framing = Literal["crlf", "lf", "cr", "array"]
FRAMINGS: tuple[Framing, ...] = ("crlf", "lf", "cr", "array")
"""Server-sent events with each line end, and the JSON array the service sends without `alt=sse`."""

_ENDS = {"crlf": b"\r\n", "lf": b"\n", "cr": b"\r"}
_ESCAPED = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    b"'": b"\\u0027",
    b"=": b"\\u003d",
}
_LAST = (
    "finishReason",
    "finishMessage",
    "groundingMetadata",
    "citationMetadata",
    "logprobsResult",
    "safetyRatings",
)


def sse_framings() -> st.SearchStrategy[Framing]:
    """Draw one of `FRAMINGS`."""
    return st.sampled_from(FRAMINGS)


def frame(chunks: list[Json], framing: Framing, *, escaped: bool = False) -> bytes:
    """Return the body of a streamed answer.

    `escaped` writes `< > & ' =` as `\\u003c` and so on, as the service does.
    """
    payloads = [_payload(chunk, escaped) for chunk in chunks]
    if framing == "array":
        return b"[" + b"\n,\r\n".join(payloads) + b"\n]"
    end = _ENDS[framing]
    return b"".join(b"data: " + payload + end + end for payload in payloads)


def _payload(chunk: Json, escaped: bool) -> bytes:
    payload = msgspec.json.encode(chunk)
    for char, escape in _ESCAPED.items() if escaped else ():
        payload = payload.replace(char, escape)
    return payload


class GeminiStream(Struct, frozen=True):
    """A streamed answer: the whole it stands for, its chunks, and how they are written."""

    answer: dict[str, Any]
    chunks: list[dict[str, Any]]
    framing: Framing = "crlf"
    escaped: bool = False

    @property
    def body(self) -> bytes:
        """Return the body of the stream."""
        return frame(self.chunks, self.framing, escaped=self.escaped)

    @property
    def whole(self) -> bytes:
        """Return the body of the same answer unstreamed, pretty-printed as the service does."""
        return msgspec.json.format(_payload(self.answer, self.escaped), indent=2)

    @property
    def candidates(self) -> int:
        """Return how many candidates were asked for."""
        return candidate_count(self.answer)


def cuts(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Draw the pieces of a byte string in order: network reads, often of one byte."""
    size = len(data)
    places = st.sets(st.integers(0, size), max_size=min(size + 1, 12))
    every_byte = st.just(set(range(size + 1)))
    return st.one_of(places, places, every_byte).map(lambda chosen: _cut(data, chosen))


def _cut(data: bytes, places: set[int]) -> list[bytes]:
    ordered = sorted(places | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ordered)]


@st.composite
def _pieces(draw: st.DrawFn, part: Json) -> list[Json]:
    if "text" not in part or "thoughtSignature" in part:
        return [part]
    text: str = part["text"]
    places = draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=3))
    ordered = sorted(places | {0, len(text)})
    return [{**part, "text": text[start:end]} for start, end in pairwise(ordered)]


@st.composite
def _deltas(draw: st.DrawFn, candidate: Json) -> list[Json]:
    """Draw the chunks of one candidate."""
    index = candidate["index"]
    pieces: list[Json] = []
    for part in candidate["content"].get("parts", []):
        pieces += draw(_pieces(part))
    chunks: list[Json] = []
    while pieces:
        size = draw(st.integers(1, 3))
        content = {"parts": pieces[:size], "role": "model"}
        chunks.append({"content": content, "index": index})
        pieces = pieces[size:]
    last = {key: candidate[key] for key in _LAST if key in candidate}
    if draw(st.booleans()) and chunks:
        chunks[-1] |= last
    else:
        content = draw(st.sampled_from(({"parts": [{"text": ""}], "role": "model"}, {}, None)))
        chunks.append({"index": index, **last} | ({} if content is None else {"content": content}))
    return chunks


@st.composite
def _interleaved(draw: st.DrawFn, lanes: list[list[Json]]) -> list[list[Json]]:
    """Draw the candidates of each chunk: those of one candidate stay in order."""
    waiting = [list(lane) for lane in lanes]
    chunks: list[list[Json]] = []
    while any(waiting):
        ready = [lane for lane in waiting if lane]
        if len(ready) > 1 and draw(st.booleans()):
            chunks.append([lane.pop(0) for lane in ready])
        else:
            chunks.append([draw(st.sampled_from(ready)).pop(0)])
    return chunks


@st.composite
def _metered(draw: st.DrawFn, chunks: list[Json], usage: Json) -> list[Json]:
    """Draw where the usage stands: growing on every chunk, or only on the last one.

    What the last chunk leaves out an earlier one has told.
    """
    last = len(chunks) - 1
    if not draw(st.booleans()):
        return [*chunks[:last], {**chunks[last], "usageMetadata": usage}]
    early = draw(st.sets(st.sampled_from(sorted(usage)), max_size=2)) if last else set()
    metered = []
    for position, chunk in enumerate(chunks):
        seen = {key: value for key, value in usage.items() if position < last or key not in early}
        if position < last:
            seen = {
                key: value // (last + 1) if isinstance(value, int) and key not in early else value
                for key, value in seen.items()
            }
        metered.append({**chunk, "usageMetadata": seen})
    return metered


@st.composite
def gemini_streams(draw: st.DrawFn, answers: st.SearchStrategy[Json] | None = None) -> GeminiStream:
    """Draw streamed answers: one of `answers` (by default `gemini_answers()`), cut into chunks and framed.

    The deltas of several candidates interleave, a finish reason comes with the last part or after it, and
    usage grows from chunk to chunk or comes at the end. `body` is the whole; `cuts(stream.body)` its reads.
    """
    answer = draw(gemini_answers() if answers is None else answers)
    head: Json = {key: answer[key] for key in ("modelVersion", "responseId") if key in answer}
    lanes = [draw(_deltas(candidate)) for candidate in answer.get("candidates", [])]
    chunks: list[Json] = [
        {"candidates": candidates, **head} for candidates in draw(_interleaved(lanes))
    ]
    if "promptFeedback" in answer:
        chunks.append({"promptFeedback": answer["promptFeedback"], **head})
    if "usageMetadata" in answer:
        chunks = draw(_metered(chunks, answer["usageMetadata"]))
    return GeminiStream(answer, chunks, draw(sse_framings()), draw(st.booleans()))
