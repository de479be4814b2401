"""The models the simulator serves, and what each of them refuses.

Owns the model table (gemini-wire sections 3 and 8) and the look-up by name. The one rule: this table is the
simulator's own; it shares nothing with the profiles of the converter, so that each can catch the other's
mistakes. Retired models stay callable, unlisted, for the rules that only they have.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

Kind = Literal["text", "image", "tts", "gemma", "embedding"]

ALL_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH")
_THREE = ("LOW", "MEDIUM", "HIGH")


class Thinking(msgspec.Struct, frozen=True):
    """What a model takes in `thinkingConfig`: budget bounds in tokens, levels, and whether 0 turns it off."""

    levels: tuple[str, ...] = ()
    budget: tuple[int, int] | None = None
    can_stop: bool = False
    on_by_default: bool = True
    vertex_levels: tuple[str, ...] | None = None


class Model(msgspec.Struct, frozen=True):
    """One model: its generation decides most rules, the other fields are the exceptions."""

    name: str
    generation: tuple[int, int]
    kind: Kind = "text"
    thinking: Thinking | None = None
    limits: tuple[int, int] = (1_048_576, 65_536)
    top_k: int = 64
    max_temperature: float = 2.0
    prefill: bool = True
    listed: bool = True

    @property
    def methods(self) -> tuple[str, ...]:
        """Name the methods a model answers, as `supportedGenerationMethods` lists them."""
        if self.kind == "embedding":
            return ("embedContent", "countTextTokens", "countTokens", "asyncBatchEmbedContent")
        return ("generateContent", "countTokens", "createCachedContent", "batchGenerateContent")

    def levels(self, *, vertex: bool) -> tuple[str, ...]:
        """Return the thinking levels the model takes behind the given front door."""
        if self.thinking is None:
            return ()
        if vertex and self.thinking.vertex_levels is not None:
            return self.thinking.vertex_levels
        return self.thinking.levels

    def describe(self) -> dict[str, Any]:
        """Return the model as `models.list` shows it."""
        title = self.name.replace("-", " ").title()
        entry: dict[str, Any] = {
            "name": f"models/{self.name}",
            "version": ".".join(map(str, self.generation)),
            "displayName": title,
            "description": f"{title}, simulated",
            "inputTokenLimit": self.limits[0],
            "outputTokenLimit": self.limits[1],
            "supportedGenerationMethods": list(self.methods),
        }
        if self.kind == "embedding":
            return entry
        entry |= {"temperature": 1, "topP": 0.95, "topK": self.top_k}
        entry["maxTemperature"] = self.max_temperature
        if self.thinking is not None:
            entry["thinking"] = True
        return entry


_PRO_25 = Thinking(budget=(128, 32_768))
_FLASH_25 = Thinking(budget=(1, 24_576), can_stop=True)
_LITE_25 = Thinking(budget=(512, 24_576), can_stop=True, on_by_default=False)
_ANY_BUDGET = (1, 65_536)
_PRO_3 = Thinking(levels=("LOW", "HIGH"), budget=_ANY_BUDGET, can_stop=True)
_PRO_31 = Thinking(levels=_THREE, budget=_ANY_BUDGET)
_FOUR_LEVELS = Thinking(levels=ALL_LEVELS, budget=_ANY_BUDGET, can_stop=True)
_THREE_LEVELS = Thinking(levels=_THREE, budget=_ANY_BUDGET, can_stop=True)
_IMAGE_31 = Thinking(levels=("MINIMAL", "HIGH"), budget=_ANY_BUDGET, vertex_levels=ALL_LEVELS)
_LITE_IMAGE_31 = Thinking(levels=("MINIMAL", "HIGH"), budget=_ANY_BUDGET)
_LEVELS_ONLY = Thinking(levels=_THREE)

_IMAGE_IN = (131_072, 32_768)
_TTS = (8_192, 16_384)

MODELS: tuple[Model, ...] = (
    Model("gemini-2.5-flash", (2, 5), thinking=_FLASH_25),
    Model("gemini-2.5-pro", (2, 5), thinking=_PRO_25),
    Model("gemini-2.5-flash-lite", (2, 5), thinking=_LITE_25),
    Model(
        "gemini-2.5-flash-image", (2, 5), kind="image", limits=(32_768, 32_768), max_temperature=1
    ),
    Model("gemini-3-flash-preview", (3, 0), thinking=_FOUR_LEVELS),
    Model("gemini-3-pro-image", (3, 0), kind="image", thinking=_PRO_3, limits=_IMAGE_IN),
    Model("gemini-3.1-pro-preview", (3, 1), thinking=_PRO_31),
    Model("gemini-3.1-pro-preview-customtools", (3, 1), thinking=_PRO_31),
    Model("gemini-3.1-flash-lite", (3, 1), thinking=_FOUR_LEVELS),
    Model(
        "gemini-3.1-flash-image", (3, 1), kind="image", thinking=_IMAGE_31, limits=(65_536, 65_536)
    ),
    Model("gemini-3.1-flash-lite-image", (3, 1), kind="image", thinking=_LITE_IMAGE_31),
    Model("gemini-3.1-flash-tts-preview", (3, 1), kind="tts", limits=_TTS),
    Model("gemini-3.5-flash", (3, 5), thinking=_FOUR_LEVELS),
    Model("gemini-3.5-flash-lite", (3, 5), thinking=_FOUR_LEVELS, prefill=False),
    Model("gemini-3.6-flash", (3, 6), thinking=_FOUR_LEVELS, prefill=False),
    Model("gemini-3.7-flash", (3, 7), thinking=_THREE_LEVELS, prefill=False),
    Model("gemini-3.8-flash", (3, 8), thinking=_THREE_LEVELS, prefill=False),
    Model("gemini-3.8-flash-tts", (3, 8), kind="tts", limits=_TTS, prefill=False),
    Model("gemini-4-argon", (4, 0), thinking=_LEVELS_ONLY, prefill=False),
    Model("gemini-4-carbon", (4, 0), thinking=_LEVELS_ONLY, prefill=False),
    Model("gemini-4-neon", (4, 0), thinking=_LEVELS_ONLY, prefill=False, listed=False),
    Model("gemma-4-26b-a4b-it", (2, 0), kind="gemma", limits=(262_144, 32_768)),
    Model("gemma-4-31b-it", (2, 0), kind="gemma", limits=(262_144, 32_768)),
    Model("gemini-embedding-001", (1, 0), kind="embedding", limits=(2_048, 1)),
    Model("gemini-embedding-2", (2, 0), kind="embedding", limits=(8_192, 1)),
    Model("gemini-2.0-flash", (2, 0), limits=(1_048_576, 8_192), top_k=40, listed=False),
    Model("gemini-2.0-flash-lite", (2, 0), limits=(1_048_576, 8_192), top_k=40, listed=False),
    Model("gemini-2.5-flash-preview-tts", (2, 5), kind="tts", limits=_TTS, listed=False),
    Model("gemini-3-pro-preview", (3, 0), thinking=_PRO_3, listed=False),
    Model("text-embedding-004", (1, 0), kind="embedding", limits=(2_048, 1), listed=False),
)

ALIASES = {
    "gemini-pro-latest": "gemini-3.1-pro-preview",
    "gemini-flash-latest": "gemini-3.8-flash",
    "gemini-flash-lite-latest": "gemini-3.5-flash-lite",
    "gemini-3-pro-image-preview": "gemini-3-pro-image",
    "gemini-embedding-2-preview": "gemini-embedding-2",
}

NEWEST = Model(
    "newest", (3, 9), thinking=Thinking(levels=ALL_LEVELS, budget=_ANY_BUDGET, can_stop=True)
)

_BY_NAME = {model.name: model for model in MODELS}
_RELEASE = re.compile(r"-(?:\d{3}|preview-\d\d-(?:\d\d|\d{4}))$")


def find_model(name: str) -> Model | None:
    """Return the model called `name` (aliases and dated releases included), or None.

    The answer keeps the name it was asked by, because that is what `modelVersion` and error texts show.
    """
    known = _BY_NAME.get(ALIASES.get(name, name)) or _BY_NAME.get(_RELEASE.sub("", name))
    if known is None or known.name == name:
        return known
    return msgspec.structs.replace(known, name=name)


def listed_models() -> list[Model]:
    """Return the models that `models.list` shows, in its order."""
    return [model for model in MODELS if model.listed]
