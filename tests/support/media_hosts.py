"""Public hosts of media as a test sees them, and a private listener that nobody may reach.

One rule: the rig replaces what answers look-ups and what opens sockets, never a check in between: an address
that is let through is connected to, and a private one leads to the listener.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest

from oaicompat_server.checked_network import CheckedNetwork
from oaicompat_server.media_fetch import MediaFetch
from oaicompat_server.network import AsyncioStream, dial

PUBLIC = "93.184.215.14"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3
Step = bytes | float
"""What a host sends: bytes, or seconds of silence."""


def reply(body: bytes, mime: str = "image/png", *lines: str, status: str = "200 OK") -> bytes:
    """Return a whole HTTP reply."""
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
    head += [f"content-type: {mime}"] if mime else []
    return "\r\n".join([*head, *lines, "", ""]).encode("latin-1") + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    """Return a redirect."""
    return reply(b"", "", f"location: {location}", status=status)


def make_certificate(place: Path, *names: str) -> None:
    """Write `cert.pem` and `key.pem` for these host names; skips the test where openssl is missing."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program is needed to make certificates")
    named = ",".join(f"DNS:{name}" for name in names)
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    out = ("-subj", "/CN=media", "-addext", f"subjectAltName={named}")
    files = ("-keyout", "key.pem", "-out", "cert.pem")
    command = ["openssl", "req", "-x509", *new, *out, *files]
    subprocess.run(command, cwd=place, capture_output=True, check=True)


class MediaHosts:
    """Serves `pages`, by host and path, over TLS to whoever was sent to a public address.

    `names` has the addresses of each name, one set for each look-up, the last one for good; `asked` is what
    was looked up, `dialled` what was connected to, `heads` the requests that came, `private` how many
    connections the private listener got.
    """

    def __init__(self, certificates: Path) -> None:
        self.pages: dict[str, Sequence[Step]] = {}
        self.names: dict[str, list[Sequence[str]]] = {}
        self.asked: list[str] = []
        self.dialled: list[str] = []
        self.heads: list[str] = []
        self.private = 0
        self.open = 0
        self.hang = False
        self.context = ssl.create_default_context(cafile=str(certificates / "cert.pem"))
        self._serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._serving.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
        self.port = self.private_port = 0

    def fetcher(self, most: int = 1 << 30) -> MediaFetch:
        """Return what is tested, its way to the network replaced."""
        return MediaFetch(most, lambda: self.context, CheckedNetwork(self.resolve, self.connect))

    async def resolve(self, host: str) -> Sequence[str]:
        """Look a name up: numbers in every spelling the system knows, names as told, the rest private."""
        self.asked.append(host)
        if self.hang:
            await asyncio.sleep(60)
        if host in self.names:
            answers = self.names[host]
            return answers.pop(0) if len(answers) > 1 else answers[0]
        try:
            found = socket.getaddrinfo(host.strip("[]"), 443, flags=socket.AI_NUMERICHOST)
        except OSError:
            return ["127.0.0.1"]
        return [str(info[4][0]) for info in found]

    async def connect(self, addresses: Sequence[tuple[str, int]]) -> AsyncioStream:
        """Connect as production does, to the ports of this rig."""
        assert {port for _, port in addresses} == {443}
        self.dialled += [address for address, _ in addresses]
        port = self.port if addresses[0][0] == PUBLIC else self.private_port
        return await dial([("127.0.0.1", port)])

    async def serve(self, started: Future[asyncio.Event]) -> None:
        """Run both servers until the event that `started` gets is set."""
        public = await asyncio.start_server(self._public, "127.0.0.1", 0, ssl=self._serving)
        private = await asyncio.start_server(self._private, "127.0.0.1", 0)
        self.port = public.sockets[0].getsockname()[1]
        self.private_port = private.sockets[0].getsockname()[1]
        stop = asyncio.Event()
        started.set_result(stop)
        await stop.wait()
        public.close()
        private.close()

    async def _private(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.private += 1
        writer.close()

    async def _public(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            target = head.split(" ")[1].partition("?")[0]
            host = next(line[6:] for line in head.split("\r\n") if line.startswith("host: "))
            for step in self.pages.get(host + target, [reply(b"", status="404 Not Found")]):
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    writer.write(step)
                    await writer.drain()
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@contextmanager
def media_hosts(certificates: Path, names: Mapping[str, str]) -> Iterator[MediaHosts]:
    """Serve in a thread; `names` are the hosts there are, each with its address."""
    hosts = MediaHosts(certificates)
    hosts.names = {name: [[address]] for name, address in names.items()}
    started: Future[asyncio.Event] = Future()
    loops: Future[asyncio.AbstractEventLoop] = Future()

    async def run() -> None:
        loops.set_result(asyncio.get_running_loop())
        await hosts.serve(started)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="media", daemon=True)
    thread.start()
    stop = started.result(10)
    try:
        yield hosts
    finally:
        loops.result(1).call_soon_threadsafe(stop.set)
        thread.join(10)
