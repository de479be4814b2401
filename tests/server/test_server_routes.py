"""Paths and their aliases, the model list, and what is said where nothing is served."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import structs
from tests.support.gateway import Gateway, gateway

from oaicompat_server.framing import request_id_of
from oaicompat_server.handlers.context import Route
from oaicompat_server.routes import resolve
from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config, ModelSettings, ServerSettings

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
CONFIG = Config(
    server=ServerSettings(body_limit=200_000),
    models=ModelSettings(aliases={"mine": "gemini-2.5-pro", "wild-*": "gemini-2.5-flash"}),
)


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway(CONFIG) as running:
        yield running


def ask(
    served: Gateway, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Send one request; return status, headers (lower case) and the decoded body."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if data is not None:
        named = {"content-type": "application/json"} | named
    connection.request(method, path, data, named)
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    found = {name.lower(): value for name, value in reply.getheaders()}
    return reply.status, found, json.loads(text) if text else None


PREFIXES = ["", "/v1", "/v1/v1", "/v1/v1/v1"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "suffix",
    [
        *("/chat/completions", "/completions", "/responses", "/models", "/conversations"),
        *("/responses/compact", "/responses/input_tokens"),
    ],
)
@pytest.mark.parametrize("end", ["", "/"])
def test_every_spelling_of_a_route_is_the_route(prefix: str, suffix: str, end: str) -> None:
    assert resolve(prefix + suffix + end) == Route(suffix)
    for stacked in (
        "/chat/completions",
        "/chat/completions/v1",
        "/chat/completions/chat/completions",
    ):
        assert resolve(prefix + stacked + suffix + end) == Route(suffix)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("/models/models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("/v1/models/tunedModels/x", "tunedModels/x"),
        ("/v1/chat/completions/models/a", "a"),
    ],
)
def test_model_ids_are_greedy(path: str, model: str) -> None:
    assert resolve(path) == Route("/models/{id}", model)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/responses/resp_1", Route("/responses/{id}", "resp_1")),
        ("/responses/cancel", Route("/responses/{id}", "cancel")),
        ("/v1/v1/responses/r/cancel/", Route("/responses/{id}/cancel", "r")),
        ("/responses/r/input_items", Route("/responses/{id}/input_items", "r")),
        ("/responses/compact/cancel", Route("/responses/{id}/cancel", "compact")),
        ("/v1/conversations/c", Route("/conversations/{id}", "c")),
        ("/conversations/c/items", Route("/conversations/{id}/items", "c")),
        ("/conversations/c/items/i/j k", Route("/conversations/{id}/items/{item}", "c", "i/j k")),
        ("/v1/chat/completions/v1/responses/r", Route("/responses/{id}", "r")),
        ("/responses/r/else", None),
        ("/responses//cancel", None),
        ("/conversations//items", None),
        ("/conversations/c/else", None),
    ],
)
def test_ids_stand_where_they_belong(path: str, route: Route | None) -> None:
    assert resolve(path) == route


@pytest.mark.parametrize(
    "path",
    ["/", "", "/v1", "/v2/chat/completions", "/v1/chat", "/v1/models\n", "//v1/models", "/v1/x/chat",
     "/v1/chat/completions/x", "/healthz/", "/v1/healthz", "/V1/models", "/v1/messages", "/v1chat/completions"],
)  # fmt: skip
def test_other_paths_are_no_route(path: str) -> None:
    assert resolve(path) is None


def test_health(served: Gateway) -> None:
    for path in ("/healthz", "/health", "/readyz"):
        status, headers, body = ask(served, "GET", path)
        assert (status, body["status"]) == (200, "ready" if path == "/readyz" else "ok")
        assert set(body) <= {"status", "version"}
        assert ask(served, "HEAD", path)[0] == 200
        assert headers["x-request-id"].startswith("req_")


def test_list_holds_upstream_models_and_aliases(served: Gateway) -> None:
    status, _, body = ask(served, "GET", "/v1/models")
    assert (status, body["object"]) == (200, "list")
    owners = {entry["id"]: entry["owned_by"] for entry in body["data"]}
    assert owners["gemini-2.5-flash"] == "google"
    assert owners["mine"] == "oaicompat"
    assert list(owners) == sorted(owners)
    assert len(owners) == len(body["data"])
    assert not [name for name in owners if "*" in name or name.startswith("models/")]
    assert not [name for name in owners if "embedding" in name]
    assert all(entry["object"] == "model" and entry["created"] for entry in body["data"])


def test_list_is_cached(served: Gateway) -> None:
    ask(served, "GET", "/v1/models")
    before = len(served.simulator.requests)
    ask(served, "GET", "/models")
    ask(served, "GET", "/v1/models/gemini-2.5-pro")
    assert len(served.simulator.requests) == before


@pytest.mark.parametrize(
    "name",
    [
        "gemini-2.5-flash",
        "models/gemini-2.5-flash",
        "models%2Fgemini-2.5-flash",
        "mine",
        "gpt-4o",
        "wild-1",
    ],
)
def test_retrieve_known(served: Gateway, name: str) -> None:
    status, _, body = ask(served, "GET", f"/v1/models/{name}")
    assert (status, body["object"]) == (200, "model")
    assert body["id"] == name.removeprefix("models").lstrip("/%2F")


def test_retrieve_unknown(served: Gateway) -> None:
    status, _, body = ask(served, "GET", "/v1/models/no-such-model")
    assert (status, body["error"]["code"]) == (404, "model_not_found")


def test_list_without_the_upstream_shows_aliases(served: Gateway) -> None:
    with gateway(
        Config(models=ModelSettings(aliases={"mine": "x"})), keys=("invalid-key",)
    ) as lonely:
        status, _, body = ask(lonely, "GET", "/v1/models")
        assert status == 200
        assert "mine" in [entry["id"] for entry in body["data"]]
        assert ask(lonely, "GET", "/v1/models/gemini-2.5-flash")[0] >= 400


def test_detect(served: Gateway) -> None:
    status, headers, body = ask(served, "POST", "/v1/models/detect", {"model": "gpt-4o"})
    assert status == 200
    assert body == {
        "model": "gpt-4o",
        "mapped_model": "gemini-2.5-flash",
        "type": "agent",
        "features": {"has_web_search": False, "is_image_gen": False},
    }
    assert headers["x-mapped-model"] == "gemini-2.5-flash"
    assert ask(served, "POST", "/v1/models/detect", {})[0] == 400
    assert ask(served, "POST", "/v1/models/detect", [])[0] == 400


def test_unknown_paths_are_json_404_that_name_the_routes(served: Gateway) -> None:
    for method, path in (
        ("POST", "/v1/x"),
        ("GET", "/"),
        ("POST", "/v1/embeddings"),
        ("DELETE", "/v1/x"),
    ):
        status, _, body = ask(served, method, path, {} if method == "POST" else None)
        assert status == 404
        assert body["error"]["message"].startswith(f"Invalid URL ({method} {path})")
        assert "/v1/chat/completions" in body["error"]["message"]
        assert "GET/DELETE /v1/responses/{id}, " in body["error"]["message"]
        assert "GET/POST /v1/conversations/{id}/items, " in body["error"]["message"]
        assert body["error"]["code"] is None


def test_wrong_methods(served: Gateway) -> None:
    for method in ("GET", "HEAD", "DELETE", "PUT"):
        status, headers, _ = ask(served, method, "/v1/chat/completions")
        assert (status, headers["allow"]) == (405, "POST, OPTIONS")
    assert ask(served, "POST", "/v1/models", {})[1]["allow"] == "GET, HEAD, OPTIONS"
    assert ask(served, "OPTIONS", "/v1/chat/completions")[0] == 204


def test_websocket_upgrade_is_answered_with_426(served: Gateway) -> None:
    for path in ("/v1/chat/completions", "/v1/responses/resp_1", "/v1/other"):
        status, _, body = ask(
            served, "GET", path, connection="Upgrade", upgrade="websocket",
            sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==", sec_websocket_version="13",
        )  # fmt: skip
        assert status == 426
        assert "error" in body


def test_other_upgrades_are_ignored(served: Gateway) -> None:
    named = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2_settings": "AAMAAABkAAQAAP__",
    }
    assert ask(served, "GET", "/healthz", **named)[0] == 200
    assert ask(served, "POST", "/v1/chat/completions", CHAT, **named)[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "application/json; charset=utf-8"}, 200),
        ({"content_type": "application/vnd.api+json"}, 200),
        ({"content_type": "Application/JSON"}, 200),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": "multipart/form-data; boundary=x"}, 415),
        ({"content_type": ""}, 415),
        ({"content_encoding": "gzip"}, 415),
        ({"content_encoding": "identity"}, 200),
        ({"origin": "https://evil.com"}, 403),
        ({"host": "evil.com"}, 403),
    ],
)
def test_content_types_and_codings(served: Gateway, headers: dict[str, str], status: int) -> None:
    before = len(served.simulator.requests)
    found, _, body = ask(served, "POST", "/v1/chat/completions", CHAT, **headers)
    assert found == status
    if status != 200:
        assert body["error"]["message"]
        assert len(served.simulator.requests) == before


@pytest.mark.parametrize(
    "body", [b"", b" ", b"{", b"nonsense", b"\xff\xfe", b"[1", b"null", b"[" * 100_000]
)
def test_bodies_that_are_no_json_are_400_in_openais_words(served: Gateway, body: bytes) -> None:
    status, _, reply = ask(served, "POST", "/v1/chat/completions", body)
    assert status == 400
    assert reply["error"]["type"] == "invalid_request_error"


def test_body_over_the_cap_is_413_and_closes(served: Gateway) -> None:
    status, headers, body = ask(served, "POST", "/v1/chat/completions", b"x" * 200_001)
    assert (status, headers["connection"]) == (413, "close")
    assert "200000" in body["error"]["message"]


def test_chunked_body_over_the_cap_is_413(served: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        plug.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" % served.port
        )
        for _ in range(25):
            plug.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert plug.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_expectation_is_met_or_refused_before_the_body(served: Gateway) -> None:
    for length, first in ((len(json.dumps(CHAT)), b"HTTP/1.1 100 "), (300_000, b"HTTP/1.1 413 ")):
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
            plug.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nExpect: 100-continue\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % (served.port, length)
            )
            assert plug.recv(65536).startswith(first)


def test_request_id_is_honoured_when_sane() -> None:
    assert request_id_of([(b"x-request-id", b"my-id_1.2")]) == "my-id_1.2"
    for wrong in (b"", b"a b", b"x" * 129, b"\xff", b"a\n"):
        assert request_id_of([(b"x-request-id", wrong)]).startswith("req_")


def test_key_is_asked_for_on_every_route_but_health() -> None:
    config = structs.replace(CONFIG, auth=AuthSettings(keys=(Secret("right"),)))
    with gateway(config) as locked:
        assert ask(locked, "GET", "/healthz")[0] == 200
        for path in ("/v1/models", "/models", "/v1/x", "/v1/chat/completions/models"):
            status, headers, body = ask(locked, "GET", path)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert body["error"]["code"] == "invalid_api_key"
        assert ask(locked, "GET", "/v1/models", authorization="Bearer right")[0] == 200
        status, headers, _ = ask(locked, "POST", "/v1/chat/completions", CHAT, x_api_key="wrong")
        assert (status, headers["connection"]) == (401, "close")
        assert not [r for r in locked.simulator.requests if r.method == "POST"]


def _raw(served: Gateway, sent: bytes) -> tuple[int, dict[str, str], Any]:
    """Send bytes, with our port for `%PORT`; return status, headers and the decoded body."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
        plug.sendall(sent.replace(b"%PORT", b"%d" % served.port))
        reply = http.client.HTTPResponse(plug)
        reply.begin()
        headers = {name.lower(): value for name, value in reply.getheaders()}
        return reply.status, headers, json.loads(reply.read())


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v1/x%0ay",
        b"OPTIONS *",
        b"GET /v1/models/%0d%0aX",
        b"POST /v1/x%0a",
        b"GET /%0a",
        b"GET /v1/models%0a",
    ],
)
def test_regression_every_path_reaches_our_router(served: Gateway, line: bytes) -> None:
    status, headers, body = _raw(served, line + b" HTTP/1.1\r\nHost: 127.0.0.1:%PORT\r\n\r\n")
    assert status == 404
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert headers["openai-version"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", b"{", 400),
        ("/v1/chat/completions", b" ", 400),
        ("/v1/models/detect", b"[]", 400),
        ("/v1/models/detect", b"{}", 400),
    ],
)
def test_regression_a_refusal_of_a_whole_body_keeps_the_connection(
    served: Gateway, path: str, body: bytes, status: int
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
    started = time.monotonic()
    for _ in range(3):
        connection.request("POST", path, body, {"content-type": "application/json"})
        reply = connection.getresponse()
        assert reply.status == status
        assert reply.getheader("connection") is None
        reply.read()
    assert time.monotonic() - started < 0.4
    connection.close()


def test_a_refusal_without_a_body_keeps_the_connection(served: Gateway) -> None:
    for path in ("/v1/chat/completions", "/v1/x"):
        assert "connection" not in ask(served, "GET", path)[1]


def test_regression_an_ignored_upgrade_keeps_the_wish_to_close(served: Gateway) -> None:
    for sent, found in (
        (b"close, Upgrade", b"close"),
        (b"Upgrade", b""),
        (b"upgrade , Close", b"close"),
    ):
        with socket.create_connection(("127.0.0.1", served.port), timeout=5) as plug:
            plug.sendall(
                b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: %s\r\nUpgrade: h2c\r\n\r\n"
                % (served.port, sent)
            )
            reply = plug.recv(65536)
            assert reply.startswith(b"HTTP/1.1 200 ")
            assert (b"connection: close" in reply) == bool(found)
            if found:
                assert plug.recv(65536) == b""


def test_regression_only_our_own_port_is_our_host(served: Gateway) -> None:
    for host in (f"127.0.0.1:{served.port}", f"localhost:{served.port}"):
        assert ask(served, "GET", "/healthz", host=host)[0] == 200
    for host in ("127.0.0.1:1", "127.0.0.1", "localhost:1", f"127.0.0.1:{served.port ^ 1}"):
        assert ask(served, "GET", "/healthz", host=host)[0] == 403
