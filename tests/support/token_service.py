"""A token service on a local port, and the keys of accounts that it serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec import Struct

from oaicompat_server.connection import Connection, origin_of
from oaicompat_server.http11 import Http11Connection
from oaicompat_server.settings import UpstreamSettings
from oaicompat_server.upstream import Upstream

EMAIL = "gateway@my-project.iam.gserviceaccount.com"


class Asked(Struct):
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: str

    @property
    def form(self) -> dict[str, str]:
        """Return the fields of a form."""
        return {name: values[0] for name, values in parse_qs(self.body).items()}


class Reply(Struct):
    """One answer."""

    status: int = 200
    body: bytes = b""
    headers: tuple[str, ...] = ("content-type: application/json",)


def granted(token: str, seconds: int = 3600) -> Reply:
    """Return an answer with a token."""
    body = {"access_token": token, "expires_in": seconds, "token_type": "Bearer"}
    return Reply(body=json.dumps(body).encode())


class TokenService:
    """Answers what `answer` says (None: never); tokens `token-1`, `token-2`, ... unless that is replaced."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.life = 3600
        self.answer: Callable[[Asked], Reply | None] = self._grant
        self.port = 0

    @property
    def calls(self) -> int:
        """Return how many tokens were asked for."""
        return sum(each.method == "POST" for each in self.asked)

    def upstream(self) -> Upstream:
        """Return what connects to this service, whatever host is asked for."""

        def connect(origin: str) -> Connection:
            self.connections += 1
            return Http11Connection(origin_of(f"http://127.0.0.1:{self.port}"))

        return Upstream(UpstreamSettings(max_idle=0), connect)

    async def asked_for(self, count: int) -> None:
        """Wait until so many requests have come."""
        for _ in range(2500):
            if len(self.asked) >= count:
                return
            await asyncio.sleep(0.002)
        raise TimeoutError

    def _grant(self, asked: Asked) -> Reply:
        return granted(f"token-{self.calls}", self.life)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            asked = Asked(method, path, headers, body.decode())
            self.asked.append(asked)
            reply = self.answer(asked)
            await self.gate.wait()
            if reply is None:
                await reader.read()
                return
            lines = [f"HTTP/1.1 {reply.status} x", f"content-length: {len(reply.body)}"]
            writer.write("\r\n".join((*lines, *reply.headers, "", "")).encode() + reply.body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def token_service() -> AsyncIterator[TokenService]:
    """Run a service on a free port."""
    service = TokenService()
    server = await asyncio.start_server(service.handle, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        service.gate.set()
        server.close()


@lru_cache(1)
def private_key() -> rsa.RSAPrivateKey:
    """Return the key that signs, made once."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem() -> str:
    """Return the key as a key file has it."""
    return (
        private_key()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def key_file(**other: Any) -> str:
    """Return the JSON of a service account's key file."""
    fields = {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "0123456789",
        "private_key": pem(),
        "client_email": EMAIL,
        "client_id": "123",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    }
    return json.dumps({name: value for name, value in (fields | other).items() if value})
