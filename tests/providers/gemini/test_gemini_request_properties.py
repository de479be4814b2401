"""Laws of the request encoder over generated requests."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    MINTED,
    Code,
    CodeResult,
    CustomTool,
    FunctionTool,
    HostedTool,
    Media,
    Message,
    OutputFormat,
    Reasoning,
    Refusal,
    Request,
    Role,
    ServerTool,
    Signature,
    Text,
    Thought,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from oaicompat.notes import Notes
from oaicompat.providers.gemini.endpoints import GEMINI_API, Target
from oaicompat.providers.gemini.request import encode_request
from oaicompat.sampling import Sampling
from oaicompat_server.simulator import Target as Simulated
from oaicompat_server.simulator import check_generate, find_model

VERTEX = Target("vertex", project="project-1", location="global")
SENTINEL = "skip_thought_signature_validator"

ROLES: tuple[Role, ...] = ("user", "user", "system")

models = st.sampled_from(
    [
        "gemini-2.0-flash",
        "gemini-2.5-flash",
        "gemini-3-flash-preview",
        "gemini-3.8-flash",
        "odd",
    ]
)
targets = st.sampled_from([GEMINI_API, VERTEX])
JUDGED = ("gemini-2.0-flash", "gemini-2.5-pro", "gemini-3-flash-preview", "gemini-4-argon")
words = st.text(max_size=6)
ids = st.sampled_from(["a", "b", "", f"{MINTED}0"]) | words
objects = st.dictionaries(words, st.integers() | words, max_size=3).map(json.dumps)
signatures = st.none() | st.builds(
    Signature, st.sampled_from(["c2ln", ""]), st.sampled_from(["", "gemini", "vertex"])
)
media = st.builds(
    Media,
    st.sampled_from(["image/png", "audio/wav", "application/pdf"]),
    st.just("AAAA"),
    detail=st.sampled_from([None, "low", "high", "auto"]),
    signature=signatures,
)
texts = st.builds(Text, words, signatures)
calls = st.builds(ToolCall, ids, st.sampled_from("fg") | words, objects, signature=signatures)
tools = st.one_of(
    st.builds(
        FunctionTool,
        words,
        st.none() | words,
        st.sampled_from([None, Raw(b'{"type":"object"}')]),
        st.booleans(),
    ),
    st.builds(CustomTool, words, grammar=st.none() | words),
    st.builds(HostedTool, st.sampled_from(["web_search", "code_execution", "maps", "odd"])),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Legal conversations: calls are answered by all, some or none of their results, in any order."""
    messages = [Message("user", (Text("go"),), "messages[0]")]
    for _ in range(draw(st.integers(0, 4))):
        said: tuple[Any, ...] = tuple(
            draw(st.lists(texts | calls | st.builds(Refusal, words) | media, max_size=4))
        )
        messages.append(Message("assistant", said, f"messages[{len(messages)}]"))
        asked = [part for part in said if isinstance(part, ToolCall)]
        for call in draw(st.permutations(asked)):
            if draw(st.booleans()):
                parts = tuple(draw(st.lists(texts | media, max_size=2)))
                result = ToolResult(call.id, parts, call.name, "result")
                messages.append(Message("tool", (result,), f"messages[{len(messages)}]"))
        if draw(st.booleans()):
            role: Role = draw(st.sampled_from(ROLES))
            messages.append(Message(role, (draw(texts),), f"messages[{len(messages)}]"))
    messages.append(Message("user", (Text("end"),)))
    return tuple(messages)


any_parts = st.one_of(
    texts,
    calls,
    media,
    st.builds(Thought, words, signatures),
    st.builds(Refusal, words),
    st.builds(ToolCall, ids, words, st.text(max_size=9), st.booleans()),
    st.builds(ToolResult, ids, st.lists(texts | media, max_size=2).map(tuple)),
    st.builds(Code, words, signature=signatures),
    st.builds(CodeResult, words, signature=signatures),
    st.builds(ServerTool, st.sampled_from(["toolCall", "odd"]), st.just(Raw(b"{}"))),
    st.builds(Media, words, words, words, words),
)
any_messages = st.lists(
    st.builds(
        Message,
        st.sampled_from(["system", "user", "assistant", "tool"]),
        st.lists(any_parts, max_size=3).map(tuple),
    ),
    max_size=5,
).map(tuple)
any_extra = st.dictionaries(
    st.sampled_from(
        [
            "thinking_config",
            "generation_config",
            "tools",
            "cachedContent",
            "labels",
            "odd",
        ]
    ),
    st.sampled_from([b"{}", b"[]", b"1", b'"x"', b"null", b'[{"a":1}]', b'{"temperature":1}']).map(
        Raw
    ),
    max_size=2,
)
any_requests = st.builds(
    Request,
    models,
    any_messages | conversations(),
    st.lists(tools, max_size=3).map(tuple),
    st.none() | st.builds(ToolChoice, st.sampled_from(["none", "auto", "required"])),
    st.sampled_from([None, True, False]),
    st.builds(Sampling, temperature=st.none() | st.just(0.5), seed=st.none() | st.integers()),
    st.lists(words, max_size=6).map(tuple),
    st.none()
    | st.builds(OutputFormat, st.just("json_schema"), st.sampled_from([None, Raw(b"{}")])),
    st.none() | st.builds(Reasoning, st.none() | st.sampled_from(["none", "low", "odd"])),
    service_tier=st.none() | words,
    metadata=st.none() | st.dictionaries(words, words, max_size=2),
    extra=any_extra,
)


def count(content: Any, kind: str) -> int:
    return sum(kind in part for part in content["parts"])


@settings(max_examples=80, deadline=None)
@given(conversations(), models, targets)
def test_the_conversation_is_legal(
    messages: tuple[Message, ...], model: str, target: Target
) -> None:
    """Turns begin with the user, no turn is empty, and every call turn is answered in full at once."""
    contents = json.loads(encode_request(Request(model, messages), target, Notes()).body)[
        "contents"
    ]
    assert contents[0]["role"] == "user"
    assert all(content["parts"] for content in contents)
    for content, following in zip(contents, [*contents[1:], None], strict=True):
        responses = count(content, "functionResponse")
        assert responses in (0, len(content["parts"]))
        if content["role"] == "user":
            assert not count(content, "functionCall")
            continue
        assert following is not None
        assert following["role"] == "user"
        assert count(following, "functionResponse") == count(content, "functionCall")
        names = [p["functionCall"]["name"] for p in content["parts"] if "functionCall" in p]
        answered = following["parts"] if names else []
        assert [part["functionResponse"]["name"] for part in answered] == names


@settings(max_examples=60, deadline=None)
@given(conversations(), targets, st.booleans())
def test_the_current_turn_is_signed_as_the_service_demands(
    messages: tuple[Message, ...], target: Target, sentinel: bool
) -> None:
    """After the last user turn the first call of each step is signed; no other has a stand-in."""
    request = Request("gemini-3.5-flash", messages[:-1])
    body = encode_request(request, target, Notes(), sentinel=sentinel).body
    contents = json.loads(body)["contents"]
    checked = False
    for content in reversed(contents):
        found = [p.get("thoughtSignature") for p in content["parts"] if "functionCall" in p]
        assert SENTINEL not in found[1:]
        if content["role"] == "user":
            checked |= count(content, "functionResponse") == 0
        elif found and not checked:
            assert found[0] is not None


@settings(max_examples=120, deadline=None)
@given(any_requests, targets, st.booleans())
def test_only_our_errors_and_no_change_of_the_input(
    request: Request, target: Target, sentinel: bool
) -> None:
    before = copy.deepcopy(request)
    with contextlib.suppress(InvalidRequestError):
        encoded = encode_request(request, target, Notes(), sentinel=sentinel)
        assert isinstance(json.loads(encoded.body), dict)
    assert request == before


def distinct_ids(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Give every call an id of its own and drop its results, which are filled in."""
    return tuple(
        replace(
            message,
            parts=tuple(
                replace(part, id=f"id{at}_{index}") if isinstance(part, ToolCall) else part
                for index, part in enumerate(message.parts)
            ),
        )
        for at, message in enumerate(messages)
        if message.role != "tool"
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(any_requests, conversations(), st.sampled_from(JUDGED), targets)
def test_the_simulated_service_accepts_what_is_not_refused(
    request: Request, messages: tuple[Message, ...], model: str, target: Target
) -> None:
    request = replace(request, model=model, messages=distinct_ids(messages), extra={})
    with contextlib.suppress(InvalidRequestError):
        body = json.loads(encode_request(request, target, Notes()).body)
        known = find_model(model)
        assert known is not None
        check_generate(body, Simulated(known, target.backend, foreign_signatures=True))


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1), models, targets)
def test_one_message_gives_one_content(text: str, model: str, target: Target) -> None:
    request = Request(model, (Message("user", (Text(text),)),))
    notes = Notes()
    body = encode_request(request, target, notes).body
    assert json.loads(body) == {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    assert not len(notes)


json_objects = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(json_objects, st.sampled_from([None, 2]))
def test_arguments_results_and_schemas_keep_their_bytes(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    messages = (
        Message("user", (Text("go"),)),
        Message("assistant", (ToolCall("a", "f", text),)),
        Message("tool", (ToolResult("a", (Text(text),)),)),
    )
    tool = FunctionTool("f", None, Raw(b'{"x-any":' + text.encode() + b"}"))
    body = encode_request(Request("gemini-2.5-flash", messages, (tool,)), GEMINI_API, Notes()).body
    assert f'"args":{text}'.encode() in body
    response = json.loads(body)["contents"][2]["parts"][0]["functionResponse"]["response"]
    assert response == {"output": text} or f'"response":{text}'.encode() in body
    if b'"const"' not in text.encode():
        assert b'"x-any":' + text.encode() in body


def test_the_body_can_be_decoded_by_a_strict_parser() -> None:
    request = Request("gemini-2.5-flash", (Message("user", (Text("é\u2028\x7f"),)),))
    assert msgspec.json.decode(encode_request(request, GEMINI_API, Notes()).body)


EMPTY = Text("")
SAID = [Text("words"), Text("words"), Text(" "), EMPTY, Text("signed", Signature("c2ln", "gemini"))]


@st.composite
def spoken(draw: st.DrawFn) -> list[Message]:
    """Texts of the user and the model by turns, now and then with something that disturbs that."""
    roles: list[Role] = ["user", "assistant"] * 2
    start = draw(st.integers(0, 1))
    roles = roles[: draw(st.integers(0, 4))]
    for _ in range(start):
        roles.insert(draw(st.integers(0, len(roles))), draw(st.sampled_from(["system", "user"])))
    texts = st.lists(st.sampled_from(SAID), min_size=1, max_size=1 + draw(st.integers(0, 1)))
    turns = [draw(texts) for _ in roles]
    return [
        Message(role, tuple(parts), "messages[0]") for role, parts in zip(roles, turns, strict=True)
    ]


@settings(max_examples=300, deadline=None)
@given(models, spoken(), targets, st.booleans())
def test_texts_that_are_turns_already_become_what_grouping_makes_of_them(
    model: str, messages: list[Message], target: Target, sentinel: bool
) -> None:
    """An empty text says nothing, and has every turn built from its parts."""

    def encoded(said: list[Message]) -> tuple[bytes | str, list[tuple[str, str]]]:
        notes = Notes()
        try:
            made = encode_request(Request(model, tuple(said)), target, notes, sentinel=sentinel)
        except InvalidRequestError as error:
            return error.message, []
        return made.body, [(note.path, note.action) for note in notes]

    longer = [replace(each, parts=(*each.parts, EMPTY)) for each in messages]
    assert encoded(messages) == encoded(longer)
