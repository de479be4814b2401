"""Media addresses: what is taken, how base64 is cleaned, what is told by name and by bytes."""

from __future__ import annotations

import base64
import io
import time
import wave
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oaicompat import media
from oaicompat.errors import InvalidRequestError, OaicompatError, UpstreamProtocolError
from oaicompat.media import Inline, Remote

IMAGE = "messages[0].content[1].image_url.url"
FILE = "messages[0].content[1].file.file_data"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


PNG = b64(b"\x89PNG\r\n\x1a\n" + b"\0" * 61)


@pytest.mark.parametrize(
    ("uri", "mime", "data"),
    [
        (f"data:image/png;base64,{PNG}", "image/png", PNG),
        (f"  DATA:IMAGE/PNG;BASE64,{PNG}\n", "image/png", PNG),
        (f"data:png;base64,{PNG}", "image/png", PNG),
        (f"data:image/jpg;base64,{PNG}", "image/jpeg", PNG),
        (f"data:;base64,{PNG}", "image/png", PNG),
        (f"data:application/octet-stream;base64,{PNG}", "image/png", PNG),
        ("data:application/octet-stream;base64,AAAA", "application/octet-stream", "AAAA"),
        ("data:text/plain;charset=utf-8;base64,aGk=", "text/plain", "aGk="),
        (
            "data:audio/L16;codec=pcm;rate=24000;base64,AAAA",
            "audio/L16;codec=pcm;rate=24000",
            "AAAA",
        ),
        ("data:audio/x-wav;base64,AAAA", "audio/wav", "AAAA"),
        ("data:text/plain,a%20b", "text/plain", "YSBi"),
        ("data:,h%C3%A9", "text/plain", b64("hé".encode())),
        ("data:,%%4g%41%", "text/plain", b64(b"%%4gA%")),
        ("data:,\ud800", "text/plain", "Pw=="),
        ("data:image/svg+xml;utf8,<svg/>", "image/svg+xml", b64(b"<svg/>")),
    ],
)
def test_data_uri(uri: str, mime: str, data: str) -> None:
    assert media.parse_data_uri(uri, IMAGE) == (mime, data)
    assert media.classify(uri, IMAGE) == Inline(mime, data)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,==", "empty"),
        ("data:image/png;base64, \n", "empty"),
        ("data:image/png;base64,a!bc", "invalid"),
        ("data:image/png;base64,AAAAA", "invalid"),
        ("data:image/png;base64,AA==AAAA", "invalid"),
        ("data:image/png;base64,é", "invalid"),
        ("data:image/png;base64", "malformed"),
        ("data:image/png,", "no data"),
        ("data:," + "%" * 1_000_000, "not percent-encoded"),
        ("data:;base64,AAAA", "no media type"),
        ("data:what;base64,AAAA", "no media type"),
        ("data:a/b\r\nX: y;base64,AAAA", "no media type"),
    ],
)
def test_a_bad_data_uri_is_the_clients_400(uri: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        media.parse_data_uri(uri, IMAGE)
    assert (caught.value.status, caught.value.param) == (400, IMAGE)
    assert caught.value.code == "invalid_image_url"


@given(st.binary(min_size=1), st.sampled_from(["", "=", "\n"]), st.booleans(), st.integers(0, 9))
def test_every_spelling_of_base64_is_normalised(
    data: bytes, padding: str, url_safe: bool, gap: int
) -> None:
    spelt = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    if padding != "=":
        spelt = spelt.rstrip("=") + padding
    spelt = spelt[:gap] + " \r\n\t" + spelt[gap:]
    assert media.normalise(spelt, FILE) == b64(data)


@given(st.text("%4aAgG=_ \r\n\t.é", min_size=1))
def test_percent_encoding_is_undone_as_the_standard_library_does(text: str) -> None:
    assert media.parse_data_uri(f"data:,{text}!", FILE) == (
        "text/plain",
        b64(unquote_to_bytes(text + "!")),
    )


def test_percent_encoded_base64_is_normalised() -> None:
    assert media.normalise("+/8%3D", FILE) == "+/8="
    assert media.normalise("%2B%2F8=", FILE) == "+/8="


def test_standard_base64_is_not_copied() -> None:
    assert media.normalise(PNG, FILE) is PNG


def test_a_large_image_is_not_decoded() -> None:
    uri = "data:image/png;base64," + PNG + "A" * 20_000_000
    started = time.process_time()
    media.classify(uri, IMAGE)
    assert time.process_time() - started < 0.3


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://a.example/x.png?w=1#f", Remote("https://a.example/x.png?w=1#f", "image/png", "https")),
        ("https://a.example", Remote("https://a.example", None, "https")),
        ("HTTPS://a.example/x", Remote("HTTPS://a.example/x", None, "https")),
        ("gs://bucket/a/b.pdf", Remote("gs://bucket/a/b.pdf", "application/pdf", "gs")),
        ("files/abc-123", Remote(media.FILES_API + "files/abc-123", None, "files")),
        (media.FILES_API + "files/abc-123", Remote(media.FILES_API + "files/abc-123", None, "files")),
        (
            "https://generativelanguage.googleapis.com:443/v1/files/x",
            Remote(media.FILES_API + "files/x", None, "files"),
        ),
        *(
            (uri, Remote(uri, "video/mp4", "youtube"))
            for uri in (
                "https://www.youtube.com/watch?v=9hE5-98ZeCg",
                "https://youtu.be/9hE5-98ZeCg",
                "https://YouTube.com/shorts/9hE5-98ZeCg",
            )
        ),
        ("https://youtube.com.evil.example/", Remote("https://youtube.com.evil.example/", None, "https")),
    ],
)  # fmt: skip
def test_remote_media(uri: str, expected: Remote) -> None:
    assert media.classify(uri, IMAGE) == expected


REFUSED = [
    "http://a.example/secret.png", "file:///etc/secret", "/etc/secret", "secret.png", "./secret.png",
    "C:\\secret.png",
    "\\\\host\\secret", "~/secret", "ftp://a.example/secret", "blob:https://a.example/secret", "https:/secret",
    "https://", "https://?secret", "https://user:secret@a.example/x", "https://youtube.com@secret.example/",
    "https://a.example\\@secret.example", "https://a.example/secret\nx", "https://a.example/sec ret", "gs://",
    "files/../secret", "files/secret/x", "files/", "javascript:secret", "secret", "", " ",
    "\ud800secret", "data secret",
]  # fmt: skip


@pytest.mark.parametrize("uri", REFUSED)
@pytest.mark.parametrize(("path", "code"), [(IMAGE, "invalid_image_url"), (FILE, "invalid_value")])
def test_everything_else_is_refused_without_repeating_it(uri: str, path: str, code: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        media.classify(uri, path)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, path, code)
    assert "secret" not in caught.value.message


PREFIXES = st.sampled_from(
    ["", "data:", "data:;base64,", "data:image/png;base64,", "https://", "gs://", "files/"]
)


@given(PREFIXES, st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_text_is_media_or_our_error(prefix: str, text: str) -> None:
    try:
        found = media.classify(prefix + text, IMAGE)
    except OaicompatError:
        return
    if isinstance(found, Inline):
        assert base64.b64decode(found.data, validate=True)
        assert "/" in found.mime
    else:
        assert found.uri.lower().startswith(("https://", "gs://"))


@pytest.mark.parametrize(
    ("name", "mime"),
    [
        ("a.PNG", "image/png"),
        ("a.jpeg", "image/jpeg"),
        ("C:\\x\\report.pdf", "application/pdf"),
        ("dir.d/notes", None),
        ("archive.tar.gz", None),
        ("main.py", "text/x-python"),
        ("main.rs", "text/plain"),
        ("app.js", "text/javascript"),
        ("Makefile", "text/plain"),
        (".gitignore", "text/plain"),
        ("talk.mp3", "audio/mp3"),
        ("clip.mov", "video/mov"),
        ("clip.webm", "video/webm"),
        ("", None),
        (".", None),
        ("https://a.example/b.webp?c=d.png", "image/webp"),
        ("https://a.example/#b.png", None),
        ("https://example.sh", None),
        ("https://example.sh?x=/a.png", None),
    ],
)
def test_mime_of_a_name(name: str, mime: str | None) -> None:
    assert media.mime_of(name) == mime


@pytest.mark.parametrize(
    ("head", "mime"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        (b"FORM\0\0\0\0AIFF", "audio/aiff"),
        (b"\0\0\0\x18ftypheic", "image/heic"),
        (b"\0\0\0\x18ftypmif1", "image/heif"),
        (b"\0\0\0\x18ftypqt  ", "video/mov"),
        (b"\0\0\0\x18ftypisom", "video/mp4"),
        (b"\0\0\0\x18ftypM4A ", "audio/m4a"),
        (b"%PDF-1.7", "application/pdf"),
        (b"ID3\x04", "audio/mp3"),
        (b"\xff\xfb\x90", "audio/mp3"),
        (b"\xff\xf1\x50", "audio/aac"),
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
        (b"\x1aE\xdf\xa3", "video/webm"),
        (b"\xff\xff", None),
        (b"RIFF", None),
        (b"hello", None),
        (b"", None),
    ],
)
def test_sniff(head: bytes, mime: str | None) -> None:
    assert media.sniff(b64(head + b"\0" * 100) if head else "") == mime
    assert media.sniff(b64(head)) == mime
    spaced = " \n".join(base64.urlsafe_b64encode(head).decode().rstrip("="))
    assert media.sniff(spaced) == mime
    assert media.sniff("\n" * 60 + b64(head)) == mime


@given(st.text())
def test_sniff_takes_any_text(text: str) -> None:
    media.sniff(text)


@pytest.mark.parametrize(
    ("mime", "rate", "channels"),
    [
        ("audio/L16;codec=pcm;rate=24000", 24_000, 1),
        ("audio/L16; rate=16000; channels=2", 16_000, 2),
        ("audio/pcm", 24_000, 1),
        ("audio/pcm;rate=soon;channels=0", 24_000, 1),
        ("audio/pcm;rate=999999;channels=999999", 768_000, 32),
    ],
)
def test_wav_header(mime: str, rate: int, channels: int) -> None:
    samples = bytes(range(128))
    written = base64.b64decode(media.wav(b64(samples), mime))
    assert len(written) == len(samples) + 44
    with wave.open(io.BytesIO(written)) as read:
        assert (read.getframerate(), read.getnchannels(), read.getsampwidth()) == (
            rate,
            channels,
            2,
        )
        assert read.readframes(1_000) == samples


@pytest.mark.parametrize(
    ("data", "mime"), [("AAAA", "audio/mp3"), ("A", "audio/L16"), ("é", "audio/L16")]
)
def test_wav_of_something_else_is_the_upstreams_fault(data: str, mime: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        media.wav(data, mime)


def test_the_audio_formats_of_the_openai_api_are_known() -> None:
    assert {
        "wav",
        "mp3",
        "aac",
        "flac",
        "ogg",
        "opus",
        "aiff",
        "m4a",
        "pcm16",
        "pcm",
        "webm",
    } <= set(media.AUDIO_FORMATS)
    assert media.AUDIO_FORMATS["pcm16"] == "audio/L16;codec=pcm;rate=24000"
