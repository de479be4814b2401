"""What each model can do: the tables of gemini-wire, model by model, and the effort table."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oaicompat.errors import InvalidRequestError
from oaicompat.notes import Action
from oaicompat.providers.gemini.profiles import (
    EFFORTS,
    RUNGS,
    Budget,
    Deviation,
    Level,
    Levels,
    NoThinking,
    Profile,
    Thinking,
    ThinkingConfig,
    budget_config,
    nearest_level,
    profile,
    thinking_config,
)

PRO = Budget(128, 32768, can_disable=False)
FLASH = Budget(1, 24576, can_disable=True)
LITE = Budget(512, 24576, can_disable=True)
ALL = Levels(RUNGS)
THREE = Levels(("LOW", "MEDIUM", "HIGH"))
ENDS = Levels(("MINIMAL", "HIGH"))

THINKING: dict[str, Thinking] = {
    "gemini-1.5-pro-002": NoThinking(),
    "gemini-pro": NoThinking(),
    "gemini-2.0-flash": NoThinking(),
    "gemini-2.0-flash-exp": NoThinking(),
    "gemini-2.5-flash-image": NoThinking(),
    "gemini-2.5-flash-image-preview": NoThinking(),
    "gemini-2.5-pro-preview-tts": NoThinking(),
    "gemini-2.5-flash-preview-tts": NoThinking(),
    "gemini-3.1-flash-tts-preview": NoThinking(),
    "gemini-3.8-flash-tts": NoThinking(),
    "gemini-3.8-flash-lite-tts": NoThinking(),
    "gemini-2.5-pro": PRO,
    "gemini-2.5-pro-preview-06-05": PRO,
    "gemini-2.5-flash": FLASH,
    "gemini-2.5-flash-preview-09-2025": FLASH,
    "gemini-2.5-flash-001": FLASH,
    "gemini-2.5-flash-lite": LITE,
    "gemini-2.5-flash-lite-preview-09-2025": LITE,
    "gemini-3-pro-preview": Levels(("LOW", "HIGH")),
    "gemini-3-pro-image": ALL,
    "gemini-3-flash-preview": ALL,
    "gemini-3.1-pro-preview": THREE,
    "gemini-3.1-pro-preview-customtools": THREE,
    "gemini-3.1-flash-lite": ALL,
    "gemini-3.5-flash": ALL,
    "gemini-3.5-flash-lite": ALL,
    "gemini-3.6-flash": ALL,
    "gemini-3.7-flash": THREE,
    "gemini-3.8-flash": THREE,
    "gemini-3.1-flash-image": ENDS,
    "gemini-3.1-flash-lite-image": ENDS,
    "gemini-4-argon": THREE,
    "gemini-4-carbon": THREE,
    "gemini-4-neon": THREE,
    "gemini-4-hydrogen": ALL,
    "gemini-5-unheard-of": ALL,
    "gemini-flash-latest": ALL,
    "gemini-pro-latest": THREE,
    "nano-banana-2.1": ALL,
    "gemma-4-31b-it": ALL,
    "gemini-omni-1.2-flash": ALL,
}


@pytest.mark.parametrize("model", THINKING)
def test_how_each_model_is_told_to_think(model: str) -> None:
    assert profile(model, "gemini").thinking == THINKING[model]


def test_vertex_takes_all_levels_on_the_flash_image_model_only() -> None:
    assert profile("gemini-3.1-flash-image", "vertex").thinking == ALL
    assert profile("gemini-3.1-flash-lite-image", "vertex").thinking == ENDS


# Effort: none, minimal, low, medium, high, xhigh, max. A bare value is exact.
Cell = int | Level | tuple[int | Level | None, Action | None]
EFFORT_TABLE: dict[str, tuple[Cell, ...]] = {
    "gemini-2.5-pro": (
        (128, "approximated"), 1024, 1024, 8192, 24576, (32768, "clamped"), (32768, "clamped"),
    ),
    "gemini-2.5-flash": (0, 1024, 1024, 8192, 24576, (24576, "clamped"), (24576, "clamped")),
    "gemini-2.5-flash-lite": (0, 1024, 1024, 8192, 24576, (24576, "clamped"), (24576, "clamped")),
    "gemini-3-flash-preview": (
        ("MINIMAL", "approximated"), "MINIMAL", "LOW", "MEDIUM", "HIGH",
        ("HIGH", "clamped"), ("HIGH", "clamped"),
    ),
    "gemini-3.1-pro-preview": (
        ("LOW", "approximated"), ("LOW", "clamped"), "LOW", "MEDIUM", "HIGH",
        ("HIGH", "clamped"), ("HIGH", "clamped"),
    ),
    "gemini-3-pro-preview": (
        ("LOW", "approximated"), ("LOW", "clamped"), "LOW", ("LOW", "clamped"), "HIGH",
        ("HIGH", "clamped"), ("HIGH", "clamped"),
    ),
    "gemini-3.1-flash-lite-image": (
        ("MINIMAL", "approximated"), "MINIMAL", ("MINIMAL", "clamped"), ("HIGH", "clamped"),
        "HIGH", ("HIGH", "clamped"), ("HIGH", "clamped"),
    ),
    "gemini-2.0-flash": (
        (None, None), *(((None, "dropped"),) * 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", EFFORT_TABLE)
@pytest.mark.parametrize("column", range(len(EFFORTS)))
def test_effort_table(model: str, column: int) -> None:
    cell = EFFORT_TABLE[model][column]
    value, action = cell if isinstance(cell, tuple) else (cell, None)
    config, deviation = thinking_config(EFFORTS[column], profile(model, "gemini"))
    match value:
        case None:
            assert config is None
        case int():
            assert config == ThinkingConfig(thinkingBudget=value)
        case str():
            assert config == ThinkingConfig(thinkingLevel=value)
    assert (deviation.action if deviation else None) == action


@pytest.mark.parametrize("model", THINKING)
@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("backend", ["gemini", "vertex"])
def test_what_is_sent_is_always_accepted(
    model: str, effort: str, backend: Literal["gemini", "vertex"]
) -> None:
    capabilities = profile(model, backend)
    config, _ = thinking_config(effort, capabilities)
    match capabilities.thinking:
        case NoThinking():
            assert config is None
        case Budget(minimum=minimum, maximum=maximum, can_disable=can_disable):
            assert config is not None
            budget = config.thinkingBudget
            assert budget is not None
            assert minimum <= budget <= maximum or (budget == 0 and can_disable)
            assert config.thinkingLevel is None
        case Levels(levels=levels):
            assert config is not None
            assert config.thinkingLevel in levels
            assert config.thinkingBudget is None


def test_an_unknown_effort_is_the_clients_error() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        thinking_config("gigantic", profile("gemini-2.5-pro", "gemini"))
    assert (caught.value.code, caught.value.param) == ("invalid_value", "reasoning_effort")


@given(
    st.integers(0, 3),
    st.sets(st.sampled_from(RUNGS), min_size=1).map(
        lambda some: tuple(sorted(some, key=RUNGS.index))
    ),
)
def test_the_nearest_level_never_goes_up_on_a_tie(rung: int, levels: tuple[Level, ...]) -> None:
    sent = RUNGS.index(nearest_level(rung, Levels(levels)))
    distances = {abs(RUNGS.index(level) - rung) for level in levels}
    assert abs(sent - rung) == min(distances)
    if sent > rung:
        assert RUNGS[max(0, 2 * rung - sent)] not in levels or 2 * rung - sent < 0


def test_thinking_config_is_written_without_the_other_field() -> None:
    assert msgspec.json.encode(ThinkingConfig(thinkingBudget=0)) == b'{"thinkingBudget":0}'


BUDGETS: tuple[tuple[str, int, ThinkingConfig | None, Action | None], ...] = (
    ("gemini-2.5-pro", 0, ThinkingConfig(thinkingBudget=128), "clamped"),
    ("gemini-2.5-pro", -1, ThinkingConfig(thinkingBudget=-1), None),
    ("gemini-2.5-pro", 99999, ThinkingConfig(thinkingBudget=32768), "clamped"),
    ("gemini-2.5-flash", 0, ThinkingConfig(thinkingBudget=0), None),
    ("gemini-2.5-flash-lite", 100, ThinkingConfig(thinkingBudget=512), "clamped"),
    ("gemini-3-flash-preview", 100, ThinkingConfig(thinkingBudget=100), None),
    ("gemini-4-argon", 0, ThinkingConfig(thinkingLevel="LOW"), "approximated"),
    ("gemini-4-argon", 1024, ThinkingConfig(thinkingLevel="LOW"), "approximated"),
    ("gemini-4-argon", 8192, ThinkingConfig(thinkingLevel="MEDIUM"), "approximated"),
    ("gemini-4-argon", 8193, ThinkingConfig(thinkingLevel="HIGH"), "approximated"),
    ("gemini-4-argon", -1, None, "rewritten"),
    ("gemini-2.0-flash", 0, None, None),
    ("gemini-2.0-flash", 5, None, "dropped"),
)


@pytest.mark.parametrize(("model", "budget", "config", "action"), BUDGETS)
def test_explicit_budgets_are_fitted(
    model: str, budget: int, config: ThinkingConfig | None, action: Action | None
) -> None:
    """CLIProxyAPI#278: a budget outside the model's range is clamped, with a note."""
    sent, deviation = budget_config(budget, profile(model, "gemini"))
    assert sent == config
    assert (deviation.action if deviation else None) == action


def test_deviations_say_what_was_used_instead() -> None:
    _, deviation = thinking_config("none", profile("gemini-2.5-pro", "gemini"))
    assert deviation is not None
    assert "128" in deviation.reason


# model: (multiple_candidates, penalties, logprobs, prefill, samples) on the Gemini API, on Vertex AI.
RESTRICTIONS: dict[str, tuple[str, str]] = {
    "gemini-2.0-flash": ("MPLFS", "MPLFS"),
    "gemini-2.5-pro": ("M--FS", "MPLFS"),
    "gemini-2.5-flash": ("M--FS", "MPLFS"),
    "gemini-2.5-flash-image": ("---FS", "-PLFS"),
    "gemini-3-flash-preview": ("---FS", "M-LFS"),
    "gemini-3.1-pro-preview": ("---FS", "M-LFS"),
    "gemini-3.1-flash-image": ("---FS", "--LFS"),
    "gemini-3.5-flash": ("---FS", "M-LFS"),
    "gemini-3.5-flash-lite": ("-----", "M-L--"),
    "gemini-3.6-flash": ("-----", "M-L--"),
    "gemini-3.8-flash": ("-----", "M-L--"),
    "gemini-4-argon": ("-----", "--L--"),
    "gemini-flash-latest": ("-----", "--L--"),
}


def _letters(capabilities: Profile) -> str:
    fields = ("multiple_candidates", "penalties", "logprobs", "prefill", "samples")
    return "".join(
        letter if getattr(capabilities, field) else "-"
        for letter, field in zip("MPLFS", fields, strict=True)
    )


@pytest.mark.parametrize("model", RESTRICTIONS)
def test_restrictions_by_generation_and_backend(model: str) -> None:
    gemini, vertex = profile(model, "gemini"), profile(model, "vertex")
    assert (_letters(gemini), _letters(vertex)) == RESTRICTIONS[model]


@pytest.mark.parametrize(
    ("model", "gemini", "vertex"),
    [
        ("gemini-2.5-flash", "no", "no"),
        ("gemini-3-flash-preview", "flag", "plain"),
        ("anything-else", "flag", "plain"),
    ],
)
def test_built_in_tools_beside_functions(model: str, gemini: str, vertex: str) -> None:
    assert profile(model, "gemini").builtin_with_functions == gemini
    assert profile(model, "vertex").builtin_with_functions == vertex


@pytest.mark.parametrize(
    ("model", "backend", "expected"),
    [
        ("gemini-2.0-flash", "gemini", True),
        ("gemini-2.5-pro", "gemini", True),
        ("gemini-2.5-pro", "vertex", False),
        ("gemini-3-flash-preview", "vertex", True),
        ("endpoints-of-somebody", "vertex", True),
    ],
)
def test_native_ids(model: str, backend: Literal["gemini", "vertex"], expected: bool) -> None:
    """vercel#17902: Vertex AI refuses ids before Gemini 3; remix-studio PR#35: later they are required."""
    assert profile(model, backend).native_ids is expected


def test_what_came_with_generation_three() -> None:
    for model, expected in (("gemini-2.5-flash", False), ("gemini-3-flash-preview", True)):
        found = profile(model, "gemini")
        assert found.tools_with_json is expected
        assert found.signatures_required is expected
        assert found.multimodal_function_response is expected
        assert found.media_resolution_per_part is expected
        assert found.server_tool_parts is expected
        assert profile(model, "vertex").stream_arguments is expected
        assert profile(model, "vertex").server_tool_parts is False


def test_modalities() -> None:
    image = profile("gemini-3-pro-image-preview", "gemini")
    assert (image.image_output, image.audio_output, image.functions) == (True, False, False)
    assert not image.signatures_required, "image models do not enforce signatures"
    assert profile("nano-banana-2.1", "gemini").image_output
    speech = profile("gemini-2.5-flash-preview-tts", "gemini")
    assert (speech.image_output, speech.audio_output, speech.functions) == (False, True, False)
    text = profile("gemini-2.5-flash", "gemini")
    assert (text.image_output, text.audio_output, text.functions) == (False, False, True)


def test_schema_fields_and_caching() -> None:
    assert not profile("gemini-1.5-flash-002", "gemini").json_schema
    assert profile("gemini-2.0-flash", "vertex").json_schema
    assert profile("never-heard-of", "gemini").json_schema, "bifrost#6498: unknown means supported"
    assert profile("gemini-3.8-flash", "gemini").caching
    assert not profile("gemini-4-argon", "gemini").caching
    assert not profile("gemini-2.0-flash", "gemini").validated_mode
    assert profile("gemini-2.5-flash", "gemini").validated_mode


def test_bug_58_capabilities_come_from_the_generation_not_from_a_substring() -> None:
    assert profile("gemini-4-argon", "gemini").generation == (4, 0)
    dated = profile("gemini-2.5-flash-preview-09-2025", "gemini")
    assert dated == profile("gemini-2.5-flash", "gemini")
    assert profile("gemini-omni-1.2-flash", "gemini").generation is None


@pytest.mark.parametrize("backend", ["gemini", "vertex"])
@pytest.mark.parametrize("prefix", ["models/", "publishers/google/models/"])
@pytest.mark.parametrize("model", ["gemini-2.5-pro", "gemini-4-argon", "gemini-pro-latest"])
def test_prefixes_do_not_matter(
    model: str, prefix: str, backend: Literal["gemini", "vertex"]
) -> None:
    assert profile(prefix + model, backend) == profile(model, backend)


def test_the_defaults_are_the_newest_rules() -> None:
    assert profile("some-tuned-model", "gemini") == Profile()


@given(st.text(max_size=40), st.sampled_from(["gemini", "vertex"]))
def test_any_name_has_a_profile(name: str, backend: Literal["gemini", "vertex"]) -> None:
    assert isinstance(profile(name, backend), Profile)


@given(st.integers(-(2**40), 2**40), st.sampled_from(sorted(THINKING)))
def test_any_budget_is_answered(budget: int, model: str) -> None:
    _, deviation = budget_config(budget, profile(model, "gemini"))
    assert deviation is None or isinstance(deviation, Deviation)
