"""The attempts of a call over real sockets: how many there are, and what a failure costs the pool."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.gateway import Gateway, gateway

KEYS = ("one", "two", "three", "four")


def _ask(served: Gateway, text: str, model: str = "gpt-4o") -> tuple[int, dict[str, str], Any]:
    """Send one chat request; return status, headers (lower case) and the decoded body."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
    )
    reply = connection.getresponse()
    headers = {name.lower(): value for name, value in reply.getheaders()}
    found = reply.status, headers, json.loads(reply.read())
    connection.close()
    return found


def _calls(served: Gateway) -> list[str | None]:
    """Return the key of every call to generate that reached the upstream."""
    return [record.key for record in served.simulator.requests if record.method == "POST"]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(("behaviour", "status"), [("503*", 503), ("429:rate:0.05*", 429)])
def test_three_attempts_happen_and_no_more(size: int, behaviour: str, status: int) -> None:
    with gateway(keys=KEYS[:size]) as served:
        for key in KEYS[:size]:
            served.simulator.behave(key, [behaviour])
        found, headers, body = _ask(served, "hello")
        assert found == status
        assert len(_calls(served)) == 3
        assert len(set(_calls(served))) == min(size, 3)
        assert int(headers["retry-after"]) >= 1
        assert body["error"]["message"].count("try again in") == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_long_rate_limit_is_asked_for_once_per_credential_and_three_times_at_most(
    size: int,
) -> None:
    with gateway(keys=KEYS[:size]) as served:
        for key in KEYS[:size]:
            served.simulator.behave(key, ["429:rate:60*"])
        assert _ask(served, "hello")[0] == 429
        assert len(_calls(served)) == len(set(_calls(served))) == min(size, 3)


@pytest.fixture
def four() -> Iterator[Gateway]:
    with gateway(keys=KEYS) as served:
        yield served


@pytest.mark.parametrize("script", ["error:403", "error:403:location", "error:403:disabled"])
def test_regression_one_clients_403_takes_no_credential_from_other_models(
    four: Gateway, script: str
) -> None:
    for _ in range(3):
        assert _ask(four, f"#script:{script}")[0] in (403, 503)
    assert not four.relay.pool.all_refused
    used = set()
    for number in range(40):
        assert _ask(four, f"hello {number}", "gemini-2.5-pro")[0] == 200
        used.add(_calls(four)[-1])
    assert len(used) == len(KEYS)


def test_regression_a_spent_day_reaches_the_client_as_a_reason_to_stop(four: Gateway) -> None:
    for key in KEYS:
        four.simulator.behave(key, ["429:day:1*"])
    for _ in range(3):
        status, headers, body = _ask(four, "hello")
    assert (status, body["error"]["code"]) == (429, "insufficient_quota")
    assert headers["x-should-retry"] == "false"
    assert int(headers["retry-after"]) >= 55
    assert len(_calls(four)) == 4


def test_regression_a_page_that_names_a_wait_agrees_with_retry_after(four: Gateway) -> None:
    status, headers, body = _ask(four, "#script:html:502")
    assert status == 503
    named = re.findall(r"try again in (\S+?)\.? ?(?:seconds)?(?: |$)", body["error"]["message"])
    assert named == [headers["retry-after"] + "s"], body
