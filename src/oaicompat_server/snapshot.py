"""What settings become: who may call, which models there are, whose credentials serve, how answers are dressed.

One rule: a snapshot is made whole or not at all, and never changed; new settings are a new one, put in the
place of the old by one assignment. What runs goes on with what it took from the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from msgspec import Struct
from msgspec.structs import fields, replace

from oaicompat.dialects import AnswerOptions, Keep
from oaicompat.exchange import Options
from oaicompat.models import PRESETS, ModelMap
from oaicompat.providers.gemini.context import EncodeOptions
from oaicompat.retry import RetryPolicy
from oaicompat_server.auth import Access, plan_access
from oaicompat_server.links import Hosts
from oaicompat_server.pool import Credential, Pool, SourceOf, TokenSource
from oaicompat_server.settings import Config, ConfigError, CredentialSettings

RESTART = frozenset(
    {
        "server.host",
        "server.port",
        "server.workers",
        "server.max_in_flight",
        "server.queue",
        "server.queue_wait",
        "server.body_limit",
        "server.grace",
        "server.body_budget",
        "upstream.http",
        "upstream.max_idle",
        "upstream.idle_expiry",
        *(f"state.{field.name}" for field in fields(type(Config().state))),
    }
)
"""The settings that are read once, when the gateway starts."""


class Snapshot(Struct, frozen=True):
    """Settings, and what follows from them; `number` counts how often they were loaded."""

    config: Config
    access: Access
    models: ModelMap
    pool: Pool
    policy: RetryPolicy
    options: Mapping[Keep, Options]
    number: int = 1


def snapshot(config: Config, source_of: SourceOf | None = None) -> Snapshot:
    """Return what these settings become; raises `ConfigError` for a start that would be unsafe or of no use."""
    _check_hosts(config)
    return Snapshot(
        config,
        plan_access(config),
        model_map(config),
        Pool([Credential.of(entry, source_of) for entry in config.credentials]),
        RetryPolicy(attempts=config.upstream.attempts),
        _options(config),
    )


class Sources:
    """Makes the token sources of credentials, the same one for the same credential."""

    def __init__(self, make: SourceOf) -> None:
        self._make = make
        self._made: dict[CredentialSettings, TokenSource] = {}

    def __call__(self, settings: CredentialSettings) -> TokenSource:
        """Return the source of a credential; raises `ConfigError` where it cannot be made."""
        if settings not in self._made:
            self._made[settings] = self._make(settings)
        return self._made[settings]


def model_map(config: Config) -> ModelMap:
    """Return the mapping of model names that the settings describe; raises `ConfigError`."""
    settings = config.models
    preset: Mapping[str, str] = {}
    if settings.preset:
        if settings.preset not in PRESETS:
            raise ConfigError(
                f"models.preset: unknown preset {settings.preset!r}; valid are {', '.join(PRESETS)}"
            )
        preset = PRESETS[settings.preset]
    try:
        return ModelMap({**preset, **settings.aliases}, settings.default or None, settings.builtin)
    except ValueError as error:
        raise ConfigError(f"models.aliases: {error}") from None


def _check_hosts(config: Config) -> None:
    try:
        Hosts(config.media.allowed_hosts)
    except ValueError as error:
        raise ConfigError(f"media.allowed_hosts: {error}") from None


def pinned(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """Return the new settings, but the old where they are read only at the start, and the names of those."""
    changed = []
    for name in sorted(RESTART):
        section, _, key = name.partition(".")
        before, after = getattr(old, section), getattr(new, section)
        if getattr(before, key) != getattr(after, key):
            changed.append(name)
            new = replace(new, **{section: replace(after, **{key: getattr(before, key)})})
    return new, tuple(changed)


def _options(config: Config) -> dict[Keep, Options]:
    answer = config.answer
    options = Options(
        answer=AnswerOptions(images=answer.images, code=answer.code),
        encode=EncodeOptions(thoughts=answer.thoughts),
        fetch_media=config.media.fetch,
    )
    return {keep: replace(options, keep=keep) for keep in get_args(Keep)}
