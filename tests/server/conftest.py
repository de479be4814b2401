"""What tests of the gateway share: one Redis server for the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.support.redis_server import BINARY, redis_server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Skip where there is no redis-server, or fail where there must be one (REQUIRE_CLIENTS)."""
    if BINARY is None:
        reason = "redis-server is not installed"
        if os.environ.get("REQUIRE_CLIENTS"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with redis_server() as url:
        yield url
