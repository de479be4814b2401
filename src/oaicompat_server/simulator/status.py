"""Error bodies as Google's services write them.

Owns `Refusal`, the one exception of the simulator, and the builders of `google.rpc.Status` bodies. The one
rule: a text that was seen on the wire is kept word for word, because clients (and gateways) match phrases
of it. Texts that no recording confirms are marked with `~` beside them. Sources: gemini-wire section 6 and
the recorded interactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

JSON = dict[str, Any]

TYPE_PREFIX = "type.googleapis.com/google.rpc."

STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}


class Refusal(Exception):
    """Say no to a request: HTTP status, message, status name and details of a `google.rpc.Status`."""

    def __init__(
        self,
        message: str,
        *,
        code: int = 400,
        status: str | None = None,
        details: Sequence[JSON] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status or STATUS_NAMES.get(code, "UNKNOWN")
        self.details = list(details)

    def body(self) -> JSON:
        """Return the error as the JSON object the service sends."""
        error: JSON = {"code": self.code, "message": self.message, "status": self.status}
        if self.details:
            error["details"] = self.details
        return {"error": error}


def error_info(reason: str, service: str = "generativelanguage.googleapis.com") -> JSON:
    """Build an `ErrorInfo` detail for `reason`."""
    return {
        "@type": TYPE_PREFIX + "ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": {"service": service},
    }


def localized(message: str) -> JSON:
    """Build a `LocalizedMessage` detail."""
    return {"@type": TYPE_PREFIX + "LocalizedMessage", "locale": "en-US", "message": message}


def field_violations(violations: Sequence[tuple[str, str]]) -> Refusal:
    """Refuse a body for its fields: one line and one violation per (path, description)."""
    entries = [
        {"field": path, "description": text} if path else {"description": text}
        for path, text in violations
    ]
    detail = {"@type": TYPE_PREFIX + "BadRequest", "fieldViolations": entries}
    return Refusal("\n".join(text for _, text in violations), details=[detail])


def bad_key() -> Refusal:
    """Refuse an API key nobody issued: a 400, not a 401 (recorded)."""
    text = "API key not valid. Please pass a valid API key."
    return Refusal(text, details=[error_info("API_KEY_INVALID"), localized(text)])


def no_key() -> Refusal:
    """Refuse a Gemini API request without any credential."""
    return Refusal(
        "Method doesn't allow unregistered callers (callers without established identity). "
        "Please use API Key or other form of API consumer identity to call this API.",
        code=403,
    )


def no_token(*, api_key: bool, method: str) -> Refusal:
    """Refuse a Vertex request that shows no OAuth token; `api_key` tells the two recorded texts apart."""
    text = (
        "API keys are not supported by this API. Expected OAuth2 access token or other authentication "
        "credentials that assert a principal. See https://cloud.google.com/docs/authentication"
        if api_key
        else "Request is missing required authentication credential. Expected OAuth 2 access token, login "
        "cookie or other valid authentication credential. See "
        "https://developers.google.com/identity/sign-in/web/devconsole-project."
    )
    detail = error_info("CREDENTIALS_MISSING", "aiplatform.googleapis.com")
    detail["metadata"]["method"] = f"google.cloud.aiplatform.PredictionService.{method}"
    return Refusal(text, code=401, details=[detail])


def bad_token() -> Refusal:
    """Refuse an OAuth token that is not valid (any more)."""
    return Refusal(
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or "
        "other valid authentication credential. See "
        "https://developers.google.com/identity/sign-in/web/devconsole-project.",
        code=401,
        details=[error_info("ACCESS_TOKEN_TYPE_UNSUPPORTED", "aiplatform.googleapis.com")],
    )


def unknown_model(model: str, *, version: str, method: str) -> Refusal:
    """Refuse a model name the Gemini API does not list (recorded)."""
    return Refusal(
        f"models/{model} is not found for API version {version}, or is not supported for {method}. "
        "Call ModelService.ListModels to see the list of available models and their supported methods.",
        code=404,
    )


def unknown_publisher_model(resource: str) -> Refusal:
    """Refuse a model name Vertex does not know (recorded)."""
    return Refusal(f"Publisher Model `{resource}` not found.", code=404)


def quota(*, model: str, per: str, delay: str, message_delay: str | None = None) -> Refusal:
    """Refuse for an exhausted quota, `per` "minute" or "day", with QuotaFailure and RetryInfo (recorded)."""
    metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
    limit = "15" if per == "minute" else "200"
    violation = {
        "quotaMetric": metric,
        "quotaId": f"GenerateRequestsPer{per.title()}PerProjectPerModel-FreeTier",
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": limit,
    }
    link = {
        "description": "Learn more about Gemini API quotas",
        "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
    }
    text = (
        "You exceeded your current quota, please check your plan and billing details. For more information "
        "on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. To monitor your current "
        f"usage, head to: https://ai.dev/rate-limit. \n* Quota exceeded for metric: {metric}, "
        f"limit: {limit}, model: {model}\nPlease retry in {message_delay or delay}."
    )
    details: list[JSON] = [
        {"@type": TYPE_PREFIX + "Help", "links": [link]},
        {"@type": TYPE_PREFIX + "QuotaFailure", "violations": [violation]},
        {"@type": TYPE_PREFIX + "RetryInfo", "retryDelay": delay},
    ]
    return Refusal(text, code=429, details=details)
