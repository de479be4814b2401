"""A medium in a request: inline bytes, or a URI the service reads itself.

One rule: base64 is passed on as it came and no address is fetched here; an address the backend is known to
refuse is the client's 400, naming the field. Which addresses work where: gemini-wire section 3 "fileUri" and
design section 10 "media".
"""

from __future__ import annotations

from oaicompat.errors import InvalidRequestError
from oaicompat.media import Inline, classify
from oaicompat.messages import Media
from oaicompat.providers.gemini.context import Context
from oaicompat.providers.gemini.schema import (
    Blob,
    FileData,
    MediaResolution,
    Part,
    VideoMetadata,
)

RESOLUTIONS = {
    "low": "MEDIA_RESOLUTION_LOW",
    "medium": "MEDIA_RESOLUTION_MEDIUM",
    "high": "MEDIA_RESOLUTION_HIGH",
    "original": "MEDIA_RESOLUTION_ULTRA_HIGH",
}


def encode_media(media: Media, context: Context) -> Part:
    """Encode a medium as a part, without signature.

    Raises `InvalidRequestError` (code `invalid_image_url`, param the medium's path) for an address the
    backend cannot read.
    """
    blob, file = encode_bytes(media, context)
    return Part(
        inline_data=blob,
        file_data=file,
        thought=media.thought or None,
        video_metadata=_video_metadata(media),
        media_resolution=_resolution(media, context),
    )


def encode_bytes(media: Media, context: Context) -> tuple[Blob | None, FileData | None]:
    """Encode where a medium's bytes are: exactly one of the two is not `None`."""
    context.media.append(media)
    name = _display_name(media, context)
    if not media.uri:
        if not media.mime:
            raise InvalidRequestError(
                "The media type of this content is not known.", param=media.path or None
            )
        return Blob(media.mime, media.data, name), None
    uri, mime = _address(media, context)
    return None, FileData(uri, mime or None, name)


def _display_name(media: Media, context: Context) -> str | None:
    if media.name and not context.on_vertex:
        context.notes.dropped(
            _beside(media.path, "filename"), "the Gemini API takes no file names", inert=True
        )
        return None
    return media.name or None


def _address(media: Media, context: Context) -> tuple[str, str]:
    found = classify(media.uri, media.path)
    if isinstance(found, Inline):
        raise _refused(media, "a data: URI is not an address")
    if found.kind == "gs" and not context.on_vertex:
        raise _refused(media, "the Gemini API cannot read gs:// addresses; use Vertex AI")
    if found.kind == "files" and context.on_vertex:
        raise _refused(media, "Vertex AI cannot read files of the Gemini Files API")
    mime = media.mime or found.mime or ""
    if not mime and found.kind != "files":
        context.notes.approximated(
            media.path, "the address does not tell its type; sent as image/jpeg"
        )
        mime = "image/jpeg"
    return found.uri, mime


def _refused(media: Media, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Invalid media URL: {why}.", code="invalid_image_url", param=media.path or None
    )


def _resolution(media: Media, context: Context) -> MediaResolution | None:
    if media.detail is None or media.detail == "auto":
        return None
    level = RESOLUTIONS.get(media.detail)
    if level is None:
        context.notes.dropped(_beside(media.path, "detail"), "this level of detail is not known")
        return None
    return MediaResolution(level) if context.profile.media_resolution_per_part else None


def _video_metadata(media: Media) -> VideoMetadata | None:
    if media.start is None and media.end is None and media.rate is None:
        return None
    return VideoMetadata(_duration(media.start), _duration(media.end), media.rate)


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _beside(path: str, name: str) -> str:
    """Return the path of the field that stands beside the one a medium came in."""
    return f"{path.rpartition('.')[0]}.{name}"
