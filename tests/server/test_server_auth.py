"""The gate: keys, exempt paths, hosts, origins, and starts that are refused."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from oaicompat_server.auth import (
    Access,
    Gate,
    digest_keys,
    effective_mode,
    host_allowed,
    is_loopback,
    parse_host,
    plan_access,
    presented_key,
)
from oaicompat_server.config import ConfigError
from oaicompat_server.framing import Headers, Message, Receive, Scope, Send
from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthMode, AuthSettings, Config, ServerSettings

_SERVER = ("127.0.0.1", 8045)
_GOOD = [(b"host", b"127.0.0.1:8045")]

PATHS = [
    "/v1/models", "//v1/models", "/v1/models/", "/v1/models\n", "/v1//models", "/V1/models", "/",
    "", "/v1", "/v1/chat/completions", "/chat/completions", "/health/", "/healthz/", "/healthz\n",
    "/Health", "/HEALTHZ", "/health/../v1/models", "/healthz/..", "/healthz/../v1/models", "/%68ealth",
    "/healthz;x", "/healthz?x", "/healthz#", "/healthz%00", "/healthz\x00", "/health%2f", "/healthz ",
    " /healthz", "//healthz", "/./healthz", "/v1/healthz", "/v1/../healthz", "http://a/healthz",
    "/healthz/v1/models", "/readyz/", "/readyz.json", "/ready", "/metrics", "/debug", "/docs", "/openapi.json",
    "/favicon.ico", "/v1/models/detect", "/v1/responses", "/v1/completions", "/v1/embeddings", "/api/hello",
    "/v1/messages", "/..", "/../healthz", "/%2e%2e/healthz", "/healthz%2e", "/healthz\\", "\\healthz",
    "/healthz\t", "/healthz\r\n", "/\uff48ealthz", "/healthz/\u200b", "/v1/models/healthz", "*",
    "/internal/warmup", "/health,z", "/healthz&x=1",
    "/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/responses/resp_1/input_items",
    "/responses/healthz", "/v1/responses/compact", "/v1/responses/input_tokens", "/v1/responses/../healthz",
    "/v1/conversations", "/v1/conversations/conv_1", "/conversations/conv_1/items",
    "/v1/conversations/conv_1/items/msg_1", "/v1/conversations/healthz",
    "/v1/chat/completions/responses/resp_1",
]  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"]
EXEMPT = {
    (method, path) for method in ("GET", "HEAD") for path in ("/healthz", "/health", "/readyz")
}


class _Inner:
    """Counts what passes the gate."""

    def __init__(self) -> None:
        self.passed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.passed += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _ask(
    access: Access,
    method: str = "GET",
    path: str = "/v1/models",
    headers: Headers | None = None,
    server: tuple[str, int] = _SERVER,
) -> tuple[int, dict[bytes, bytes], int]:
    """Send one request through the gate; return status, headers and how many requests passed."""
    inner = _Inner()
    sent: list[Message] = []
    reads = 0

    async def receive() -> Message:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": _GOOD if headers is None else headers,
        "server": server,
    }
    asyncio.run(cast(Any, Gate(inner, lambda: access)(scope, receive, send)))
    return sent[0]["status"], dict(sent[0]["headers"]), inner.passed


@pytest.mark.parametrize("mode", ["off", "strict", "all_except_health"])
def test_every_path_and_method_is_refused_unless_exempt(mode: AuthMode) -> None:
    access = Access(mode, digest_keys([Secret("right")]))
    for path in [*PATHS, "/healthz", "/health", "/readyz"]:
        for method in METHODS:
            status, _, passed = _ask(access, method, path)
            exempt = (method, path) in EXEMPT and mode == "all_except_health"
            expected = 200 if mode == "off" or exempt else 401
            assert (status, passed) == (expected, int(expected == 200)), (mode, method, path)


def test_refusal_is_openai_shaped_and_closes_the_connection() -> None:
    status, headers, _ = _ask(Access("strict", digest_keys([Secret("right")])))
    assert status == 401
    assert headers[b"www-authenticate"] == b"Bearer"
    assert headers[b"connection"] == b"close"
    assert headers[b"x-request-id"].startswith(b"req_")
    assert headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ([(b"authorization", b"Bearer right")], True),
        ([(b"authorization", b"bearer right")], True),
        ([(b"authorization", b"BEARER  right ")], True),
        ([(b"authorization", b"right")], True),
        ([(b"authorization", b"Bearer second")], True),
        ([(b"x-api-key", b"right")], True),
        ([(b"x-goog-api-key", b"right")], True),
        ([(b"authorization", b"Bearer wrong"), (b"x-api-key", b"right")], False),
        ([(b"x-api-key", b"wrong"), (b"x-goog-api-key", b"right")], False),
        ([(b"x-api-key", b"right"), (b"authorization", b"Bearer wrong")], False),
        ([(b"authorization", b"Bearer wrong"), (b"authorization", b"Bearer right")], False),
        ([(b"authorization", b"Bearer ")], False),
        ([(b"authorization", b"Bearer")], False),
        ([(b"authorization", b"")], False),
        ([(b"authorization", b"Basic right")], False),
        ([(b"authorization", "Bearer é".encode())], False),
        ([(b"authorization", b"Bearer right\x00")], False),
        ([(b"authorization", b"Bearer " + b"x" * 1_000_000)], False),
        ([(b"authorization", b"Bearer righ")], False),
        ([(b"api-key", b"right")], False),
        ([], False),
    ],
)
def test_which_key_decides(headers: Headers, passes: bool) -> None:
    access = Access("strict", digest_keys([Secret("right"), Secret("second")]))
    assert _ask(access, headers=[*_GOOD, *headers])[0] == (200 if passes else 401)


def test_no_configured_key_lets_nobody_in() -> None:
    assert _ask(Access("strict"), headers=[*_GOOD, (b"authorization", b"Bearer ")])[0] == 401
    assert presented_key({}) is None


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"127.0.0.1:8045", 200), (b"127.8.9.1:8045", 200), (b"localhost:8045", 200),
        (b"LOCALHOST:8045", 200), (b"[::1]:8045", 200), (b"listed.example", 200),
        (b"listed.example:1234", 200), (b"Listed.Example:8045", 200), (b"ported.example:9", 200),
        (b"evil.com", 403), (b"evil.com:8045", 403), (b"127.0.0.1.evil.com:8045", 403),
        (b"localhost.evil.com:8045", 403), (b"0.0.0.0:8045", 403), (b"[::ffff:127.0.0.1]:8045", 403),
        (b"localhost.:8045", 403), (b"127.0.0.1.:8045", 403), (b"127.0.0.1:8046", 403),
        (b"localhost:80", 403), (b"localhost", 403), (b"127.1:8045", 403), (b"2130706433:8045", 403),
        (b"0x7f000001:8045", 403), (b"0177.0.0.1:8045", 403), (b"[::]:8045", 403),
        (b"[fe80::1]:8045", 403), (b"10.0.0.1:8045", 403), (b"ported.example:10", 403),
        (b"ported.example", 403), (b"sub.listed.example", 403), (b"-:8045", 403),
        (b"", 400), (b"a/health?x", 400), (b"a#", 400), (b"u@h", 400), (b"a b", 400), (b":8045", 400),
        (b"localhost:", 400), (b"localhost:99999", 400), (b"localhost:8045:1", 400), (b"[::1", 400),
        (b"localhost\\evil", 400), ("löcalhost".encode(), 400), (b"localhost:8045\n", 400),
        (b"localhost,evil.com", 400), (b"http://localhost:8045", 400),
    ],
)  # fmt: skip
def test_hosts(value: bytes, status: int) -> None:
    access = Access("off", hosts=frozenset({"listed.example", "ported.example:9"}))
    assert _ask(access, headers=[(b"host", value)])[0] == status


def test_missing_and_repeated_hosts_are_malformed() -> None:
    assert _ask(Access("off"), headers=[])[0] == 400
    assert _ask(Access("off"), headers=_GOOD * 2)[0] == 400
    assert _ask(Access("off", check_hosts=False), headers=[])[0] == 400


def test_a_repeated_header_decides_by_its_first_and_a_host_is_not_repeated() -> None:
    access = Access("strict", digest_keys([Secret("right")]))
    keys = [(b"authorization", b"Bearer right"), (b"authorization", b"Bearer wrong")]
    assert _ask(access, headers=[*keys, *_GOOD])[0] == 200
    assert _ask(access, headers=[*_GOOD, *keys, *_GOOD])[0] == 400
    assert _ask(access, headers=[(b"host", b"evil.com"), *keys, *_GOOD])[0] == 400


def test_own_address_of_the_connection_is_a_valid_host() -> None:
    headers = [(b"host", b"192.168.1.5:8045")]
    assert _ask(Access("off"), headers=headers, server=("192.168.1.5", 8045))[0] == 200
    assert _ask(Access("off"), headers=headers, server=("192.168.1.6", 8045))[0] == 403
    assert host_allowed("[fe80::2]", 1, ("fe80::2%eth0", 1), ())


def test_regression_the_bound_name_is_a_host_on_our_port_only() -> None:
    keys = AuthSettings(keys=(Secret("k"),))
    for bound, host in (("127.0.0.1", b"127.0.0.1"), ("here.lan", b"Here.lan"), ("::1", b"[::1]")):
        access = plan_access(Config(server=ServerSettings(host=bound), auth=keys))
        for port, status in ((b":8045", 401), (b":8046", 403), (b"", 403)):
            assert _ask(access, headers=[(b"host", host + port)])[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"origin", b"https://evil.com")], 403),
        ([(b"origin", b"null")], 403),
        ([(b"origin", b"")], 403),
        ([(b"origin", b"http://127.0.0.1:8045")], 403),
        ([(b"origin", b"https://good.example")], 200),
        ([(b"origin", b"https://good.example.evil")], 403),
        ([(b"origin", b"https://good.example"), (b"sec-fetch-site", b"cross-site")], 200),
        ([(b"origin", b"https://good.example"), (b"origin", b"https://evil.com")], 403),
        ([(b"sec-fetch-site", b"cross-site")], 403),
        ([(b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"cross-site")], 403),
        ([(b"sec-fetch-site", b"same-origin")], 200),
    ],
)
def test_origins(headers: Headers, status: int) -> None:
    access = Access("off", origins=frozenset({"https://good.example"}))
    assert _ask(access, "POST", headers=[*_GOOD, *headers])[0] == status


def test_listed_origin_is_echoed_and_may_read_our_headers() -> None:
    access = Access("off", origins=frozenset({"https://good.example"}))
    _, headers, _ = _ask(access, headers=[*_GOOD, (b"origin", b"https://good.example")])
    assert headers[b"access-control-allow-origin"] == b"https://good.example"
    assert b"x-mapped-model" in headers[b"access-control-expose-headers"]
    assert headers[b"vary"] == b"Origin"
    assert b"access-control-allow-origin" not in _ask(access)[1]


def test_preflight_passes_without_a_key_for_listed_origins_only() -> None:
    access = Access(
        "strict", digest_keys([Secret("k")]), origins=frozenset({"https://good.example"})
    )
    asked = [*_GOOD, (b"access-control-request-method", b"POST")]
    asked.append((b"access-control-request-headers", b"authorization"))
    good = [*asked, (b"origin", b"https://good.example")]
    status, headers, passed = _ask(access, "OPTIONS", headers=good)
    assert (status, passed) == (204, 0)
    assert headers[b"access-control-allow-headers"] == b"authorization"
    assert {b"x-request-id", b"openai-processing-ms", b"openai-version"} <= headers.keys()
    assert _ask(access, "OPTIONS", headers=[*asked, (b"origin", b"https://evil.com")])[0] == 403
    assert _ask(access, "OPTIONS", headers=asked)[0] == 401
    assert _ask(access, "POST", headers=good)[0] == 401


BINDS = ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::", "192.168.1.5"]


@pytest.mark.parametrize("host", BINDS)
@pytest.mark.parametrize("mode", ["auto", "off", "strict", "all_except_health"])
def test_starts(mode: AuthMode, host: str) -> None:
    bare = Config(server=ServerSettings(host=host), auth=AuthSettings(mode=mode))
    keyed = Config(
        server=ServerSettings(host=host), auth=AuthSettings(mode=mode, keys=(Secret("k"),))
    )
    local = host in BINDS[:3]
    if local and mode in ("auto", "off"):
        assert plan_access(bare).mode == "off"
    else:
        with pytest.raises(ConfigError):
            plan_access(bare)
    if mode == "off" and not local:
        with pytest.raises(ConfigError, match="--insecure"):
            plan_access(keyed)
    else:
        assert plan_access(keyed).mode == ("all_except_health" if mode == "auto" else mode)


def test_second_flag_opens_a_public_bind() -> None:
    server = ServerSettings(host="0.0.0.0", insecure=True)
    assert plan_access(Config(server=server, auth=AuthSettings(mode="off"))).mode == "off"


def test_host_check_may_go_only_when_a_key_is_required() -> None:
    server = ServerSettings(check_hosts=False)
    with pytest.raises(ConfigError, match="check_hosts"):
        plan_access(Config(server=server))
    access = plan_access(Config(server=server, auth=AuthSettings(keys=(Secret("k"),))))
    key = (b"authorization", b"Bearer k")
    assert _ask(access, headers=[(b"host", b"evil.com"), key])[0] == 200


def test_pure_rules() -> None:
    assert effective_mode("auto", "127.0.0.1", False) == "off"
    assert effective_mode("auto", "127.0.0.1", True) == "all_except_health"
    assert is_loopback("127.5.5.5")
    assert not is_loopback("127.0.0.1.evil.com")
    assert parse_host(b"[::1]:1") == ("[::1]", 1)
