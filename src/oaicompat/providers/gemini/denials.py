"""Whom a denial of Gemini's is about: the key, its project, a model for that project, or one thing asked for.

One rule: a credential is at fault only where the reason is a known one or the text begins as the service begins
such a text; what a client wrote may be quoted anywhere behind, and an unknown denial is about the request.
Facts: gemini-wire section 6; reasons: google.api.ErrorReason
(https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Denied = Literal["key", "project", "place", "tier", "model", "resource"]
"""The key is no good; its project may call nothing; a place or tier may not use this model, others may; with
`model` and `resource` it is what was asked for, and nothing is held against the credential."""

_KEY_REASONS = frozenset(
    {
        "API_KEY_INVALID",
        "API_KEY_EXPIRED",
        "CONSUMER_SUSPENDED",
        "CONSUMER_INVALID",
        "CREDENTIALS_MISSING",
        "ACCESS_TOKEN_EXPIRED",
        "ACCOUNT_STATE_INVALID",
    }
)
_PROJECT_REASONS = frozenset(
    {
        "SERVICE_DISABLED",
        "BILLING_DISABLED",
        "API_KEY_SERVICE_BLOCKED",
        "API_KEY_HTTP_REFERRER_BLOCKED",
        "API_KEY_IP_ADDRESS_BLOCKED",
        "API_KEY_ANDROID_APP_BLOCKED",
        "API_KEY_IOS_APP_BLOCKED",
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        "USER_PROJECT_DENIED",
    }
)
_KEY = (
    r"API key (?:not valid|expired|not found)|Your API key was reported as leaked"
    r"|(?:Permission denied: )?Consumer '[^']*' has been suspended"
    r"|Method doesn't allow unregistered callers"
)
_PROJECT = (
    r"User location is not supported for the API|Gemini API free tier is not available"
    r"|Your project has been denied access|(?:[A-Z][\w.]* ){1,5}has not been used in project"
    r"|Requests (?:to this API|from|made from) .{0,200} are blocked"
    r"|The provided API key has an? [\w ]{1,40} restriction"
    r"|This (?:API method|request) requires billing|Billing (?:must be enabled|is disabled)"
    r"|The billing account for the owning project is disabled"
    r"|Request had insufficient authentication scopes"
)
_PLACE = r"(?i)in your (?:current )?(?:country|region|location)|location is not supported"
_TIER = r"(?i)\bfree tier\b"
_MODEL = (
    r"(?i)\bmodels?/|\b(?:tuned|publisher) ?model\b|\b(?:access|use) (?:to )?(?:this|the) model\b"
)


def find_denial(reasons: Iterable[str], message: str) -> Denied:
    """Tell whom a denial is about, by the reasons of its details and its text."""
    named = frozenset(reasons)
    if named & _KEY_REASONS or re.match(_KEY, message):
        return "key"
    if named & _PROJECT_REASONS or re.match(_PROJECT, message):
        return "project"
    if re.search(_PLACE, message):
        return "place"
    if re.search(_TIER, message):
        return "tier"
    return "model" if re.search(_MODEL, message) else "resource"


_PROJECT_CODES: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset(), _PLACE, "unsupported_country_region_territory"),
    (
        frozenset({"SERVICE_DISABLED"}),
        r"has not been used in project",
        "upstream_api_disabled",
    ),
    (
        frozenset({"BILLING_DISABLED"}),
        r"(?i)\bbilling\b",
        "upstream_billing_required",
    ),
)


def project_code(reasons: Iterable[str], message: str) -> str:
    """Return the error code of a denial that is about a project, or where it is used from."""
    named = frozenset(reasons)
    for about, text, code in _PROJECT_CODES:
        if named & about or re.search(text, message):
            return code
    return "upstream_access_denied"
