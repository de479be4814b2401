"""The bytes of an upstream's HTTP/1.1 replies: parsed by httptools, checked by rules stricter than its own.

One rule: a reply has exactly one length. Whatever could be read in two ways is refused, and whatever costs
memory or time before the body has a cap.
"""

from __future__ import annotations

from collections.abc import Mapping

import httpcore
import httptools

from oaicompat_server.connection import header_map
from oaicompat_server.limits import LENGTH_DIGITS

HEAD_BYTES = 64 * 1024
INTERIM_REPLIES = 16
_WITHOUT_BODY = frozenset({204, 304})


class ReplyParser:
    """Parses the replies of one connection, one after the other.

    `status`, `headers` and `lines`, the headers as they came, are there once `headed`; `take()` gives the body
    as its `pieces` come; `complete` is its end, after which `reusable` tells about the connection. Every method
    raises `httpcore.RemoteProtocolError`.
    """

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.begin("")

    def begin(self, method: str) -> None:
        """Expect the reply to a request of this method."""
        self._bodiless = method == "HEAD"
        self.pieces: list[bytes] = []
        self._idle_bytes = self._head_bytes = self._interim = 0
        self._extra = False
        self.lines: list[tuple[bytes, bytes]] = []
        self.headers: Mapping[str, str] = {}
        self.headed = False
        self.complete = False

    def reusable(self) -> bool:
        """Tell whether another request may follow: the reply ended by its own length and nothing came after."""
        return self.complete and self._keep_alive and not self._extra

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._parser is None:
            raise httpcore.RemoteProtocolError
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.complete:
                raise httpcore.RemoteProtocolError from None
            self._extra = True
        self._idle_bytes = 0 if self.pieces else self._idle_bytes + len(data)
        if self._idle_bytes > HEAD_BYTES and not self.complete:
            raise httpcore.RemoteProtocolError

    def end(self) -> None:
        """Take the end of the connection, which ends only a reply without any length."""
        if not (self.headed and self._until_close):
            raise httpcore.RemoteProtocolError
        self.complete = True

    def take(self) -> bytes:
        """Return what came of the body since the last call, in one piece."""
        pieces = self.pieces
        if not pieces:
            return b""
        self.pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Let go of the parser, which holds this object in turn."""
        self._parser = None

    def on_message_begin(self) -> None:
        self._extra = self._extra or self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > HEAD_BYTES:
            raise httpcore.RemoteProtocolError
        if not self.headed:
            self.lines.append((name, value))

    def on_headers_complete(self) -> None:
        if self._parser is None or self.complete:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self._interim += 1
            if self.status < 100 or self.status == 101 or self._interim > INTERIM_REPLIES:
                raise httpcore.RemoteProtocolError
            return
        self.headers = header_map(self.lines)
        self._check_length(self.headers)
        self._keep_alive = self._parser.should_keep_alive() and not self._bodiless
        self.headed = True
        self.complete = self._bodiless

    def on_body(self, body: bytes) -> None:
        if self.complete:
            return
        # Interim replies have no body, whatever the parser makes of a length in them.
        if not self.headed:
            raise httpcore.RemoteProtocolError
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        if self.headed:
            self.complete = True
        else:
            self.lines.clear()

    def _check_length(self, headers: Mapping[str, str]) -> None:
        """Refuse a reply whose body would have two lengths, or one that is not understood."""
        length, coding = headers.get("content-length"), headers.get("transfer-encoding")
        if length is not None and (
            coding is not None or "," in length or len(length) > LENGTH_DIGITS
        ):
            raise httpcore.RemoteProtocolError
        if coding is not None and coding.lower() != "chunked":
            raise httpcore.RemoteProtocolError
        known = length is not None or coding is not None
        self._until_close = not (known or self.status in _WITHOUT_BODY)
