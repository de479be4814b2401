"""Take secrets out of texts that the upstream service wrote.

One rule: what could identify a credential, a project or an account does not leave, whatever the message;
`errors` re-exports `scrub`, the one function that may let an upstream text pass.
"""

from __future__ import annotations

import re

LONGEST_MESSAGE = 500
_LONGEST_EXCERPT = 200

_SECRETS: tuple[tuple[str, str], ...] = (
    (r"-----BEGIN [A-Z ]*-----(?s:.*?)(?:-----END [A-Z ]*-----|\Z)", "***"),
    (r"(?i)\bbearer\s+[^\s\"',]+", "Bearer ***"),
    (r"(?i)\b((?:api_?|x-goog-api-)?key|token|access_token|project)=[^\s&\"'<>]+", r"\1=***"),
    (r"\b(api_key|project_number|project|projects):[^\s\"',]+", r"\1:***"),
    (r"AIza[\w-]+|\bAQ\.[\w-]{8,}|ya29\.[\w.-]+|\b1//[\w-]{8,}|\bsk-[\w-]{8,}", "***"),
    (r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?", "***"),
    (r"\b[0-9a-f]{40}\b", "***"),
    (r"\bprojects/[^\s/\"'`,]+", "projects/***"),
    (r"(?i)\b(project(?: number| id)?) [`'\"#]?\d{5,}[`'\"]?", r"\1 ***"),
    (r"(?i)\b(on resource project) [^\s,]+", r"\1 ***"),
    (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", "***"),
    (r"/{0,2}[\w.-]*googleapis\.com/?", ""),
)


def scrub(text: str) -> str:
    """Take secrets and infrastructure names out of a text, and make it one line of at most 500 characters.

    Keys, tokens, PEM blocks, e-mail addresses, project names and numbers, and Google's service hosts go.
    """
    clean = printable(text[: 4 * LONGEST_MESSAGE])
    for pattern, replacement in _SECRETS:
        clean = re.sub(pattern, replacement, clean)
    return limit(" ".join(clean.split()))


def printable(text: str) -> str:
    """Turn control characters, bidi marks and runs of blanks into single spaces."""
    kept = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(kept.split())


def limit(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """Cut a text to `longest` characters, with an ellipsis as the last one."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


_UNREAD = r"(?is)<(script|style|head)\b.*?(?:</\1\s*>|\Z)|<[^>]*(?:>|\Z)|&[#\w]{1,10};"


def excerpt_of(page: str) -> str:
    """Return the words of a page some proxy wrote, short and without secrets."""
    return limit(scrub(re.sub(_UNREAD, " ", page)), _LONGEST_EXCERPT)
