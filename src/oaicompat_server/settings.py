"""What can be set, what it is called, and its default.

One rule: a table of the file is a struct here, and every value is checked by its type; what follows from two
settings together is checked where they are merged (`config`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from oaicompat_server.secret import Secret

AuthMode = Literal["auto", "off", "strict", "all_except_health"]
CredentialKind = Literal["api_key", "express", "bearer", "service_account", "adc"]
Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


class ConfigError(Exception):
    """A setting that cannot be honoured; the text is for the person who wrote it and holds no secret."""


class Section(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class ServerSettings(Section, frozen=True):
    """`[server]`: where to listen and how much to take."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8045
    workers: Count = 1
    max_in_flight: Count = 2048
    queue: Annotated[int, Meta(ge=0)] = 256
    queue_wait: Seconds = 2.0
    body_limit: Count = 110 * 1024 * 1024
    body_budget: Count = 128 * 1024 * 1024
    grace: Seconds = 30.0
    check_hosts: bool = True
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    insecure: bool = False
    websocket: bool = True


def share(whole: int, workers: int) -> int:
    """Return a worker's part of what counts for the whole gateway, at least 1 of what is there at all."""
    return max(1, whole // workers) if whole else 0


class AuthSettings(Section, frozen=True):
    """`[auth]`: who may call."""

    mode: AuthMode = "auto"
    keys: tuple[Secret, ...] = ()


class UpstreamSettings(Section, frozen=True):
    """`[upstream]`: whom to call, how long to wait (seconds), how often to try."""

    base_url: str = ""
    http: Literal["fast", "httpcore"] = "fast"
    connect_timeout: Seconds = 5.0
    first_byte_timeout: Seconds = 300.0
    idle_timeout: Seconds = 120.0
    total_timeout: Seconds = 600.0
    total_timeout_stream: Seconds = 3600.0
    attempts: Annotated[int, Meta(ge=1, le=3)] = 3
    max_idle: Annotated[int, Meta(ge=0)] = 512
    idle_expiry: Seconds = 60.0


class ModelSettings(Section, frozen=True):
    """`[models]`: which name calls which model, and what the list shows."""

    aliases: Mapping[str, str | tuple[str, ...]] = {}
    default: str = ""
    preset: str = ""
    builtin: bool = True
    list_upstream: bool = True


class HeaderSettings(Section, frozen=True):
    """`[headers]`: what replies tell about themselves."""

    account: bool = True
    notes: bool = True


class RequestSettings(Section, frozen=True):
    """`[request]`: how requests are taken."""

    strict: bool = False


class AnswerSettings(Section, frozen=True):
    """`[answer]`: how answers are dressed where OpenAI's wire leaves a choice."""

    images: Literal["list", "markdown"] = "list"
    code: Literal["carrier", "fenced"] = "carrier"
    thoughts: bool | None = None
    keepalive: Seconds = 15.0
    keepalive_responses: Seconds = 60.0


class MediaSettings(Section, frozen=True):
    """`[media]`: whether the gateway fetches the media that requests link to, and how much (bytes, seconds).

    `allowed_hosts` are names, or `*.` and a name for all below it; empty for every public host.
    """

    fetch: bool = False
    max_bytes: Count = 20 * 1024 * 1024
    timeout: Seconds = 10.0
    max_urls: Count = 8
    allowed_hosts: tuple[str, ...] = ()


class StateSettings(Section, frozen=True):
    """`[state]`: where responses, conversations and what belongs to them are kept, and how long.

    `path` is a file, empty for the default place; `max_bytes` bounds what the memory and the file hold.
    """

    store: Literal["sqlite", "memory", "redis"] = "sqlite"
    path: str = ""
    redis_url: Secret = Secret("")
    retention_days: Annotated[float, Meta(gt=0)] = 30.0
    max_bytes: Count = 1024 * 1024 * 1024


class CredentialSettings(Section, frozen=True):
    """`[[credentials]]`: one key, token or account, written here or fetched from a variable or a file.

    `key` is the secret itself; for a service account the JSON of its key file.
    """

    kind: CredentialKind = "api_key"
    key: Secret = Secret("")
    key_env: str = ""
    key_file: str = ""
    label: str = ""
    base_url: str = ""
    weight: Annotated[float, Meta(gt=0, le=1_000_000)] = 1.0
    priority: Annotated[int, Meta(ge=0)] = 0
    quota_group: str = ""
    models: tuple[str, ...] = ()
    project: str = ""
    location: str = ""
    proxy: Secret = Secret("")


class Config(Section, frozen=True):
    """All settings, complete and checked."""

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    models: ModelSettings = ModelSettings()
    headers: HeaderSettings = HeaderSettings()
    request: RequestSettings = RequestSettings()
    answer: AnswerSettings = AnswerSettings()
    media: MediaSettings = MediaSettings()
    state: StateSettings = StateSettings()
    credentials: tuple[CredentialSettings, ...] = ()
