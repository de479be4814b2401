"""Refusals on demand: what `error:STATUS:VARIANT` and the behaviours of a key mean.

Owns the table of statuses and variants, and `KeyBook`, which hands out each key's scripted behaviours one
request at a time. The one rule: a behaviour is consumed by the request it answers, unless it ends in `*`.
Texts: gemini-wire section 6; the ones marked ~ are not confirmed by a recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .status import Refusal, bad_key, bad_token, error_info, quota

_LEAKED = "Your API key was reported as leaked. Please use another API key."
_LOCATION = "User location is not supported for the API use."
_BILLING = (
    "Gemini API free tier is not available in your country. Please enable billing on your project in "
    "Google AI Studio."
)
_BARE_429 = (
    "Resource exhausted. Please try again later. Please refer to "
    "https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details."
)
_DISABLED = (
    "Generative Language API has not been used in project 123456789012 before or it is disabled. Enable "
    "it by visiting https://console.developers.google.com/apis/api/generativelanguage.googleapis.com/"
    "overview?project=123456789012 then retry."
)
_BUSY = (
    "This model is currently experiencing high demand. Spikes in demand are usually temporary. Please try "
    "again later."
)
_INTERNAL = (
    "An internal error has occurred. Please retry or report in "
    "https://developers.generativeai.google/guide/troubleshooting"
)

_TEXTS: dict[tuple[int, str], tuple[str, str | None]] = {
    (400, ""): ("Request contains an invalid argument.", None),
    (400, "location"): (_LOCATION, "FAILED_PRECONDITION"),
    (400, "billing"): (_BILLING, "FAILED_PRECONDITION"),
    (403, ""): ("The caller does not have permission", None),
    (403, "location"): (_LOCATION, None),
    (403, "leaked"): (_LEAKED, None),
    (404, ""): ("Requested entity was not found.", None),
    (408, ""): ("The request timed out.", None),
    (429, "bare"): (_BARE_429, None),
    (499, ""): ("The operation was cancelled.", None),
    (500, ""): (_INTERNAL, None),
    (502, ""): ("The service is currently unavailable.", None),
    (503, ""): (_BUSY, None),
    (503, "overloaded"): ("The model is overloaded. Please try again later.", None),
    (504, ""): ("Deadline expired before operation could complete.", None),
    (529, ""): ("The service is overloaded.", None),
}
_QUOTA = {"": ("minute", 1), "rate": ("minute", 30), "minute": ("minute", 30), "day": ("day", 3600)}


def outage(code: int, variant: str = "", argument: str = "", *, model: str = "") -> Refusal:
    """Return the refusal for a status and variant; `argument` is the retry delay of a quota in seconds.

    A status without a text of its own gets a neutral one, so any number from 400 to 599 works.
    """
    if code == 429 and variant in _QUOTA:
        per, seconds = _QUOTA[variant]
        delay = f"{argument if argument else seconds}s"
        return quota(model=model, per=per, delay=delay)
    if (code, variant) == (400, "key"):
        return bad_key()
    if code == 401:
        return bad_token()
    if (code, variant) == (403, "disabled"):
        return Refusal(_DISABLED, code=403, details=[error_info("SERVICE_DISABLED")])
    text, status = _TEXTS.get((code, variant)) or _TEXTS.get((code, "")) or ("Failed.", None)
    return Refusal(text, code=code, status=status)


class KeyBook:
    """The behaviours of each key, in order; a key that is not in it, or used up, behaves normally.

    A behaviour is `STATUS[:VARIANT[:SECONDS]]`, `ok`, or any delivery directive (`reset-after:0`,
    `html:502`); `@MODEL` limits it to one model, a trailing `*` keeps it for ever.
    """

    def __init__(self, keys: Mapping[str, Iterable[str]]) -> None:
        self._left = {name: list(steps) for name, steps in keys.items()}

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def set(self, key: str, steps: Iterable[str]) -> None:
        """Replace what `key` does from the next request on."""
        self._left[key] = list(steps)

    def take(self, key: str, model: str) -> str | None:
        """Return the behaviour for this request, None for a normal answer."""
        steps = self._left.get(key, [])
        for at, step in enumerate(steps):
            stays = step.endswith("*")
            name, _, only = step.rstrip("*").partition("@")
            if only and only != model:
                continue
            if not stays:
                del steps[at]
            return None if name == "ok" else name
        return None
