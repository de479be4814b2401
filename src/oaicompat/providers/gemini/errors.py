"""Turn what Gemini says when it fails into the errors OpenAI clients know.

One rule: whose fault it is decides the answer, and never the wording alone. Failures are recognised by
HTTP status, `google.rpc` reason and stable phrases; a credential's trouble is never shown as the client's,
and no upstream text leaves without `scrub`. Facts: gemini-wire section 6, openai-wire section 8.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias, assert_never

import msgspec
from msgspec import Struct

from oaicompat.errors import ModelNotFoundError, UpstreamError, UpstreamProtocolError
from oaicompat.providers.gemini.denials import find_denial, project_code
from oaicompat.providers.gemini.parameters import client_parameter, upstream_path
from oaicompat.providers.gemini.redaction import LONGEST_MESSAGE as LONGEST
from oaicompat.providers.gemini.redaction import excerpt_of, limit, printable, scrub
from oaicompat.retry import retry_after as parse_retry_after

__all__ = ["Failure", "PathMap", "decode_error", "decode_status", "scrub"]

Failure: TypeAlias = UpstreamError | ModelNotFoundError
PathMap: TypeAlias = Callable[[str], str | None]

_HTML_READ = 8192

_STATUS_NUMBERS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_RETRYABLE = frozenset({408, 429, 499, 500, 502, 503, 504, 529})
_OVERLOADED, _LATE = frozenset({503, 529}), frozenset({408, 499, 504})


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    model: str,
    now: float | None = None,
    parameter: PathMap = client_parameter,
) -> Failure:
    """Decode the answer to a call that failed.

    `status` is the HTTP status (200 for an error inside a stream), `body` any bytes, `model` the name the
    client asked for, `now` the wall clock in Unix seconds for a dated Retry-After in a reply without `Date`,
    `parameter` maps a path of the Gemini request to the client's parameter. Always returns an error and
    never raises.
    """
    wait = parse_retry_after(headers, body, now=now)
    error = _find_status(body)
    if error is None:
        return _without_status(status, body, model, wait)
    number = status if status >= 300 else _own_number(error)
    return _classify(_read(number, error, model, wait, parameter))


def decode_status(
    body: bytes, *, model: str, now: float | None = None, parameter: PathMap = client_parameter
) -> Failure:
    """Decode an error that arrived inside a 200 stream, framed as an event or as a bare JSON block."""
    return decode_error(200, {}, body, model=model, now=now, parameter=parameter)


class _Failed(Struct, frozen=True):
    """The facts of one `google.rpc.Status`, with a type checked value in every field."""

    status: int
    name: str
    message: str
    reasons: tuple[str, ...]
    fields: tuple[str, ...]
    quotas: tuple[str, ...]
    exhausted: bool
    model: str
    wait: float | None
    parameter: PathMap


def _find_status(body: bytes) -> dict[str, object] | None:
    """Find the status object in `{"error": …}`, `[{"error": …}]`, or a bare status."""
    try:
        value: object = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return None
    error = value.get("error", value)
    if isinstance(error, str):
        return {"message": error}
    if not isinstance(error, dict) or not error.keys() & {"code", "message", "status"}:
        return None
    return error


def _own_number(error: dict[str, object]) -> int:
    code = error.get("code")
    if isinstance(code, int) and 300 <= code < 600:
        return code
    return _STATUS_NUMBERS.get(_string(error.get("status")), 500)


def _read(
    status: int, error: dict[str, object], model: str, wait: float | None, parameter: PathMap
) -> _Failed:
    details = _dicts(error.get("details"))
    violations = [one for detail in details for one in _dicts(detail.get("violations"))]
    fields = [one for detail in details for one in _dicts(detail.get("fieldViolations"))]
    return _Failed(
        status=status,
        name=_string(error.get("status")),
        message=_string(error.get("message")),
        reasons=tuple(_string(detail["reason"]) for detail in details if "reason" in detail),
        fields=tuple(_string(one.get("field")) for one in fields),
        quotas=tuple(_string(one.get("quotaId") or one.get("quotaMetric")) for one in violations),
        exhausted=any(str(one.get("quotaValue")) == "0" for one in violations),
        model=printable(model)[:128],
        wait=wait,
        parameter=parameter,
    )


def _dicts(value: object) -> list[dict[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


_MODEL = r"\bmodels?/|Publisher Model|ListModels"
_TOO_LARGE = r"payload size exceeds"
_TOO_LONG = r"(?i)token count\D*(\d*)\D*exceeds the maximum number of \D*(\d*)"
_SIGNATURE = r"(?i)thought[_ ]?signature"
_FETCH = (
    r"Cannot fetch content from the provided URL|\bURL_[A-Z]|(?i:unsupported file uri)"
    r"|(?i:fail(?:ed|ure) to (?:fetch|download))"
)
_MEDIA = r"(?i)unsupported mime ?type|unable to process input (?:image|video|audio|file)"
_RESPONSE_SCHEMA = r"schema produces a constraint|schema in GenerationConfig"
_TOOL_SCHEMA = r"A FunctionDeclaration in the request"
_PER_DAY = r"(?i)per[_ ]?day|daily|\blimit: 0\b|credits are depleted"


def _classify(failed: _Failed) -> Failure:
    match failed.status:
        case 400:
            return _refused(failed)
        case 401:
            return _credential(failed)
        case 403:
            return _forbidden(failed)
        case 404 if re.search(_MODEL, failed.message):
            return _model_not_found(failed)
        case 413:
            return _too_large(failed)
        case 429:
            return _limited(failed)
        case status if 400 <= status < 499 and status != 408:
            return _request(failed)
        case _:
            return _broken(failed.status, failed.wait, scrub(failed.message))


def _refused(failed: _Failed) -> Failure:
    """Tell the kinds of 400 apart: the first that matches decides."""
    whom = find_denial(failed.reasons, failed.message)
    told = failed.name == "FAILED_PRECONDITION" and whom in ("place", "tier")
    if told or whom in ("key", "project"):
        return _denied(failed)
    if re.search(_TOO_LARGE, failed.message):
        return _too_large(failed)
    for pattern, outcome in _REFUSALS:
        if found := re.search(pattern, failed.message):
            return outcome(failed, found)
    return _request(failed)


def _forbidden(failed: _Failed) -> Failure:
    gone = failed.message.startswith("CachedContent not found")
    return _request(failed) if gone else _denied(failed)


def _denied(failed: _Failed) -> UpstreamError:
    """Answer a denial: only one that every request would meet is held against the credential."""
    match find_denial(failed.reasons, failed.message):
        case "key":
            return _credential(failed)
        case "project":
            return _permission(failed)
        case "place":
            code = "unsupported_country_region_territory"
            return _elsewhere(failed, "request_forbidden", code)
        case "tier":
            return _elsewhere(failed, "invalid_request_error", "model_not_found")
        case "model":
            return _request(failed, "model", "model_not_found", 403)
        case "resource":
            return _request(failed, status=403)
        case _ as never:
            assert_never(never)


def _elsewhere(failed: _Failed, kind: str, code: str) -> UpstreamError:
    """Answer for a model this credential's project may not use, though another's might."""
    error = _request(failed, "model", code, 403)
    error.type = kind
    error.cause = "model_permission"
    return error


def _credential(failed: _Failed) -> UpstreamError:
    return UpstreamError(
        "The upstream service refused the credential it was called with.",
        status=503,
        should_retry=False,
        retryable=True,
        cause="credential",
        upstream_status=failed.status,
    )


def _permission(failed: _Failed) -> UpstreamError:
    return UpstreamError(
        limit(f"The upstream service denies access: {scrub(failed.message)}"),
        status=403,
        type="request_forbidden",
        code=project_code(failed.reasons, failed.message),
        should_retry=False,
        retryable=True,
        cause="permission",
        upstream_status=failed.status,
    )


def _model_not_found(failed: _Failed) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"The model `{failed.model}` does not exist or you do not have access to it.",
        param="model",
    )


def _too_large(failed: _Failed) -> UpstreamError:
    return _invalid(failed, "The request is larger than the upstream service accepts.", status=413)


def _request(
    failed: _Failed, path: str | None = None, code: str | None = None, status: int = 400
) -> UpstreamError:
    message = scrub(failed.message) or "The upstream service refused the request."
    at = path or upstream_path(failed.fields, failed.message)
    return _invalid(failed, message, path=at, code=code, status=status)


def _invalid(
    failed: _Failed,
    message: str,
    *,
    path: str | None = None,
    code: str | None = None,
    status: int = 400,
) -> UpstreamError:
    return UpstreamError(
        limit(message),
        status=status,
        type="invalid_request_error",
        code=code,
        param=failed.parameter(path) if path else None,
        upstream_status=failed.status,
    )


def _context_length(failed: _Failed, found: re.Match[str]) -> UpstreamError:
    message = "Your input exceeds the context window of this model."
    if found[1] and found[2]:
        message = (
            f"This model's maximum context length is {found[2][:12]} tokens. However, your messages "
            f"resulted in {found[1][:12]} tokens. Please reduce the length of the messages."
        )
    return _invalid(failed, message, path="contents", code="context_length_exceeded")


def _bad_signature(failed: _Failed, found: re.Match[str]) -> UpstreamError:
    error = _request(failed, "contents")
    error.cause = "signature"
    error.retryable = True
    return error


def _not_fetched(failed: _Failed, found: re.Match[str]) -> UpstreamError:
    hint = "Send the file as a data: URL."
    message = f"{limit(scrub(failed.message), LONGEST - len(hint) - 1)} {hint}"
    return _invalid(failed, message, path="contents", code="invalid_image_url")


_REFUSALS: tuple[tuple[str, Callable[[_Failed, re.Match[str]], UpstreamError]], ...] = (
    (_TOO_LONG, _context_length),
    (_SIGNATURE, _bad_signature),
    (_FETCH, _not_fetched),
    (_MEDIA, lambda failed, _: _request(failed, "contents", "invalid_image_url")),
    (
        _RESPONSE_SCHEMA,
        lambda failed, _: _request(
            failed, "generationConfig.responseJsonSchema", "invalid_json_schema"
        ),
    ),
    (_TOOL_SCHEMA, lambda failed, _: _request(failed, "tools", "invalid_function_parameters")),
)


def _limited(failed: _Failed) -> UpstreamError:
    """Tell a rate, which passes within a minute, from a quota, which does not (gateway 7.3)."""
    seen = " ".join((*failed.quotas, failed.message))
    quota = failed.exhausted or re.search(_PER_DAY, seen) is not None
    named = next((scrub(one) for one in failed.quotas if re.search(_PER_DAY, one) or not quota), "")
    what = "You exceeded your current upstream quota" if quota else "Rate limit reached upstream"
    message = f"{what} for {failed.model}{f' ({named[:100]})' if named else ''}."
    if failed.wait is not None:
        seconds = f"{failed.wait:.3f}".rstrip("0").rstrip(".")
        message = f"{message} Please try again in {seconds}s."
    return UpstreamError(
        message,
        status=429,
        type="insufficient_quota" if quota else "rate_limit_error",
        code="insufficient_quota" if quota else "rate_limit_exceeded",
        retry_after=failed.wait,
        should_retry=False if quota else None,
        retryable=True,
        cause="quota" if quota else "rate",
        upstream_status=429,
    )


def _broken(status: int, wait: float | None, message: str = "") -> UpstreamError:
    """Answer for a service that did not do its work: nobody's request is at fault."""
    answer, kind, code, fixed = 502, "server_error", None, "The upstream service failed."
    if status in _OVERLOADED:
        answer, kind, code = 503, "service_unavailable_error", "server_is_overloaded"
        fixed = "The model is overloaded upstream. Please try again later."
    elif status in _LATE:
        answer, fixed = 504, "The upstream service took too long to answer."
    elif status == 500:
        answer, fixed = 500, "The upstream service had an error while processing the request."
    return UpstreamError(
        limit(f"{fixed} ({message})" if message and status not in _OVERLOADED else fixed),
        status=answer,
        type=kind,
        code=code,
        retry_after=wait,
        retryable=status in _RETRYABLE,
        cause="overload" if status in _OVERLOADED else "network",
        upstream_status=status,
    )


def _without_status(status: int, body: bytes, model: str, wait: float | None) -> Failure:
    """Answer for a body that is not Google's: a page of some proxy, nothing, or garbage."""
    page = body[:_HTML_READ].decode("utf-8", "replace")
    if status < 400 or status == 404 or page.lstrip()[:1] == "<":
        excerpt = excerpt_of(page) if page.lstrip()[:1] == "<" else ""
        message = f"The upstream service answered {status} with a body that is not an error object"
        return UpstreamProtocolError(
            f"{message}: {excerpt}" if excerpt else f"{message}.",
            code="upstream_malformed",
            retry_after=wait,
            retryable=status in _RETRYABLE,
            cause=_cause(status),
            upstream_status=status,
        )
    return _classify(_read(status, {}, model, wait, client_parameter))


def _cause(status: int) -> str:
    return "rate" if status == 429 else "overload" if status in _OVERLOADED else "network"
