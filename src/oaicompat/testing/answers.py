"""Whole Gemini answers: candidates, how they end, what they cite, and what they cost.

One rule: an answer is one the service could give: offsets cut out their segment, counts add up, a turn ends
in one of the reasons its parts allow.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from oaicompat.testing.turns import gemini_turns
from oaicompat.testing.values import Json, some, texts

ENDINGS = ("STOP", "MAX_TOKENS", "SAFETY", "PROHIBITED_CONTENT", "RECITATION", "LANGUAGE")
"""How a candidate ends that is shown as it is."""

BROKEN = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "MALFORMED_RESPONSE")
"""How a candidate ends that is no answer."""

BLOCKS = ("SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY")
"""Why a prompt is refused."""

_SITES = ("https://example.com/a", "https://example.org/b?c=d", "https://example.net/é")


def usages() -> st.SearchStrategy[Json]:
    """Draw `usageMetadata` whose total is the sum of its parts, any of which may be absent."""
    small = st.integers(0, 2000)
    counts = some(
        candidatesTokenCount=small, thoughtsTokenCount=small, toolUsePromptTokenCount=small
    )
    return st.builds(_usage, st.integers(1, 5000), counts, st.booleans(), st.booleans())


def _usage(prompt: int, counts: Json, cached: bool, detailed: bool) -> Json:
    usage: Json = {"promptTokenCount": prompt, **counts}
    usage["totalTokenCount"] = prompt + sum(counts.values())
    if cached:
        usage["cachedContentTokenCount"] = prompt // 2
    if detailed:
        image = prompt // 3
        usage["promptTokensDetails"] = [
            {"modality": "TEXT", "tokenCount": prompt - image},
            {"modality": "IMAGE", "tokenCount": image},
        ]
    return usage


def visible_text(parts: list[Json]) -> str:
    """Return the visible text of a turn."""
    return "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))


@st.composite
def _grounding(draw: st.DrawFn, text: str) -> Json:
    """Draw `groundingMetadata` for a text: offsets count UTF-8 bytes, a zero start is left out."""
    sources = draw(
        st.lists(
            st.builds(
                lambda uri, title: {"web": {"uri": uri} | ({"title": title} if title else {})},
                st.sampled_from(_SITES),
                st.sampled_from(("", "example", "Überblick")),
            ),
            min_size=1,
            max_size=3,
        )
    )
    supports = []
    for _ in range(draw(st.integers(0, 2))):
        start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        segment: Json = {"endIndex": len(text[:end].encode()), "text": text[start:end]}
        if start:
            segment["startIndex"] = len(text[:start].encode())
        indices = draw(st.lists(st.integers(0, len(sources) - 1), min_size=1, max_size=2))
        supports.append({"segment": segment, "groundingChunkIndices": indices})
    return {
        "webSearchQueries": draw(st.lists(texts(), max_size=2, unique=True)),
        "groundingChunks": sources,
        "groundingSupports": supports,
    }


@st.composite
def _citations(draw: st.DrawFn, text: str) -> Json:
    """Draw `citationMetadata`, under the name of either front door."""
    end = len(text[: draw(st.integers(1, len(text)))].encode())
    source = {"endIndex": end, "uri": draw(st.sampled_from(_SITES))}
    return {draw(st.sampled_from(("citationSources", "citations"))): [source]}


def _logprobs(text: str) -> Json:
    tokens = [text[at : at + 3] for at in range(0, len(text), 3)]
    chosen = [{"token": token, "logProbability": -0.25} for token in tokens]
    top = [{"candidates": [each, {"token": "?", "logProbability": -2.5}]} for each in chosen]
    return {"chosenCandidates": chosen, "topCandidates": top}


@st.composite
def _candidates(draw: st.DrawFn, index: int, endings: tuple[str, ...], server_tools: bool) -> Json:
    parts = draw(gemini_turns(min_size=0, max_size=4, server_tools=server_tools))
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": index}
    if not parts:
        candidate["content"] = draw(st.sampled_from(({}, {"role": "model"}, {"parts": []})))
    candidate["finishReason"] = draw(st.sampled_from(endings))
    if candidate["finishReason"] != "STOP" and draw(st.booleans()):
        candidate["finishMessage"] = "The model says why."
    text = visible_text(parts)
    if text and draw(st.booleans()):
        candidate["groundingMetadata"] = draw(_grounding(text))
    if text and draw(st.booleans()):
        candidate["citationMetadata"] = draw(_citations(text))
    if text and draw(st.booleans()):
        candidate["logprobsResult"] = _logprobs(text)
    if draw(st.booleans()):
        rating = {"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}
        candidate["safetyRatings"] = [rating]
    return candidate


@st.composite
def gemini_answers(
    draw: st.DrawFn,
    *,
    max_candidates: int = 3,
    blocked: bool = True,
    broken: bool = False,
    server_tools: bool = True,
) -> Json:
    """Draw whole `GenerateContentResponse` objects.

    Up to `max_candidates` candidates of any parts (`server_tools` as in `gemini_turns`), finish reasons,
    grounding over any text, log probabilities, usage. `blocked` adds prompts that were refused, `broken`
    candidates that ended in a malformed call and the like, which no client can be given as an answer.
    """
    answer: Json = {"responseId": draw(st.from_regex(r"[A-Za-z0-9_-]{8,12}", fullmatch=True))}
    answer["modelVersion"] = draw(st.sampled_from(("gemini-2.5-flash", "gemini-3.5-flash")))
    if draw(st.booleans()):
        answer["usageMetadata"] = draw(usages())
    if blocked and draw(st.integers(0, 7)) == 7:
        answer["promptFeedback"] = {"blockReason": draw(st.sampled_from(BLOCKS))}
        return answer
    endings: tuple[str, ...] = ("STOP", "STOP", *ENDINGS, *(BROKEN if broken else ()))
    count = draw(st.integers(1, max_candidates))
    answer["candidates"] = [
        draw(_candidates(index, endings, server_tools)) for index in range(count)
    ]
    return answer


def candidate_count(answer: dict[str, Any]) -> int:
    """Return how many candidates were asked for, as far as the answer tells."""
    return len(answer.get("candidates") or (None,))
