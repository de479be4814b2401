"""What the people who run the gateway ask of it, and what its log tells them."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.asking import ask
from tests.support.gateway import Gateway, gateway
from tests.support.processes import gateway_process

from oaicompat_server.auth import plan_access
from oaicompat_server.settings import Config, ConfigError, ServerSettings
from oaicompat_server.simulator import running

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def served() -> Iterator[Gateway]:
    with gateway(keys=("one-key", "two-key")) as found:
        yield found


def status(served: Gateway) -> Any:
    return ask(served, "GET", "/v1/oaicompat/status").data


def test_the_status_tells_what_rests_and_shows_no_secret(served: Gateway) -> None:
    for key in ("one-key", "two-key"):
        served.simulator.behave(key, ["429:rate:60*"])
    refused = ask(served, "POST", "/v1/chat/completions", CHAT)
    assert refused.status == 429
    found = status(served)
    assert [each["account"] for each in found["pool"]["credentials"]] == ["one-key", "two-key"]
    assert all(each["state"] == "usable" for each in found["pool"]["credentials"])
    cells = found["pool"]["cells"]
    assert {cell["accounts"][0] for cell in cells} == {"one-key", "two-key"}
    assert {(cell["kind"], cell["state"]) for cell in cells} == {("limit", "resting")}
    assert all(50 < cell["seconds"] <= 60 for cell in cells)
    requests = found["requests"]
    assert requests.pop("tasks") > 0
    assert set(requests.values()) == {0}
    assert set(found["versions"]) == {"oaicompat", "oaicompat-server"}


def test_a_reset_forgets_what_it_names(served: Gateway) -> None:
    for key in ("one-key", "two-key"):
        served.simulator.behave(key, ["429:rate:60*"])
    ask(served, "POST", "/v1/chat/completions", CHAT)
    left = ask(served, "POST", "/v1/oaicompat/reset", {"account": "one-key"}).data["pool"]["cells"]
    assert [cell["accounts"] for cell in left] == [["two-key"]]
    model = left[0]["model"]
    kept = ask(served, "POST", "/v1/oaicompat/reset", {"model": "another"}).data["pool"]["cells"]
    assert kept[0]["model"] == model
    assert ask(served, "POST", "/v1/oaicompat/reset", {"model": model}).data["pool"]["cells"] == []
    assert ask(served, "POST", "/v1/oaicompat/reset").status == 200


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"account": "typo"}, 404, "account"),
        ({"acount": "one-key"}, 400, None),
        ({"account": 1}, 400, None),
        ([], 400, None),
    ],
)
def test_a_reset_that_names_nothing_is_refused(
    served: Gateway, body: Any, code: int, param: str | None
) -> None:
    reply = ask(served, "POST", "/v1/oaicompat/reset", body)
    assert reply.status == code
    assert reply.error["param"] == param


def test_ready_means_that_a_credential_is_usable() -> None:
    with gateway(keys=("invalid-key",)) as served:
        assert ask(served, "GET", "/readyz").data == {"status": "ready"}
        assert ask(served, "POST", "/v1/chat/completions", CHAT).status == 503
        unready = ask(served, "GET", "/readyz")
        assert (unready.status, unready.data) == (503, {"status": "no usable credential"})
        assert ask(served, "GET", "/healthz").status == 200


def test_a_key_that_the_model_list_finds_refused_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with gateway(keys=("invalid-key",)) as served, caplog.at_level("WARNING", "oaicompat"):
        assert ask(served, "GET", "/v1/models").status == 200
    assert "credential invalid-key is refused" in caplog.text


@pytest.mark.parametrize(
    ("script", "level", "told"),
    [
        ("error:429:day", logging.INFO, "has spent its quota"),
        ("error:503", logging.DEBUG, "(overload, 503)"),
        ("reset-after:0", logging.DEBUG, "(network, 502)"),
    ],
)
def test_failed_attempts_are_told_as_loud_as_they_matter(
    script: str, level: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = CHAT | {"messages": [{"role": "user", "content": f"#script:{script}"}]}
    with gateway() as served, caplog.at_level(logging.DEBUG, "oaicompat"):
        ask(served, "POST", "/v1/chat/completions", body)
    assert {record.levelno for record in caplog.records if told in record.getMessage()} == {level}


@pytest.mark.parametrize("origin", ["chat.example", "https://chat.example/", "*", "https://a b"])
def test_an_origin_that_no_browser_sends_stops_the_start(origin: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.allowed_origins"):
        plan_access(Config(server=ServerSettings(allowed_origins=(origin,))))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_the_log_tells_of_a_stop_with_requests_that_run(tmp_path: Path) -> None:
    with running(any_model=True) as simulator, gateway_process(simulator.url, tmp_path) as served:
        body = CHAT | {"messages": [{"role": "user", "content": "#script:slow:700"}]}
        connection = served.open("POST", "/chat/completions", body, "sk-first")
        time.sleep(0.3)
        served.process.send_signal(signal.SIGTERM)
        assert connection.getresponse().status == 200
        connection.close()
        assert served.process.wait(10) == 0
        assert "stopping: 1 requests have 30 s to end" in served.log.read_text()
