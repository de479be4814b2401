"""Rows E9-E12 of the fault matrix: who chooses whom the gateway calls, and what tells or does too much."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from tests.support import raw
from tests.support.asking import ask
from tests.support.gateway import Gateway, gateway, serving
from tests.support.plain import line, send, status

from oaicompat_server.framing import Receive, Scope, Send
from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config, ModelSettings

KEY = "sk-right"
KEYS = AuthSettings(mode="all_except_health", keys=(Secret(KEY),))
QUIET = ModelSettings(list_upstream=False)


@pytest.fixture(scope="module")
def opened() -> Iterator[Gateway]:
    """Serve without keys, as on a laptop."""
    with gateway() as served:
        yield served


@pytest.fixture(scope="module")
def keyed() -> Iterator[Gateway]:
    with gateway(Config(auth=KEYS)) as served:
        yield served


KNOBS = (
    *("api_base", "base_url", "api_url", "apiBase", "baseURL", "base_path", "endpoint", "host", "hostname"),
    *("upstream", "url", "target", "proxy", "proxies", "http_proxy", "custom_llm_provider", "provider"),
    *("api_key", "api_version", "vertex_project", "vertex_location", "organization", "headers"),
    *("extra_headers", "default_headers", "extra_query", "metadata_url", "webhook_url", "callback_url"),
)  # fmt: skip
HEADER_KNOBS = (
    *(
        "x-forwarded-host",
        "x-host",
        "x-original-url",
        "x-rewrite-url",
        "x-upstream",
        "x-upstream-host",
    ),
    *("x-target-host", "x-base-url", "x-api-base", "x-portkey-custom-host", "x-portkey-provider"),
    *(
        "x-litellm-api-base",
        "x-goog-api-client",
        "forwarded",
        "via",
        "proxy",
        "helicone-target-url",
    ),
)


class Decoy:
    """A listener that counts who connects."""

    def __init__(self) -> None:
        self.calls = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._socket.accept()[0].close()
            except OSError:
                return
            self.calls += 1

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def decoy() -> Iterator[Decoy]:
    made = Decoy()
    yield made
    made.close()


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
def test_e9_no_client_chooses_whom_the_gateway_calls(
    opened: Gateway, decoy: Decoy, path: str
) -> None:
    """Fields and headers that name a host, a proxy or a key change neither where a call goes nor its key."""
    before = len(opened.simulator.requests)
    told = (f"http://{decoy.place}", decoy.place, {"url": f"http://{decoy.place}"}, [decoy.place])
    for knob in KNOBS:
        for value in told:
            for body in (
                {knob: value},
                {"extra_body": {knob: value}},
                {"google": {knob: value}},
                {"litellm_params": {knob: value}},
            ):
                reply = ask(opened, "POST", path, raw.words(path, "hello") | body)
                assert reply.status in (200, 400), (knob, reply.content)
    query = "&".join(f"{knob}=http://{decoy.place}" for knob in KNOBS)
    assert ask(opened, "POST", f"{path}?{query}", raw.words(path, "hello")).status == 200
    for knob in HEADER_KNOBS:
        for value in (f"http://{decoy.place}", decoy.place):
            headers = {knob: value}
            assert ask(opened, "POST", path, raw.words(path, "hello"), **headers).status == 200
    made = opened.simulator.requests[before:]
    assert len(made) > len(HEADER_KNOBS)
    assert {each.headers["host"] for each in made} == {f"127.0.0.1:{opened.simulator.port}"}
    assert len({each.key for each in made}) == 1
    assert not [each for each in made if decoy.place in each.target + str(each.headers)]
    assert decoy.calls == 0


@pytest.mark.parametrize(
    "name", ["http://{0}/x", "{0}", "@{0}", "//{0}/v1", "models/../{0}", "x@{0}#", "x?{0}"]
)
def test_e9_a_model_name_is_no_address(opened: Gateway, decoy: Decoy, name: str) -> None:
    """A model name that looks like an address is not found on any route, and nobody is called."""
    before = len(opened.simulator.requests)
    model = name.format(decoy.place)
    for path in (raw.CHAT, raw.RESPONSES, "/v1/responses/input_tokens"):
        body = raw.words(path, "hello") | {"model": model}
        assert ask(opened, "POST", path, body).status == 404
    assert len(opened.simulator.requests) == before
    assert decoy.calls == 0


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what the server makes of a connection: its client, its scheme, its own address."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    told = {name: scope[name] for name in ("client", "scheme", "server", "root_path")}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send(
        {"type": "http.response.body", "body": json.dumps(told).encode(), "more_body": False}
    )


SPOOFED = (
    *(b"X-Forwarded-For: 203.0.113.7", b"X-Forwarded-For: 203.0.113.7, 127.0.0.1", b"X-Real-IP: 203.0.113.7"),
    *(b"Forwarded: for=203.0.113.7;proto=https;host=evil", b"X-Client-IP: 203.0.113.7"),
    b"X-Forwarded-Proto: https",
    *(b"X-Forwarded-Host: evil.example", b"X-Forwarded-Prefix: /evil", b"X-Forwarded-Port: 1"),
    *(b"True-Client-IP: 203.0.113.7", b"CF-Connecting-IP: 203.0.113.7", b"X-Forwarded-Ssl: on"),
)  # fmt: skip


def test_e10_nobody_says_who_he_is() -> None:
    """Headers of proxies change neither a client's address nor the scheme, whoever sends them."""
    with serving(mirror) as served:
        for mark in SPOOFED:
            with raw.connect(served.port) as plug:
                ours = plug.getsockname()
                plug.sendall(line(b"GET", b"/", mark).replace(b"%d", str(served.port).encode()))
                told = json.loads(raw.read(plug).partition(b"\r\n\r\n")[2].split(b"\r\n")[1])
            assert told == {
                "client": [*ours],
                "scheme": "http",
                "server": ["127.0.0.1", served.port],
                "root_path": "",
            }


def test_e10_a_spoofed_address_opens_nothing(opened: Gateway, keyed: Gateway) -> None:
    """No header of a proxy replaces a key, a Host or an Origin."""
    for mark in (*SPOOFED, b"X-Forwarded-For: 127.0.0.1", b"X-Forwarded-Host: localhost:%d"):
        assert status(keyed, line(b"GET", b"/v1/models", mark)) == 401
        assert status(opened, line(b"GET", b"/healthz", mark, host=b"evil.com")) == 403
        assert status(opened, line(b"GET", b"/healthz", mark, b"Origin: https://evil.com")) == 403


@pytest.mark.parametrize("path", ["/healthz", "/health"])
def test_e11_health_tells_a_stranger_nothing_but_that(path: str) -> None:
    """Health without a key is the word ok and the version: the same with one key as with many that fail."""
    names: dict[str, Any] = {"auth": KEYS, "models": QUIET}
    with gateway(Config(**names), keys=("one",)) as few, gateway(
        Config(**names), keys=tuple(f"invalid-{number}" for number in range(30))
    ) as many:  # fmt: skip
        ask(many, "POST", raw.CHAT, raw.words(raw.CHAT, "hello"), key=KEY)
        seen = len(many.simulator.requests)
        for served in (few, many):
            found, headers, body = send(served, line(b"GET", path.encode()))
            assert found == 200
            assert json.loads(body) == {"status": "ok", "version": version("oaicompat-server")}
            assert set(headers) == {
                *("x-request-id", "openai-processing-ms", "openai-version"),
                *("content-type", "content-length", "connection"),
            }
            assert send(served, line(b"HEAD", path.encode()))[2] == b""
        assert len(many.simulator.requests) == seen
        assert few.simulator.requests == []


def test_e11_readiness_is_one_word() -> None:
    """Readiness says ready or why not in one word, and counts no credentials."""
    with gateway(Config(auth=KEYS, models=QUIET), keys=("invalid-1", "invalid-2")) as served:
        assert json.loads(send(served, line(b"GET", b"/readyz"))[2]) == {"status": "ready"}
        ask(served, "POST", raw.CHAT, raw.words(raw.CHAT, "hello"), key=KEY)
        found, _, body = send(served, line(b"GET", b"/readyz"))
        assert (found, json.loads(body)) == (503, {"status": "no usable credential"})


INVENTORY = {
    "POST /v1/chat/completions",
    "POST/GET /v1/responses",
    "POST /v1/responses/compact",
    "POST /v1/responses/input_tokens",
    "GET/DELETE /v1/responses/{id}",
    "POST /v1/responses/{id}/cancel",
    "GET /v1/responses/{id}/input_items",
    "POST /v1/conversations",
    "GET/POST/DELETE /v1/conversations/{id}",
    "GET/POST /v1/conversations/{id}/items",
    "GET/DELETE /v1/conversations/{id}/items/{item}",
    "GET /v1/models",
    "GET /v1/models/{id}",
    "POST /v1/models/detect",
    "GET /healthz",
    "GET /v1/oaicompat/status",
    "POST /v1/oaicompat/reset",
}
"""Every route there is. A new one has to answer the question of row E12 before it is written here."""


def test_e12_every_route_is_known_and_none_runs_or_fetches(opened: Gateway) -> None:
    """The routes are those of a list, none of which takes a command, a path or an address to use."""
    message: str = ask(opened, "GET", "/nothing").error["message"]
    listed = message.partition("Served here: ")[2].rstrip(".").split(", ")
    assert set(listed) == INVENTORY
    assert len(listed) == len(INVENTORY)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/docs",
            "/redoc",
            "/openapi.json",
            "/metrics",
            "/debug",
            "/debug/pprof",
            "/admin",
            "/config",
            "/.env",
        ),
        *(
            "/v1/config",
            "/v1/admin",
            "/reload",
            "/shutdown",
            "/restart",
            "/exec",
            "/eval",
            "/fetch",
            "/proxy",
        ),
        *(
            "/v1/mcp",
            "/mcp",
            "/mcp-rest/test/connection",
            "/tools",
            "/v1/tools",
            "/v1/files",
            "/v1/batches",
        ),
        *(
            "/v1/fine_tuning/jobs",
            "/v1/images/generations",
            "/v1/audio/speech",
            "/v1/assistants",
            "/v1/threads",
        ),
        *(
            "/v1/vector_stores",
            "/key/generate",
            "/user/new",
            "/v1beta/models",
            "/oaicompat",
            "/oaicompat/config",
        ),
        *(
            "/oaicompat/status/x",
            "/oaicompat/reload",
            "/oaicompat/logs",
            "/static/x",
            "/favicon.ico",
            "/robots.txt",
        ),
    ],
)
def test_e12_no_route_of_administration_is_left_open(opened: Gateway, path: str) -> None:
    """What other gateways offer for administration and tests is not there, by any method."""
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"):
        body = b"{}" if method in ("POST", "PUT", "PATCH") else None
        assert ask(opened, method, path, body).status == 404
