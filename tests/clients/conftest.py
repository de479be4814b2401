"""The gateway that real clients talk to, and the client of each kind.

One rule: every test drives the whole path (client, uvicorn, relay, httpcore, simulator); only what a client
sends and what it is handed is looked at. A test that spoils the credential asks for a gateway of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NoReturn

import pytest
from tests.support.gateway import Gateway, gateway


@pytest.fixture(scope="session")
def served() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


@pytest.fixture
def fresh() -> Iterator[Callable[..., Gateway]]:
    """Start gateways for one test; takes what `tests.support.gateway.gateway` takes."""
    with ExitStack() as stack:
        yield lambda *settings, **more: stack.enter_context(gateway(*settings, **more))


def absent(reason: str) -> NoReturn:
    """Skip for want of a client, or fail where clients must be there (REQUIRE_CLIENTS)."""
    if os.environ.get("REQUIRE_CLIENTS"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
