"""No key is seen in anything that a run full of faults puts out at debug level."""

from __future__ import annotations

import http.client
import io
import json
import logging
from collections.abc import Iterator

import pytest
from tests.support.gateway import Gateway, gateway

from oaicompat_server.logs import SafeFormatter, set_up
from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config, CredentialSettings, UpstreamSettings

UPSTREAM_KEYS = (
    "AIzaSentinelOfTheFirstCredential0001",
    "sentinel-second-credential",
    "invalid-sentinel",
)
CLIENT_KEY = "sentinel-client-key"
WRONG_KEY = "wrong-but-private-client-key"
SCRIPTS = (
    "hello", "#script:error:400", "#script:error:401", "#script:error:403", "#script:error:404",
    "#script:error:429", "#script:error:500", "#script:error:503", "#script:html:502",
    "#script:garbage", "#script:reset-after:0", "#script:reset-after:2", "#script:cut-after:1",
    "#script:error-after:2", "#script:redirect:302", "#script:gzip:100", "#script:headers:20",
)  # fmt: skip


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Log everything at debug level, as the command would with `--verbose`, and put all back afterwards."""
    names = ("", "oaicompat", "httpcore", "asyncio", "uvicorn")
    before = {name: logging.getLogger(name).level for name in names}
    root = logging.getLogger()
    handlers = root.handlers[:]
    known = [Secret(key) for key in (*UPSTREAM_KEYS, CLIENT_KEY)]
    set_up(known, logging.DEBUG)
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(SafeFormatter(known))
    root.handlers[:] = [handler]
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield text
    root.handlers[:] = handlers
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def _ask(served: Gateway, text: str, stream: bool, key: str) -> str:
    """Return all of a reply: status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    body = {"model": "gpt-4o", "stream": stream, "messages": [{"role": "user", "content": text}]}
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    reply = connection.getresponse()
    shown = f"{reply.status} {reply.getheaders()} {reply.read().decode('utf-8', 'replace')}"
    connection.close()
    return shown


def test_no_secret_is_in_any_output_of_a_run_of_faults(
    log: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    config = Config(
        auth=AuthSettings(keys=(Secret(CLIENT_KEY),)),
        upstream=UpstreamSettings(attempts=2, first_byte_timeout=0.5, idle_timeout=0.5),
        credentials=tuple(CredentialSettings(key=Secret(key)) for key in UPSTREAM_KEYS),
    )
    shown: list[str] = []
    with gateway(config) as served:
        for script in SCRIPTS:
            shown += [_ask(served, script, stream, CLIENT_KEY) for stream in (False, True)]
            served.relay.pool.reset()
        shown.append(_ask(served, "hello", False, WRONG_KEY))
        shown.append(repr(vars(served.relay)) + repr(config))
    captured = capfd.readouterr()
    everything = "\n".join((*shown, log.getvalue(), captured.out, captured.err))
    assert "credential key-" in log.getvalue()
    assert any(one.startswith("200") for one in shown)
    for key in (*UPSTREAM_KEYS, CLIENT_KEY, WRONG_KEY):
        assert key not in everything
