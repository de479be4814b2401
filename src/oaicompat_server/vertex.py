"""Tokens for Vertex AI: of a service account's key, or of the application default credentials.

One rule: google-auth knows how a token is had, and nothing of what it says is passed on; errors are told in
our words, so that no key, assertion or token stands in them. google-auth is imported when it is needed.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import anyio
import anyio.to_thread
from msgspec import Struct

from oaicompat.errors import InvalidRequestError, UpstreamError
from oaicompat.providers.gemini.endpoints import Target
from oaicompat_server.secret import Secret
from oaicompat_server.settings import ConfigError, CredentialSettings, UpstreamSettings
from oaicompat_server.token_requests import TokenReply, TokenRequest, is_trusted
from oaicompat_server.tokens import REFRESH_SECONDS, Minted, Tokens, late, unusable
from oaicompat_server.upstream import Upstream

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_TOKEN_URI = "https://oauth2.googleapis.com/token"
_UNIVERSE = "googleapis.com"
_UNKNOWN_LIFE = 300.0
_LONGEST_LIFE = 12 * 3600.0
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")
_CODE = re.compile(r"[A-Za-z_]{1,40}")
_HINTS = (
    ("timeframe", "the clock of this machine is wrong"),
    ("signature", "the key was deleted or disabled"),
    ("not found", "the account does not exist"),
    ("rapt", "the login has to be repeated (gcloud auth application-default login)"),
    ("expired or revoked", "the login has to be repeated (gcloud auth application-default login)"),
)
"""What Google's description of a refusal tells of its cause, lower case."""


class GoogleCredentials(Protocol):
    """What is used of google-auth's credentials; `expiry` is naive and in UTC."""

    token: str | None
    expiry: datetime | None

    def refresh(self, request: TokenRequest) -> None:
        """Make a new token; blocks."""
        ...


class Account(Struct, frozen=True):
    """Whose tokens are made; empty text where google-auth does not know."""

    credentials: GoogleCredentials
    project: str
    quota_project: str = ""


class VertexTokens(Tokens):
    """The tokens of one account.

    `project` is where it calls; for default credentials without a configured project it is known, and
    valid, once there was a token. `quota_project` belongs in the header `x-goog-user-project`, if any.
    """

    def __init__(
        self,
        settings: CredentialSettings,
        find: Callable[[TokenRequest], Account],
        name: str,
        *,
        upstream: Upstream | None,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        seconds: float,
    ) -> None:
        super().__init__(self._made, name, clock=clock, jitter=jitter, seconds=seconds)
        waits = UpstreamSettings(first_byte_timeout=seconds, idle_timeout=seconds, max_idle=0)
        self._own = upstream is None
        self._upstream = Upstream(waits) if upstream is None else upstream
        self._settings = settings
        self._find = find
        self._account: Account | None = None
        self._threads = anyio.CapacityLimiter(1)
        self._at_work = threading.Lock()

    @property
    def project(self) -> str:
        """Return the project, "" while it is unknown."""
        return self._settings.project or (self._account.project if self._account else "")

    @property
    def quota_project(self) -> str:
        """Return the project that is to pay, "" for the one that is called."""
        return self._account.quota_project if self._account else ""

    async def _made(self) -> Minted:
        deadline = time.monotonic() + self._seconds
        loop = asyncio.get_running_loop()
        request = TokenRequest(loop, self._upstream, deadline, self._settings.proxy)
        return await anyio.to_thread.run_sync(
            self._make, request, abandon_on_cancel=True, limiter=self._threads
        )

    def _make(self, request: TokenRequest) -> Minted:
        # A thread that was left behind may still be at it; google-auth's objects are not for two.
        if not self._at_work.acquire(blocking=False):
            raise late()
        try:
            if self._own:
                self._upstream.secure()
            if self._account is None:
                self._account = self._found(request)
            self._account.credentials.refresh(request)
            return _minted(self._account.credentials)
        except UpstreamError:
            raise
        except Exception as failure:
            raise _explained(request, failure) from None
        finally:
            self._at_work.release()

    def _found(self, request: TokenRequest) -> Account:
        account = self._find(request)
        if not self._settings.project:
            try:
                Target("vertex", project=account.project)
            except InvalidRequestError:
                raise _refused("name no valid project; set `project`") from None
        return account


def token_source(
    settings: CredentialSettings,
    *,
    upstream: Upstream | None = None,
    clock: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
    seconds: float = REFRESH_SECONDS,
) -> VertexTokens:
    """Return what makes the tokens of a credential of kind `service_account` or `adc`.

    Nothing is sent yet. `upstream` opens connections, `clock` gives Unix seconds, `jitter` a number in
    [0, 1); a refresh takes at most `seconds`. Raises `ConfigError` for a key that cannot be used, and where
    google-auth is not installed. Source: gemini-wire section 1, "Service accounts".
    """
    find, name = _service_account(settings) if settings.kind == "service_account" else _default()
    return VertexTokens(
        settings,
        find,
        settings.label or name,
        upstream=upstream,
        clock=clock,
        jitter=jitter,
        seconds=seconds,
    )


def _service_account(
    settings: CredentialSettings,
) -> tuple[Callable[[TokenRequest], Account], str]:
    module = _google("google.oauth2.service_account", settings)
    try:
        info = {"token_uri": _TOKEN_URI, **json.loads(settings.key.reveal())}
        credentials = module.Credentials.from_service_account_info(info, scopes=_SCOPES)
        email, project = str(info["client_email"]), str(info.get("project_id", ""))
    except Exception:
        credentials = None
    if credentials is None:
        raise ConfigError("credentials: the private key of a service account cannot be read")
    if not is_trusted(str(info["token_uri"])):
        raise ConfigError(f"credentials: the token_uri in the key of {email} is not Google's")
    if info.get("universe_domain", _UNIVERSE) != _UNIVERSE:
        raise ConfigError(f"credentials: the key of {email} is of another universe_domain")
    account = Account(credentials, project)
    return lambda request: account, email


def _default() -> tuple[Callable[[TokenRequest], Account], str]:
    auth = _google("google.auth", CredentialSettings(kind="adc"))
    exceptions = import_module("google.auth.exceptions")

    def find(request: TokenRequest) -> Account:
        request.probing = exceptions.TransportError
        try:
            credentials, project = auth.default(scopes=_SCOPES, request=request)
        finally:
            request.probing = None
        quota = getattr(credentials, "quota_project_id", None)
        return Account(credentials, project or "", quota if isinstance(quota, str) else "")

    return find, "the application default credentials"


def _google(name: str, settings: CredentialSettings) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            f"credentials: kind {settings.kind!r} needs the package google-auth: "
            'pip install "oaicompat-server[vertex]"'
        ) from None


def _minted(credentials: GoogleCredentials) -> Minted:
    token, expiry = credentials.token, credentials.expiry
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise unusable()
    life = _UNKNOWN_LIFE
    if expiry is not None:
        life = (expiry - datetime.now(UTC).replace(tzinfo=None)).total_seconds()
    return Minted(Secret(token), min(life, _LONGEST_LIFE))


def _explained(request: TokenRequest, failure: Exception) -> UpstreamError:
    """Return why there is no token: what google-auth raised, beside the last answer that it got."""
    missing = import_module("google.auth.exceptions").DefaultCredentialsError
    if isinstance(failure, missing):
        return _refused("were not found or cannot be used")
    if request.failure is not None:
        return request.failure
    if request.last is None:
        return _refused("cannot be used")
    return _refusal(request.last) or unusable(request.last.status)


def _refusal(reply: TokenReply) -> UpstreamError | None:
    """Return the error for a refusal in OAuth's form or Google's, None for any other answer."""
    if not 400 <= reply.status < 500:
        return None
    try:
        body: Any = json.loads(reply.data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    code = error.get("status") if isinstance(error, dict) else error
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return None
    told = f"{body.get('error_description')} {body.get('error_subtype')}".lower()
    hint = next((f": {said}" for pattern, said in _HINTS if pattern in told), "")
    return _refused(f"are refused by Google ({code}){hint}", reply.status)


def _refused(what: str, status: int | None = None) -> UpstreamError:
    return UpstreamError(
        f"The credentials for Vertex AI {what}.",
        status=503,
        should_retry=False,
        retryable=True,
        cause="credential",
        upstream_status=status,
    )
