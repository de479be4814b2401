"""Downloads the media that requests link to, where that is switched on (`[media] fetch`).

One rule: a link is a stranger's wish. Only https on port 443 of public hosts is asked, on connections used
once, without cookies or credentials; size, time, number and type are bounded, and what fails is the client's
400 in words that tell nothing of this network (reliability F4, F5).
"""

from __future__ import annotations

import ssl
from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

import anyio
import httpcore

from oaicompat.errors import OaicompatError, UpstreamError
from oaicompat.media import sniff
from oaicompat.supplies import Supplies
from oaicompat_server.admission import Admission
from oaicompat_server.beside import together
from oaicompat_server.checked_network import CheckedNetwork, Names
from oaicompat_server.connection import Waits, head_of
from oaicompat_server.http11 import Http11Connection
from oaicompat_server.links import Hosts, Link, Unfetchable, follow, parse_link
from oaicompat_server.settings import MediaSettings

_REDIRECTS = 3
_REDIRECTING = frozenset({301, 302, 303, 307, 308})
_REQUESTS_AT_ONCE = 16
_REQUESTS_WAITING = 256
_WAIT_SECONDS = 10.0
_DOWNLOADS_AT_ONCE = 4
"""Of one request; together with the above the most connections there are."""

_HEADERS = (
    ("accept", "image/*,audio/*,video/*,application/pdf"),
    ("accept-encoding", "identity"),
    ("user-agent", "oaicompat-server"),
    ("connection", "close"),
)
_UNTELLING = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/force-download"}
)
_KINDS = {
    "application/pdf": "document",
    "application/x-pdf": "document",
    "application/mp4": "recording",
    "application/ogg": "recording",
}
_EITHER = {"video/mp4": "audio/mp4", "video/webm": "audio/webm"}
"""Containers of film whose first bytes are those of sound as well."""

_UNREACHABLE = "The media at this link could not be fetched."
_LATE = "The media at this link took too long to fetch."


class MediaFetch:
    """Fetches for all requests; `most` bounds what one request may hold of media, in base64 characters.

    `context` gives the TLS settings when they are needed; `network` replaces the way to public hosts.
    """

    def __init__(
        self,
        most: int,
        context: Callable[[], ssl.SSLContext],
        network: CheckedNetwork | None = None,
    ) -> None:
        self._most = most
        self._context = context
        self._names = Names()
        self._network = network or CheckedNetwork(self._names)
        self._admission = Admission(_REQUESTS_AT_ONCE, _REQUESTS_WAITING, _WAIT_SECONDS)

    async def fetch(
        self, settings: MediaSettings, owner: str, urls: Sequence[str], hold: Callable[[int], None]
    ) -> Supplies:
        """Return the media of one request of this client, or one that cannot be had and why.

        `hold` is told of the memory taken, in bytes, and may refuse it. Raises `OaicompatError` (503) where too
        many requests fetch, and what `hold` does.
        """
        most = settings.max_urls
        if len(urls) > most:
            return Supplies(refused={urls[most]: f"At most {most} media links can be fetched."})
        async with self._admission.slot(owner):
            work = _Fetching(settings, self.connect, self._most, hold)
            with anyio.move_on_after(settings.timeout):
                await work.run(urls)
        if work.failed is not None:
            raise work.failed
        if not work.refused and len(work.found) < len(urls):
            late = next(url for url in urls if url not in work.found)
            return Supplies(refused={late: _LATE})
        return Supplies(media=work.found, refused=work.refused)

    def connect(self, host: str) -> Http11Connection:
        """Return a new connection to a host; nothing is looked up or sent yet."""
        origin = httpcore.Origin(b"https", host.encode("ascii"), 443)
        return Http11Connection(origin, self._context(), self._network)

    def close(self) -> None:
        """Let go of the threads that look names up."""
        self._names.close()


class _Fetching:
    """The downloads of one request: what is there, and the one that failed first, which ends the others."""

    def __init__(
        self,
        settings: MediaSettings,
        connect: Callable[[str], Http11Connection],
        most: int,
        hold: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._hosts = Hosts(settings.allowed_hosts)
        self._left = most
        self._hold = hold
        self.found: dict[str, tuple[str, str]] = {}
        self.refused: dict[str, str] = {}
        self.failed: OaicompatError | None = None

    async def run(self, urls: Sequence[str]) -> None:
        """Download all; returns early when one is refused."""
        with suppress(Unfetchable, OaicompatError):
            await together([partial(self._one, url) for url in urls], _DOWNLOADS_AT_ONCE)

    async def _one(self, url: str) -> None:
        try:
            self.found[url] = await self._followed(parse_link(url))
        except Unfetchable as error:
            self.refused[url] = str(error)
            raise
        except OaicompatError as error:
            self.failed = error
            raise

    async def _followed(self, link: Link) -> tuple[str, str]:
        for _ in range(_REDIRECTS + 1):
            answer = await self._ask(link)
            if not isinstance(answer, Link):
                return answer
            link = answer
        raise Unfetchable("The media link redirects too often.")

    async def _ask(self, link: Link) -> Link | tuple[str, str]:
        """Ask one host: return where it redirects to, or (MIME type, base64)."""
        if not self._hosts.allow(link.host):
            raise Unfetchable("Media are not fetched from this host.")
        connection = self._connect(link.host)
        seconds = self._settings.timeout
        try:
            head = head_of("GET", link.url, (("host", link.host), *_HEADERS))
            waits = Waits(seconds, seconds, seconds, seconds)
            status, headers = await connection.exchange(head, b"", waits)
            if status in _REDIRECTING:
                return follow(link, headers.get("location", ""))
            _check_head(status, headers)
            data = await self._read(connection, headers)
        except UpstreamError as error:
            raise Unfetchable(_LATE if error.status == 504 else _UNREACHABLE) from None
        finally:
            await connection.aclose()
        return _type_of(headers.get("content-type", ""), data), data

    async def _read(self, connection: Http11Connection, headers: Mapping[str, str]) -> str:
        """Return the body as base64, encoded as it comes: no long step holds up other requests."""
        most = self._settings.max_bytes
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise _too_large(most)
        encoded = bytearray()
        rest = b""
        size = 0
        while data := await connection.read():
            size += len(data)
            if size > most:
                raise _too_large(most)
            rest += data
            whole = len(rest) - len(rest) % 3
            self._take(whole // 3 * 4)
            encoded += b2a_base64(rest[:whole], newline=False)
            rest = rest[whole:]
        last = b2a_base64(rest, newline=False)
        self._take(len(last))
        encoded += last
        return encoded.decode("ascii")

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Unfetchable("The media of this request are too large together.")
        self._hold(count)


def _check_head(status: int, headers: Mapping[str, str]) -> None:
    if status != 200:
        raise Unfetchable(f"The host of this media link answered with status {status}.")
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise Unfetchable("The host of this media link compressed its answer unasked.")


def _too_large(most: int) -> Unfetchable:
    return Unfetchable(f"The media at this link are larger than {most} bytes.")


def _type_of(declared: str, data: str) -> str:
    """Return the type the first bytes tell, where it is one that models take and the host does not deny."""
    declared = declared.partition(";")[0].strip().lower()
    found = sniff(data)
    if found is None or (declared not in _UNTELLING and _kind(declared) != _kind(found)):
        raise Unfetchable(
            "The media at this link are not an image, a PDF document, audio or video of a known format."
        )
    return _EITHER.get(found, found) if declared.startswith("audio/") else found


def _kind(mime: str) -> str:
    if mime.startswith(("audio/", "video/")):
        return "recording"
    return "image" if mime.startswith("image/") else _KINDS.get(mime, "")
