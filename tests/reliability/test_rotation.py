"""Who is asked next: scripts of what keys do, conversations side by side, models that stand in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.asking import Reply, ask
from tests.support.gateway import Gateway, gateway
from tests.support.pools import user_of

from oaicompat_server.settings import Config, ModelSettings, StateSettings
from oaicompat_server.simulator import Simulator, running

M = "gemini-2.5-flash"
THINKING = "gemini-3-flash-preview"
SENTINEL = "skip_thought_signature_validator"
KEYS = ("a", "b", "c")


@contextmanager
def scripted(
    behaviours: Mapping[str, Sequence[str]], config: Config | None = None
) -> Iterator[Gateway]:
    """Run a gateway whose keys behave so."""
    with gateway(config, keys=tuple(behaviours)) as served:
        for key, steps in behaviours.items():
            served.simulator.behave(key, steps)
        yield served


def chat(served: Gateway, **fields: Any) -> Reply:
    """Ask for one chat completion."""
    body = {"model": M, "messages": [{"role": "user", "content": "hello"}], **fields}
    return ask(served, "POST", "/v1/chat/completions", body)


def calls(simulator: Simulator) -> list[Any]:
    """Return the calls that reached the upstream."""
    return [record for record in simulator.requests if record.method == "POST"]


RATE, DAY, DEAD, BUSY, SHORT = "429:rate:30", "429:day:1", "400:key", "503", "429:rate:0.1"


@pytest.mark.parametrize(
    ("behaviours", "asked", "status", "wait"),
    [
        ({"a": []}, "a", 200, None),
        ({"a": [RATE]}, "a", 429, 30),
        ({"a": [SHORT]}, "aa", 200, None),
        ({"a": [SHORT, SHORT, SHORT]}, "aaa", 429, 1),
        ({"a": [DAY]}, "a", 429, 60),
        ({"a": [DEAD]}, "a", 503, None),
        ({"a": [BUSY, BUSY]}, "aaa", 200, None),
        ({"a": [BUSY, BUSY, BUSY]}, "aaa", 503, 2),
        ({"a": [RATE], "b": []}, "ab", 200, None),
        ({"a": [RATE], "b": ["429:rate:20"]}, "ab", 429, 20),
        ({"a": [DEAD], "b": []}, "ab", 200, None),
        ({"a": [DEAD], "b": [RATE]}, "ab", 429, 30),
        ({"a": [DEAD], "b": [DEAD]}, "ab", 503, None),
        ({"a": [DAY], "b": [DAY]}, "ab", 429, 60),
        ({"a": [DAY], "b": ["429:rate:7"]}, "ab", 429, 7),
        ({"a": [BUSY], "b": []}, "ab", 200, None),
        ({"a": ["400"], "b": []}, "a", 400, None),
        ({"a": ["404"], "b": []}, "a", 400, None),
        ({"a": ["500"], "b": []}, "aa", 200, None),
        ({"a": [RATE], "b": [RATE], "c": []}, "abc", 200, None),
        ({"a": [RATE], "b": [DEAD], "c": []}, "abc", 200, None),
        ({"a": [DEAD], "b": [DEAD], "c": [DEAD]}, "abc", 503, None),
        ({"a": [RATE], "b": ["429:rate:9"], "c": ["429:rate:70"]}, "abc", 429, 9),
        ({"a": ["403:disabled"], "b": ["403:disabled"], "c": []}, "abc", 200, None),
        ({"a": ["403:disabled"], "b": ["403:disabled"], "c": ["403:disabled"]}, "abc", 403, None),
    ],
)
def test_rotation_script(
    behaviours: dict[str, list[str]], asked: str, status: int, wait: int | None
) -> None:
    with scripted(behaviours) as served:
        reply = chat(served, user=user_of(served.relay.pool, list(behaviours)))
        assert "".join(record.key for record in calls(served.simulator)) == asked
        assert reply.status == status, reply.content
        told = reply.headers.get("retry-after")
        assert told == (None if wait is None else str(wait))
        if status == 200:
            assert reply.headers["x-account-email"] == asked[-1]
        assert served.idle()["leases"] == 0


def call_of(reply: Reply) -> Any:
    """Return the tool call of an answer, without what only Gemini knows."""
    assert reply.status == 200, reply.content
    (call,) = reply.data["choices"][0]["message"]["tool_calls"]
    return {name: call[name] for name in ("id", "type", "function")}


def turns(served: Gateway, user: str, call: Any = None) -> Reply:
    """Begin a conversation that calls a tool, or go on with it."""
    messages: list[Any] = [{"role": "user", "content": f"#script:tool-then-text {user}"}]
    function = {"name": f"look_at_{user}", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": function}]
    if call is not None:
        messages += [
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "seen"},
        ]
    return chat(served, model=THINKING, messages=messages, tools=tools)


def signature(record: Any) -> str:
    found: str = record.body["contents"][1]["parts"][0]["thoughtSignature"]
    return found


def test_interleaved_conversations_keep_their_signatures_and_their_credential() -> None:
    users = [f"user_{number}" for number in range(9)]
    with scripted({key: [] for key in KEYS}) as served:
        begun = {user: call_of(turns(served, user)) for user in users}
        first = {
            user: record.key for user, record in zip(users, calls(served.simulator), strict=True)
        }
        assert len(set(first.values())) > 1
        for user in reversed(users):
            assert turns(served, user, begun[user]).status == 200
        second = calls(served.simulator)[len(users) :]
        assert {user: each.key for user, each in zip(reversed(users), second, strict=True)} == first
        signatures = [signature(record) for record in second]
        assert SENTINEL not in signatures
        assert len(set(signatures)) == len(users)


def test_a_conversation_goes_on_elsewhere_while_its_credential_rests() -> None:
    with scripted({key: [] for key in KEYS}) as served:
        user = user_of(served.relay.pool, KEYS)
        served.simulator.behave("a", [RATE])
        for _ in range(3):
            assert chat(served, user=user).status == 200
        assert [record.key for record in calls(served.simulator)] == ["a", "b", "b", "b"]


@pytest.mark.parametrize("header", ["x-session-id", "session_id"])
def test_a_session_named_in_a_header_stays(header: str) -> None:
    with scripted({key: [] for key in KEYS}) as served:
        for session in ("one", "two", "three"):
            for number in range(3):
                body = {"model": M, "messages": [{"role": "user", "content": f"{number}"}]}
                connection_headers = {header.replace("-", "_"): session}
                ask(served, "POST", "/v1/chat/completions", body, **connection_headers)
            assert len({record.key for record in calls(served.simulator)[-3:]}) == 1


def test_after_a_restart_a_conversation_has_its_credential_again(tmp_path: Path) -> None:
    state = Config(state=StateSettings(path=str(tmp_path / "state.db")))
    with running(any_model=True) as simulator:
        for key in KEYS:
            simulator.behave(key, [])
        with gateway(state, simulator, keys=KEYS) as served:
            call = call_of(turns(served, "somebody"))
        with gateway(state, simulator, keys=KEYS) as served:
            assert turns(served, "somebody", call).status == 200
        before, after = calls(simulator)
        assert before.key == after.key
        assert signature(after) != SENTINEL


def test_after_a_restart_a_stored_response_has_its_signature(tmp_path: Path) -> None:
    state = Config(state=StateSettings(path=str(tmp_path / "state.db")))
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
    body = {"model": THINKING, "tools": [tool]}
    with running(any_model=True) as simulator:
        for key in KEYS:
            simulator.behave(key, [])
        with gateway(state, simulator, keys=KEYS) as served:
            asked = body | {"input": "#script:tool-then-text somebody"}
            made = ask(served, "POST", "/v1/responses", asked).data
        (call,) = [item for item in made["output"] if item["type"] == "function_call"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "seen"}
        with gateway(state, simulator, keys=KEYS) as served:
            more = body | {"previous_response_id": made["id"], "input": [output]}
            assert ask(served, "POST", "/v1/responses", more).status == 200
        before, after = calls(simulator)
        assert before.key == after.key
        assert signature(after) != SENTINEL


ALIASES = Config(models=ModelSettings(aliases={"chain": ("m-one", "m-two", "m-three")}))


@pytest.mark.parametrize(
    ("behaviour", "models"),
    [
        ([], ["m-one"]),
        (["429:rate:30@m-one*"], ["m-one", "m-two"]),
        (["503@m-one*"], ["m-one", "m-two"]),
        (["429:day:9@m-one*", "503@m-two*"], ["m-one", "m-two", "m-three"]),
    ],
)
def test_fallback_models_stand_in_and_are_told(behaviour: list[str], models: list[str]) -> None:
    with scripted({"a": behaviour}, ALIASES) as served:
        reply = chat(served, model="chain")
        assert [record.model for record in calls(served.simulator)] == models
        assert reply.status == 200
        assert reply.headers["x-mapped-model"] == models[-1]
        assert reply.data["model"] == "chain"


def test_a_model_that_rests_is_passed_over() -> None:
    with scripted({"a": ["429:rate:30@m-one*"]}, ALIASES) as served:
        for _ in range(2):
            assert chat(served, model="chain").headers["x-mapped-model"] == "m-two"
        assert [each.model for each in calls(served.simulator)] == ["m-one", "m-two", "m-two"]


@pytest.mark.parametrize(
    ("targets", "status"), [(("x-none", "y-none", M), 200), (("x-none", "y-none", "z-none"), 404)]
)
def test_models_there_are_not_are_passed_over(targets: tuple[str, ...], status: int) -> None:
    config = Config(models=ModelSettings(aliases={"chain": targets}))
    with running() as simulator, gateway(config, simulator) as served:
        reply = chat(served, model="chain")
        assert [record.model for record in calls(simulator)] == list(targets)
        assert reply.status == status, reply.content
        if status == 404:
            assert reply.error["code"] == "model_not_found"
