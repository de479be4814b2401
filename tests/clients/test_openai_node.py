"""Libraries of JavaScript against the gateway: the cases of each script, each a test here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.support.gateway import Gateway, gateway
from tests.support.node import cases, outcome

from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config
from oaicompat_server.simulator import running

pytestmark = pytest.mark.clients

SCRIPTS = ("openai_node.mjs", "openai_node_responses.mjs", "ai_sdk.mjs")
CASES = [(script, case) for script in SCRIPTS for case in cases(script)]
LOCKED = Config(auth=AuthSettings(mode="all_except_health", keys=(Secret("sk-right"),)))
KEYS = {"limited": ["429:rate:30*"], "overloaded": ["503:overloaded*"]}


@pytest.fixture(scope="module")
def gateways(served: Gateway) -> Iterator[dict[str, Gateway]]:
    with ExitStack() as stack:
        simulator = stack.enter_context(running(any_model=True, keys=KEYS))

        def start(**more: object) -> Gateway:
            return stack.enter_context(gateway(witnessed=True, **more))  # type: ignore[arg-type]

        spoiled = {key: start(upstream=simulator, keys=(key,)) for key in KEYS}
        yield {
            "main": served,
            "locked": start(config=LOCKED),
            "failing": start(keys=tuple("abcd")),
            **spoiled,
        }


@pytest.fixture(scope="module")
def results(
    gateways: dict[str, Gateway], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, str]]:
    urls = {name: each.url for name, each in gateways.items()}
    return {script: outcome(script, urls, tmp_path_factory.mktemp("node")) for script in SCRIPTS}


@pytest.mark.parametrize(("script", "case"), CASES)
def test_case(results: dict[str, dict[str, str]], script: str, case: str) -> None:
    assert results[script][case] == "ok"


def test_every_case_ran(results: dict[str, dict[str, str]], gateways: dict[str, Gateway]) -> None:
    for script in SCRIPTS:
        assert list(results[script]) == cases(script)
        assert len(results[script]) > 5
    for each in gateways.values():
        each.check()
