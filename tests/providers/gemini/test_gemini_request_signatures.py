"""Thought signatures: on their own part, to their own backend, a stand-in only where one is demanded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from oaicompat.messages import (
    Code,
    CodeResult,
    Media,
    Message,
    Part,
    Request,
    ServerTool,
    Signature,
    Text,
    Thought,
    ToolCall,
    ToolResult,
)
from oaicompat.notes import Notes
from oaicompat.providers.gemini.endpoints import GEMINI_API, Target
from oaicompat.providers.gemini.request import encode_request

VERTEX = Target("vertex", project="project-1", location="global")
SENTINEL = "skip_thought_signature_validator"
OURS = Signature("c2ln", "gemini")
THEIRS = Signature("c2ln", "vertex")
UNKNOWN = Signature("c2ln")
ASK = Message("user", (Text("go"),), "messages[0]")


def call(id: str, signature: Signature | None = None) -> ToolCall:
    return ToolCall(id, "f", "{}", signature=signature, path=f"call {id}")


def step(*parts: Part) -> Message:
    return Message("assistant", parts, "messages[1]")


def answer(*ids: str) -> tuple[Message, ...]:
    return tuple(Message("tool", (ToolResult(id, (Text("x"),)),)) for id in ids)


def sent(
    *messages: Message,
    model: str = "gemini-3.5-flash",
    target: Target = GEMINI_API,
    sentinel: bool = False,
) -> tuple[list[Any], list[tuple[str, str]]]:
    notes = Notes()
    encoded = encode_request(Request(model, messages), target, notes, sentinel=sentinel)
    contents = json.loads(encoded.body)["contents"]
    return contents, [(note.path, note.action) for note in notes]


def signatures(contents: list[Any]) -> list[list[str | None]]:
    return [
        [part.get("thoughtSignature") for part in content["parts"]]
        for content in contents
        if content["role"] == "model"
    ]


def test_a_signature_goes_back_on_its_own_part() -> None:
    """litellm#16893, vercel#12402, #10462: signatures on calls, empty texts and images are lost."""
    parts: tuple[Part, ...] = (
        Thought("hm", Signature("A")),
        Text("text", Signature("B")),
        Media("image/png", "AAAA", signature=Signature("C")),
        call("a", Signature("D")),
        call("b"),
        Text("", Signature("E")),
    )
    contents, notes = sent(ASK, step(*parts), *answer("a", "b"))
    assert signatures(contents) == [["A", "B", "C", "D", None, "E"]]
    assert contents[1]["parts"][0] == {
        "text": "hm",
        "thought": True,
        "thoughtSignature": "A",
    }
    assert contents[1]["parts"][5] == {"text": "", "thoughtSignature": "E"}
    assert notes == []


def test_the_stand_in_is_for_the_first_call_of_each_step_only() -> None:
    """vercel#17651: on each of several parallel calls."""
    contents, _ = sent(
        ASK,
        step(call("a"), call("b")),
        *answer("a", "b"),
        step(call("c"), call("d")),
        *answer("c", "d"),
    )
    assert signatures(contents) == [[SENTINEL, None], [SENTINEL, None]]


def test_a_later_call_keeps_its_own_signature() -> None:
    contents, _ = sent(ASK, step(call("a"), call("b", OURS)), *answer("a", "b"))
    assert signatures(contents) == [[SENTINEL, OURS.value]]


def test_earlier_turns_are_not_checked_and_get_no_stand_in() -> None:
    contents, _ = sent(
        ASK,
        step(call("a")),
        *answer("a"),
        step(Text("done")),
        ASK,
        step(call("b")),
        *answer("b"),
    )
    assert signatures(contents) == [[None], [None], [SENTINEL]]


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.1-flash-image"])
def test_models_that_demand_none_get_no_stand_in(model: str) -> None:
    contents, notes = sent(ASK, step(call("a")), *answer("a"), model=model)
    assert signatures(contents) == [[None]]
    assert notes == []


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.5-flash"])
@pytest.mark.parametrize(
    ("signature", "target", "kept"),
    [
        (OURS, GEMINI_API, True),
        (OURS, VERTEX, False),
        (THEIRS, VERTEX, True),
        (THEIRS, GEMINI_API, False),
        (UNKNOWN, GEMINI_API, True),
        (UNKNOWN, VERTEX, True),
    ],
)
def test_signatures_do_not_travel_between_backends(
    signature: Signature, target: Target, kept: bool, model: str
) -> None:
    """pydantic-ai: history made on Vertex AI and replayed on the Gemini API."""
    contents, notes = sent(
        ASK, step(call("a", signature)), *answer("a"), target=target, model=model
    )
    stand_in = SENTINEL if model == "gemini-3.5-flash" else None
    assert signatures(contents) == [[signature.value if kept else stand_in]]
    assert notes == ([] if kept else [("call a", "rewritten")])


def test_a_refused_signature_is_replaced_throughout_the_current_turn() -> None:
    messages = (
        ASK,
        step(call("a", OURS)),
        *answer("a"),
        ASK,
        step(Text("hm", UNKNOWN), call("b", OURS), call("c", OURS)),
        *answer("b", "c"),
    )
    contents, notes = sent(*messages, sentinel=True)
    assert signatures(contents) == [[OURS.value], [None, SENTINEL, None]]
    assert {action for _, action in notes} == {"rewritten"}
    contents, _ = sent(*messages, sentinel=True, model="gemini-2.5-flash")
    assert signatures(contents) == [[OURS.value], [None, None, None]]


def test_thoughts_go_back_only_where_they_came_from_the_service() -> None:
    foreign = Thought("I am another model")
    contents, notes = sent(ASK, step(foreign, Text("x")), ASK)
    assert contents[1]["parts"] == [{"text": "x"}]
    assert notes == [("messages[1]", "dropped")]
    carried = Thought("mine", Signature("", "gemini"))
    for parts in ((carried, Text("x")), (Thought("mine"), Text("x", OURS))):
        contents, notes = sent(ASK, step(*parts), ASK)
        assert contents[1]["parts"][0] == {"text": "mine", "thought": True}
        assert notes == []


def test_code_and_server_tools_go_back_in_place() -> None:
    """litellm PR#31115: the signature of a toolResponse overwrote another."""
    parts: tuple[Part, ...] = (
        Code("print(1)", id="c1", signature=Signature("A")),
        CodeResult("OUTCOME_OK", "1\n", "c1"),
        ServerTool("toolCall", Raw(b'{"toolType":"X","id":"1"}'), signature=Signature("B")),
        ServerTool("toolResponse", Raw(b'{"toolType":"X"}'), True, Signature("C")),
        Text("done"),
    )
    contents, notes = sent(ASK, step(*parts), ASK)
    assert contents[1]["parts"] == [
        {
            "executableCode": {"language": "PYTHON", "code": "print(1)", "id": "c1"},
            "thoughtSignature": "A",
        },
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n", "id": "c1"}},
        {"toolCall": {"toolType": "X", "id": "1"}, "thoughtSignature": "B"},
        {"toolResponse": {"toolType": "X"}, "thought": True, "thoughtSignature": "C"},
        {"text": "done"},
    ]
    assert notes == []


@pytest.mark.parametrize(
    ("kind", "model", "target"),
    [
        ("toolCall", "gemini-2.5-flash", GEMINI_API),
        ("toolCall", "gemini-3.5-flash", VERTEX),
        ("somethingNew", "gemini-3.5-flash", GEMINI_API),
    ],
)
def test_server_tools_the_backend_refuses_are_noted(kind: str, model: str, target: Target) -> None:
    contents, notes = sent(
        ASK,
        step(ServerTool(kind, Raw(b"{}")), Text("x")),
        ASK,
        model=model,
        target=target,
    )
    assert contents[1]["parts"] == [{"text": "x"}]
    assert notes == [("messages[1]", "dropped")]


def test_thought_marks_are_kept() -> None:
    thought = ToolCall("a", "f", "{}", thought=True, signature=OURS)
    image = Media("image/png", "AAAA", thought=True, signature=OURS)
    contents, _ = sent(ASK, step(image, thought), *answer("a"))
    assert [part["thought"] for part in contents[1]["parts"]] == [True, True]
