"""Content parts as OpenAI's dialects write them, and what they mean.

Chat and Responses name the same parts differently (`image_url`, `input_image`), and clients mix the two on one
route, so both are read here, once. One rule: parts keep their order, and a part that cannot be read is the
client's 400 with the path of its field, never a hole in the conversation.
"""

from __future__ import annotations

from typing import Annotated, Literal, assert_never

from msgspec import Meta, Raw, Struct

from oaicompat.dialects.markdown import split_images as split_images
from oaicompat.errors import InvalidRequestError
from oaicompat.media import AUDIO_FORMATS, FILES_API, Inline, classify, mime_of, normalise, sniff
from oaicompat.messages import Media, Refusal, Text
from oaicompat.notes import Notes
from oaicompat.wire import given
from oaicompat.wire_errors import clipped, listed

MOST_PARTS = 256
"""How many parts one message may hold (reliability F7)."""

Detail = Literal["auto", "low", "high", "original"]

_CACHING = ("cache_control", "prompt_cache_breakpoint")


class Wire(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Base of what is decoded from a request; plain trees, so nothing for the garbage collector to trace."""


class PartBase(Wire, tag_field="type", frozen=True):
    """What any part may carry besides its content."""

    cache_control: Raw = Raw()
    prompt_cache_breakpoint: Raw = Raw()


class TextPart(PartBase, tag="text", kw_only=True, frozen=True):
    """Text."""

    text: str
    annotations: Raw = Raw()
    logprobs: Raw = Raw()


class InputTextPart(TextPart, tag="input_text", frozen=True):
    """Text as Responses names it."""


class OutputTextPart(TextPart, tag="output_text", frozen=True):
    """Text of the model as Responses names it."""


class ImageUrl(Wire, frozen=True):
    """Where an image is."""

    url: str
    detail: Detail | None = None


class ImagePart(PartBase, tag="image_url", kw_only=True, frozen=True):
    """An image; some clients write the address without the object around it."""

    image_url: ImageUrl | str
    detail: Detail | None = None


class InputImagePart(PartBase, tag="input_image", kw_only=True, frozen=True):
    """An image as Responses names it."""

    image_url: ImageUrl | str | None = None
    file_id: str | None = None
    detail: Detail | None = None


class AudioData(Wire, frozen=True):
    """Sound as base64 and the name of its format."""

    data: str
    format: str | None = None


class AudioPart(PartBase, tag="input_audio", kw_only=True, frozen=True):
    """Sound."""

    input_audio: AudioData


class FileData(Wire, frozen=True):
    """A document: its bytes as data URI or base64, or where it is."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    format: str | None = None


class FilePart(PartBase, tag="file", kw_only=True, frozen=True):
    """A document."""

    file: FileData


class InputFilePart(PartBase, tag="input_file", kw_only=True, frozen=True):
    """A document as Responses names it."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    detail: Detail | None = None


class VideoUrl(Wire, frozen=True):
    """Where a video is, and which seconds of it at how many frames per second are meant (an extension)."""

    url: str
    start: Annotated[float, Meta(ge=0)] | None = None
    end: Annotated[float, Meta(ge=0)] | None = None
    fps: Annotated[float, Meta(gt=0, le=24)] | None = None


class VideoPart(PartBase, tag="video_url", kw_only=True, frozen=True):
    """A video (an extension)."""

    video_url: VideoUrl | str


class RefusalPart(PartBase, tag="refusal", kw_only=True, frozen=True):
    """What the model refused with."""

    refusal: str


ContentPart = (
    TextPart
    | InputTextPart
    | OutputTextPart
    | ImagePart
    | InputImagePart
    | AudioPart
    | FilePart
    | InputFilePart
    | VideoPart
    | RefusalPart
)
Content = str | Annotated[list[ContentPart], Meta(max_length=MOST_PARTS)] | None


def text_parts(content: Content, path: str, notes: Notes) -> tuple[Text, ...]:
    """Read content that may hold text only; raises `InvalidRequestError` for other parts."""
    texts = []
    for index, part in enumerate(read(content, path, notes)):
        if not isinstance(part, Text):
            where = f"{path}[{index}].type"
            message = f"Invalid value for '{where}': only 'text' is supported here."
            raise InvalidRequestError(message, param=where, code="invalid_value")
        texts.append(part)
    return tuple(texts)


def media_parts(content: Content, path: str, notes: Notes) -> tuple[Text | Media, ...]:
    """Read content of text and media; a refusal in it is text."""
    if isinstance(content, str):
        return (Text(content),)
    return tuple(
        Text(part.text) if isinstance(part, Refusal) else part
        for part in read(content, path, notes)
    )


def read(content: Content, path: str, notes: Notes) -> tuple[Text | Media | Refusal, ...]:
    """Read content as it stands: a text, or parts in their order; nothing for null."""
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),)
    return tuple([_part(part, f"{path}[{index}]", notes) for index, part in enumerate(content)])


def _part(part: ContentPart, path: str, notes: Notes) -> Text | Media | Refusal:
    if part.cache_control or part.prompt_cache_breakpoint:
        note_caching(part, path, notes)
    match part:
        case TextPart():
            return Text(part.text)
        case ImagePart() | InputImagePart():
            return _image(part, path)
        case AudioPart():
            return _audio(part.input_audio, f"{path}.input_audio")
        case FilePart():
            return _file(part.file, f"{path}.file")
        case InputFilePart():
            file = FileData(part.file_data, part.filename, part.file_id, part.file_url)
            return _file(file, path, part.detail)
        case VideoPart():
            return _video(part.video_url, f"{path}.video_url", notes)
        case RefusalPart():
            return Refusal(part.refusal)
        case _:
            assert_never(part)


def note_caching(wire: Struct, path: str, notes: Notes) -> None:
    """Note cache marks: the provider caches prefixes by itself."""
    for name in _CACHING:
        if given(getattr(wire, name, Raw())):
            notes.dropped(f"{path}.{name}", "the provider caches by itself", inert=True)


def linked(
    uri: str,
    path: str,
    *,
    name: str | None = None,
    mime: str | None = None,
    detail: str | None = None,
) -> Media:
    """Read media by address; the type is empty where neither `mime` nor the address tells it.

    Raises `InvalidRequestError` at `path` for addresses that cannot be served.
    """
    found = classify(uri, path)
    if isinstance(found, Inline):
        return Media(mime or found.mime, found.data, name=name, detail=detail, path=path)
    return Media(mime or found.mime or "", uri=found.uri, name=name, detail=detail, path=path)


def _image(part: ImagePart | InputImagePart, path: str) -> Media:
    detail = part.detail
    address = part.image_url
    where = f"{path}.image_url"
    if isinstance(address, ImageUrl):
        where = f"{where}.url"
        detail = address.detail or detail
        address = address.url
    if address is None and isinstance(part, InputImagePart):
        where = f"{path}.file_id"
        address = part.file_id
    if address is None:
        raise _missing(f"{path}.image_url")
    return linked(address, where, detail=detail)


def _audio(audio: AudioData, path: str) -> Media:
    where = f"{path}.data"
    mime = AUDIO_FORMATS.get(audio.format.lower()) if audio.format else sniff(audio.data)
    if mime is None:
        values = listed(tuple(AUDIO_FORMATS))
        message = f"Unsupported value: '{path}.format' does not support "
        message += f"'{clipped(audio.format or '')}'. Supported values are: {values}."
        raise InvalidRequestError(message, param=f"{path}.format", code="unsupported_value")
    if audio.data[:5].lower() == "data:":
        found = classify(audio.data, where)
        if isinstance(found, Inline):
            return Media(mime, found.data, path=where)
    return Media(mime, normalise(audio.data, where), path=where)


def _file(file: FileData, path: str, detail: Detail | None = None) -> Media:
    name = file.filename
    if file.file_data is not None:
        where = f"{path}.file_data"
        if file.file_data[:5].lower() == "data:":
            return linked(file.file_data, where, name=name, mime=file.format, detail=detail)
        mime = file.format or (mime_of(name) if name else None) or sniff(file.file_data)
        if mime is None:
            message = (
                f"Invalid value for '{where}': neither the file name nor the data tells its type."
            )
            raise InvalidRequestError(message, param=where, code="invalid_value")
        data = normalise(file.file_data, where)
        return Media(mime, data, name=name, detail=detail, path=where)
    mime = file.format or (mime_of(name) if name else None)
    if file.file_id is not None:
        return linked(file.file_id, f"{path}.file_id", name=name, mime=mime, detail=detail)
    if file.file_url is not None:
        return linked(file.file_url, f"{path}.file_url", name=name, mime=mime, detail=detail)
    raise _missing(f"{path}.file_data")


def _video(video: VideoUrl | str, path: str, notes: Notes) -> Media:
    if isinstance(video, str):
        video = VideoUrl(video)
    else:
        path = f"{path}.url"
    found = linked(video.url, path)
    mime = found.mime
    if not mime and not found.uri.startswith(FILES_API):
        mime = "video/mp4"
        notes.approximated(path, "the address does not tell the type, taken as video/mp4")
    return Media(
        mime,
        found.data,
        found.uri,
        start=video.start,
        end=video.end,
        rate=video.fps,
        path=path,
    )


def _missing(path: str) -> InvalidRequestError:
    message = f"Missing required parameter: '{path}'."
    return InvalidRequestError(message, param=path, code="missing_required_parameter")
