"""Vertex AI end to end: each kind of credential before the simulator, which checks paths and tokens."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from tests.support.asking import ask
from tests.support.gateway import gateway
from tests.support.token_service import EMAIL, TokenService, private_key, token_service

from oaicompat_server.checking import check_credential
from oaicompat_server.pool import Credential
from oaicompat_server.secret import Secret
from oaicompat_server.settings import Config, CredentialSettings, UpstreamSettings
from oaicompat_server.simulator import Simulator, running
from oaicompat_server.upstream import Upstream
from oaicompat_server.vertex import token_source

ASKED: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def tokens() -> Iterator[TokenService]:
    with served_tokens() as service:
        yield service


@contextmanager
def served_tokens() -> Iterator[TokenService]:
    """Run a token service in a thread."""
    ready = threading.Event()
    found: list[TokenService] = []
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        async with token_service() as service:
            found.append(service)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running(any_model=True) as found:
        yield found


def account() -> Secret:
    pem = private_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Secret.document(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "my-project",
                "private_key": pem.decode(),
                "client_email": EMAIL,
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        )
    )


def entries(url: str) -> dict[str, CredentialSettings]:
    """Return an entry of each kind, used against the simulator."""
    return {
        "service_account": CredentialSettings(
            kind="service_account", key=account(), project="my-project", base_url=url
        ),
        "bearer": CredentialSettings(
            kind="bearer", key=Secret("token-x"), label="ready", project="my-project",
            location="us-central1", base_url=url,
        ),
        "express": CredentialSettings(
            kind="express", key=Secret("AQ.key"), label="fast", base_url=url
        ),
    }  # fmt: skip


PLACES = {
    "service_account": "/v1beta1/projects/my-project/locations/global/publishers/google/models/",
    "bearer": "/v1beta1/projects/my-project/locations/us-central1/publishers/google/models/",
    "express": "/v1/publishers/google/models/",
}
NAMES = {"service_account": EMAIL, "bearer": "ready", "express": "fast"}


@pytest.mark.parametrize("kind", PLACES)
def test_each_kind_serves_chat_and_responses(
    kind: str, simulator: Simulator, tokens: TokenService
) -> None:
    entry = entries(simulator.url)[kind]
    sources = partial(token_source, upstream=tokens.upstream())
    with gateway(Config(credentials=(entry,)), simulator, sources=sources) as served:
        plain = ask(served, "POST", "/v1/chat/completions", ASKED)
        assert plain.status == 200, plain.content
        assert plain.data["choices"][0]["message"]["content"] == "hello"
        assert plain.headers["x-account-email"] == NAMES[kind]
        streamed = ask(served, "POST", "/v1/chat/completions", ASKED | {"stream": True})
        assert streamed.content.endswith(b"data: [DONE]\n\n")
        made = ask(served, "POST", "/v1/responses", {"model": "gpt-4o", "input": "hello"})
        assert made.data["status"] == "completed"
        # Vertex AI lists no models in this shape; the names of the mapping are there.
        listed = ask(served, "GET", "/v1/models").data["data"]
        assert {"gpt-4o"} <= {each["id"] for each in listed}
    paths = [record.path for record in simulator.requests]
    assert len(paths) == 3
    assert all(path.startswith(PLACES[kind]) for path in paths)


def test_a_token_that_is_refused_is_made_anew_and_the_call_goes_on(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entries(simulator.url)["service_account"]
    with served_tokens() as service:
        service.life = 3600
        first = Secret("revoked-invalid-token")
        sources = partial(token_source, upstream=service.upstream())
        with gateway(Config(credentials=(entry,)), simulator, sources=sources) as served:
            (credential,) = served.relay.pool.credentials
            assert ask(served, "POST", "/v1/chat/completions", ASKED).status == 200
            made = credential.source
            shown: list[Secret] = [first]
            whole = type(made).token

            async def token(self: Any) -> Secret:
                return shown.pop() if shown else await whole(self)

            monkeypatch.setattr(type(made), "token", token)
            assert ask(served, "POST", "/v1/chat/completions", ASKED).status == 200
            assert not served.relay.pool.all_refused
            assert served.idle()["leases"] == 0


@pytest.mark.parametrize("kind", PLACES)
def test_a_credential_is_checked_without_a_call_that_costs(
    kind: str, simulator: Simulator, tokens: TokenService
) -> None:
    async def check() -> str:
        upstream = Upstream(UpstreamSettings())
        sources = partial(token_source, upstream=tokens.upstream())
        credential = Credential.of(entries(simulator.url)[kind], sources)
        try:
            return await check_credential(upstream, credential, "")
        finally:
            await upstream.aclose()

    assert asyncio.run(check()) == "counts tokens of gemini-2.5-flash"
    (record,) = simulator.requests
    assert record.path.endswith(":countTokens")
