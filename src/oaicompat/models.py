"""Model names: what the client asked for, what is called, and what may go into an upstream URL.

One rule: exact beats wildcard beats built-in beats default, and nothing is looked up twice. Suffixes of a
name mean nothing; the prefix `models/` is part of no name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Literal, NoReturn

from msgspec import Struct

from .errors import ModelNotFoundError

_FLASH = "gemini-2.5-flash"
_FLASH_LITE = "gemini-2.5-flash-lite"
_NEW_FLASH = "gemini-3.8-flash"
_NEW_FLASH_LITE = "gemini-3.5-flash-lite"
_PRO = "gemini-2.5-pro"
_NEW_PRO = "gemini-3.1-pro-preview"

BUILTIN_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "gpt-3.5-turbo": _FLASH,
        "gpt-3.5*": _FLASH,
        "gpt-4": _FLASH,
        "gpt-4-*": _FLASH,
        "gpt-4-turbo": _FLASH,
        "gpt-4o": _FLASH,
        "gpt-4o-*": _FLASH,
        "gpt-4o-mini": _FLASH_LITE,
        "gpt-4o-mini-*": _FLASH_LITE,
        "chatgpt-4o-latest": _FLASH,
        "chatgpt-*": _FLASH,
        "gpt-4.1": _PRO,
        "gpt-4.1-*": _PRO,
        "gpt-4.1-mini": _FLASH,
        "gpt-4.1-mini-*": _FLASH,
        "gpt-4.1-nano": _FLASH_LITE,
        "gpt-4.1-nano-*": _FLASH_LITE,
        "gpt-4.5*": _PRO,
        "gpt-5": _NEW_PRO,
        "gpt-5*": _NEW_PRO,
        "gpt-5-mini": _NEW_FLASH,
        "gpt-5*-mini*": _NEW_FLASH,
        "gpt-5-nano": _NEW_FLASH_LITE,
        "gpt-5*-nano*": _NEW_FLASH_LITE,
        "o1": _NEW_PRO,
        "o1-*": _NEW_PRO,
        "o1-mini*": _NEW_FLASH,
        "o3": _NEW_PRO,
        "o3-*": _NEW_PRO,
        "o3-mini": _NEW_FLASH,
        "o3-mini-*": _NEW_FLASH,
        "o4-*": _NEW_PRO,
        "o4-mini": _NEW_FLASH,
        "o4-mini-*": _NEW_FLASH,
        "*codex*": _NEW_PRO,
        "*codex*mini*": _NEW_FLASH,
        # Short names people use that the service itself does not know, and names it has retired.
        "gemini-3-flash": "gemini-3-flash-preview",
        "gemini-3-pro": _NEW_PRO,
        "gemini-3-pro-preview": _NEW_PRO,
        "gemini-3.1-pro": _NEW_PRO,
        "gemini-pro": "gemini-pro-latest",
        "gemini-flash": "gemini-flash-latest",
        "gemini-flash-lite": "gemini-flash-lite-latest",
    }
)
"""The built-in table: names of OpenAI models, and Gemini names without their suffix (gemini-wire section 8)."""


def _tiers(large: str, middle: str, small: str) -> MappingProxyType[str, str]:
    """Spread the OpenAI families over three Gemini models."""
    return MappingProxyType(
        {
            "gpt-3.5*": small,
            "gpt-4*": large,
            "gpt-4o*": middle,
            "gpt-4o-mini*": small,
            "gpt-4.1*": large,
            "gpt-4.1-mini*": middle,
            "gpt-4.1-nano*": small,
            "gpt-5*": large,
            "gpt-5*-mini*": middle,
            "gpt-5*-nano*": small,
            "chatgpt-*": middle,
            "o1*": large,
            "o3*": large,
            "o4*": large,
            "o1-mini*": middle,
            "o3-mini*": middle,
            "o4-mini*": middle,
            "*codex*": large,
            "*codex*mini*": middle,
        }
    )


PRESETS: Mapping[str, MappingProxyType[str, str]] = MappingProxyType(
    {
        "default": _tiers(_NEW_PRO, "gemini-3-flash-preview", _FLASH),
        "performance": _tiers(_NEW_PRO, _NEW_PRO, _NEW_FLASH),
        "balanced": _tiers(_PRO, _NEW_FLASH, _FLASH),
        "cost-effective": _tiers(_FLASH, _FLASH, _FLASH_LITE),
    }
)
"""Named alias tables for `ModelMap(PRESETS[name] | own)`; own entries of the same key win."""


LONGEST_KNOWN = 256
"""Characters of the longest name that is remembered; no longer one can be called."""


class Resolved(Struct, frozen=True, gc=False):
    """A looked-up name: what the client asked for, what is called, and the rule that said so.

    `fallbacks` are called in their order where what comes before cannot serve.
    """

    requested: str
    model: str
    rule: Literal["exact", "wildcard", "builtin", "default", "pass"]
    fallbacks: tuple[str, ...] = ()

    def after(self, model: str) -> tuple[str, ...]:
        """Return what is called where this model, one of them, cannot serve."""
        if not self.fallbacks:
            return ()
        chain = (self.model, *self.fallbacks)
        return chain[chain.index(model) + 1 :] if model in chain else ()


Targets = str | Sequence[str]
"""What a name stands for: one model, or several in the order in which they are tried."""


def _bare(name: str) -> str:
    return name.removeprefix("models/")


class _Pattern:
    """A name with stars, cut at them: matching is find after find, linear in the name."""

    __slots__ = ("_first", "_last", "_middle", "rank", "targets")

    def __init__(self, key: str, targets: tuple[str, ...]) -> None:
        self._first, *inner, self._last = key.split("*")
        self._middle = tuple(filter(None, inner))
        self.targets = targets
        # Stars side by side count as one. Sorting is stable, so the order of configuration decides at last.
        self.rank = (-len(key.replace("*", "")), len(self._middle) + 1, -len(self._first))

    def matches(self, name: str) -> bool:
        if not name.startswith(self._first) or not name.endswith(self._last):
            return False
        position = len(self._first)
        for literal in self._middle:
            found = name.find(literal, position)
            if found < 0:
                return False
            position = found + len(literal)
        return position <= len(name) - len(self._last)


class _Table:
    """Aliases prepared for lookup; a key with stars is found by its own spelling as well."""

    __slots__ = ("exact", "patterns")

    def __init__(self, aliases: Mapping[str, Targets]) -> None:
        self.exact = {_bare(key): _targets(key, targets) for key, targets in aliases.items()}
        patterns = (_Pattern(key, targets) for key, targets in self.exact.items() if "*" in key)
        self.patterns = tuple(sorted(patterns, key=lambda pattern: pattern.rank))

    def wildcard(self, name: str) -> tuple[str, ...] | None:
        return next((each.targets for each in self.patterns if each.matches(name)), None)

    def find(self, name: str) -> tuple[str, ...] | None:
        return self.exact.get(name) or self.wildcard(name)


def _targets(name: str, targets: Targets) -> tuple[str, ...]:
    listed = (targets,) if isinstance(targets, str) else targets
    found = tuple(dict.fromkeys(_bare(target) for target in listed))
    if not all(found) or not found:
        raise ValueError(f"alias {name!r} names no model")
    return found


def name_matcher(patterns: Collection[str]) -> Callable[[str], bool]:
    """Return what tells whether a name matches one of these names and patterns, `*` being any characters."""
    table = _Table(dict.fromkeys(patterns, "x"))
    return lambda name: table.find(_bare(name)) is not None


_REMEMBERED = 1024
_BUILTIN_TABLE = _Table(BUILTIN_ALIASES)
_NATIVE = re.compile(
    r"(?:gemini|gemma|learnlm|imagen|veo|nano-banana)-|tunedModels/|publishers/|endpoints/"
)


def _resolved(table: _Table, default: str | None, builtin: bool, name: str) -> Resolved:
    bare = _bare(name)
    if (targets := table.exact.get(bare)) is not None:
        return Resolved(name, targets[0], "exact", targets[1:])
    if (targets := table.wildcard(bare)) is not None:
        return Resolved(name, targets[0], "wildcard", targets[1:])
    if builtin and (targets := _BUILTIN_TABLE.find(bare)) is not None:
        return Resolved(name, targets[0], "builtin")
    if default is None or (builtin and _NATIVE.match(bare)):
        return Resolved(name, bare, "pass")
    return Resolved(name, default, "default")


class ModelMap:
    """Decides which upstream model a name stands for; immutable.

    `aliases` maps names, or patterns with `*` for any run of characters, to upstream names, several where the
    later ones are fallbacks; among patterns the one with most literal characters wins, then fewer stars, then
    the longer literal start, then the earlier entry. `default` takes names that nothing else knows; without it
    they pass through. With `builtin`, Google's own names are known and never go to `default`. Raises
    `ValueError` for an alias that names no model.
    """

    __slots__ = ("_builtin", "_look_up", "_remembered", "_table")

    _builtin: bool
    _look_up: Callable[[str], Resolved]
    _remembered: Callable[[str], Resolved]
    _table: _Table

    def __init__(
        self,
        aliases: Mapping[str, Targets] = MappingProxyType({}),
        default: str | None = None,
        builtin: bool = True,
    ) -> None:
        table = _Table(aliases)
        look_up = partial(_resolved, table, None if default is None else _bare(default), builtin)
        object.__setattr__(self, "_table", table)
        object.__setattr__(self, "_builtin", builtin)
        object.__setattr__(self, "_look_up", look_up)
        object.__setattr__(self, "_remembered", lru_cache(_REMEMBERED)(look_up))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a ModelMap is immutable")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a ModelMap is immutable")

    def resolve(self, name: str) -> Resolved:
        """Look a requested name up once, case-sensitively; a target is not looked up again."""
        return self._remembered(name) if len(name) <= LONGEST_KNOWN else self._look_up(name)

    def aliases(self) -> tuple[str, ...]:
        """Return the names to list as models, sorted: no patterns, built-in names where those apply."""
        names = {*self._table.exact, *(_BUILTIN_TABLE.exact if self._builtin else ())}
        return tuple(sorted(name for name in names if "*" not in name))


BUILTIN = ModelMap()
"""The built-in table alone; names it does not know pass through."""

_UPSTREAM_NAME = re.compile(
    r"(?:tunedModels/|publishers/google/models/|endpoints/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
)


def upstream_name(model: str) -> str:
    """Return a model name that is safe in an upstream URL, unchanged.

    Raises `ModelNotFoundError` in OpenAI's words otherwise: such a model cannot exist (reliability F1).
    """
    if _UPSTREAM_NAME.fullmatch(model):
        return model
    shown = "".join(filter(str.isprintable, model[:400]))[:100]
    raise ModelNotFoundError(
        f"The model `{shown}` does not exist or you do not have access to it.", param="model"
    )
