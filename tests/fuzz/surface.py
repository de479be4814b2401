"""Raw bytes at the port of a running gateway: it lives on, and answers nothing but whole replies.

One rule: what is sent need not be HTTP; a good request afterwards is answered as ever.
"""

from __future__ import annotations

import http.client
import logging
import random
import re
import socket
import time

from tests.fuzz.corpus import mutated
from tests.support.gateway import Gateway, gateway

from oaicompat_server.limits import Limits

_BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
_HEAD = b"Host: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
_REPLY = re.compile(rb"HTTP/1\.1 [1-5][0-9][0-9] ")


def requests(port: int) -> list[bytes]:
    """Return good requests to begin with."""
    head = _HEAD % port
    return [
        b"GET /healthz HTTP/1.1\r\n%s\r\n" % head,
        b"POST /v1/chat/completions HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s"
        % (head, len(_BODY), _BODY),
        b"POST /v1/responses HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
        % (head, len(_BODY), _BODY),
        b"GET /v1/responses HTTP/1.1\r\n%sConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        b"\x81\x85\x00\x00\x00\x00hello" % head,
    ]


def fuzz_surface(seconds: float, seed: int) -> int:
    """Send neighbours of good requests for so long; return how many. Raises `AssertionError` for a find."""
    chance = random.Random(seed)
    stop = time.monotonic() + seconds
    count = 0
    faults = _Faults()
    logging.getLogger().addHandler(faults)
    with gateway(limits=Limits(header_seconds=1.0, body_gap_seconds=1.0)) as served:
        seeds = requests(served.port)
        while time.monotonic() < stop:
            sent = chance.choice(seeds)
            for _ in range(chance.randint(1, 3)):
                sent = mutated(sent, chance.choice(seeds), chance)
            _send(served, sent, chance)
            count += 1
            if count % 50 == 0:
                _check(served, sent)
        _check(served, b"")
        until = time.monotonic() + 5
        while any(served.idle().values()) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(served.idle().values()), served.idle()
    assert not faults.seen, faults.seen[0]
    return count


class _Faults(logging.Handler):
    """Keeps what is logged with a traceback: nothing that a client sends may be a fault of the gateway."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.seen.append(self.format(record))


def _send(served: Gateway, data: bytes, chance: random.Random) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        try:
            for at in range(0, len(data), size := chance.choice((1 << 20, 1000, 100))):
                plug.sendall(data[at : at + size])
            plug.settimeout(0.03)
            found = plug.recv(1 << 20)
        except TimeoutError:
            return
        except OSError:
            return
    assert not found or _REPLY.match(found), (data, found)


def _check(served: Gateway, sent: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", _BODY, headers)
    assert connection.getresponse().status == 200, sent
    connection.close()
