"""Which media the service takes: MIME types of inline data, and the addresses of files.

The one rule: only what is addressed wrongly is refused here; the bytes themselves are never looked at.
Sources: gemini-wire section 3 ("fileData.fileUri") and section 6.
"""

from __future__ import annotations

import re

from .status import JSON
from .target import Target

_TYPE = re.compile(r"(image|audio|video|text|application)/([a-zA-Z0-9.+_-]+)(\s*;.*)?", re.DOTALL)
_IMAGES = frozenset({"png", "jpeg", "jpg", "webp", "heic", "heif", "gif", "bmp", "avif"})
_APPLICATIONS = frozenset(
    {"pdf", "json", "x-javascript", "javascript", "x-python", "rtf", "xml", "octet-stream"}
)


def check_blob(blob: JSON, where: str, target: Target) -> None:
    """Refuse inline data with a missing or unsupported MIME type, or without bytes."""
    _check_type(blob.get("mimeType"), where, target)
    if not blob.get("data"):
        raise target.refuse_at(f"{where}.data", "data must not be empty.")


def check_file(file: JSON, where: str, target: Target) -> None:
    """Refuse a file address the front door does not fetch from."""
    uri = file.get("fileUri")
    if not uri:
        raise target.refuse_at(f"{where}.file_uri", "file_uri must not be empty.")
    if target.vertex or file.get("mimeType"):
        _check_type(file.get("mimeType"), where, target)
    allowed = ("https://", "gs://") if target.vertex else ("https://", "files/")
    if not uri.startswith(allowed):
        # ~ wording; gs:// on the Gemini API is a 400 (gemini-wire section 3).
        raise target.refuse(f"Unsupported file URI type: {uri}")


def _check_type(mime_type: str | None, where: str, target: Target) -> None:
    if not mime_type:
        raise target.refuse_at(f"{where}.mime_type", "mime_type must not be empty.")
    found = _TYPE.fullmatch(mime_type)
    if found is None or not _is_known(found[1], found[2].lower()):
        raise target.refuse(f"Unsupported MIME type: {mime_type}")


def _is_known(family: str, subtype: str) -> bool:
    if family == "image":
        return subtype in _IMAGES
    if family == "application":
        return subtype in _APPLICATIONS and subtype != "octet-stream"
    return True
