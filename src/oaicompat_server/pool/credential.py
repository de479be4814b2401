"""One credential: what is shown to the upstream, where it is used, and what it may serve.

One rule: the secret stays inside its `Secret`; whatever names a credential elsewhere is its account or its
identity, from which the secret cannot be had. Tokens that expire come from a source, which is plugged in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Protocol

from msgspec import Struct

from oaicompat.providers.gemini.endpoints import Target
from oaicompat_server.credential_entries import service_account
from oaicompat_server.secret import Secret
from oaicompat_server.settings import ConfigError, CredentialKind, CredentialSettings

_SOURCED: frozenset[CredentialKind] = frozenset({"service_account", "adc"})


class TokenSource(Protocol):
    """Gives the tokens of one credential.

    A refresh belongs to the source and not to who waits for it: a request that leaves takes no other along.
    """

    @property
    def project(self) -> str:
        """Return the project that the account is of, "" where that is not known, or not yet."""
        ...

    @property
    def quota_project(self) -> str:
        """Return the project that is to pay, "" for the one that is called."""
        ...

    async def token(self) -> Secret:
        """Return a token that is valid now; raises `UpstreamError` where none can be had."""
        ...

    def renew(self) -> None:
        """Forget the token that is held, because the upstream refused it."""
        ...


SourceOf = Callable[[CredentialSettings], TokenSource]
"""Makes the source of a credential that needs one; raises `ConfigError` where it cannot."""


class Credential(Struct, frozen=True, cache_hash=True):
    """One key, token or account, and where it is used; `base_url` is empty for the default.

    `priority` is the tier, the lowest is served first; `weight` its share within the tier; `quota_group` names
    those that share one quota. `models` are patterns of what it may serve, empty for all. `proxy` is the URL
    of the proxy to go through, empty for none. `email` names a service account.
    """

    secret: Secret
    label: str = ""
    base_url: str = ""
    kind: CredentialKind = "api_key"
    weight: float = 1.0
    priority: int = 0
    quota_group: str = ""
    models: tuple[str, ...] = ()
    project: str = ""
    location: str = "global"
    proxy: Secret = Secret("")
    email: str = ""
    source: TokenSource | None = None

    @classmethod
    def of(cls, settings: CredentialSettings, source_of: SourceOf | None = None) -> Credential:
        """Return the credential that a settings entry describes; raises `ConfigError` without its source."""
        source = None
        if settings.kind in _SOURCED:
            if source_of is None:
                raise ConfigError(f"credentials: kind {settings.kind!r} needs a source of tokens")
            source = source_of(settings)
        email = ""
        if settings.kind == "service_account":
            email = service_account(settings.key).client_email
        return cls(
            secret=settings.key,
            label=settings.label,
            base_url=settings.base_url,
            kind=settings.kind,
            weight=settings.weight,
            priority=settings.priority,
            quota_group=settings.quota_group,
            models=settings.models,
            project=settings.project,
            location=settings.location or "global",
            proxy=settings.proxy,
            email=email,
            source=source,
        )

    @property
    def account(self) -> str:
        """Return the name shown in `X-Account-Email`: the account's, the label, else a fingerprint."""
        if self.email or self.label:
            return self.email or self.label
        if self.secret:
            return f"key-{self.secret.fingerprint()}"
        return f"{self.kind}-{self.project or self.identity[:8]}"

    @property
    def identity(self) -> str:
        """Return 32 hexadecimal digits that stay the same over restarts and on other machines."""
        parts = (self.kind, self.secret.reveal(), self.base_url, self.project, self.location)
        return sha256("\0".join(parts).encode("utf-8")).hexdigest()[:32]

    @property
    def door(self) -> str:
        """Name the front door: a model that is overloaded behind one may be well behind another."""
        if self.kind == "api_key":
            return f"gemini {self.base_url}".strip()
        location = "express" if self.kind == "express" else self.location
        return f"vertex {location} {self.base_url}".strip()

    def target(self, base_url: str, model: str = "") -> Target:
        """Return where this credential is used; `base_url` is the configured address of the Gemini API.

        The project of default credentials may be known only once there was a `proof`.
        """
        project = self.project or (self.source.project if self.source else "")
        return _target(self, base_url, model, project)

    @property
    def payer(self) -> str:
        """Return the project whose quota is used, "" for the one that is called."""
        return self.source.quota_project if self.source else ""

    async def proof(self) -> Secret:
        """Return what the upstream wants to see: the key, or a token that is valid now.

        Raises `UpstreamError` where the source has none.
        """
        return self.secret if self.source is None else await self.source.token()


@lru_cache(512)
def _target(credential: Credential, base_url: str, model: str, project: str) -> Target:
    own = credential.base_url
    if credential.kind == "api_key":
        return Target(base_url=own or base_url, model=model)
    if credential.kind == "express":
        return Target("vertex", own, model=model, express=True)
    return Target("vertex", own, model=model, project=project, location=credential.location)
