"""The gateway that real clients talk to; what passes is judged when a test is done.

One rule: every test drives the whole path (client, uvicorn, relay, httpcore, simulator); only what a client
sends and what it is handed is looked at. A test that spoils the credential asks for a gateway of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.support.gateway import Gateway, gateway
from tests.support.installed import VERSIONS


@pytest.fixture(scope="session")
def served() -> Iterator[Gateway]:
    with gateway(witnessed=True) as running:
        yield running


@pytest.fixture
def fresh() -> Iterator[Callable[..., Gateway]]:
    """Start gateways for one test; takes what `tests.support.gateway.gateway` takes."""
    made: list[Gateway] = []

    def start(*settings: Any, **more: Any) -> Gateway:
        made.append(stack.enter_context(gateway(*settings, **more, witnessed=True)))
        return made[-1]

    with ExitStack() as stack:
        yield start
    for each in made:
        each.check()


@pytest.fixture(autouse=True)
def judged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Judge what the shared gateway answered in this test."""
    yield
    if "served" in request.fixturenames:
        request.getfixturevalue("served").check()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which versions of the clients there were."""
    if VERSIONS:
        told = ", ".join(f"{name} {VERSIONS[name]}" for name in sorted(VERSIONS))
        terminalreporter.write_line(f"clients: {told}")
