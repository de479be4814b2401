"""Token counts: Gemini's `usageMetadata` in the neutral form.

Gemini counts thoughts beside the candidates and tool prompts beside the prompt, and over a stream repeats
cumulative counts of which some vanish again: the last value seen of each field counts (mappings 1.6). In every
recorded answer total = prompt + candidates + thoughts + toolUse, so sums here always agree.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from oaicompat.events import Usage
from oaicompat.providers.gemini.answer_schema import ModalityCount, UsageMetadata

_FIELDS = UsageMetadata.__struct_fields__

_MODALITIES: dict[str | int, str] = {
    "TEXT": "text",
    1: "text",
    2: "image",
    3: "video",
    4: "audio",
    5: "document",
}

SERVICE_TIERS = {
    "standard": "default",
    "flex": "flex",
    "priority": "priority",
    "ON_DEMAND": "default",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_PRIORITY": "priority",
    "PROVISIONED_THROUGHPUT": "scale",
}


_decode = msgspec.json.Decoder(UsageMetadata | None).decode
_DIGITS = b"0123456789"


class Counter(Struct, gc=False):
    """Keeps the last value of each count over a stream without decoding every chunk's.

    Two chunks whose counts differ in nothing but digits have the same fields, so the later replaces the
    earlier; only where the fields change both are kept.
    """

    _kept: list[bytes] = []

    def add(self, raw: bytes) -> None:
        """Take one `usageMetadata`."""
        kept = self._kept
        if kept and kept[-1].translate(None, _DIGITS) == raw.translate(None, _DIGITS):
            kept[-1] = raw
        else:
            kept.append(raw)

    def take(self) -> Usage | None:
        """Return the usage so far, if any was told, and forget it; raises `msgspec.DecodeError`."""
        counts: UsageMetadata | None = None
        for raw in self._kept:
            later = _decode(raw)
            if later is not None:
                counts = merged(counts, later)
        self._kept = []
        return usage(counts) if counts is not None else None


def merged(earlier: UsageMetadata | None, later: UsageMetadata) -> UsageMetadata:
    """Return `later` with what only `earlier` had."""
    if earlier is None:
        return later
    missing = {
        name: value
        for name in _FIELDS
        if getattr(later, name) is None and (value := getattr(earlier, name)) is not None
    }
    return msgspec.structs.replace(later, **missing) if missing else later


def usage(counts: UsageMetadata) -> Usage:
    """Return the neutral usage for the final counts of an answer."""
    tool_use = counts.tool_use_prompt_token_count or 0
    thoughts = counts.thoughts_token_count or 0
    prompt = (counts.prompt_token_count or 0) + tool_use
    tier = counts.service_tier or counts.traffic_type
    sent, made = counts.prompt_tokens_details, counts.candidates_tokens_details
    return Usage(
        prompt,
        (counts.candidates_token_count or 0) + thoughts,
        min(counts.cached_content_token_count or 0, prompt),
        thoughts,
        tool_use,
        _by_modality(sent) if sent else {},
        _by_modality(made) if made else {},
        SERVICE_TIERS.get(str(tier)) if tier else None,
    )


def _by_modality(details: list[ModalityCount]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for detail in details:
        modality, count = detail.modality, detail.token_count
        if modality and count:
            key = _MODALITIES.get(modality) or _other(modality)
            counts[key] = counts.get(key, 0) + count
    return counts


def _other(modality: str | int) -> str:
    return modality.lower() if isinstance(modality, str) else "other"
