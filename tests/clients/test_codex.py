"""Codex CLI against the gateway: its tools, its sessions, its compaction, and what it tells of failures.

What it must find out is a random word that stands only in a file or in an earlier turn.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.codex import Codex
from tests.support.gateway import Gateway

pytestmark = pytest.mark.clients

FALLBACK = "gemini-3-flash-preview"
"""A model Codex has no catalogue entry for."""

AT_ONCE = ("request_max_retries = 0", "stream_max_retries = 0")
"""Settings of a provider whose failures are final."""


@pytest.fixture
def codex(tmp_path: Path, served: Gateway) -> Codex:
    return Codex(tmp_path, served.url)


@pytest.fixture
def token() -> str:
    return secrets.token_hex(8)


def call(name: str, **arguments: Any) -> str:
    return f"#script:tool-then-text #call:{json.dumps({'name': name, 'args': arguments})}"


def requests(served: Gateway) -> list[Any]:
    """Return what Codex sent in this test."""
    assert served.witness is not None
    return [seen.body for seen in served.witness.seen]


def kinds(request: Any) -> list[str]:
    return [item["type"] for item in request["input"]]


@pytest.mark.parametrize("model", ["gpt-5.5", "gpt-6.1-sol", FALLBACK])
def test_answer(codex: Codex, served: Gateway, token: str, model: str) -> None:
    run = codex.exec(f"the word is {token}", model=model)
    assert run.status == 0, run.stderr
    assert run.last.rstrip().endswith(f"the word is {token}")
    (sent,) = requests(served)
    assert sent["model"] == model
    assert sent["store"] is False
    assert run.usage["input_tokens"] > 5000
    assert ("tools" in sent) is (model != "gpt-6.1-sol")


@pytest.mark.parametrize("model", ["gpt-5.5", FALLBACK])
def test_command(codex: Codex, served: Gateway, token: str, model: str) -> None:
    (codex.work / "secret.txt").write_text(token)
    run = codex.exec(call("exec_command", cmd="cat secret.txt"), model=model)
    assert token in run.last
    (item,) = run.items("command_execution")
    assert (item["exit_code"], item["aggregated_output"]) == (0, token)
    assert kinds(requests(served)[-1])[-3:] == [
        "reasoning",
        "function_call",
        "function_call_output",
    ]


def test_tools_that_the_input_declares(codex: Codex, served: Gateway, token: str) -> None:
    """The catalogue's newest declares its tools in an item; one of them takes a program as free text."""
    (codex.work / "secret.txt").write_text(token)
    program = "const read = await tools.exec_command({cmd: 'cat secret.txt'}); text(read.output);"
    run = codex.exec(call("functions.exec", input=program), model="gpt-6.1-sol")
    assert token in run.last
    first, second = requests(served)
    assert kinds(first)[0] == "additional_tools"
    (made,) = [item for item in second["input"] if item["type"] == "custom_tool_call"]
    assert (made["namespace"], made["name"], made["input"]) == ("functions", "exec", program)


def test_patch(codex: Codex, served: Gateway, token: str) -> None:
    (codex.work / "kept.txt").write_text("one\ntwo\nthree\n")
    patch = (
        "*** Begin Patch\n*** Update File: kept.txt\n@@\n one\n-two\n"
        f"+{token}\n three\n*** Add File: made.txt\n+{token}\n*** End Patch\n"
    )
    run = codex.exec(call("apply_patch", input=patch))
    assert run.status == 0
    assert (codex.work / "kept.txt").read_text() == f"one\n{token}\nthree\n"
    assert (codex.work / "made.txt").read_text() == f"{token}\n"
    assert "Success" in run.last
    (made,) = [i for i in requests(served)[-1]["input"] if i["type"] == "custom_tool_call"]
    assert made["input"] == patch


def test_tool_in_a_namespace(codex: Codex, served: Gateway) -> None:
    run = codex.exec(call("spawn_agent", message="say hi"), model=FALLBACK)
    assert run.status == 0
    assert [item["tool"] for item in run.items("collab_tool_call")] == ["spawn_agent"]
    calls = [i for sent in requests(served) for i in sent["input"] if i["type"] == "function_call"]
    assert {(item["namespace"], item["name"]) for item in calls} == {
        ("multi_agent_v1", "spawn_agent")
    }


def test_second_turn(codex: Codex, served: Gateway, token: str) -> None:
    codex.exec(f"#script:thoughts the word is {token}")
    run = codex.exec("and now?", resume=True)
    assert run.last.rstrip().endswith("and now?")
    sent = requests(served)[-1]
    assert [item["type"] for item in sent["input"] if item.get("role") in ("assistant", None)] == [
        "message",
        "reasoning",
    ]
    contents = served.simulator.requests[-1].body["contents"]
    (said,) = [turn["parts"] for turn in contents if turn["role"] == "model"]
    assert token in said[0]["text"]
    assert any("thoughtSignature" in part for part in said)


def test_output_schema(codex: Codex, served: Gateway) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    place = codex.home / "schema.json"
    place.write_text(json.dumps(schema))
    run = codex.exec("which city?", "--output-schema", str(place))
    assert set(json.loads(run.last)) == {"city", "days"}
    config = served.simulator.requests[-1].body["generationConfig"]
    assert config["responseJsonSchema"] == schema


@pytest.mark.parametrize("built_in", [False, True])
def test_compaction(tmp_path: Path, served: Gateway, token: str, built_in: bool) -> None:
    """A provider of one's own is asked for a summary; the built-in one compacts by an item of its own.

    The summary is what the simulator says when asked for one: the request itself. The built-in provider
    tries a WebSocket first; either way the upstream is asked thrice.
    """
    codex = Codex(tmp_path, served.url, built_in=built_in)
    asked = len(served.simulator.requests)
    small = ("model_auto_compact_token_limit = 500",)
    codex.exec(f"the word is {token}", settings=small)
    run = codex.exec("and now?", settings=small, resume=True)
    assert run.status == 0, run.stderr
    assert run.errors == []
    assert run.last.rstrip().endswith("and now?")
    first, compacting, last = served.simulator.requests[asked:]
    assert token in str(first.body)
    summary = compacting.body["contents"][-1]["parts"][-1]["text"]
    assert "summary" in summary
    assert "model" not in [turn["role"] for turn in last.body["contents"]]
    kept = [part["text"] for turn in last.body["contents"] for part in turn["parts"]]
    assert any(token in text for text in kept)
    assert any(text.endswith(summary) for text in kept)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("error:400", "Request contains an invalid argument"),
        ("error:429:day", "Quota exceeded"),
        ("error-after:2", "at capacity"),
        ("max-tokens", "max_output_tokens"),
    ],
)
def test_final_failure_is_told_at_once(
    tmp_path: Path, fresh: Callable[..., Gateway], script: str, told: str
) -> None:
    """With the retries Codex has by default."""
    served = fresh()
    run = Codex(tmp_path, served.url).exec(f"#script:{script} one two three four", limit=10)
    assert run.status == 1
    assert told in run.errors[-1]
    assert len(requests(served)) == 1


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("error:429:rate:30", "429 Too Many Requests"),
        ("error:503:overloaded", "at capacity"),
        ("error:500", "at capacity"),
        ("error:403:disabled", "denies access"),
        ("block:SAFETY", "content_filter"),
    ],
)
def test_passing_failure_is_told_when_retries_are_spent(
    tmp_path: Path, fresh: Callable[..., Gateway], script: str, told: str
) -> None:
    served = fresh()
    run = Codex(tmp_path, served.url).exec(f"#script:{script} hi", settings=AT_ONCE, limit=10)
    assert run.status == 1
    assert told in run.errors[-1]
    assert len(requests(served)) == 1


def test_stream_that_was_cut_is_taken_up_again(
    tmp_path: Path, fresh: Callable[..., Gateway]
) -> None:
    served = fresh()
    run = Codex(tmp_path, served.url).exec("#script:cut-after:2 one two three four five six seven")
    assert run.status == 0
    assert "ended before it was finished" in run.errors[0]
    assert len(requests(served)) == 2
