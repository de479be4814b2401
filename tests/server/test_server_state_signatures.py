"""Signatures that outlive a gateway, or are shared by two: clients that keep nothing but a call's id.

One rule: the upstream is a simulator that knows the signatures it made, so that a true one is told from the
placeholder and from somebody else's.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import OTHER_KEY, GatewayProcess, gateway_process
from tests.support.redis_server import redis_server

from oaicompat_server.simulator import Simulator, running

Json = dict[str, Any]
Serve = Callable[[str], AbstractContextManager[GatewayProcess]]
THINKING = "gemini-3-flash-preview"
SENTINEL = "skip_thought_signature_validator"
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with running(any_model=True) as upstream:
        yield upstream


@pytest.fixture(params=["sqlite", "redis"])
def serve(request: pytest.FixtureRequest, simulator: Simulator, tmp_path: Path) -> Serve:
    """Give what runs a gateway with a home of this name, on a store that all of them share."""
    settings = {"OAICOMPAT_STATE__STORE": request.param}
    if request.param == "redis":
        settings["OAICOMPAT_STATE__REDIS_URL"] = request.getfixturevalue("redis_url")
    else:
        settings["OAICOMPAT_STATE__PATH"] = str(tmp_path / "state.sqlite3")
    return serving(simulator, tmp_path, settings)


def serving(simulator: Simulator, place: Path, settings: dict[str, str]) -> Serve:
    def serve(name: str) -> AbstractContextManager[GatewayProcess]:
        home = place / name
        home.mkdir(exist_ok=True)
        return gateway_process(simulator.url, home, **settings)

    return serve


def asked(user: str, *calls: Json) -> Json:
    """Return what a client sends that keeps a call's id and arguments alone."""
    messages: list[Json] = [{"role": "user", "content": f"#script:tool-then-text {user}"}]
    for call in calls:
        messages.append({"role": "assistant", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": "seen"})
    function = {"name": f"look_at_{user}", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": function}]
    return {"model": THINKING, "messages": messages, "tools": tools}


def begin(served: GatewayProcess, user: str) -> Json:
    """Have the model call a tool; return all that the client keeps of it."""
    message = served.data("POST", "/chat/completions", asked(user))["choices"][0]["message"]
    (call,) = message["tool_calls"]
    return {name: call[name] for name in ("id", "type", "function")}


def go_on(served: GatewayProcess, simulator: Simulator, user: str, call: Json) -> str:
    """Give the tool's result; return the signature that the upstream was sent."""
    served.data("POST", "/chat/completions", asked(user, call))
    return sent(simulator)


def sent(simulator: Simulator) -> str:
    found: str = simulator.requests[-1].body["contents"][1]["parts"][0]["thoughtSignature"]
    return found


def true_signature(served: GatewayProcess, simulator: Simulator, user: str, call: Json) -> str:
    """Return the signature that the simulator made for a call, as this gateway remembers it."""
    found = go_on(served, simulator, user, call)
    assert found != SENTINEL
    return found


def stop(served: GatewayProcess) -> None:
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(15) == 0


def check_logs(place: Path, *signatures: str) -> None:
    for log in place.glob("*/log"):
        text = log.read_text()
        assert "Traceback" not in text
        assert not any(each in text for each in signatures)


@posix
def test_a_conversation_goes_on_after_a_restart(
    serve: Serve, simulator: Simulator, tmp_path: Path
) -> None:
    users = [f"user{number}" for number in range(5)]
    with serve("one") as served:
        calls = {user: begin(served, user) for user in users}
        true = {user: true_signature(served, simulator, user, calls[user]) for user in users}
        calls["late"] = begin(served, "late")
        stop(served)
    with serve("one") as served:
        for user in reversed(users):
            assert go_on(served, simulator, user, calls[user]) == true[user]
        assert go_on(served, simulator, "late", calls["late"]) not in {SENTINEL, *true.values()}
        served.ask("POST", "/chat/completions", asked("late", calls["late"]), key=OTHER_KEY)
        assert sent(simulator) == SENTINEL
    assert len(set(true.values())) == len(users)
    check_logs(tmp_path, *true.values())


def test_a_conversation_goes_on_after_a_sudden_end(serve: Serve, simulator: Simulator) -> None:
    with serve("one") as served:
        call = begin(served, "somebody")
        true = true_signature(served, simulator, "somebody", call)
        # It is written behind, and what is not yet there is lost.
        time.sleep(0.5)
        served.kill()
    with serve("one") as served:
        assert go_on(served, simulator, "somebody", call) == true


def test_a_conversation_goes_on_in_another_gateway(
    serve: Serve, simulator: Simulator, tmp_path: Path
) -> None:
    users = [f"user{number}" for number in range(4)]
    with serve("one") as first, serve("two") as second:
        pair = (first, second)
        calls = {user: begin(pair[at % 2], user) for at, user in enumerate(users)}
        true = {
            user: true_signature(pair[at % 2], simulator, user, calls[user])
            for at, user in enumerate(users)
        }
        time.sleep(0.5)
        for at, user in enumerate(users):
            assert go_on(pair[1 - at % 2], simulator, user, calls[user]) == true[user]
    assert len(set(true.values())) == len(users)
    check_logs(tmp_path, *true.values())


def test_a_file_that_breaks_leaves_memory(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    settings = {"OAICOMPAT_STATE__STORE": "sqlite", "OAICOMPAT_STATE__PATH": str(path)}
    with serving(simulator, tmp_path, settings)("one") as served:
        kept = begin(served, "kept")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE signatures")
        call = begin(served, "somebody")
        assert go_on(served, simulator, "somebody", call) != SENTINEL
        assert go_on(served, simulator, "kept", kept) != SENTINEL
        unknown = kept | {"id": "call_unknown"}
        assert go_on(served, simulator, "kept", unknown) == SENTINEL
        time.sleep(0.5)
        for number in range(3):
            begin(served, f"more{number}")
            go_on(served, simulator, "kept", unknown)
        text = served.log.read_text()
    assert text.count("signatures are not kept in the store: no such table") == 1
    assert text.count("signatures are not found in the store: no such table") == 1
    assert "Traceback" not in text


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_a_redis_that_goes_away_leaves_memory(simulator: Simulator, tmp_path: Path) -> None:
    with ExitStack() as stack:
        with redis_server() as url:
            settings = {"OAICOMPAT_STATE__STORE": "redis", "OAICOMPAT_STATE__REDIS_URL": url}
            served = stack.enter_context(serving(simulator, tmp_path, settings)("one"))
            call = begin(served, "before")
        assert go_on(served, simulator, "before", call) != SENTINEL
        later = begin(served, "later")
        assert go_on(served, simulator, "later", later) != SENTINEL
        assert go_on(served, simulator, "later", later | {"id": "unknown"}) == SENTINEL
    text = (tmp_path / "one" / "log").read_text()
    assert "signatures are not found in the store: Redis cannot be reached" in text
    assert "Traceback" not in text
