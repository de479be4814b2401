"""How hard the model thinks, and whether it shows it: two switches that do not touch each other.

One rule: the effort is fitted to the model by its profile and every clamp is reported; thoughts are asked for
only where somebody wants to see them (hermes-agent#64036). `extra_body.google.thinking_config` is taken as
Google's own OpenAI endpoint takes it, which refuses it together with an effort.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from oaicompat.errors import InvalidRequestError
from oaicompat.providers.gemini import profiles
from oaicompat.providers.gemini.context import Context
from oaicompat.providers.gemini.profiles import Deviation, NoThinking
from oaicompat.providers.gemini.schema import ThinkingConfig

_NOTHING = ThinkingConfig()


class Explicit(Struct, frozen=True):
    """The thinking config a client spelled out, its keys in camel case, and where."""

    fields: Mapping[str, Raw]
    path: str


class _Wanted(Struct, frozen=True, rename="camel"):
    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


def encode_thinking(context: Context, explicit: Explicit | None) -> ThinkingConfig | None:
    """Encode the thinking config; `None` where there is nothing to say.

    Raises `InvalidRequestError` for an effort that OpenAI does not know, for an effort together with an
    explicit config, and for a config that Gemini would refuse whatever the model.
    """
    reasoning = context.request.reasoning
    shown = reasoning.visible if reasoning else None
    if explicit is None:
        effort = reasoning.effort if reasoning else None
        path = reasoning.path if reasoning else "reasoning_effort"
        config = _from_effort(effort, path, context)
    else:
        if reasoning and reasoning.effort is not None:
            raise InvalidRequestError(
                f"'{reasoning.path}' and '{explicit.path}' cannot be used together.",
                param=reasoning.path,
            )
        wanted = _wanted(explicit)
        path = explicit.path
        config = _from_config(wanted, path, context)
        shown = shown if wanted.include_thoughts is None else wanted.include_thoughts
    config = replace(config, include_thoughts=_visibility(shown, config, path, context))
    return None if config == _NOTHING else config


def _visibility(
    shown: bool | None, config: ThinkingConfig, path: str, context: Context
) -> bool | None:
    if shown is False or not (shown or context.options.thoughts):
        return None
    if isinstance(context.profile.thinking, NoThinking):
        if shown:
            context.notes.dropped(path, "the model does not think, so there are no thoughts")
        return None
    # A model that was told not to think refuses to show thoughts.
    return None if config.thinking_budget == 0 else True


def _from_effort(effort: str | None, path: str, context: Context) -> ThinkingConfig:
    if effort is None:
        return _NOTHING
    try:
        config, deviation = profiles.thinking_config(effort, context.profile)
    except InvalidRequestError as error:
        raise InvalidRequestError(error.message, code=error.code, param=path) from None
    return _noted(config, deviation, path, context)


def _wanted(explicit: Explicit) -> _Wanted:
    known = {field.encode_name for field in msgspec.structs.fields(_Wanted)}
    for name in explicit.fields:
        if name not in known:
            raise InvalidRequestError(
                f"Unknown field {name[:64]!r} in '{explicit.path}'.", param=explicit.path
            )
    try:
        wanted = msgspec.json.decode(msgspec.json.encode(explicit.fields), type=_Wanted)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(
            f"Invalid '{explicit.path}': {error}.", param=explicit.path
        ) from None
    if wanted.thinking_budget is not None and wanted.thinking_level is not None:
        raise InvalidRequestError(
            "You can only set one of thinking_budget and thinking_level.", param=explicit.path
        )
    return wanted


def _from_config(wanted: _Wanted, path: str, context: Context) -> ThinkingConfig:
    if wanted.thinking_level is not None:
        return _from_effort(wanted.thinking_level.lower(), f"{path}.thinking_level", context)
    if wanted.thinking_budget is None:
        return _NOTHING
    config, deviation = profiles.budget_config(wanted.thinking_budget, context.profile)
    return _noted(config, deviation, f"{path}.thinking_budget", context)


def _noted(
    config: profiles.ThinkingConfig | None,
    deviation: Deviation | None,
    path: str,
    context: Context,
) -> ThinkingConfig:
    if deviation is not None:
        getattr(context.notes, deviation.action)(path, deviation.reason)
    if config is None:
        return _NOTHING
    return ThinkingConfig(
        thinking_budget=config.thinkingBudget, thinking_level=config.thinkingLevel
    )
