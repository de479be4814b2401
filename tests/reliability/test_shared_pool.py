"""The pool over time and over processes: rows H5, H8 and I4."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from tests.server.test_server_pool_machine import OverloadMachine, PoolMachine
from tests.server.test_server_vertex_gateway import ASKED, account, served_tokens
from tests.support.asking import ask
from tests.support.gateway import gateway
from tests.support.processes import gateway_process

from oaicompat_server.settings import Config, CredentialSettings
from oaicompat_server.simulator import running
from oaicompat_server.vertex import token_source


def test_h5_gateways_on_one_state_file_share_what_rests(tmp_path: Path) -> None:
    """A limit that one gateway met is known soon to another one that shares its state, and not met again."""
    state = {"OAICOMPAT_STATE__PATH": str(tmp_path / "state.sqlite3")}
    places = [tmp_path / name for name in ("one", "other")]
    for place in places:
        place.mkdir()
    with running(any_model=True) as simulator:
        simulator.behave("upstream-key", ["429:rate:600*"])
        with (
            gateway_process(simulator.url, places[0], **state) as one,
            gateway_process(simulator.url, places[1], **state) as other,
        ):
            assert one.ask("POST", "/chat/completions", ASKED).status == 429
            mark = len(simulator.requests)
            until = time.monotonic() + 10
            while not other.data("GET", "/oaicompat/status")["pool"]["cells"]:
                assert time.monotonic() < until
                time.sleep(0.05)
            refused = other.ask("POST", "/chat/completions", ASKED)
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) > 500
            assert len(simulator.requests) == mark


def test_h8_tokens_that_expire_under_load_fail_no_request() -> None:
    """Tokens of service accounts are made ahead of their end: no request under load is refused for one."""
    stop = threading.Event()
    with running(any_model=True) as simulator, served_tokens() as tokens:
        tokens.life = 2
        entry = CredentialSettings(
            kind="service_account", key=account(), project="my-project", base_url=simulator.url
        )
        sources = partial(token_source, upstream=tokens.upstream())
        with gateway(Config(credentials=(entry,)), simulator, sources=sources) as served:

            def load() -> set[int]:
                seen = set()
                while not stop.is_set():
                    seen.add(ask(served, "POST", "/v1/chat/completions", ASKED).status)
                return seen

            with ThreadPoolExecutor(4) as threads:
                running_loads = [threads.submit(load) for _ in range(4)]
                time.sleep(5)
                stop.set()
            assert set.union(*(each.result() for each in running_loads)) == {200}
        assert 2 <= tokens.calls <= 6


def test_i4_the_pool_keeps_its_word_whatever_happens_to_it() -> None:
    """Whatever is leased, cancelled, refused, reset or waited for, the pool does as a slow model of it."""
    bounded = settings(max_examples=30, stateful_step_count=30, deadline=None, database=None)
    run_state_machine_as_test(PoolMachine, settings=bounded)
    run_state_machine_as_test(OverloadMachine, settings=bounded)
