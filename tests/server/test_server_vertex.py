"""Tokens for Vertex AI: one refresh for all, ahead of time, and what is told when there is none."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from google.auth.compute_engine import _metadata
from msgspec import structs
from tests.support.token_service import (
    EMAIL,
    Asked,
    Reply,
    TokenService,
    granted,
    key_file,
    pem,
    private_key,
    token_service,
)

from oaicompat.errors import UpstreamError
from oaicompat_server.pool import Credential
from oaicompat_server.secret import Secret
from oaicompat_server.settings import ConfigError, CredentialSettings
from oaicompat_server.token_requests import is_trusted
from oaicompat_server.tokens import Minted, Tokens
from oaicompat_server.upstream import Upstream
from oaicompat_server.vertex import VertexTokens, token_source


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """A token service, a clock, and the source under test."""

    def __init__(self, service: TokenService, clock: Clock, source: VertexTokens) -> None:
        self.service = service
        self.clock = clock
        self.source = source

    async def token(self) -> str:
        return (await self.source.token()).reveal()

    async def error(self) -> UpstreamError:
        with pytest.raises(UpstreamError) as caught:
            await self.source.token()
        return caught.value


def account(**other: Any) -> CredentialSettings:
    return CredentialSettings(
        kind="service_account", key=Secret.document(key_file(**other)), project="my-project"
    )


def run(
    work: Callable[[Rig], Awaitable[None]],
    settings: CredentialSettings | None = None,
    seconds: float = 5.0,
) -> None:
    async def main() -> None:
        async with token_service() as service:
            clock = Clock()
            source = token_source(
                settings or account(),
                upstream=service.upstream(),
                clock=clock,
                jitter=lambda: 0.0,
                seconds=seconds,
            )
            await work(Rig(service, clock, source))

    asyncio.run(main())


def test_a_key_is_exchanged_for_a_token() -> None:
    async def work(rig: Rig) -> None:
        assert await rig.token() == "token-1"
        assert await rig.token() == "token-1"
        [asked] = rig.service.asked
        assert (asked.method, asked.path) == ("POST", "/token")
        assert asked.headers["host"] == "oauth2.googleapis.com"
        assert asked.form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        signed, _, signature = asked.form["assertion"].rpartition(".")
        header, claims = (json.loads(_decoded(part)) for part in signed.split("."))
        assert (header["alg"], claims["iss"]) == ("RS256", EMAIL)
        assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        assert claims["aud"] == "https://oauth2.googleapis.com/token"
        assert claims["exp"] - claims["iat"] <= 3600
        private_key().public_key().verify(
            _decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        assert rig.source.project == "my-project"

    run(work)


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_a_credential_shows_the_token_and_names_the_account() -> None:
    async def main() -> None:
        async with token_service() as service:
            credential = Credential.of(
                account(), partial(token_source, upstream=service.upstream())
            )
            assert (await credential.proof()).reveal() == "token-1"
            assert credential.account == EMAIL
            assert "token-1" not in repr(credential)

    asyncio.run(main())


def test_ten_waiters_that_leave_cost_one_call_and_the_next_uses_it() -> None:
    """Reliability A5."""

    async def work(rig: Rig) -> None:
        rig.service.gate.clear()
        waiters = [asyncio.create_task(rig.token()) for _ in range(10)]
        await rig.service.asked_for(1)
        for waiter in waiters:
            waiter.cancel()
        ended = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended)
        rig.service.gate.set()
        assert await rig.token() == "token-1"
        assert rig.service.calls == 1

    run(work)


def test_ten_waiters_share_one_call() -> None:
    async def work(rig: Rig) -> None:
        assert set(await asyncio.gather(*(rig.token() for _ in range(10)))) == {"token-1"}
        assert rig.service.calls == 1

    run(work)


def test_tokens_that_expire_under_load_fail_no_request() -> None:
    """Reliability H8: every token is good when it is used, and only the first one is waited for."""

    async def work(rig: Rig) -> None:
        dies: dict[str, float] = {}
        failures: list[str] = []

        def grant(asked: Asked) -> Reply:
            token = f"token-{rig.service.calls}"
            dies[token] = rig.clock.now + 100
            return granted(token, 100)

        async def client() -> None:
            for _ in range(100):
                token = await rig.token()
                if dies[token] <= rig.clock.now:
                    failures.append(token)
                await asyncio.sleep(0.002)

        async def tick() -> None:
            while True:
                rig.clock.now += 1.0
                await asyncio.sleep(0.001)

        rig.service.answer = grant
        await rig.token()
        passing = asyncio.create_task(tick())
        started = rig.clock.now
        await asyncio.gather(*(client() for _ in range(30)))
        passing.cancel()
        assert not failures
        assert rig.clock.now - started > 100
        assert 2 <= rig.service.calls <= 2 + (rig.clock.now - started) / 80

    run(work)


def test_an_old_token_serves_until_it_dies_while_its_successor_is_made() -> None:
    async def work(rig: Rig) -> None:
        rig.service.life = 1000
        assert await rig.token() == "token-1"
        rig.clock.now += 799
        assert await rig.token() == "token-1"
        assert rig.service.calls == 1
        rig.service.gate.clear()
        rig.clock.now += 1
        async with asyncio.timeout(1):
            assert await rig.token() == "token-1"
        await rig.service.asked_for(2)
        rig.clock.now += 185
        assert await rig.token() == "token-1"
        rig.clock.now += 10
        waiter = asyncio.create_task(rig.token())
        await asyncio.sleep(0.02)
        assert not waiter.done()
        rig.service.gate.set()
        assert await waiter == "token-2"
        assert rig.service.calls == 2

    run(work)


def test_a_refresh_that_fails_leaves_the_old_token_and_backs_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(rig: Rig) -> None:
        rig.service.life = 1000
        await rig.token()
        rig.service.answer = lambda asked: Reply(500, b"oops")
        rig.clock.now += 900
        for wait, calls in ((0.0, 2), (0.5, 2), (0.6, 3), (1.5, 3), (0.6, 4)):
            rig.clock.now += wait
            assert await rig.token() == "token-1"
            await rig.service.asked_for(calls)
            await asyncio.sleep(0.02)
            assert rig.service.calls == calls
        rig.clock.now += 200
        assert (await rig.error()).cause == "network"
        rig.service.answer = lambda asked: granted("token-new")
        rig.clock.now += 20
        assert await rig.token() == "token-new"

    with caplog.at_level(logging.INFO, logger="oaicompat"):
        run(work)
    said = [record.getMessage() for record in caplog.records if record.name == "oaicompat"]
    assert [EMAIL in line for line in said] == [True, True]


REFUSED = [
    (400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, "deleted"),
    (400, {"error": "invalid_grant", "error_description": "not found"}, "does not exist"),
    (400, {"error": "invalid_grant", "error_description": "reasonable timeframe"}, "clock"),
    (400, {"error": "invalid_grant", "error_subtype": "invalid_rapt"}, "gcloud auth"),
    (401, {"error": "deleted_client"}, "deleted_client"),
    (403, {"error": {"code": 403, "status": "PERMISSION_DENIED"}}, "PERMISSION_DENIED"),
]


@pytest.mark.parametrize(("status", "body", "told"), REFUSED)
def test_a_refusal_of_google_is_held_against_the_credential(
    status: int, body: dict[str, object], told: str
) -> None:
    async def work(rig: Rig) -> None:
        rig.service.answer = lambda asked: Reply(status, json.dumps(body).encode())
        error = await rig.error()
        assert (error.cause, error.status, error.should_retry) == ("credential", 503, False)
        assert error.upstream_status == status
        assert told in error.message
        assert rig.service.calls == 1

    run(work)


UNANSWERED = {
    "500": Reply(500, b"oops"),
    "503 in JSON": Reply(503, b'{"error": "temporarily_unavailable"}'),
    "429": Reply(429, b'{"error": "rate_limit_exceeded"}'),
    "a portal": Reply(403, b"<html>Log in to the hotel</html>"),
    "not found": Reply(404, b""),
    "a redirect": Reply(302, b"", ("location: http://127.0.0.1/",)),
    "garbage": Reply(200, b"\xff\x00{"),
    "another shape": Reply(200, b"[1]"),
    "a refusal that is none": Reply(200, b'{"error": "invalid_grant"}'),
    "no token": Reply(200, b'{"expires_in": 3600}'),
    "an empty token": Reply(200, b'{"access_token": "", "expires_in": 3600}'),
    "a number": Reply(200, b'{"access_token": 5, "expires_in": 3600}'),
    "a header too many": granted("abc\r\nx-evil: 1"),
    "dead on arrival": granted("abc", 0),
    "a strange life": Reply(200, b'{"access_token": "abc", "expires_in": "soon"}'),
    "a life without end": Reply(200, b'{"access_token": "abc", "expires_in": 1e300}'),
    "a strange code": Reply(400, b'{"error": "eyJ.a.b"}'),
    "deep": Reply(400, b"[" * 100_000),
    "compressed": Reply(200, b"x", ("content-encoding: gzip",)),
}


@pytest.mark.parametrize("reply", UNANSWERED.values(), ids=UNANSWERED)
def test_any_other_answer_is_a_failure_of_the_network(reply: Reply) -> None:
    async def work(rig: Rig) -> None:
        rig.service.answer = lambda asked: reply
        error = await rig.error()
        assert (error.cause, error.status, error.retryable) == ("network", 503, True)
        assert error.upstream_status is None
        assert rig.service.calls == 1

    run(work)


def test_a_service_that_is_gone_is_a_failure_of_the_network() -> None:
    async def work(rig: Rig) -> None:
        rig.service.port = 1
        error = await rig.error()
        assert (error.cause, error.status) == ("network", 503)
        assert "127.0.0.1" not in error.message

    run(work)


def test_a_service_that_hangs_is_left_in_time_and_asked_again_later() -> None:
    async def work(rig: Rig) -> None:
        rig.service.answer = lambda asked: None
        async with asyncio.timeout(4):
            error = await rig.error()
        assert (error.cause, error.status, error.retryable) == ("network", 504, True)
        rig.service.answer = lambda asked: granted("token-later")
        rig.clock.now += 2
        assert await rig.token() == "token-later"

    run(work, seconds=1.0)


def test_what_google_auth_spends_outside_of_requests_is_bounded_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It sleeps between attempts of its own, and may run a program for workload identity."""

    ended = threading.Event()
    begun: list[str] = []

    def default(**_: object) -> None:
        begun.append("default")
        ended.wait(5)

    async def work(rig: Rig) -> None:
        for _ in range(3):
            async with asyncio.timeout(1):
                error = await rig.error()
            assert (error.cause, error.status) == ("network", 504)
            assert begun == ["default"], "one at a time, left behind or not"
            rig.clock.now += 20
        ended.set()

    monkeypatch.setattr("google.auth.default", default)
    run(work, ADC, seconds=0.1)


def test_the_end_of_the_gateway_does_not_wait_for_a_token() -> None:
    async def work(rig: Rig) -> None:
        rig.service.answer = lambda asked: None
        waiter = asyncio.create_task(rig.token())
        await rig.service.asked_for(1)
        waiter.cancel()

    before = set(threading.enumerate())
    started = time.monotonic()
    run(work, seconds=60.0)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
    assert time.monotonic() - started < 4


def test_a_fault_of_ours_is_told_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def mint() -> Minted:
        raise ValueError("sentinel")

    async def main() -> None:
        tokens = Tokens(mint, "somebody", clock=Clock(), jitter=lambda: 0.0)
        with pytest.raises(UpstreamError) as caught:
            await tokens.token()
        assert caught.value.cause == "network"

    asyncio.run(main())
    assert "somebody: unexpected ValueError" in caplog.text
    assert "sentinel" not in caplog.text


def test_a_life_of_years_is_not_believed() -> None:
    async def work(rig: Rig) -> None:
        rig.service.life = 10**9
        await rig.token()
        rig.clock.now += 12 * 3600
        assert await rig.token() == "token-2"

    run(work)


def test_without_a_token_the_last_error_is_told_until_it_is_time_to_ask_again() -> None:
    async def work(rig: Rig) -> None:
        rig.service.answer = lambda asked: Reply(500)
        first = await rig.error()
        second = await rig.error()
        assert (second.message, second.cause) == (first.message, first.cause)
        assert second is not first
        assert second.__context__ is None
        assert rig.service.calls == 1
        rig.service.answer = lambda asked: granted("token-2")
        rig.clock.now -= 3600
        assert await rig.token() == "token-2"

    run(work)


def test_a_refused_token_is_made_anew_but_not_one_that_is_young() -> None:
    async def work(rig: Rig) -> None:
        await rig.token()
        rig.source.renew()
        assert await rig.token() == "token-1"
        rig.clock.now += 60
        rig.source.renew()
        rig.service.gate.clear()
        waiters = [asyncio.create_task(rig.token()) for _ in range(3)]
        await rig.service.asked_for(2)
        rig.source.renew()
        rig.service.gate.set()
        assert await asyncio.gather(*waiters) == ["token-2"] * 3
        for _ in range(3):
            rig.source.renew()
        assert await rig.token() == "token-2"
        assert rig.service.calls == 2

    run(work)


def test_a_clock_that_is_set_back_keeps_no_token_alive() -> None:
    async def work(rig: Rig) -> None:
        await rig.token()
        rig.clock.now -= 86400
        assert await rig.token() == "token-2"

    run(work)


@pytest.mark.parametrize(("jitter", "at"), [(0.0, 800.0), (0.5, 775.0)])
def test_refreshes_do_not_fall_together(jitter: float, at: float) -> None:
    async def main() -> None:
        async with token_service() as service:
            service.life = 1000
            clock = Clock()
            source = token_source(
                account(), upstream=service.upstream(), clock=clock, jitter=lambda: jitter
            )
            await source.token()
            clock.now += at - 2
            await source.token()
            await asyncio.sleep(0.02)
            assert service.calls == 1
            clock.now += 2
            await source.token()
            await service.asked_for(2)

    asyncio.run(main())


IS_ON_GCE = _metadata.is_on_gce
ADC = CredentialSettings(kind="adc", project="set-project")
USER = {
    "type": "authorized_user",
    "client_id": "some-client",
    "client_secret": "sentinel-client-secret",
    "refresh_token": "sentinel-refresh-token",
    "quota_project_id": "paying-project",
}


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what writes the file of default credentials; without it none are found."""
    monkeypatch.setattr(_metadata, "is_on_gce", lambda request: False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "nothing"))
    for name in (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_PROJECT",
        "GCLOUD_PROJECT",
        "GOOGLE_CLOUD_QUOTA_PROJECT",
    ):
        monkeypatch.delenv(name, raising=False)

    def write(text: str) -> None:
        path = tmp_path / "adc.json"
        path.write_text(text, "utf-8")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))

    return write


def test_the_login_of_a_user_is_found(found: Callable[[str], None]) -> None:
    async def work(rig: Rig) -> None:
        assert (rig.source.project, rig.source.quota_project) == ("set-project", "")
        assert await rig.token() == "token-1"
        assert rig.service.asked[0].form["refresh_token"] == "sentinel-refresh-token"
        assert rig.service.asked[0].headers["host"] == "oauth2.googleapis.com"
        assert (rig.source.project, rig.source.quota_project) == ("set-project", "paying-project")

    found(json.dumps(USER))
    run(work, ADC)


def test_the_project_comes_with_the_credentials(found: Callable[[str], None]) -> None:
    async def work(rig: Rig) -> None:
        assert rig.source.project == ""
        assert await rig.token() == "token-1"
        assert rig.source.project == "my-project"

    found(key_file())
    run(work, CredentialSettings(kind="adc"))


@pytest.mark.parametrize("project", [None, "x/../y"])
def test_default_credentials_without_a_project_are_refused(
    found: Callable[[str], None], project: str | None
) -> None:
    async def work(rig: Rig) -> None:
        error = await rig.error()
        assert error.cause == "credential"
        assert "project" in error.message

    found(key_file(project_id=project))
    run(work, CredentialSettings(kind="adc"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"type": "other"}', '{"type": "authorized_user"}']
)
def test_default_credentials_that_are_none_are_told(
    found: Callable[[str], None], text: str
) -> None:
    async def work(rig: Rig) -> None:
        error = await rig.error()
        assert error.cause == "credential"
        assert rig.service.asked == []

    if text:
        found(text)
    run(work, ADC)


def test_where_nothing_is_found_and_no_metadata_server_answers_that_is_told(
    found: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_metadata, "is_on_gce", IS_ON_GCE)
    pauses: list[float] = []
    monkeypatch.setattr(
        "google.auth._exponential_backoff.time", SimpleNamespace(sleep=pauses.append)
    )

    async def work(rig: Rig) -> None:
        rig.service.port = 1
        error = await rig.error()
        assert (error.cause, len(pauses)) == ("credential", 2)
        assert "not found" in error.message
        assert rig.service.connections == 1

    run(work, ADC)


def test_no_assertion_is_posted_to_anybody_but_google(found: Callable[[str], None]) -> None:
    async def work(rig: Rig) -> None:
        error = await rig.error()
        assert (error.cause, rig.service.asked) == ("credential", [])
        assert "evil" not in error.message

    found(key_file(token_uri="https://evil.example/token"))
    run(work, ADC)


def test_the_metadata_server_is_asked(
    found: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_metadata, "is_on_gce", IS_ON_GCE)
    google = ("metadata-flavor: Google", "content-type: application/json")
    text = ("metadata-flavor: Google", "content-type: application/text")

    def answer(asked: Asked) -> Reply:
        assert asked.headers["metadata-flavor"] == "google"
        path = asked.path.partition("?")[0]
        if path.endswith("/project/project-id"):
            return Reply(200, b"machine-project", text)
        if path.endswith("/token"):
            return Reply(200, b'{"access_token": "from-machine", "expires_in": 3600}', google)
        return Reply(200, b'{"email": "machine@x", "scopes": []}', google)

    async def work(rig: Rig) -> None:
        rig.service.answer = answer
        assert await rig.token() == "from-machine"
        assert rig.source.project == "machine-project"
        assert "metadata.google.internal" in {each.headers["host"] for each in rig.service.asked}

    run(work, CredentialSettings(kind="adc"))


def test_tokens_come_through_the_proxy_of_the_credential_but_not_from_the_machine_itself(
    found: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Secret("http://user:password@127.0.0.1:3128")
    ways: dict[str, Secret] = {}
    opening = Upstream.open

    def recorded(self: Upstream, request: Any, headers: Any, limit: Any, proxy: Secret) -> Any:
        ways[request.url.partition(":")[0]] = proxy
        return opening(self, request, headers, limit)

    async def by_key(rig: Rig) -> None:
        await rig.token()

    async def by_machine(rig: Rig) -> None:
        rig.service.answer = lambda asked: None
        await rig.error()

    monkeypatch.setattr(Upstream, "open", recorded)
    run(by_key, structs.replace(account(), proxy=proxy))
    ping: Any = _metadata.ping
    monkeypatch.setattr(_metadata, "is_on_gce", lambda request: ping(request, 0.05, 1))
    run(by_machine, structs.replace(ADC, proxy=proxy))
    assert ways == {"https": proxy, "http": Secret("")}


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("https://oauth2.googleapis.com/token", True),
        ("https://sts.googleapis.com:443/v1/token", True),
        ("https://accounts.google.com/o/oauth2/token", True),
        ("http://metadata.google.internal/computeMetadata/v1/x", True),
        ("http://oauth2.googleapis.com/token", False),
        ("https://oauth2.googleapis.com:8443/token", False),
        ("https://oauth2.googleapis.com.evil.example/token", False),
        ("https://evilgoogleapis.com/token", False),
        ("https://oauth2.googleapis.com@evil.example/token", False),
        ("https://u:p@oauth2.googleapis.com/token", False),
        ("https://metadata.google.internal/x", False),
        ("http://127.0.0.1/token", False),
        ("https://[::1/token", False),
        ("https://oauth2.googleapis.com:port/", False),
        ("", False),
    ],
)
def test_secrets_are_posted_to_google_only(url: str, trusted: bool) -> None:
    assert is_trusted(url) is trusted


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nsentinel\n"}, "cannot be read"),
        ({"private_key": None}, "cannot be read"),
        ({"client_email": None}, "cannot be read"),
        ({"token_uri": "http://127.0.0.1/token"}, "token_uri"),
        ({"token_uri": "https://evil.example/token"}, "token_uri"),
        ({"universe_domain": "other.example"}, "universe_domain"),
    ],
)
def test_a_key_that_cannot_be_used_stops_the_start(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        token_source(account(**fields))
    assert told in str(caught.value)
    assert "sentinel" not in "".join(traceback.format_exception(caught.value))


def test_a_key_without_a_token_uri_uses_googles() -> None:
    async def work(rig: Rig) -> None:
        await rig.token()
        assert rig.service.asked[0].headers["host"] == "oauth2.googleapis.com"

    run(work, account(token_uri=None))


@pytest.mark.parametrize(
    ("settings", "module"), [(account(), "google.oauth2.service_account"), (ADC, "google.auth")]
)
def test_without_google_auth_the_package_is_named(
    settings: CredentialSettings, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r'pip install "oaicompat-server\[vertex\]"'):
        token_source(settings)


def test_no_secret_is_in_anything_that_is_shown(
    found: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[str] = []
    secrets = ["sentinel", *pem().splitlines()[1:-1], "ya29.", "PRIVATE KEY"]

    def echo(status: int) -> Callable[[Asked], Reply]:
        def answer(asked: Asked) -> Reply:
            secrets.append(asked.form.get("assertion", "sentinel"))
            body = {"error": "invalid_grant", "error_description": asked.body}
            return Reply(status, json.dumps(body).encode())

        return answer

    async def work(rig: Rig) -> None:
        for status in (200, 400, 500):
            rig.service.answer = echo(status)
            error = await rig.error()
            shown.append("".join(traceback.format_exception(error)))
            shown.append(repr(error) + repr(vars(error)))
            rig.clock.now += 60
        rig.service.answer = lambda asked: granted("ya29.sentinel")
        await rig.token()
        shown.append(repr(rig.source) + str(rig.source) + repr(vars(rig.source)))

    found(json.dumps(USER))
    with caplog.at_level(logging.DEBUG):
        run(work)
        run(work, ADC)
    everything = "\n".join((*shown, caplog.text))
    assert "invalid_grant" in everything
    assert [secret for secret in secrets if secret in everything] == []
