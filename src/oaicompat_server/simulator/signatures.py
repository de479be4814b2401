"""Thought signatures: minted here, recognised here, refused when they come from somewhere else.

A signature is base64 of a readable payload that names the backend (Gemini API or Vertex), so a test can see
where one came from. The one rule: a signature is good for the backend that minted it and for no other
(gemini-wire, "Conversation rules"); the documented bypass values pass everywhere, raw or base64-encoded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from .status import Refusal

BYPASS = ("skip_thought_signature_validator", "context_engineering_is_the_way_to_go")

_PREFIX = b"simulated-thought"
_SENTINELS = frozenset(BYPASS) | {
    encode(value.encode()).decode().rstrip("=")
    for value in BYPASS
    for encode in (base64.b64encode, base64.urlsafe_b64encode)
}


def mint(backend: str, seed: str) -> str:
    """Return a signature of `backend` for `seed`; equal seeds give equal signatures."""
    mark = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return base64.b64encode(b"/".join((_PREFIX, backend.encode(), mark.encode()))).decode()


def is_bypass(signature: str) -> bool:
    """Tell whether `signature` is one of the documented bypass values."""
    return signature.rstrip("=") in _SENTINELS


def backend_of(signature: str) -> str | None:
    """Return the backend that minted `signature`, or None when nobody here did."""
    text = signature.replace("-", "+").replace("_", "/")
    try:
        payload = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    fields = payload.split(b"/")
    if len(fields) != 3 or fields[0] != _PREFIX:
        return None
    return fields[1].decode("ascii", "replace")


def check(signature: str, backend: str, *, tolerate_foreign: bool) -> None:
    """Refuse a signature this backend did not mint.

    With `tolerate_foreign` unknown signatures pass (histories recorded elsewhere); one that the other
    backend minted is still refused.
    """
    if is_bypass(signature):
        return
    origin = backend_of(signature)
    if origin == backend or (origin is None and tolerate_foreign):
        return
    raise Refusal("Corrupted thought signature.")
