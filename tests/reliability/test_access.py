"""Rows E1-E5 of the fault matrix: who gets in, byte by byte on real sockets.

One rule: whatever is refused here must not have reached the upstream.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tests.support import raw
from tests.support.asking import Reply, ask
from tests.support.gateway import Gateway, gateway
from tests.support.plain import line, status

from oaicompat_server.app import create_app
from oaicompat_server.auth import digest_keys, key_digest, key_matches
from oaicompat_server.cli import main
from oaicompat_server.secret import Secret
from oaicompat_server.settings import (
    AuthMode,
    AuthSettings,
    Config,
    ConfigError,
    ServerSettings,
    StateSettings,
)

ROOT = Path(__file__).parents[2]
KEY = "sk-right"
KEYS = (Secret(KEY), Secret("sk-other"), Secret("sk-third"))
GOOD_ORIGIN = "https://good.example"
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def opened() -> Iterator[Gateway]:
    """Serve without keys, as on a laptop; one origin and one host name are listed."""
    server = ServerSettings(allowed_origins=(GOOD_ORIGIN,), allowed_hosts=("listed.example",))
    with gateway(Config(server=server, auth=AuthSettings(mode="off"))) as served:
        yield served


@pytest.fixture(scope="module")
def guarded() -> Iterator[Mapping[AuthMode, Gateway]]:
    """Serve with keys, in both modes that need one."""
    modes: tuple[AuthMode, AuthMode] = ("strict", "all_except_health")
    strict, healthy = (Config(auth=AuthSettings(mode=mode, keys=KEYS)) for mode in modes)
    with gateway(strict) as first, gateway(healthy) as second:
        yield {"strict": first, "all_except_health": second}


ROUTES = [
    b"/v1/models", b"/v1/chat/completions", b"/v1/responses", b"/v1/responses/resp_1/input_items",
    b"/v1/conversations", b"/v1/oaicompat/status", b"/oaicompat/reset", b"/v1/models/detect",
]  # fmt: skip
TRICKS = [
    b"%s", b"/%s", b"%s/", b"%s//", b"/.%s", b"/..%s", b"/%%2e%%2e%s", b"%s%%0a", b"%s%%00", b"%s;x=1",
    b"%s?x=/healthz", b"%s#/healthz", b"/healthz/..%s", b"/health/..%s", b"/healthz%s", b"/healthz%%2f..%s",
    b"/readyz;%s", b"/v1%s", b"%s/healthz", b"%s/../healthz", b"/x/..%s", b"//evil.example%s",
]  # fmt: skip
ODD = [
    b"/", b"//", b"*", b"/v1%2fmodels", b"/v1/models%0a", b"/V1/MODELS", b"/HEALTHZ", b"/healthz/",
    b"//healthz", b"/./healthz", b"/v1/healthz", b"/healthz%00", b"/healthz%0a", b"/healthz%20", b"/healthz;",
    b"/healthz%3f", b"/healthz%23", b"/healthz%2f", b"/healthz.json", b"/metrics", b"/docs", b"/debug",
    b"/openapi.json", b"/favicon.ico", b"/admin", b"/.env", b"/static/../v1/models", b"/%ef%bd%88ealthz",
    b"/health\\..\\v1\\models", b"http://localhost/v1/models", b"http://evil.example/healthz", b"healthz",
    b"/healthz\x00", b"/v1/models\x00",
]  # fmt: skip
HEALTH = [b"/healthz", b"/health", b"/readyz", b"/healthz?x=1", b"/%68ealthz", b"/health#x"]
METHODS = b"GET HEAD POST PUT DELETE PATCH OPTIONS TRACE get head".split()
SPELLED = (trick.replace(b"%s", route, 1) for route in ROUTES for trick in TRICKS)
TARGETS = [*(each.replace(b"%%", b"%") for each in SPELLED), *ODD]


@pytest.mark.parametrize("mode", ["strict", "all_except_health"])
def test_e1_every_spelling_of_every_path_needs_a_key(
    guarded: Mapping[AuthMode, Gateway], mode: AuthMode
) -> None:
    """Without a key every method on every path is refused, however it is spelled; health alone may be open."""
    served = guarded[mode]
    assert len(set(TARGETS)) >= 60
    for target in TARGETS:
        for method in METHODS:
            found = status(served, line(method, target))
            assert found in (400, 401), (mode, method, target, found)
    for target in HEALTH:
        for method in METHODS:
            found = status(served, line(method, target))
            exempt = mode == "all_except_health" and method in (b"GET", b"HEAD")
            assert (found == 200) == exempt, (mode, method, target, found)
    assert served.simulator.requests == []


@pytest.mark.parametrize("mode", ["strict", "all_except_health"])
def test_e1_an_upgrade_needs_a_key_as_well(
    guarded: Mapping[AuthMode, Gateway], mode: AuthMode
) -> None:
    """An offer to change to WebSocket is refused without a key on every path, health included."""
    offer = [
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + b"a" * 22 + b"==",
    ]
    for target in (*TARGETS, *HEALTH):
        data = line(b"GET", target, *offer).replace(b"Connection: close", b"Connection: Upgrade")
        assert status(guarded[mode], data) in (400, 401), target
    data = line(b"GET", b"/v1/responses", *offer, b"x-api-key: " + KEY.encode())
    with raw.connect(guarded[mode].port) as plug:
        plug.sendall(raw_upgrade(data, guarded[mode].port))
        assert raw.read(plug, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")


def raw_upgrade(data: bytes, port: int) -> bytes:
    return data.replace(b"Connection: close", b"Connection: Upgrade").replace(b"%d", b"%d" % port)


def test_e1_a_key_opens_what_is_refused_without_one(guarded: Mapping[AuthMode, Gateway]) -> None:
    """The same paths are served to who has a key, so that it was the key that was missing."""
    key = b"Authorization: Bearer " + KEY.encode()
    served = guarded["strict"]
    for target in (
        b"/v1/models",
        b"/v1/models%0a",
        b"/v1%2fmodels",
        b"/healthz",
        b"/v1/v1/models/",
    ):
        assert status(served, line(b"GET", target)) == 401
        assert status(served, line(b"GET", target, key)) in (200, 404)


@pytest.mark.parametrize(
    "host",
    [
        *(b"a/health?x", b"a#", b"u@h", b"localhost/healthz?", b"localhost:%d/healthz?", b"localhost:%d#"),
        *(b"localhost:%d?x", b"x@localhost:%d", b"localhost:%d@evil.example", b"localhost:%d\\@evil"),
        *(b"localhost:%d/..", b"", b" ", b"localhost:", b"localhost:0x50", b"localhost:-1", b"localhost:99999"),
        *(b"localhost:%d:%d", b"[::1", b"::1", b"[localhost]:%d", b"localhost, evil.example", b"a b"),
        *(b"http://localhost:%d", b"//localhost:%d", b"loc%61lhost:%d", b"localhost:%d;", b"l\xf6calhost:%d"),
        *(b"localhost:%d\r\nHost: evil.example", b"evil.example\r\nHost: localhost:%d", None),
        b"localhost:%d\r\nhost: localhost:%d",
    ],
)  # fmt: skip
def test_e2_a_host_that_is_no_host_is_refused(
    guarded: Mapping[AuthMode, Gateway], opened: Gateway, host: bytes | None
) -> None:
    """A Host that is missing, repeated or more than a name and a port is 400, whatever the path."""
    for served in (*guarded.values(), opened):
        for target in (b"/v1/models", b"/healthz"):
            assert status(served, line(b"GET", target, host=host)) == 400


def test_e2_the_framework_is_one_that_does_not_route_by_host() -> None:
    """Starlette is required, and installed, in a version whose URLs cannot be poisoned by a Host."""
    project = tomllib.loads((ROOT / "src/oaicompat_server/pyproject.toml").read_text("utf-8"))
    assert "starlette>=1.0.1" in project["project"]["dependencies"]
    assert tuple(map(int, version("starlette").split(".")[:3])) >= (1, 0, 1)
    used = [
        found
        for path in (ROOT / "src/oaicompat_server").rglob("*.py")
        for found in re.findall(r"from starlette\.(\w+)", path.read_text("utf-8"))
    ]
    assert set(used) == {"applications", "middleware", "types"}


_RIGHT = KEY.encode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([b"Authorization: Bearer " + _RIGHT], 200),
        ([b"authorization: bearer " + _RIGHT], 200),
        ([b"AUTHORIZATION: BEARER   " + _RIGHT + b"  "], 200),
        ([b"Authorization: " + _RIGHT], 200),
        ([b"Authorization: Bearer sk-third"], 200),
        ([b"x-api-key: " + _RIGHT], 200),
        ([b"x-goog-api-key: " + _RIGHT], 200),
        ([b"Authorization: Bearer " + _RIGHT, b"x-api-key: wrong"], 200),
        ([b"Authorization: Bearer wrong", b"x-api-key: " + _RIGHT], 401),
        ([b"x-api-key: " + _RIGHT, b"Authorization: Bearer wrong"], 401),
        ([b"x-api-key: wrong", b"x-goog-api-key: " + _RIGHT], 401),
        ([b"Authorization: Bearer wrong", b"Authorization: Bearer " + _RIGHT], 401),
        ([b"Authorization:", b"Authorization: Bearer " + _RIGHT], 401),
        ([b"Authorization: Bearer"], 401),
        ([b"Authorization: Bearer "], 401),
        ([b"Authorization:"], 401),
        ([b"Authorization: Basic " + _RIGHT], 401),
        ([b"Authorization: Bearer Bearer " + _RIGHT], 401),
        ([b"Authorization: Bearer \xc3\xa9"], 401),
        ([b"Authorization: Bearer " + _RIGHT + b"\xc3\xa9"], 401),
        ([b"Authorization: Bearer \xff\xfe"], 401),
        ([b"Authorization: Bearer " + _RIGHT + b"\x00"], 400),
        ([b"Authorization: Bearer " + _RIGHT[:-1]], 401),
        ([b"Authorization: Bearer " + _RIGHT + b"x"], 401),
        ([b"Authorization: Bearer " + _RIGHT.upper()], 401),
        ([b"Authorization: Bearer " + _RIGHT + b"," + _RIGHT], 401),
        ([b"Authorization: Bearer " + b"x" * 60_000], 401),
        ([b"Authorization: Bearer " + b"x" * 1_000_000], 431),
        ([b"Authorization: Bearer ' OR 1=1 --"], 401),
        ([b"Authorization: Bearer null"], 401),
        ([b"Authorization: Bearer true"], 401),
        ([b"api-key: " + _RIGHT], 401),
        ([b"Cookie: key=" + _RIGHT], 401),
        ([b"Proxy-Authorization: Bearer " + _RIGHT], 401),
        ([], 401),
    ],
)  # fmt: skip
def test_e3_only_a_whole_key_in_the_header_that_counts_opens(
    guarded: Mapping[AuthMode, Gateway], headers: list[bytes], expected: int
) -> None:
    """The first of Authorization, x-api-key and x-goog-api-key decides; what is odd is refused, never a 500."""
    served = guarded["strict"]
    data = line(b"GET", b"/oaicompat/status", *headers)
    if expected != 431:
        assert status(served, data) == expected
        return
    with raw.connect(served.port) as plug:
        try:
            plug.sendall(data)
        except ConnectionError:
            return
        assert raw.read(plug)[9:12] in (b"431", b"")


def test_e3_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is compared by its digest, with every configured key, and whether or not one matched before."""
    compared: list[tuple[int, int]] = []

    def compare(first: Any, second: Any) -> bool:
        compared.append((len(first), len(second)))
        return bool(first == second)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    digests = digest_keys(KEYS)
    for key, matches in ((b"sk-right", True), (b"sk-third", True), (b"\xff", False), (b"", False)):
        compared.clear()
        assert key_matches(key_digest(key), digests) is matches
        assert compared == [(32, 32)] * len(KEYS)
    assert key_matches(b"", ()) is False


@pytest.mark.parametrize("mode", ["strict", "all_except_health"])
def test_e3_without_keys_nothing_starts_that_needs_one(mode: AuthMode) -> None:
    """A mode that needs a key and has none to compare with does not start."""
    with pytest.raises(ConfigError, match="needs a key"):
        create_app(Config(auth=AuthSettings(mode=mode)), tune=False)


def test_e4_the_key_that_was_shown_is_nowhere(
    guarded: Mapping[AuthMode, Gateway], caplog: pytest.LogCaptureFixture
) -> None:
    """The key check is in memory and tells nobody which key was shown: no log line, no answer quotes it."""
    shown = [f"sentinel{number}{end}" for number, end in enumerate(
        ("", "'--", '"', "%s", "%n", "{0}", "${jndi:ldap://x}", "\\", "<script>", "x" * 5000)
    )]  # fmt: skip
    served = guarded["strict"]
    replies: list[Reply] = []
    with caplog.at_level(logging.DEBUG):
        for key in shown:
            for path in ("/v1/models", "/v1/chat/completions", "/nothing", "/healthz"):
                body = CHAT if "chat" in path else None
                replies.append(ask(served, "POST" if body else "GET", path, body, key=key))
    assert {reply.status for reply in replies} == {401}
    told = caplog.text + "".join(f"{reply.headers} {reply.content!r}" for reply in replies)
    assert "sentinel" not in told


BINDS = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::", "192.168.1.5")
LOOPBACK = BINDS[:3]
MODES: tuple[AuthMode, ...] = ("auto", "off", "strict", "all_except_health")


def starts(mode: AuthMode, host: str, *, keyed: bool, insecure: bool) -> bool:
    """Tell whether the gateway can be made with these settings."""
    config = Config(
        server=ServerSettings(host=host, insecure=insecure),
        auth=AuthSettings(mode=mode, keys=KEYS if keyed else ()),
        state=StateSettings(store="memory"),
    )
    try:
        create_app(config, tune=False)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("host", BINDS)
@pytest.mark.parametrize("mode", MODES)
def test_e5_what_is_open_to_others_needs_a_key(mode: AuthMode, host: str) -> None:
    """Without a key the gateway listens on loopback only, unless a second flag says that this is meant."""
    local = host in LOOPBACK
    open_mode = mode in ("auto", "off")
    assert starts(mode, host, keyed=False, insecure=False) == (local and open_mode)
    assert starts(mode, host, keyed=True, insecure=False) == (mode != "off" or local)
    assert starts(mode, host, keyed=False, insecure=True) == (
        mode == "off" or (local and open_mode)
    )


@pytest.mark.parametrize("host", BINDS[3:])
@pytest.mark.parametrize("mode", [(), ("--auth-mode", "off")])
def test_e5_the_command_says_why_it_does_not_start(
    host: str,
    mode: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The command ends before it listens, with one line that names the address and the way out."""
    for name in [*os.environ]:
        if name.startswith(("OAICOMPAT_", "GEMINI_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["serve", "--demo", "--host", host, "--port", "0", *mode]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert host in told.err
    assert "auth.keys" in told.err
