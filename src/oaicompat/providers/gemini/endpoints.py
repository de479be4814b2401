"""Where a call goes and how it shows its credential: the Gemini API, Vertex AI, Vertex AI express mode.

One rule: no text from outside reaches a host, and what reaches a path is checked first and compared after.
A secret travels in a header, never in a URL. With `profiles`, this is the only place that knows how the
front doors differ. Hosts and paths: gemini-wire section 1; checks: reliability F1, F2, G1.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from oaicompat.errors import InvalidRequestError, ModelNotFoundError, UpstreamError
from oaicompat.models import LONGEST_KNOWN, upstream_name

Headers = tuple[tuple[str, str], ...]

_GEMINI_HOST = "https://generativelanguage.googleapis.com"
_VERTEX_HOSTS = {
    "global": "https://aiplatform.googleapis.com",
    "us": "https://aiplatform.us.rep.googleapis.com",
    "eu": "https://aiplatform.eu.rep.googleapis.com",
}
_PUBLISHER = "publishers/google/models/"

_BASE_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?/?")
_VERSION = re.compile(r"v\d{1,2}(?:(?:alpha|beta)\d{0,2})?")
_PROJECT = re.compile(r"[a-z][a-z0-9-]{4,61}")
_REGION = re.compile(
    r"(?:africa|asia|australia|europe|me|northamerica|southamerica|us)"
    r"-(?:central|(?:north|south)?(?:east|west)|north|south)\d{1,2}"
)
_SECRET = re.compile(r"[\x21-\x7e]{1,8192}")


class Target(Struct, frozen=True, cache_hash=True, gc=False):
    """One place to call: front door, address and upstream model.

    An empty `base_url` or `version` means the public service's own; `base_url` is scheme, host and port.
    `model` is the upstream name, "" to take the one the mapping gives. `project` and `location` are for
    Vertex AI, unless `express`, which takes an API key and has neither. Raises `InvalidRequestError` for
    values that could change the host or the path.
    """

    backend: Literal["gemini", "vertex"] = "gemini"
    base_url: str = ""
    version: str = ""
    model: str = ""
    project: str = ""
    location: str = "global"
    express: bool = False

    def __post_init__(self) -> None:
        if self.base_url and not _BASE_URL.fullmatch(self.base_url):
            raise _refused("base_url", "http(s)://host[:port]")
        if self.version and not _VERSION.fullmatch(self.version):
            raise _refused("version", "a version such as v1 or v1beta1")
        if self.backend == "gemini" or self.express:
            return
        if not _PROJECT.fullmatch(self.project):
            raise _refused("project", "a Google Cloud project id")
        if self.location not in _VERTEX_HOSTS and not _REGION.fullmatch(self.location):
            raise _refused("location", "global, us, eu or a region such as us-central1")


GEMINI_API = Target()
_REMEMBERED = 1024


def aimed(target: Target, model: str) -> Target:
    """Return the target with this model; the same object each time, which makes its URL cheap to build."""
    if len(model) <= LONGEST_KNOWN:
        return _aimed(target, model)
    return replace(target, model=model)


@lru_cache(_REMEMBERED)
def _aimed(target: Target, model: str) -> Target:
    return replace(target, model=model)


def origin(target: Target) -> str:
    """Give scheme, host and port of a target, without a trailing slash."""
    if target.base_url:
        return target.base_url.rstrip("/")
    if target.backend == "gemini":
        return _GEMINI_HOST
    if target.express:
        return _VERTEX_HOSTS["global"]
    return _VERTEX_HOSTS.get(
        target.location, f"https://{target.location}-aiplatform.googleapis.com"
    )


@lru_cache(_REMEMBERED)
def generate_url(target: Target, stream: bool) -> str:
    """Build the URL of generateContent, or of its SSE form.

    Raises `ModelNotFoundError` for a model name that is not one, or not one of this backend.
    """
    return method_url(target, "streamGenerateContent?alt=sse" if stream else "generateContent")


def count_tokens_url(target: Target) -> str:
    """Build the URL of countTokens; raises what `generate_url` raises."""
    return method_url(target, "countTokens")


def models_url(target: Target) -> str | None:
    """Build the URL of the model list, or None: Vertex AI lists no Gemini models in this shape."""
    if target.backend == "vertex":
        return None
    return f"{_versioned(target)}/models?pageSize=1000"


@lru_cache(_REMEMBERED)
def method_url(target: Target, method: str) -> str:
    """Build the URL of any method of a model, e.g. `embedContent`; raises what `generate_url` raises."""
    collection, name = _resource(target)
    url = f"{_versioned(target)}/{collection}{quote(name, safe='')}:{method}"
    built, wanted = urlsplit(url), urlsplit(origin(target))
    verb, _, query = method.partition("?")
    tail = f"/{collection}{name}:{verb}"
    if (built.netloc, built.query, built.fragment) != (wanted.netloc, query, "") or (
        not built.path.endswith(tail)
    ):
        raise _unknown(target.model)
    return url


def headers(target: Target, secret: str, payer: str = "") -> Headers:
    """Build the request headers: content type, no compression, the credential, and whose quota is used.

    `secret` is the API key (Gemini API, express mode) or the OAuth token (Vertex AI). `payer` is the quota
    project that comes with a token, left out where it is not the name of one. Raises `UpstreamError` with
    cause `credential`, and without the secret, when it cannot stand in a header.
    """
    if not _SECRET.fullmatch(secret):
        raise UpstreamError(
            "The upstream credential cannot be sent as a header.",
            status=503,
            should_retry=False,
            retryable=True,
            cause="credential",
        )
    by_token = target.backend == "vertex" and not target.express
    billed = by_token and _PROJECT.fullmatch(payer) is not None
    return (
        ("content-type", "application/json"),
        ("accept-encoding", "identity"),
        ("authorization", f"Bearer {secret}") if by_token else ("x-goog-api-key", secret),
        *((("x-goog-user-project", payer),) if billed else ()),
    )


def _versioned(target: Target) -> str:
    """Give the URL up to the version. Express mode is documented under v1 only."""
    on_vertex = "v1" if target.express else "v1beta1"
    version = target.version or ("v1beta" if target.backend == "gemini" else on_vertex)
    return f"{origin(target)}/{version}"


def _resource(target: Target) -> tuple[str, str]:
    """Split the model into its collection, as this backend spells it, and its name."""
    model = upstream_name(target.model.removeprefix("models/")).removeprefix(_PUBLISHER)
    kind, slash, name = model.rpartition("/")
    if target.backend == "gemini":
        if kind in ("", "tunedModels"):
            return ("tunedModels/" if slash else "models/"), name
        raise _unknown(target.model)
    place = "" if target.express else f"projects/{target.project}/locations/{target.location}/"
    if not kind:
        return place + _PUBLISHER, name
    if kind == "endpoints" and place:
        return f"{place}endpoints/", name
    raise _unknown(target.model)


def _unknown(model: str) -> ModelNotFoundError:
    shown = "".join(one for one in model[:128] if one.isprintable())
    return ModelNotFoundError(
        f"The model `{shown}` does not exist or you do not have access to it.", param="model"
    )


def _refused(field: str, wanted: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The upstream target's {field} is not {wanted}.", code="invalid_value", param=field
    )
