"""The model list: what the upstream offers, and the names that are mapped onto it.

One rule: the list is kept for five minutes and outlives an upstream that fails; the names of the mapping are
always there. Ids carry no `models/` prefix, so that what is listed can be sent back as `model`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import quote

import anyio
import msgspec
from msgspec import Struct

from oaicompat.errors import OaicompatError, UpstreamError, UpstreamProtocolError
from oaicompat.providers.gemini.endpoints import Target, models_url
from oaicompat.providers.gemini.endpoints import headers as endpoint_headers
from oaicompat.providers.gemini.errors import decode_error
from oaicompat_server.failures import log_failure
from oaicompat_server.pool import Credential, Wanted
from oaicompat_server.secret import Secret, keeping_out
from oaicompat_server.snapshot import Snapshot
from oaicompat_server.upstream import Upstream

_FRESH_SECONDS = 300.0
_FAILED_SECONDS = 10.0
_MOST_PAGES = 20
_CREATED = 1706745600


class _Model(Struct):
    name: str = ""
    supportedGenerationMethods: list[str] = []


class _Page(Struct):
    models: list[_Model] = []
    nextPageToken: str = ""


class _Get(Struct, frozen=True):
    """A request without a body, as `Upstream.open` takes it."""

    url: str
    method: str = "GET"
    body: bytes = b""


async def fetch_models(upstream: Upstream, target: Target, credential: Credential) -> list[str]:
    """Return the ids of the models that generate content, over all pages; raises `UpstreamError`."""
    proof = await credential.proof()
    with keeping_out(proof):
        return await _fetch_pages(upstream, target, proof, credential.proxy)


async def _fetch_pages(
    upstream: Upstream, target: Target, proof: Secret, proxy: Secret
) -> list[str]:
    first = models_url(target)
    lines = endpoint_headers(target, proof.reveal())
    found: list[str] = []
    url = first
    for _ in range(_MOST_PAGES):
        if url is None:
            break
        page = await _fetch_page(upstream, url, lines, proxy)
        found += [
            model.name.removeprefix("models/")
            for model in page.models
            if "generateContent" in model.supportedGenerationMethods
        ]
        token = page.nextPageToken
        url = f"{first}&pageToken={quote(token, safe='')}" if token else None
    return found


async def _fetch_page(
    upstream: Upstream, url: str, lines: tuple[tuple[str, str], ...], proxy: Secret
) -> _Page:
    async with upstream.open(_Get(url), lines, proxy=proxy) as response:
        body = b"".join([chunk async for chunk in response])
    if response.status != 200:
        raise decode_error(response.status, response.headers, body, model="")
    try:
        return msgspec.json.decode(body, type=_Page)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamProtocolError(
            "The upstream's model list could not be read.", code="upstream_malformed"
        ) from None


class ModelList:
    """Answers what models there are."""

    def __init__(self, settings: Callable[[], Snapshot], upstream: Upstream) -> None:
        self._settings = settings
        self._upstream = upstream
        self._listed: Snapshot | None = None
        self._known: list[str] = []
        self._until = 0.0
        self._failure: UpstreamError | None = None
        self._lock = anyio.Lock()

    async def entries(self) -> list[dict[str, object]]:
        """Return the list's entries, sorted by id: the upstream's models, then the names mapped onto them."""
        offered = await self._offered()
        names = dict.fromkeys(self._settings().models.aliases(), "oaicompat")
        names |= dict.fromkeys(offered, "google")
        return [_entry(name, owner) for name, owner in sorted(names.items())]

    async def entry(self, name: str) -> dict[str, object] | None:
        """Return one entry, None when there is no such model; raises the failure when that is unknown."""
        for entry in await self.entries():
            if entry["id"] == name:
                return entry
        mapped = self._settings().models.resolve(name).model
        if mapped != name and mapped in self._known:
            return _entry(name, "oaicompat")
        if self._failure is not None and not self._known:
            raise self._failure
        return None

    def detect(self, name: str) -> dict[str, object]:
        """Return how a model name would be served, without calling the upstream."""
        mapped = self._settings().models.resolve(name).model
        image = "-image" in mapped
        return {
            "model": name,
            "mapped_model": mapped,
            "type": "image_gen" if image else "agent",
            "features": {"has_web_search": False, "is_image_gen": image},
        }

    async def _offered(self) -> list[str]:
        settings = self._settings()
        if not settings.config.models.list_upstream:
            return []
        async with self._lock:
            now = time.monotonic()
            if now >= self._until or self._listed is not settings:
                await self._refresh(now, settings)
        return self._known

    async def _refresh(self, now: float, settings: Snapshot) -> None:
        """Ask each front door that lists models, through the first credential of it that works."""
        self._listed = settings
        found: dict[str, None] = {}
        failure: UpstreamError | None = None
        doors: dict[str, bool] = {}
        for credential in settings.pool.credentials:
            # Vertex AI lists no models in this shape.
            if doors.get(credential.door) or credential.kind != "api_key":
                continue
            target = credential.target(settings.config.upstream.base_url)
            lease = settings.pool.lease(now, Wanted("", only=credential))
            if lease is None:
                continue
            with lease:
                try:
                    offered = await fetch_models(self._upstream, target, credential)
                except UpstreamError as error:
                    lease.report(now, error)
                    log_failure(credential, "the model list", error)
                    failure = error
                except OaicompatError:
                    continue
                else:
                    doors[credential.door] = True
                    found |= dict.fromkeys(offered)
        self._failure = failure if not found else None
        self._until = now + (_FAILED_SECONDS if failure and not found else _FRESH_SECONDS)
        if found:
            self._known = list(found)


def _entry(name: str, owner: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": owner}
