"""Rows F9 and F10 of the fault matrix: bytes that two readers could read as different requests.

One rule: behind every odd request stands one for `/smuggled`. It is answered only where the request before it
ended without doubt, so that the count of answers shows where the gateway saw the end.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

import pytest
from tests.support import raw
from tests.support.gateway import Gateway, gateway

_LAST = b"GET /smuggled HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n"
_HOST = b"Host: localhost:%d\r\n"
_JSON = b"Content-Type: application/json\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


def statuses(served: Gateway, data: bytes) -> list[int]:
    """Send bytes and end our side; return the status of every answer."""
    with raw.connect(served.port) as plug:
        with contextlib.suppress(ConnectionError):
            plug.sendall(data.replace(b"%d", str(served.port).encode()))
            plug.shutdown(socket.SHUT_WR)
        answers = raw.read(plug)
    return final(answers)


def final(answers: bytes) -> list[int]:
    """Return the statuses of answers; a 100 only asks whether a client that has ended its side is there."""
    return [int(each) for each in _STATUS.findall(answers) if each != b"100"]


def get(*lines: bytes, start: bytes = b"GET /v1/nothing HTTP/1.1") -> bytes:
    return b"\r\n".join([start, *lines, b"", b""])


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return (
        b"POST /v1/models/detect HTTP/1.1\r\n"
        + _HOST
        + _JSON
        + b"\r\n".join([*lines, b"", b""])
        + body
    )


def start(text: bytes) -> bytes:
    return get(_HOST[:-2], start=text)


_CHUNKED = b"Transfer-Encoding: chunked"
_EMPTY = b"0\r\n\r\n"
_BODY = b'{"model":"m"}\r\n'

REFUSED = {
    "length and coding": post(b"Content-Length: 5", _CHUNKED, body=_EMPTY),
    "coding and length": post(_CHUNKED, b"Content-Length: 5", body=_EMPTY),
    "length of the chunks and coding": post(
        b"Content-Length: 4", _CHUNKED, body=b"5c\r\n" + _EMPTY
    ),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: 44"),
    "two equal lengths": post(b"Content-Length: 0", b"Content-Length: 0"),
    "list of lengths": post(b"Content-Length: 0, 0"),
    "other list of lengths": post(b"Content-Length: 0,44"),
    "negative length": post(b"Content-Length: -1"),
    "signed length": post(b"Content-Length: +0"),
    "hexadecimal length": post(b"Content-Length: 0x0"),
    "fractional length": post(b"Content-Length: 0.0"),
    "length in words": post(b"Content-Length: zero"),
    "huge length": post(b"Content-Length: 99999999999999999999999"),
    "length that wraps": post(b"Content-Length: 18446744073709551616"),
    "length with a gap": post(b"Content-Length: 0 0"),
    "length before its colon": post(b"Content-Length : 0"),
    "length after a tab": post(b"Content-Length\t: 0"),
    "coding before its colon": post(b"Transfer-Encoding : chunked", body=_EMPTY),
    "unknown coding": post(b"Transfer-Encoding: gzip", body=_EMPTY),
    "coding with gzip": post(b"Transfer-Encoding: gzip, chunked", body=_EMPTY),
    "coding twice in one": post(b"Transfer-Encoding: chunked, chunked", body=_EMPTY),
    "coding twice": post(_CHUNKED, _CHUNKED, body=_EMPTY),
    "coding, then identity": post(b"Transfer-Encoding: chunked, identity", body=_EMPTY),
    "identity": post(b"Transfer-Encoding: identity", body=_EMPTY),
    "identity, then coding": post(b"Transfer-Encoding: identity", _CHUNKED, body=_EMPTY),
    "coding with a prefix": post(b"Transfer-Encoding: xchunked", body=_EMPTY),
    "coding with a suffix": post(b"Transfer-Encoding: chunkedx", body=_EMPTY),
    "coding with a parameter": post(b"Transfer-Encoding: chunked;q=1", body=_EMPTY),
    "quoted coding": post(b'Transfer-Encoding: "chunked"', body=_EMPTY),
    "coding after a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=_EMPTY),
    "coding with NUL": post(b"Transfer-Encoding: chunked\x00", body=_EMPTY),
    "folded coding": post(b"Transfer-Encoding:\r\n chunked", body=_EMPTY),
    "folded header": get(_HOST[:-2], b"X: a\r\n b"),
    "header that begins with a blank": get(b" " + _HOST[:-2]),
    "first header folded": get(b" X: a", _HOST[:-2]),
    "header without a colon": get(_HOST[:-2], b"smuggled"),
    "header without a name": get(_HOST[:-2], b": x"),
    "blank in a name": get(_HOST[:-2], b"X Y: z"),
    "NUL in a name": get(_HOST[:-2], b"X\x00: z"),
    "NUL in a value": get(_HOST[:-2], b"X: a\x00b"),
    "bare CR in a value": get(_HOST[:-2], b"X: a\rGET /x HTTP/1.1"),
    "bare CR before a header": get(_HOST[:-2], b"X: a\rTransfer-Encoding: chunked"),
    "line ends of LF": b"GET /v1/nothing HTTP/1.1\nHost: localhost:%d\n\n",
    "one line end of LF": b"GET /v1/nothing HTTP/1.1\r\nHost: localhost:%d\nX: y\r\n\r\n",
    "line ends of CR": b"GET /v1/nothing HTTP/1.1\rHost: localhost:%d\r\r",
    "bytes beyond ASCII in a name": get(_HOST[:-2], b"X\xe9: y"),
    "no Host": get(),
    "two Hosts": get(_HOST[:-2], b"Host: evil.example"),
    "two equal Hosts": get(_HOST[:-2], _HOST[:-2]),
    "empty Host": get(b"Host:"),
    "HTTP/0.9": b"GET /v1/nothing\r\n\r\n",
    "HTTP/0.9 in words": start(b"GET /v1/nothing HTTP/0.9"),
    "HTTP/2.0 in words": start(b"GET /v1/nothing HTTP/2.0"),
    "HTTP/1.2": start(b"GET /v1/nothing HTTP/1.2"),
    "HTTP/11.1": start(b"GET /v1/nothing HTTP/11.1"),
    "other protocol": start(b"GET /v1/nothing ICY/1.1"),
    "small letters": start(b"GET /v1/nothing http/1.1"),
    "no blank before the version": start(b"GET /v1/nothingHTTP/1.1"),
    "two targets": start(b"GET /v1/nothing /x HTTP/1.1"),
    "tab for a blank": start(b"GET\t/v1/nothing HTTP/1.1"),
    "blank before the method": start(b" GET /v1/nothing HTTP/1.1"),
    "small method": start(b"get /v1/nothing HTTP/1.1"),
    "method of ours": start(b"SMUGGLE /v1/nothing HTTP/1.1"),
    "absolute target": start(b"GET http://localhost:%d/v1/nothing HTTP/1.1"),
    "absolute target elsewhere": start(b"GET http://evil.example/v1/nothing HTTP/1.1"),
    "target of an authority": start(b"CONNECT evil.example:443 HTTP/1.1"),
    "target without a slash": start(b"GET v1/nothing HTTP/1.1"),
    "target with CR": start(b"GET /v1/\rnothing HTTP/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 60,
    "size of a chunk in words": post(_CHUNKED, body=b"zz\r\n" + _EMPTY),
    "size of a chunk with a sign": post(_CHUNKED, body=b"+1\r\nx\r\n" + _EMPTY),
    "size of a chunk as 0x": post(_CHUNKED, body=b"0x1\r\nx\r\n" + _EMPTY),
    "negative chunk": post(_CHUNKED, body=b"-1\r\nx\r\n" + _EMPTY),
    "chunk that wraps": post(_CHUNKED, body=b"10000000000000001\r\nx\r\n" + _EMPTY),
    "chunk without its end": post(_CHUNKED, body=b"1\r\nxx\r\n" + _EMPTY),
    "chunk with LF": post(_CHUNKED, body=b"1\nx\n0\n\n"),
    "chunk with CR": post(_CHUNKED, body=b"1\rx\r0\r\r"),
}
"""What is refused: with one answer, or none where the head itself was not whole."""

PLAIN = {
    "nothing odd": get(_HOST[:-2]),
    "empty body": post(b"Content-Length: 0"),
    "chunked": post(_CHUNKED, body=b"d\r\n" + _BODY + _EMPTY),
    "chunked in capitals": post(b"TRANSFER-ENCODING: CHUNKED", body=_EMPTY),
    "trailer": post(_CHUNKED, body=b"d\r\n" + _BODY + b"0\r\nX: y\r\n\r\n"),
    "extension of a chunk": post(_CHUNKED, body=b"d;a=b\r\n" + _BODY + _EMPTY),
    "zeros before a size": post(_CHUNKED, body=b"000d\r\n" + _BODY + _EMPTY),
    "zeros before a length": post(b"Content-Length: 0000"),
    "body of GET": get(_HOST[:-2], b"Content-Length: 5", start=b"GET /healthz HTTP/1.1") + b"GET /",
    "request in a body": post(b"Content-Length: %d" % len(_LAST), body=_LAST),
    "header like a length": post(b"Content_Length: 44", b"Content-Length: 0"),
    "header like a coding": post(b"Transfer_Encoding: chunked", b"Content-Length: 0"),
    "headers by the way": post(
        b"Content-Length: 0", b"X-Transfer-Encoding: chunked", b"TE: trailers"
    ),
    "empty lines before": b"\r\n\r\n" + get(_HOST[:-2]),
}
"""What ends without doubt, and so has two answers: its own, and that of the request behind it."""


def test_f9_the_table_is_broad() -> None:
    """At least sixty requests are tried byte by byte, each with another one behind it."""
    assert len({**REFUSED, **PLAIN}) >= 60


@pytest.mark.parametrize("name", REFUSED)
def test_f9_what_could_be_read_in_two_ways_is_refused(served: Gateway, name: str) -> None:
    """Two lengths, a length beside a coding, odd codings, Hosts, targets, line ends: one 400, then the end."""
    found = statuses(served, REFUSED[name] + _LAST)
    assert found == [400], found
    assert served.simulator.requests == []


@pytest.mark.parametrize("name", PLAIN)
def test_f9_what_ends_without_doubt_has_one_answer_each(served: Gateway, name: str) -> None:
    """A well-formed request has one answer, and so has the one behind it; nothing in a body is a request."""
    data = PLAIN[name].replace(b"%d", str(served.port).encode())
    if name == "request in a body":
        last = _LAST.replace(b"%d", str(served.port).encode())
        data = post(b"Content-Length: " + str(len(last)).encode(), body=last)
    found = statuses(served, data + _LAST)
    assert len(found) == 2, found
    assert found[1] == 404


def test_f9_a_length_of_thousands_of_digits_is_refused(served: Gateway) -> None:
    """A length with more digits than Python reads, nearly all zeros, is told 400 instead of a 500."""
    data = post(b"Content-Length: " + b"0" * 5000 + b"2", body=b"{}")
    assert statuses(served, data)[:1] == [400]
    assert statuses(served, post(b"Content-Length: " + b"0" * 18 + b"14", body=_BODY)) == [200]


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"PRI * HTTP/1.1\r\nHost: localhost:%d\r\n\r\n",
    ],
)
def test_f10_the_preface_of_http2_is_no_request(served: Gateway, data: bytes) -> None:
    """A client that speaks HTTP/2 at once is told 400 in HTTP/1.1, and the connection ends."""
    assert statuses(served, data) == [400]


@pytest.mark.parametrize("offer", [b"h2c", b"h2", b"TLS/1.2", b"HTTP/2.0", b"foo, h2c"])
def test_f10_an_offer_of_http2_is_declined(served: Gateway, offer: bytes) -> None:
    """An offer to change to HTTP/2 is read as the plain request that it is, body and all, and answered once."""
    lines = (
        b"Connection: Upgrade, HTTP2-Settings",
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        b"Upgrade: " + offer,
    )
    for data, expected in (
        (get(_HOST[:-2], *lines, start=b"GET /healthz HTTP/1.1"), 200),
        (post(*lines, b"Content-Length: 13", body=_BODY[:13]), 200),
        (get(_HOST[:-2], *lines, start=b"GET /v1/nothing HTTP/1.1"), 404),
    ):
        with raw.connect(served.port) as plug:
            plug.sendall(data.replace(b"%d", str(served.port).encode()))
            plug.shutdown(socket.SHUT_WR)
            answer = raw.read(plug)
        assert final(answer) == [expected]
        assert b"upgrade:" not in answer.lower()
        assert b" 101 " not in answer
