"""Media as clients write it: data URIs, bare base64, links and Files API names.

One rule: base64 in a request is checked and normalised, never decoded beyond its first 64 bytes. Types come
from explicit tables and magic bytes, never from the host, and no error text repeats a path, a link or data.
"""

from __future__ import annotations

import re
import struct
from binascii import Error as Base64Error
from binascii import a2b_base64, a2b_qp, b2a_base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NoReturn

from msgspec import Struct

from .errors import InvalidRequestError, UpstreamProtocolError

FILES_API = "https://generativelanguage.googleapis.com/v1beta/"

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_WHITE_SPACE = b" \t\r\n\f\v"
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_MIME = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_MOST_BARE = 10_000
_WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_UNTELLING = frozenset({"", "application/octet-stream", "binary/octet-stream", "*/*"})
_FILE_NAME = re.compile(r"files/[A-Za-z0-9_-]{1,128}")
_FILE_LINK = re.compile(r"/v1(?:beta|alpha)?/(files/[A-Za-z0-9_-]{1,128})")
_UNSAFE_IN_LINK = re.compile(r"[\x00-\x20\x7f\\]")
_YOUTUBE_HOSTS = frozenset({"youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be"})

# Types Gemini takes; source code without a type of its own goes as text/plain, because Gemini refuses types it
# does not know ("Unsupported MIME type", gemini-wire section 6).
_TYPES = {
    "image/png": "png",
    "image/jpeg": "jpg jpeg jpe jfif",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/tiff": "tif tiff",
    "image/svg+xml": "svg",
    "audio/wav": "wav wave",
    "audio/mp3": "mp3 mpga",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/ogg": "ogg oga opus",
    "audio/aiff": "aif aiff aifc",
    "audio/m4a": "m4a",
    "audio/webm": "weba",
    "video/mp4": "mp4 m4v",
    "video/mpeg": "mpeg mpg mpe",
    "video/mov": "mov qt",
    "video/avi": "avi",
    "video/x-flv": "flv",
    "video/webm": "webm",
    "video/wmv": "wmv",
    "video/3gpp": "3gp 3gpp",
    "application/pdf": "pdf",
    "text/html": "html htm xhtml",
    "text/css": "css",
    "text/csv": "csv",
    "text/markdown": "md markdown mdx",
    "text/xml": "xml",
    "text/rtf": "rtf",
    "text/javascript": "js mjs cjs",
    "text/x-python": "py pyi",
    "text/plain": (
        "txt text log json jsonl ndjson ipynb yaml yml toml ini cfg conf env properties tsv tex rst adoc org"
        " diff patch ts tsx jsx vue svelte java kt kts scala groovy gradle c h cc cpp cxx hpp hh cs fs vb go"
        " rs rb php pl pm lua r jl swift m mm dart ex exs erl hs ml clj lisp el sh bash zsh fish ps1 bat cmd"
        " sql graphql proto tf cmake asm s zig nim sol srt vtt"
    ),
}
_BY_EXTENSION = {name: mime for mime, names in _TYPES.items() for name in names.split()}
_BY_FILE_NAME = dict.fromkeys(
    ("dockerfile", "makefile", "gemfile", "rakefile", "license", "readme", ".gitignore", ".env"),
    "text/plain",
)

# Spellings seen for one and the same type; Gemini is asked by the name its documentation uses.
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-mp3": "audio/mp3",
    "audio/x-flac": "audio/flac",
    "audio/x-aac": "audio/aac",
    "audio/x-aiff": "audio/aiff",
    "audio/x-m4a": "audio/m4a",
    "audio/opus": "audio/ogg",
    "video/quicktime": "video/mov",
    "video/x-msvideo": "video/avi",
    "application/x-pdf": "application/pdf",
    "text/x-markdown": "text/markdown",
}

_PCM = "audio/L16;codec=pcm;rate=24000"
AUDIO_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "wav": "audio/wav",
        "mp3": "audio/mp3",
        "mpeg": "audio/mp3",
        "mpga": "audio/mp3",
        "aac": "audio/aac",
        "flac": "audio/flac",
        "ogg": "audio/ogg",
        "oga": "audio/ogg",
        "opus": "audio/ogg",
        "aif": "audio/aiff",
        "aiff": "audio/aiff",
        "m4a": "audio/m4a",
        "mp4": "audio/mp4",
        "webm": "audio/webm",
        "pcm": _PCM,
        "pcm16": _PCM,
    }
)
"""The media type of each `input_audio.format`; OpenAI's raw PCM is 24 kHz, 16 bit, mono."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mp3"),
    (b"ADIF", "audio/aac"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    *((bytes((255, second)), "audio/aac") for second in (0xF0, 0xF1, 0xF8, 0xF9)),
    *((bytes((255, second)), "audio/mp3") for second in (0xE2, 0xE3, 0xF2, 0xF3, 0xFA, 0xFB)),
)
_CONTAINED = (
    (b"RIFF", b"WEBP", "image/webp"),
    (b"RIFF", b"WAVE", "audio/wav"),
    (b"RIFF", b"AVI ", "video/avi"),
    (b"FORM", b"AIFF", "audio/aiff"),
    (b"FORM", b"AIFC", "audio/aiff"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "image/heic"),
    **dict.fromkeys((b"mif1", b"msf1", b"heif"), "image/heif"),
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    **dict.fromkeys((b"M4A ", b"M4B "), "audio/m4a"),
    **dict.fromkeys((b"3gp4", b"3gp5", b"3gp6"), "video/3gpp"),
    b"qt  ": "video/mov",
}


class Inline(Struct, frozen=True):
    """Media that travels in the request: its type and standard, padded base64."""

    mime: str
    data: str


class Remote(Struct, frozen=True):
    """Media the upstream is to fetch: its address, its type where known, and what kind of address it is."""

    uri: str
    mime: str | None
    kind: Literal["https", "gs", "files", "youtube"]


def classify(uri: str, path: str) -> Inline | Remote:
    """Tell what a media address is.

    `path` is the client's name of the field. A Files API name becomes its full address, as `fileUri` wants it.
    Raises `InvalidRequestError` for every other scheme, local paths included.
    """
    uri = uri.strip()
    if uri[:5].lower() == "data:":
        mime, data = parse_data_uri(uri, path)
        return Inline(mime, data)
    if _FILE_NAME.fullmatch(uri):
        return Remote(FILES_API + uri, None, "files")
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower() if separator else ""
    if scheme == "http":
        _refuse("Media links must use https.", path)
    if scheme not in ("https", "gs"):
        _refuse(
            "Media must be given as a data: URI, an https: or gs: link, a Files API name or a YouTube link;"
            " local files are never read.",
            path,
        )
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not authority or "@" in authority or _UNSAFE_IN_LINK.search(rest):
        _refuse("The media link is malformed.", path)
    if scheme == "gs":
        return Remote(uri, mime_of(uri), "gs")
    return _web(uri, authority.lower().removesuffix(":443"), rest[len(authority) :])


def _web(uri: str, host: str, target: str) -> Remote:
    if host == "generativelanguage.googleapis.com" and (file := _FILE_LINK.fullmatch(target)):
        return Remote(FILES_API + file[1], None, "files")
    if host in _YOUTUBE_HOSTS:
        # Vertex AI requires a type beside every link, and Google's samples give this one for YouTube.
        return Remote(uri, "video/mp4", "youtube")
    return Remote(uri, mime_of(uri), "https")


def parse_data_uri(uri: str, path: str) -> tuple[str, str]:
    """Split a data URI (RFC 2397) into its type and standard, padded base64.

    A missing or meaningless type is told from the first bytes; percent-encoded data becomes base64.
    Raises `InvalidRequestError` with `path` as `param`.
    """
    head, comma, data = uri.strip().partition(",")
    if head[:5].lower() != "data:" or not comma:
        _refuse("The data URI is malformed: expected data:<type>;base64,<data>.", path)
    declared, *parameters = (part.strip() for part in head[5:].split(";"))
    if any(parameter.lower() == "base64" for parameter in parameters):
        encoded = normalise(data, path)
        return _type_of(declared, parameters, encoded, path), encoded
    decoded = _unquote(data.encode("utf-8", "replace"), path)
    if not decoded:
        _refuse("The data URI holds no data.", path)
    encoded = b2a_base64(decoded, newline=False).decode()
    return _type_of(declared or "text/plain", parameters, encoded, path), encoded


def _type_of(declared: str, parameters: list[str], data: str, path: str) -> str:
    mime = declared.lower()
    mime = _ALIASES.get(mime) or _BY_EXTENSION.get(mime) or mime
    if mime in _UNTELLING or "/" not in mime:
        mime = sniff(data) or mime
    if not _MIME.fullmatch(mime):
        _refuse("The data URI names no media type, and its first bytes do not tell it.", path)
    if mime in ("audio/l16", "audio/pcm"):
        kept = [
            part for part in parameters if part.lower().startswith(("rate=", "channels=", "codec="))
        ]
        return ";".join(["audio/L16" if mime == "audio/l16" else mime, *kept])
    return mime


def normalise(data: str, path: str) -> str:
    """Turn base64 in any common spelling into standard, padded base64.

    Takes the URL-safe alphabet, missing padding, white space and percent-encoding; what is standard already
    is returned as it is. Raises `InvalidRequestError` when it is empty or no base64.
    """
    try:
        raw = data.encode("ascii")
    except UnicodeEncodeError:
        _refuse("The base64 data is invalid.", path)
    foreign = raw.translate(None, _ALPHABET)
    if raw and not len(raw) % 4 and foreign in (b"", b"=", b"==") and raw.endswith(foreign):
        return data
    if b"%" in foreign:
        raw = _unquote(raw, path)
    raw = raw.translate(_FROM_URL_SAFE, _WHITE_SPACE).rstrip(b"=")
    if not raw:
        _refuse("The base64 data is empty.", path)
    if raw.translate(None, _ALPHABET) or len(raw) % 4 == 1:
        _refuse("The base64 data is invalid.", path)
    return (raw + b"=" * (-len(raw) % 4)).decode("ascii")


def _unquote(data: bytes, path: str) -> bytes:
    """Undo percent-encoding; importing `urllib.parse` for it would cost 4 ms."""
    # A bare % is common in hand-written SVG, but millions of them would hold up everybody else.
    escaped, bare = re.subn(rb"%(?![0-9A-Fa-f]{2})", b"%25", data, count=_MOST_BARE)
    if bare == _MOST_BARE:
        _refuse("The data URI is not percent-encoded.", path)
    # Quoted-printable is the same code with another mark, and binascii reads it at memory speed.
    return a2b_qp(escaped.replace(b"=", b"=3D").replace(b"%", b"="))


def mime_of(name: str) -> str | None:
    """Tell the media type a file name or an address ends in, by table; None when it does not say."""
    _, separator, rest = name.partition("://")
    if separator:
        name = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")[2]
    base = re.split(r"[/\\]", name)[-1].lower()
    stem, dot, extension = base.rpartition(".")
    return _BY_EXTENSION.get(extension) if dot and stem else _BY_FILE_NAME.get(base)


def sniff(data: str) -> str | None:
    """Tell the media type of base64 data by the first 64 bytes; None when no known format begins so."""
    try:
        head = data[:128].encode("ascii").translate(_FROM_URL_SAFE, _WHITE_SPACE).rstrip(b"=")[:88]
        start = a2b_base64(head + b"=" * (-len(head) % 4))[:64]
    except (UnicodeEncodeError, Base64Error):
        return None
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], "video/mp4")
    for container, form, mime in _CONTAINED:
        if start.startswith(container) and start[8:12] == form:
            return mime
    return next((mime for prefix, mime in _MAGIC if start.startswith(prefix)), None)


def wav(pcm: str, mime: str) -> str:
    """Put a WAV header of 44 bytes before raw 16-bit PCM, both in base64.

    Gemini answers with `audio/L16;codec=pcm;rate=24000` (gemini-wire section 4); rate and channels are read
    from there. Its samples are little-endian, as WAV wants them, whatever RFC 2586 says of L16.
    Raises `UpstreamProtocolError` when the type is another or the base64 is invalid.
    """
    kind, *parameters = (part.strip().lower() for part in mime.split(";"))
    if kind not in ("audio/l16", "audio/pcm"):
        raise UpstreamProtocolError("The upstream sent audio that is not raw PCM.")
    rate = _parameter(parameters, "rate=", default=24_000, limit=768_000)
    channels = _parameter(parameters, "channels=", default=1, limit=32)
    try:
        samples = a2b_base64(pcm.encode("ascii").translate(_FROM_URL_SAFE))
    except (UnicodeEncodeError, Base64Error):
        raise UpstreamProtocolError("The upstream sent audio that is not base64.") from None
    frame = channels * 2
    header = _WAV_HEADER.pack(
        *(b"RIFF", len(samples) + 36, b"WAVE", b"fmt ", 16, 1, channels),
        *(rate, rate * frame, frame, 16, b"data", len(samples)),
    )
    return b2a_base64(header + samples, newline=False).decode()


def _parameter(parameters: list[str], name: str, *, default: int, limit: int) -> int:
    for parameter in parameters:
        value = parameter.removeprefix(name)
        if value != parameter and re.fullmatch(r"[1-9][0-9]{0,5}", value):
            return min(int(value), limit)
    return default


def refused(message: str, path: str) -> InvalidRequestError:
    """Return the error for media that cannot be taken; `path` is the client's name of the field."""
    code = "invalid_image_url" if "image" in path else "invalid_value"
    return InvalidRequestError(message, param=path, code=code)


def _refuse(message: str, path: str) -> NoReturn:
    raise refused(message, path)
