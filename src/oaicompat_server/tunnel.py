"""Connections through an HTTP proxy, as httpcore's network interface.

One rule: every upstream is reached by a tunnel (`CONNECT`, RFC 9110 section 9.3.6), so that TLS is with the
upstream itself and the proxy sees no key of ours; its own password goes to it alone.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

import anyio
import httpcore

from oaicompat_server.secret import Secret

_MOST_HEAD_BYTES = 16 * 1024


class TunnelBackend(httpcore.AsyncNetworkBackend):
    """Opens connections through `proxy`, `http://[user:password@]host:port`, over the network `inner`."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend, proxy: Secret) -> None:
        url = urlsplit(proxy.reveal())
        self._inner = inner
        self._host = url.hostname or ""
        self._port = url.port or 80
        self._login = Secret("")
        if url.username is not None:
            pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
            self._login = Secret(base64.b64encode(pair.encode("utf-8")).decode("ascii"))

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Have the proxy connect to the host; raises `httpcore.ProxyError` where it does not."""
        try:
            with anyio.fail_after(timeout):
                stream = await self._inner.connect_tcp(
                    self._host, self._port, timeout, local_address, socket_options
                )
                try:
                    await self._open(
                        stream, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                    )
                except BaseException as failure:
                    with anyio.CancelScope(shield=True):
                        await stream.aclose()
                    if isinstance(failure, httpcore.NetworkError):
                        raise httpcore.ProxyError from None
                    raise
                return stream
        except TimeoutError:
            raise httpcore.ConnectTimeout from None

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)

    async def _open(self, stream: httpcore.AsyncNetworkStream, authority: str) -> None:
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self._login:
            lines.append(f"Proxy-Authorization: Basic {self._login.reveal()}")
        await stream.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        head = b""
        while b"\r\n\r\n" not in head:
            more = await stream.read(4096)
            head += more
            if not more or len(head) > _MOST_HEAD_BYTES:
                raise httpcore.ProxyError
        words = head.split(b"\r\n", 1)[0].split(b" ")
        opened = len(words) >= 2 and words[0].startswith(b"HTTP/1.") and words[1][:1] == b"2"
        # Bytes behind the head would be the upstream's, which does not speak first.
        if not opened or not head.endswith(b"\r\n\r\n"):
            raise httpcore.ProxyError
