"""What is remembered changes nothing: a request is converted alike the first time, again, and unremembered."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.driving import ask

from oaicompat import Exchange, ModelNotFoundError, OaicompatError, Options, Supplies
from oaicompat.models import BUILTIN
from oaicompat.notes import Notes
from oaicompat.providers.gemini.endpoints import GEMINI_API, Target, aimed
from oaicompat.providers.gemini.profiles import profile
from oaicompat.providers.gemini.request import encode_request
from oaicompat.testing import chat_requests, responses_requests

Json = dict[str, Any]

TARGETS = (
    Target(model="gemini-2.5-flash"),
    # It takes no JSON Schema: its declarations are others.
    Target(model="gemini-1.5-pro"),
    Target("vertex", model="gemini-3-flash-preview", project="my-project"),
)
TOO_LONG = " " * (128 * 1024)
MEGABYTE = 1024 * 1024


def converted(dialect: str, body: bytes, target: Target) -> object:
    """Return all that a conversion gives: what is sent, what reads its answer, notes, or the error."""
    try:
        exchange = Exchange(dialect, body)
        exchange.supply(Supplies())
        sent = [exchange.begin_attempt(call, target).body for call in exchange.calls()]
        notes = exchange.notes
        encoded = encode_request(exchange._request, target, Notes())
    except OaicompatError as error:
        return type(error), error.message, error.param, error.code
    return sent, notes, encoded


def with_tools(body: Json) -> Json:
    return body if body.get("tools") else body | {"tools": [{"type": "function", "name": "look"}]}


def unremembered(body: Json) -> bytes:
    """Return a request whose list of tools is too long to be remembered, by its spaces."""
    rest = {name: value for name, value in body.items() if name != "tools"}
    tools = "[" + TOO_LONG + json.dumps(body["tools"])[1:]
    return (json.dumps(rest)[:-1] + f', "tools": {tools}}}').encode()


def moved(body: Json) -> bytes:
    rest = {name: value for name, value in body.items() if name != "tools"}
    return json.dumps({**rest, "tools": body["tools"]}).encode()


@given(chat_requests().map(with_tools), st.sampled_from(TARGETS))
def test_tools_of_chat_are_converted_alike_remembered_or_not(body: Json, target: Target) -> None:
    expected = converted("chat", unremembered(body), target)
    assert converted("chat", moved(body), target) == expected
    assert converted("chat", moved(body), target) == expected


@given(responses_requests().map(with_tools), st.sampled_from(TARGETS))
def test_tools_of_responses_are_converted_alike_remembered_or_not(
    body: Json, target: Target
) -> None:
    expected = converted("responses", unremembered(body), target)
    assert converted("responses", moved(body), target) == expected
    assert converted("responses", moved(body), target) == expected


NAMES = ("look", "look_up", "two words", "7", "a" * 70)
SCHEMAS: tuple[Json | None, ...] = (
    None,
    {"type": "object"},
    {"type": "object", "properties": {"a": {"const": 1}}},
    {"type": "object", "properties": {"a": {"type": "string", "format": "odd"}}, "x-odd": 1},
    {"type": "string", "const": None, "surprise": {"const": "x"}},
)

MORE: tuple[Json, ...] = ({}, {"strict": True}, {"cache_control": {}}, {"surprise": 1})


@st.composite
def declarations(draw: st.DrawFn) -> Json:
    kind = draw(st.sampled_from(("function", "function", "function", "custom", "web_search")))
    if kind == "web_search":
        return {"type": kind}
    named: Json = {"name": draw(st.sampled_from(NAMES))}
    if kind == "custom":
        grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "s: x"}}
        return {"type": kind, kind: named | ({"format": grammar} if draw(st.booleans()) else {})}
    parameters = draw(st.sampled_from(SCHEMAS))
    more: Json = draw(st.sampled_from(MORE))
    return {"type": kind, kind: named | more | {"parameters": parameters}}


CHOICES = st.sampled_from(
    (
        None,
        "none",
        "required",
        {"type": "function", "function": {"name": "look"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "look"}]},
        },
    )
)
CALLED = st.sampled_from((None, *NAMES, "other words"))


def history(called: str | None) -> list[Json]:
    if called is None:
        return []
    call = {"id": "1", "type": "function", "function": {"name": called, "arguments": "{}"}}
    return [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
    ]


@given(
    st.lists(declarations(), min_size=1, max_size=4),
    CHOICES,
    CALLED,
    st.permutations(TARGETS),
)
def test_the_same_tools_serve_any_choice_history_and_target(
    tools: list[Json], choice: Any, called: str | None, targets: list[Target]
) -> None:
    body = ask(tools=tools, tool_choice=choice)
    body["messages"] = [*body["messages"], *history(called)]
    for target in targets:
        expected = converted("chat", unremembered(body), target)
        assert converted("chat", moved(body), target) == expected


def test_lists_that_differ_in_one_letter_are_told_apart() -> None:
    def sent(word: str) -> Any:
        function = {"name": "f", "description": "x" * 2000 + word + "y" * 500}
        body = json.dumps(ask(tools=[{"type": "function", "function": function}])).encode()
        return converted("chat", body, TARGETS[0])

    first, second = sent("a"), sent("b")
    assert first != second
    assert (sent("a"), sent("b")) == (first, second)


def held_after(work: Any) -> int:
    """Return how many bytes more are held after some work."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


def test_what_is_remembered_of_tools_holds_nothing_else_of_the_request() -> None:
    def work() -> None:
        for number in range(20):
            function = {"name": f"f{number}", "parameters": {"type": "object"}}
            body = ask(tools=[{"type": "function", "function": function}])
            body["messages"] = [{"role": "user", "content": "x" * MEGABYTE}]
            converted("chat", json.dumps(body).encode(), TARGETS[0])

    assert held_after(work) < MEGABYTE


@pytest.mark.parametrize("subject", ["map", "profile", "target", "exchange"])
def test_names_that_no_model_can_have_are_not_remembered(
    subject: Literal["map", "profile", "target", "exchange"],
) -> None:
    def look(name: str) -> None:
        match subject:
            case "map":
                BUILTIN.resolve(name)
            case "profile":
                profile(name, "gemini")
            case "target":
                aimed(GEMINI_API, name)
            case "exchange":
                exchange = Exchange("chat", ask(n=2) | {"model": name})
                with pytest.raises(ModelNotFoundError):
                    exchange.begin_attempt(exchange.calls()[0], GEMINI_API)

    def work() -> None:
        for number in range(30):
            look(f"{number}" + "x" * (MEGABYTE // 8))

    assert held_after(work) < MEGABYTE


def test_what_a_request_that_goes_on_leaves_out_is_noted() -> None:
    """Its notes were lost: they were filed while it was completed, and nobody looked then."""
    body = {"model": "gpt-4o", "input": "x", "previous_response_id": "resp_1", "user": "me"}
    exchange = Exchange("responses", body, options=Options(keep="stored"))
    exchange.supply(Supplies(responses={"resp_1": ()}))
    assert [note.path for note in exchange.notes] == ["user"]


def test_a_choice_of_some_tools_declares_only_those() -> None:
    tools = [{"type": "function", "name": "look"}, {"type": "function", "name": "listen"}]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": tools[1:]}
    for choice, names in (
        (None, ["look", "listen"]),
        (allowed, ["listen"]),
        (None, ["look", "listen"]),
    ):
        exchange = Exchange("chat", ask(tools=tools, tool_choice=choice))
        body = exchange.begin_attempt(exchange.calls()[0], GEMINI_API).body
        (tool,) = json.loads(body)["tools"]
        assert [each["name"] for each in tool["functionDeclarations"]] == names
