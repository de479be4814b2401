"""Chat conversations as OpenAI's clients send them.

One rule: they are legal: every call has its result, in any order but before anybody speaks again, and the
last word is not the assistant's.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from oaicompat.testing.values import Json, base64_data, images, json_objects, names, some, texts

_BREAKPOINT = some(prompt_cache_breakpoint=st.just({"mode": "explicit"}))
_LINKS = ("https://example.com/a.png", "https://example.com/a%20b.jpg?x=1", "files/abc-123")


def _part(kind: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.builds(lambda value, mark: {"type": kind, kind: value, **mark}, values, _BREAKPOINT)


def _data_uri(image: tuple[str, str]) -> str:
    return f"data:{image[0]};base64,{image[1]}"


_TEXT = _part("text", texts(min_size=0))
_IMAGE = _part(
    "image_url",
    st.fixed_dictionaries(
        {"url": st.one_of(images().map(_data_uri), st.sampled_from(_LINKS))},
        optional={"detail": st.sampled_from(("auto", "low", "high"))},
    ),
)
_AUDIO = _part(
    "input_audio",
    st.fixed_dictionaries({"data": base64_data(), "format": st.sampled_from(("wav", "mp3"))}),
)
_FILE = _part(
    "file",
    st.one_of(
        base64_data(b"%PDF-").map(lambda data: {"filename": "a.pdf", "file_data": data}),
        st.just({"file_id": "files/abc-123"}),
    ),
)
_USER = st.one_of(
    texts(min_size=0),
    st.lists(st.one_of(_TEXT, _IMAGE, _AUDIO, _FILE), min_size=1, max_size=3),
)
_TEXTUAL = st.one_of(texts(), st.lists(_TEXT, min_size=1, max_size=2))


def _message(role: str, content: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.builds(
        lambda said, name: {"role": role, "content": said, **name}, content, some(name=names())
    )


_SYSTEM = st.one_of(_message("system", _TEXTUAL), _message("developer", _TEXTUAL))
_ASKED = _message("user", _USER)


@st.composite
def _answered(draw: st.DrawFn) -> list[Json]:
    """Draw what the model said without calling anything."""
    refusal = st.builds(
        lambda text: {"role": "assistant", "refusal": text, "content": None}, texts()
    )
    parts = st.lists(
        st.one_of(_TEXT, texts().map(lambda text: {"type": "refusal", "refusal": text})),
        min_size=1,
        max_size=2,
    )
    said = _message("assistant", texts())
    return [draw(st.one_of(said, _message("assistant", parts), refusal))]


def arguments() -> st.SearchStrategy[str]:
    """Draw the arguments of a call: the text of a JSON object, spaced in one way or the other."""
    return st.builds(
        lambda value, indent: msgspec.json.format(
            msgspec.json.encode(value), indent=indent
        ).decode(),
        json_objects(),
        st.sampled_from((-1, 0, 2)),
    )


@st.composite
def _called(draw: st.DrawFn, number: int) -> list[Json]:
    """Draw one step of tool use: calls, and their results in any order."""
    count = draw(st.integers(1, 3))
    calls = []
    for position in range(count):
        call_id = f"call_{number}_{position}"
        if draw(st.integers(0, 3)):
            function = {"name": draw(names()), "arguments": draw(arguments())}
            calls.append({"id": call_id, "type": "function", "function": function})
        else:
            custom = {"name": draw(names()), "input": draw(texts(min_size=0))}
            calls.append({"id": call_id, "type": "custom", "custom": custom})
    said = draw(some(content=st.one_of(st.none(), texts())))
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": draw(_RESULT)} for call in calls
    ]
    return [{"role": "assistant", "tool_calls": calls, **said}, *draw(st.permutations(results))]


_RESULT = st.one_of(
    texts(min_size=0),
    json_objects().map(lambda value: msgspec.json.encode(value).decode()),
    st.lists(_TEXT, min_size=1, max_size=2),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    """Draw conversations of all roles: they begin and end with the user, or end with the results of calls."""
    messages: list[Json] = draw(st.lists(_SYSTEM, max_size=2))
    for number in range(draw(st.integers(0, 2))):
        messages.append(draw(_ASKED))
        messages += draw(st.one_of(_answered(), _called(number)))
        messages += draw(st.lists(_SYSTEM, max_size=1))
    if not messages or messages[-1]["role"] != "tool" or draw(st.booleans()):
        messages.append(draw(_ASKED))
    return messages


@st.composite
def legacy_conversations(draw: st.DrawFn) -> list[Json]:
    """Draw conversations in which one function at a time was called in the legacy way."""
    messages = [draw(_ASKED)]
    for _ in range(draw(st.integers(0, 2))):
        name = draw(names())
        call = {"name": name, "arguments": draw(arguments())}
        messages.append({"role": "assistant", "content": None, "function_call": call})
        messages.append({"role": "function", "name": name, "content": draw(texts(min_size=0))})
    return messages
