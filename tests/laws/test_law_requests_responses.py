"""Law 4 for Responses: nothing a client asks for vanishes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from tests.support.driving import HELLO
from tests.support.responses_client import ask
from tests.support.responses_ledger import BOOKKEEPING, DEFAULTS
from tests.support.shared import checker, needs_checker, schemas

import oaicompat
from oaicompat import (
    Exchange,
    InvalidRequestError,
    MappedCall,
    Note,
    OaicompatError,
    Supplies,
    UnsupportedFeatureError,
)
from oaicompat.dialects import responses
from oaicompat.testing import gemini_answers, responses_requests
from oaicompat.testing.responses_tools import hosted_kind

Json = dict[str, Any]
Path = tuple[str | int, ...]

ELSEWHERE = {
    "include": "it shapes the answer",
    "stream_options": "it shapes the answer",
    "text.format.name": "OpenAI demands it, and nothing shows it",
    "reasoning.summary": "thoughts are shown, however they are summarised",
    "reasoning.generate_summary": "thoughts are shown, however they are summarised",
}
"""Fields that are heeded, or of no consequence, without a trace in the upstream's body."""

WORDS = {
    "type": "a tag that other fields tell as well",
    "strict": "one mode holds for all tools, and a format always binds",
    "encrypted_content": "a letter after its end changes nothing",
}
"""Names of fields whose value may change without effect."""

PART_OF = {"top_logprobs": "include"}
"""Fields that go with another, whose note speaks for both."""


def mapped(body: Json | bytes) -> MappedCall:
    return oaicompat.openai_to_gemini(body, dialect="responses")


@given(responses_requests())
def test_every_generated_request_is_served(request_body: Json) -> None:
    assert mapped(request_body).bodies


@needs_checker
@given(responses_requests(stored=True, refused=True))
def test_every_generated_request_is_valid_for_openai(request_body: Json) -> None:
    report = checker().Report()
    schemas().check(report, "CreateResponse", request_body, "body")
    assert list(report.items) == []


@given(responses_requests(stored=True, refused=True))
def test_law_4_a_valid_request_is_served_or_refused_by_name(request_body: Json) -> None:
    try:
        call = mapped(request_body)
    except OaicompatError as error:
        status = error.status
        refused = json.loads(responses.encode_error(error))["error"]
    else:
        assert call.bodies
        return
    assert set(refused) == {"message", "type", "param", "code"}
    assert refused["type"] == "invalid_request_error"
    assert refused["message"]
    assert status in (400, 404)
    assert refused["param"].partition("[")[0].partition(".")[0] in request_body


def spelled(path: Path) -> str:
    """Spell a path as notes do."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def covered(path: str, notes: tuple[Note, ...]) -> bool:
    """Tell whether a note speaks of a field, or of something it is in or that is in it."""
    known = {path, PART_OF.get(path, path)}
    return any(
        each.startswith(note.path) or note.path.startswith(each) for each in known for note in notes
    )


def outcome(call: MappedCall) -> tuple[Any, ...]:
    return call.bodies, call.url, call.notes


def callable_at_once(body: Json) -> bool:
    """Tell whether a request has functions, and no choice that may exclude them."""
    kinds = {tool["type"] for tool in body.get("tools", ())}
    chosen = isinstance(body.get("tool_choice"), dict)
    return not chosen and bool(kinds & {"function", "custom", "namespace", "apply_patch"})


def idle(body: Json, name: str) -> bool:
    """Tell whether a field asks for nothing, or for something that no upstream body shows."""
    value = body[name]
    if isinstance(value, dict):
        value = {key: inner for key, inner in value.items() if inner is not None}
    if name == "parallel_tool_calls" and not callable_at_once(body):
        return True
    shapes = name in ELSEWHERE or (name == "text" and not value)
    return shapes or value is None or value == DEFAULTS.get(name, ...)


def missed(request_body: Json, name: str, call: MappedCall) -> bool:
    """Tell whether a request without this field is another request."""
    less = {key: value for key, value in request_body.items() if key != name}
    try:
        return outcome(mapped(less)) != outcome(call)
    except InvalidRequestError:
        return True


@given(responses_requests())
def test_law_4_a_field_that_is_left_out_is_missed(request_body: Json) -> None:
    call = mapped(request_body)
    for name in sorted(set(request_body) - {"model", "input"}):
        silent = idle(request_body, name) or covered(name, call.notes)
        assert silent or missed(request_body, name, call), name


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path


def altered(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return 0.25 if value == 0.5 else 0.5
        case str():
            return value + "a"
        case _:
            return "a"


def bookkeeping(body: Json, path: Path) -> bool:
    """Tell whether a path is that of a field of an item which says nothing to a model."""
    if path[0] != "input" or len(path) < 3:
        return False
    item: Any = body["input"][path[1]]
    kind = item.get("type", "message")
    fields = ".".join(str(step) for step in path[2:] if isinstance(step, str))
    names = (f"{kind}.{fields}", f"*.{fields}")
    return any(f"{name}.".startswith(f"{known}.") for known in BOOKKEEPING for name in names)


def unchosen(body: Json, path: Path) -> bool:
    """Tell whether a path is within a tool that the choice may exclude."""
    choice = body.get("tool_choice")
    if "tools" not in path or isinstance(choice, dict):
        return "tools" in path
    silent = choice == "none" or {"type": "compaction_trigger"} in list(body["input"])[-1:]
    return silent and path[0] == "tools" and hosted_kind(body["tools"][path[1]]) is not None


def at(body: Json, path: Path) -> Any:
    """Return what stands at a path."""
    value: Any = body
    for step in path:
        value = value[step]
    return value


def quiet(body: Json, path: Path, notes: tuple[Note, ...]) -> bool:
    """Tell whether a value may change without any effect."""
    where = spelled(path)
    if path[-1] in WORDS or any(where.startswith(each) for each in ELSEWHERE):
        return True
    if where == "parallel_tool_calls":
        return idle(body, where)
    return covered(where, notes) or bookkeeping(body, path) or unchosen(body, path)


def noticed(request_body: Json, path: Path, call: MappedCall) -> bool:
    """Tell whether a request with another value there is another request, or none."""
    changed = copy.deepcopy(request_body)
    holder = at(changed, path[:-1])
    holder[path[-1]] = altered(holder[path[-1]])
    try:
        return outcome(mapped(changed)) != outcome(call)
    except OaicompatError:
        return True


@given(responses_requests())
def test_law_4_a_value_that_changes_is_noticed(request_body: Json) -> None:
    call = mapped(request_body)
    for path in leaves(request_body):
        silent = quiet(request_body, path, call.notes)
        assert silent or noticed(request_body, path, call), spelled(path)


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3-pro-preview"])
def test_the_detail_of_a_file_is_served(model: str) -> None:
    part = {"type": "input_file", "file_id": "files/abc-123", "detail": "low"}
    call = mapped(ask(model=model, input=[{"role": "user", "content": [part]}]))
    assert "MEDIA_RESOLUTION_LOW" in json.dumps(call.body)


def test_regression_a_second_tool_of_a_kind_is_noted() -> None:
    tools = [{"type": "web_search"}, {"type": "web_search", "search_context_size": "low"}]
    assert "tools[1]" in [note.path for note in mapped(ask(tools=tools)).notes]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"include": ["reasoning.encrypted_content", "file_search_call.results"]}, "include[1]"),
        ({"include": ["anything"]}, "include[0]"),
        (
            {"tools": [{"type": "shell", "allowed_callers": ["direct"]}]},
            "tools[0].allowed_callers",
        ),
        (
            {"tools": [{"type": "shell", "environment": {"type": "local", "skills": [{}]}}]},
            "tools[0].environment.skills",
        ),
    ],
)
def test_law_4_fields_that_once_vanished(fields: Json, path: str) -> None:
    assert [note.path for note in mapped(ask(**fields)).notes] == [path]


def test_law_4_a_container_is_not_taken_for_the_clients_own_shell() -> None:
    container = {"type": "container_reference", "container_id": "local"}
    with pytest.raises(InvalidRequestError) as caught:
        mapped(ask(tools=[{"type": "shell", "environment": container}]))
    assert caught.value.param == "tools[0].environment"


def test_law_4_a_tool_that_is_declared_otherwise_once_more_is_noted() -> None:
    tool = {"type": "function", "name": "f", "parameters": None, "strict": None}
    later = [tool, {**tool, "description": "another"}]
    items = [{"type": "additional_tools", "role": "developer", "tools": [each]} for each in later]
    call = mapped(ask(input=[*HELLO, *items], tools=[tool]))
    assert [note.path for note in call.notes] == ["input[2].tools[0]"]


def test_law_4_a_summary_tells_what_it_leaves_out() -> None:
    tool = {"type": "function", "name": "f", "parameters": None, "strict": None}
    body = ask(
        input=[*HELLO, {"type": "compaction_trigger"}],
        tools=[tool],
        tool_choice="required",
        stop=["x"],
    )
    assert [(note.path, note.inert) for note in mapped(body).notes] == [
        ("tool_choice", True),
        ("stop", True),
    ]


def begun(request_body: Json) -> Exchange:
    """Drive an exchange of strict mode up to its upstream calls."""
    exchange = Exchange("responses", request_body, strict=True)
    exchange.supply(Supplies())
    for call in exchange.calls():
        exchange.begin_attempt(call, oaicompat.GEMINI_API)
    return exchange


@given(responses_requests())
def test_law_4_strict_mode_refuses_what_would_be_lost_by_name(request_body: Json) -> None:
    refusable = [note.path for note in mapped(request_body).notes if note.refusable]
    try:
        begun(request_body)
    except UnsupportedFeatureError as error:
        refused = error
    else:
        assert refusable == []
        return
    assert refused.param in refusable
    assert refused.status == 400


def test_law_4_strict_mode_serves_what_is_carried_over_exactly() -> None:
    assert begun(ask(temperature=0.5, user="me", store=False)).notes


@given(gemini_answers(max_candidates=1, blocked=False))
def test_law_4_notes_on_the_answer_never_refuse(answer: Json) -> None:
    exchange = Exchange("responses", ask(), strict=True)
    (call,) = exchange.calls()
    exchange.begin_attempt(call, oaicompat.GEMINI_API)
    exchange.receive_head(call, 200, {})
    exchange.feed(call, json.dumps(answer).encode())
    (frame,) = exchange.close(call)
    assert json.loads(frame.data)["object"] == "response"
