"""Rows E6-E8 of the fault matrix: pages of other sites, which come with any name, type and origin.

One rule: whatever is refused here must not have reached the upstream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from tests.support.gateway import Gateway, gateway
from tests.support.plain import line, send, status

from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config, ModelSettings, ServerSettings

KEY = "sk-right"
KEYS = AuthSettings(mode="all_except_health", keys=(Secret(KEY),))
SERVER = ServerSettings(
    allowed_origins=("https://good.example", "http://localhost:3000"),
    allowed_hosts=("listed.example", "ported.example:9"),
)
QUIET = ModelSettings(list_upstream=False)
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}).encode()
JSON = b"Content-Type: application/json"
POSTS = (
    b"/v1/chat/completions", b"/v1/responses", b"/v1/responses/compact", b"/v1/responses/input_tokens",
    b"/v1/models/detect", b"/v1/conversations", b"/oaicompat/reset",
)  # fmt: skip


@pytest.fixture(scope="module")
def opened() -> Iterator[Gateway]:
    """Serve without keys, as on a laptop; two origins and two host names are listed."""
    with gateway(Config(server=SERVER, auth=AuthSettings(mode="off"))) as served:
        yield served


@pytest.fixture(scope="module")
def keyed() -> Iterator[Gateway]:
    with gateway(Config(server=SERVER, auth=KEYS)) as served:
        yield served


OURS = (
    *(b"127.0.0.1:%d", b"localhost:%d", b"LOCALHOST:%d", b"LocalHost:%d", b"127.8.9.1:%d"),
    *(b"127.255.255.254:%d", b"[::1]:%d", b"listed.example", b"listed.example:1", b"LISTED.example:%d"),
    b"ported.example:9",
)  # fmt: skip
NOT_OURS = (
    *(b"evil.com", b"evil.com:%d", b"127.0.0.1.evil.com:%d", b"localhost.evil.com:%d", b"evil.localhost:%d"),
    *(b"0.0.0.0:%d", b"0.0.0.0", b"[::]:%d", b"[::ffff:127.0.0.1]:%d", b"[::ffff:7f00:1]:%d"),
    b"[::127.0.0.1]:%d",
    *(b"localhost.:%d", b"127.0.0.1.:%d", b"127.0.0.1", b"localhost", b"localhost:80", b"localhost:1"),
    *(b"127.1:%d", b"2130706433:%d", b"0x7f000001:%d", b"0x7f.1:%d", b"0177.0.0.1:%d", b"017700000001:%d"),
    *(b"127.000.000.001:%d", b"10.0.0.1:%d", b"192.168.0.1:%d", b"169.254.169.254:%d", b"[fe80::1]:%d"),
    *(b"[0:0:0:0:0:0:0:2]:%d", b"1.0.0.127.in-addr.arpa:%d", b"127.0.0.1.nip.io:%d", b"localtest.me:%d"),
    *(b"listed.example.evil.com", b"sub.listed.example", b"xlisted.example", b"ported.example:%d"),
    *(b"ported.example", b"good.example", b"localhost-:%d", b"_:%d", b"-:%d", b"metadata.google.internal:%d"),
)  # fmt: skip


def test_e6_a_page_whose_name_was_rebound_gets_nothing(opened: Gateway, keyed: Gateway) -> None:
    """Only our own names and addresses on our own port, and listed names, are served; any other Host is 403."""
    assert len({*OURS, *NOT_OURS}) >= 40
    for host in OURS:
        assert status(opened, line(b"GET", b"/healthz", host=host)) == 200, host
        assert status(keyed, line(b"GET", b"/v1/models", host=host)) == 401, host
    for host in NOT_OURS:
        for served in (opened, keyed):
            for target in (b"/healthz", b"/v1/models", b"/nothing"):
                assert status(served, line(b"GET", target, host=host)) == 403, (host, target)
        refused = line(b"POST", POSTS[0], JSON, host=host, body=BODY)
        assert status(opened, refused) == 403, host
    assert opened.simulator.requests == []


def test_e6_the_check_of_hosts_may_be_switched_off_only_behind_a_key() -> None:
    """With the check switched off, which needs a key, any well-formed Host is served to who has the key."""
    server = replace(SERVER, check_hosts=False)
    with gateway(Config(server=server, auth=KEYS, models=QUIET)) as served:
        key = b"x-api-key: " + KEY.encode()
        assert status(served, line(b"GET", b"/v1/models", key, host=b"evil.com")) == 200
        assert status(served, line(b"GET", b"/v1/models", host=b"evil.com")) == 401
        assert status(served, line(b"GET", b"/v1/models", key, host=b"evil.com/x")) == 400


SIMPLE: tuple[tuple[bytes, ...], ...] = (
    (b"Content-Type: application/x-www-form-urlencoded",),
    (b"Content-Type: multipart/form-data; boundary=x",),
    (b"Content-Type: text/plain",),
    (b"Content-Type: text/plain;charset=UTF-8",),
    (b"Content-Type: text/plain; x=application/json",),
    (b"Content-Type: text/plain, application/json",),
    (b"Content-Type: application/jsonx",),
    (b"Content-Type: application/x-json-but-not",),
    (b"Content-Type: text/json",),
    (b"Content-Type:",),
    (b"Content-Type: text/plain", b"Content-Type: application/json"),
    (),
)
ORIGINS = (
    *(b"https://evil.com", b"null", b"", b"NULL", b"file://", b"https://good.example.evil.com"),
    *(b"https://good.example:444", b"http://good.example", b"https://GOOD.example", b"https://good.example/"),
    *(b"https://evil.com https://good.example", b"http://localhost:%d", b"http://127.0.0.1:%d", b"*"),
    *(b"chrome-extension://abcdef", b"http://localhost:30000", b"https://good.example\xff", b"moz-extension://x"),
)  # fmt: skip


def test_e7_a_form_of_another_page_is_no_request(opened: Gateway) -> None:
    """What a page may send without asking first (a form, text, no type, a beacon) is 415 on every route."""
    for target in POSTS:
        for types in SIMPLE:
            found, _, body = send(opened, line(b"POST", target, *types, body=BODY))
            assert (found, list(json.loads(body))) == (415, ["error"]), (target, types)
    assert opened.simulator.requests == []


def test_e7_another_site_is_refused_whatever_it_sends(opened: Gateway, keyed: Gateway) -> None:
    """An Origin that is not listed, null included, and a cross-site fetch are 403 even with a right key."""
    marks = [b"Origin: " + origin for origin in ORIGINS] + [b"Sec-Fetch-Site: cross-site"]
    key = b"Authorization: Bearer " + KEY.encode()
    for mark in marks:
        for served in (opened, keyed):
            for target in (*POSTS, b"/v1/models", b"/healthz"):
                method, body = (b"POST", BODY) if target in POSTS else (b"GET", b"")
                data = line(method, target, JSON, mark, key, body=body)
                assert status(served, data) == 403, (mark, target)
    twice = (b"Origin: https://good.example", b"Origin: https://evil.com")
    for marked in (twice, twice[::-1]):
        assert status(opened, line(b"POST", POSTS[0], JSON, *marked, body=BODY)) == 403
    assert opened.simulator.requests == keyed.simulator.requests == []


_ASKED = (b"Access-Control-Request-Method: POST", b"Access-Control-Request-Headers: authorization")


@pytest.mark.parametrize("origin", [b"https://good.example", b"http://localhost:3000", *ORIGINS])
@pytest.mark.parametrize(
    "target", [b"/v1/chat/completions", b"/v1/models", b"/healthz", b"/nothing"]
)
def test_e8_a_preflight_is_answered_for_listed_origins_only(
    keyed: Gateway, origin: bytes, target: bytes
) -> None:
    """A listed origin is echoed exactly, with Vary, without credentials; any other one is told nothing."""
    listed = origin.decode("latin-1") in SERVER.allowed_origins
    data = line(b"OPTIONS", target, b"Origin: " + origin, *_ASKED)
    found, headers, _ = send(keyed, data)
    assert found == (204 if listed else 403)
    allowed = {name: value for name, value in headers.items() if name.startswith("access-control")}
    if not listed:
        assert allowed == {}
        return
    assert headers["vary"] == "Origin"
    assert allowed["access-control-allow-origin"] == origin.decode("latin-1")
    assert allowed["access-control-allow-headers"] == "authorization"
    assert "access-control-allow-credentials" not in allowed
    assert "access-control-allow-private-network" not in allowed
    assert "*" not in allowed.values()


def test_e8_options_are_no_way_around_the_key(keyed: Gateway) -> None:
    """OPTIONS needs a key unless it is the preflight of a listed origin, and what follows one needs it too."""
    origin = b"Origin: https://good.example"
    for target in (b"/v1/models", b"/healthz", b"/v1/chat/completions", b"*"):
        assert status(keyed, line(b"OPTIONS", target)) == 401
        assert status(keyed, line(b"OPTIONS", target, *_ASKED)) == 401
        assert status(keyed, line(b"OPTIONS", target, origin)) == 401
    found, headers, _ = send(keyed, line(b"POST", POSTS[0], JSON, origin, *_ASKED, body=BODY))
    assert found == 401
    assert headers["access-control-allow-origin"] == "https://good.example"


@pytest.mark.parametrize("target", [b"/healthz", b"/v1/models", b"/v1/nothing"])
def test_e8_nobody_is_invited_by_default(target: bytes) -> None:
    """With no origin listed no answer has a CORS header, and a preflight is refused."""
    with gateway(Config(models=QUIET)) as served:
        for method in (b"GET", b"OPTIONS", b"POST"):
            _, headers, _ = send(served, line(method, target))
            assert not [name for name in headers if name.startswith("access-control")]
            marked = line(method, target, b"Origin: https://good.example", *_ASKED)
            assert send(served, marked)[0] == 403
