"""What each Gemini model can do, behind each of the two front doors.

One rule: ask the profile, never the model name. A name is read once, here: its generation and its family
decide, a name without a generation gets the rules of the newest, and a model has a line of its own only
where it is an exception. Facts: gemini-wire sections 3 and 8; effort table: mappings 1.2.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias, assert_never

from msgspec import Struct

from oaicompat.errors import InvalidRequestError
from oaicompat.models import LONGEST_KNOWN
from oaicompat.notes import Action

Backend = Literal["gemini", "vertex"]
Level = Literal["MINIMAL", "LOW", "MEDIUM", "HIGH"]
Generation: TypeAlias = tuple[int, int]

RUNGS: tuple[Level, ...] = ("MINIMAL", "LOW", "MEDIUM", "HIGH")
NEWEST: Generation = (99, 0)
DYNAMIC_BUDGET = -1


class NoThinking(Struct, frozen=True):
    """The model refuses any thinkingConfig (400 "Thinking is not enabled for this model")."""


class Budget(Struct, frozen=True):
    """The model takes a thinkingBudget in tokens; `can_disable` tells whether 0 is accepted."""

    minimum: int
    maximum: int
    can_disable: bool


class Levels(Struct, frozen=True):
    """The model takes a thinkingLevel; `levels` holds the accepted ones, lowest first."""

    levels: tuple[Level, ...]


Thinking: TypeAlias = NoThinking | Budget | Levels


class Profile(Struct, frozen=True):
    """The capabilities of one model behind one backend.

    The defaults are the rules of the newest generation, which unknown names get too.
    """

    generation: Generation | None = None
    """Version in the name, e.g. (2, 5); None where the name has none (aliases, tuned models)."""

    thinking: Thinking = Levels(RUNGS)
    """How thinking is controlled. gemini-wire section 3 "Thinking"; unlisted names take all levels."""

    also_accepts_budget: bool = False
    """A level model takes a budget for compatibility: 3.x does, Gemini 4 answers 400."""

    multiple_candidates: bool = False
    """candidateCount above 1. Refused by 3+ on the Gemini API, by 4 everywhere, by image models."""

    penalties: bool = False
    """Non-zero penalties. Refused by 2.5+ on the Gemini API and by 3+ on Vertex AI; zero is fine."""

    logprobs: bool = False
    """responseLogprobs. Refused by 2.5+ on the Gemini API; Vertex AI refuses it on no recorded model."""

    logprobs_streamed: bool = False
    """responseLogprobs on a stream. Vertex AI answers them only to unary calls."""

    prefill: bool = False
    """A trailing model turn. Refused by 3.5-flash-lite, 3.6 and later."""

    samples: bool = False
    """temperature, topP and topK have an effect; ignored by 3.5-flash-lite, 3.6 and later."""

    tools_with_json: bool = True
    """Tools together with responseMimeType application/json: 3+, an error 400 before."""

    builtin_with_functions: Literal["no", "flag", "plain"] = "flag"
    """Built-in tools beside functions: 3+ only; the Gemini API wants includeServerSideToolInvocations
    ("flag"), a field which Vertex AI does not know ("plain")."""

    functions: bool = True
    """Function declarations. Image and speech models have none (pydantic-ai's profile)."""

    validated_mode: bool = True
    """functionCallingConfig.mode VALIDATED: recorded on 2.5 and later."""

    signatures_required: bool = True
    """The first functionCall of a step must carry its thoughtSignature: text models from 3 on."""

    native_ids: bool = True
    """functionCall.id and functionResponse.id are sent: Gemini API always, Vertex AI from 3 on
    (vercel#17902)."""

    multimodal_function_response: bool = True
    """functionResponse.parts with media: 3+; before, media stands beside the response."""

    media_resolution_per_part: bool = True
    """mediaResolution on a part: 3+; before, only in generationConfig."""

    json_schema: bool = True
    """parametersJsonSchema and responseJsonSchema are known: everything since 2.0."""

    caching: bool = False
    """Explicit cachedContent; unsupported by Gemini 4."""

    server_tool_parts: bool = True
    """toolCall and toolResponse parts exist and must be echoed: Gemini API from 3 on."""

    stream_arguments: bool = False
    """streamFunctionCallArguments is known: Vertex AI from 3 on (recorded on 3-pro-preview)."""

    image_output: bool = False
    """responseModalities may hold IMAGE."""

    audio_output: bool = False
    """responseModalities may hold AUDIO, with speechConfig."""

    maximum_stops: int = 5
    """stopSequences: 400 "the number of stop_sequences must not exceed 5"."""

    maximum_candidates: int = 8
    """candidateCount where more than one is allowed (mappings section 3)."""


class ThinkingConfig(Struct, frozen=True, omit_defaults=True):
    """The part of `generationConfig.thinkingConfig` that sets the effort; never both fields (400)."""

    thinkingBudget: int | None = None
    thinkingLevel: Level | None = None


class Deviation(Struct, frozen=True):
    """Why the effort sent is not the one asked for, ready to be filed as a note."""

    action: Action
    reason: str


class _Exception(NamedTuple):
    names: str
    thinking: Thinking
    backend: Backend | None = None


# The first match wins. A name matches a prefix that ends at a dash or at its own end.
_EXCEPTIONS: tuple[_Exception, ...] = tuple(
    _Exception(*row)
    for row in (
        ("gemini-2.5-flash-image", NoThinking()),
        ("gemini-2.5-pro", Budget(128, 32768, can_disable=False)),
        ("gemini-2.5-flash-lite", Budget(512, 24576, can_disable=True)),
        # Listed only to keep it from the line below it.
        ("gemini-3-pro-image", Levels(RUNGS)),
        ("gemini-3-pro", Levels(("LOW", "HIGH"))),
        ("gemini-3.1-pro", Levels(("LOW", "MEDIUM", "HIGH"))),
        ("gemini-3.1-flash-lite-image", Levels(("MINIMAL", "HIGH"))),
        ("gemini-3.1-flash-image", Levels(("MINIMAL", "HIGH")), "gemini"),
        ("gemini-3.7-flash", Levels(("LOW", "MEDIUM", "HIGH"))),
        ("gemini-3.8-flash", Levels(("LOW", "MEDIUM", "HIGH"))),
        ("gemini-4-argon", Levels(("LOW", "MEDIUM", "HIGH"))),
        ("gemini-4-carbon", Levels(("LOW", "MEDIUM", "HIGH"))),
        ("gemini-4-neon", Levels(("LOW", "MEDIUM", "HIGH"))),
        # No Pro model takes MINIMAL, so the moving alias is held to what they share.
        ("gemini-pro-latest", Levels(("LOW", "MEDIUM", "HIGH"))),
    )
)
_BUDGET_2_5 = Budget(1, 24576, can_disable=True)

_VERSION = re.compile(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?(?=-|$)")
_BARE_1_0 = frozenset({"gemini-pro", "gemini-pro-vision"})
_IMAGE = re.compile(r"(?:^|-)(?:image|nano-banana)(?:-|$)")
_AUDIO = re.compile(r"(?:^|-)tts(?:-|$)")


def profile(model: str, backend: Backend) -> Profile:
    """Tell what a model can do.

    `model` is the upstream name, with or without `models/` or `publishers/google/models/` and with any
    suffix (`-001`, `-preview-09-2025`, `-latest`). Never raises: a name without a table line gets the
    rules of its generation, a name without a generation those of the newest.
    """
    if len(model) <= LONGEST_KNOWN:
        return _remembered(model, backend)
    return _profile(model, backend)


def _profile(model: str, backend: Backend) -> Profile:
    name = model.rsplit("/", 1)[-1]
    generation = _generation(name)
    age = generation or NEWEST
    on_vertex = backend == "vertex"
    image = _IMAGE.search(name) is not None
    audio = _AUDIO.search(name) is not None
    sampled = age < (3, 6) and not _is_family(name, "gemini-3.5-flash-lite")
    return Profile(
        generation=generation,
        thinking=_thinking(name, age, backend, audio),
        also_accepts_budget=(3, 0) <= age < (4, 0),
        multiple_candidates=age < ((4, 0) if on_vertex else (3, 0)) and not image,
        penalties=age < ((3, 0) if on_vertex else (2, 5)),
        logprobs=on_vertex or age < (2, 5),
        logprobs_streamed=not on_vertex and age < (2, 0),
        prefill=sampled,
        samples=sampled,
        tools_with_json=age >= (3, 0),
        builtin_with_functions=("plain" if on_vertex else "flag") if age >= (3, 0) else "no",
        functions=not (image or audio),
        validated_mode=age >= (2, 5) and not (image or audio),
        signatures_required=age >= (3, 0) and not (image or audio),
        native_ids=not on_vertex or age >= (3, 0),
        multimodal_function_response=age >= (3, 0),
        media_resolution_per_part=age >= (3, 0),
        json_schema=age >= (2, 0),
        caching=age < (4, 0),
        server_tool_parts=not on_vertex and age >= (3, 0),
        stream_arguments=on_vertex and age >= (3, 0),
        image_output=image,
        audio_output=audio,
    )


_remembered = lru_cache(maxsize=1024)(_profile)


def _generation(name: str) -> Generation | None:
    if name in _BARE_1_0:
        return (1, 0)
    found = _VERSION.match(name)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _is_family(name: str, family: str) -> bool:
    return name == family or name.startswith(family + "-")


def _thinking(name: str, age: Generation, backend: Backend, audio: bool) -> Thinking:
    if audio or age < (2, 5):
        return NoThinking()
    for row in _EXCEPTIONS:
        if _is_family(name, row.names) and row.backend in (None, backend):
            return row.thinking
    return _BUDGET_2_5 if age < (3, 0) else Levels(RUNGS)


class _Effort(NamedTuple):
    budget: int
    rung: int
    beyond: bool = False


# The budgets are those of Google's own OpenAI endpoint.
_EFFORTS: dict[str, _Effort] = {
    "minimal": _Effort(1024, 0),
    "low": _Effort(1024, 1),
    "medium": _Effort(8192, 2),
    "high": _Effort(24576, 3),
    "xhigh": _Effort(2**31, 3, beyond=True),
    "max": _Effort(2**31, 3, beyond=True),
}
EFFORTS: tuple[str, ...] = ("none", *_EFFORTS)


def thinking_config(
    effort: str, capabilities: Profile
) -> tuple[ThinkingConfig | None, Deviation | None]:
    """Map a reasoning effort onto what the model takes.

    `effort` is one of `EFFORTS`, in OpenAI's spelling. Returns the config to send (None: send none) and the
    deviation to report (None: exactly what was asked). Levels the model lacks go to the nearest one, on a
    tie to the lower. Raises `InvalidRequestError` for an effort OpenAI does not know.
    """
    if effort != "none" and effort not in _EFFORTS:
        raise InvalidRequestError(
            f"Invalid value: {effort[:64]!r}. Supported values are: "
            + ", ".join(repr(known) for known in EFFORTS)
            + ".",
            code="invalid_value",
            param="reasoning_effort",
        )
    match capabilities.thinking:
        case NoThinking():
            if effort == "none":
                return None, None
            return None, Deviation("dropped", "the model does not think")
        case Budget() as budget:
            return _budget(effort, budget)
        case Levels() as levels:
            return _level(effort, levels)
        case _ as never:
            assert_never(never)


def _budget(effort: str, budget: Budget) -> tuple[ThinkingConfig, Deviation | None]:
    if effort == "none":
        if budget.can_disable:
            return ThinkingConfig(thinkingBudget=0), None
        reason = f"the model cannot stop thinking; its smallest budget is {budget.minimum}"
        return ThinkingConfig(thinkingBudget=budget.minimum), Deviation("approximated", reason)
    wanted = _EFFORTS[effort].budget
    sent = min(max(wanted, budget.minimum), budget.maximum)
    if sent == wanted:
        return ThinkingConfig(thinkingBudget=sent), None
    reason = f"the model's thinking budget ends at {sent} tokens"
    return ThinkingConfig(thinkingBudget=sent), Deviation("clamped", reason)


def _level(effort: str, levels: Levels) -> tuple[ThinkingConfig, Deviation | None]:
    if effort == "none":
        lowest = levels.levels[0]
        reason = f"the model cannot stop thinking; its lowest level is {lowest}"
        return ThinkingConfig(thinkingLevel=lowest), Deviation("approximated", reason)
    wanted = _EFFORTS[effort]
    sent = nearest_level(wanted.rung, levels)
    if sent == RUNGS[wanted.rung] and not wanted.beyond:
        return ThinkingConfig(thinkingLevel=sent), None
    reason = f"the model's nearest thinking level is {sent}"
    return ThinkingConfig(thinkingLevel=sent), Deviation("clamped", reason)


def nearest_level(rung: int, levels: Levels) -> Level:
    """Find the accepted level nearest to a rung (an index into `RUNGS`), on a tie the lower one."""
    return min(levels.levels, key=lambda level: abs(RUNGS.index(level) - rung))


def budget_config(
    budget: int, capabilities: Profile
) -> tuple[ThinkingConfig | None, Deviation | None]:
    """Fit an explicit thinkingBudget (tokens; 0 off, -1 dynamic) to the model (CLIProxyAPI#278).

    Returns what `thinking_config` returns. A level model that takes no budget gets the level whose effort
    stands for at least that many tokens.
    """
    match capabilities.thinking:
        case NoThinking():
            return None, None if budget == 0 else Deviation("dropped", "the model does not think")
        case Budget() as limits:
            return _fit(budget, limits)
        case Levels() as levels:
            if capabilities.also_accepts_budget:
                return ThinkingConfig(thinkingBudget=budget), None
            return _budget_as_level(budget, levels)
        case _ as never:
            assert_never(never)


def _fit(budget: int, limits: Budget) -> tuple[ThinkingConfig, Deviation | None]:
    if budget == DYNAMIC_BUDGET or (budget == 0 and limits.can_disable):
        return ThinkingConfig(thinkingBudget=budget), None
    sent = min(max(budget, limits.minimum), limits.maximum)
    if sent == budget:
        return ThinkingConfig(thinkingBudget=sent), None
    reason = f"the model takes budgets from {limits.minimum} to {limits.maximum}"
    return ThinkingConfig(thinkingBudget=sent), Deviation("clamped", reason)


def _budget_as_level(budget: int, levels: Levels) -> tuple[ThinkingConfig | None, Deviation | None]:
    if budget == DYNAMIC_BUDGET:
        return None, Deviation("rewritten", "the model takes no budget; dynamic is its default")
    rungs = (0, 1, 2) if budget > 0 else (0,)
    ceilings = (0, 1024, 8192)
    rung = next((rung for rung in rungs if budget <= ceilings[rung]), 3)
    sent = nearest_level(rung, levels)
    reason = f"the model takes no budget; level {sent} is the nearest"
    return ThinkingConfig(thinkingLevel=sent), Deviation("approximated", reason)
