"""What tells one conversation from another: what the client says of it, else how it begins."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oaicompat import Exchange
from oaicompat.affinity import conversation_key
from oaicompat.messages import Media, Message, Text

SYSTEM = Message("system", (Text("be kind"),))
HELLO = Message("user", (Text("hello"),))
ANSWER = Message("assistant", (Text("hi"),))
MORE = Message("user", (Text("more"),))


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def test_what_the_client_says_comes_first_and_the_most_telling_wins() -> None:
    named = {
        "prompt_cache_key": conversation_key(body(prompt_cache_key="x"), ()),
        "user": conversation_key(body(user="x"), ()),
        "safety_identifier": conversation_key(body(safety_identifier="x"), ()),
        "session": conversation_key(body(), (), session="x"),
    }
    assert len(set(named.values())) == 4
    every = body(prompt_cache_key="x", user="y", safety_identifier="z")
    assert conversation_key(every, [HELLO], session="s") == named["prompt_cache_key"]
    assert conversation_key(body(user="x", safety_identifier="z"), [MORE]) == named["user"]
    assert conversation_key(body(user="x"), [HELLO], session="s") == named["user"]
    assert conversation_key(body(), [HELLO], session="x") == named["session"]


@pytest.mark.parametrize("value", ["", None, 5, ["x"], {"a": "x"}, True, "[undefined]"])
def test_what_is_no_name_names_nothing(value: Any) -> None:
    assert conversation_key(body(user=value), [HELLO]) == conversation_key(body(), [HELLO])
    assert conversation_key(body(user=value, prompt_cache_key="x"), []) == conversation_key(
        body(prompt_cache_key="x"), []
    )


@pytest.mark.parametrize(
    "source", [b"", b"{", b"[]", b"null", b"\xff", b'{"user": "\xff"}', b"[" * 100_000]
)
def test_a_body_that_says_nothing_names_nothing(source: bytes) -> None:
    assert conversation_key(source, [HELLO]) == conversation_key(body(), [HELLO])


def test_a_conversation_is_known_by_how_it_begins() -> None:
    key = conversation_key(b"{}", [SYSTEM, HELLO])
    assert conversation_key(b"{}", [SYSTEM, HELLO, ANSWER, MORE]) == key
    assert conversation_key(b"{}", [SYSTEM, MORE]) != key
    assert conversation_key(b"{}", [HELLO]) != key
    assert conversation_key(b"{}", [ANSWER, SYSTEM, HELLO]) == key


def test_without_the_systems_words_only_the_users_count() -> None:
    key = conversation_key(b"{}", [SYSTEM, HELLO], system=False)
    assert conversation_key(b"{}", [HELLO, ANSWER], system=False) == key
    assert conversation_key(b"{}", [MORE], system=False) != key


def test_parts_are_told_apart_by_their_ends() -> None:
    one = Message("user", (Text("ab"), Text("c")))
    other = Message("user", (Text("a"), Text("bc")))
    assert conversation_key(b"{}", [one]) != conversation_key(b"{}", [other])


def test_media_tell_conversations_apart() -> None:
    def key(**fields: Any) -> str:
        return conversation_key(b"{}", [Message("user", (Media(**fields),))])

    png = {"mime": "image/png"}
    found = [
        key(data="aaaa", **png),
        key(data="bbbb", **png),
        key(data="aaaabbbb", **png),
        key(uri="https://x.example/a.png", **png),
        key(uri="https://x.example/b.png", **png),
    ]
    assert len(set(found)) == len(found)


TEXTS = st.text(max_size=20)


@given(TEXTS, TEXTS, st.lists(TEXTS, max_size=3))
def test_law_the_same_beginning_is_the_same_conversation(
    first: str, system: str, later: list[str]
) -> None:
    opening = [Message("system", (Text(system),)), Message("user", (Text(first),))]
    more = [Message("user", (Text(text),)) for text in later]
    key = conversation_key(b"{}", opening)
    assert re.fullmatch(r"[0-9a-f]{32}", key)
    assert conversation_key(b"{}", [*opening, *more]) == key


def test_a_lone_surrogate_is_text_as_any_other() -> None:
    one = conversation_key(b"{}", [Message("user", (Text("\ud800"),))])
    assert one != conversation_key(b"{}", [Message("user", (Text("\ud801"),))])


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_an_exchange_knows_its_conversation(dialect: str) -> None:
    def key(session: str = "", **fields: Any) -> str:
        text = fields.pop("text", "hello")
        said: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
        if dialect == "responses":
            said = {"input": text}
        return Exchange(dialect, {"model": "m", **said, **fields}).affinity(session)

    assert key() == key() != key(text="other")
    assert key(user="a") == key(user="a", text="other") != key(user="b")
    assert key("s") == key("s", text="other") != key("t")
    if dialect == "responses":
        assert key(instructions="be kind") == key()


NAMES = st.none() | st.text(max_size=3) | st.integers() | st.lists(st.text(max_size=2), max_size=1)


@given(NAMES, NAMES, NAMES, st.sampled_from(("chat", "responses")), st.sampled_from(("", "s")))
def test_a_request_is_named_by_what_its_body_says(
    cache: Any, user: Any, safety: Any, dialect: str, session: str
) -> None:
    named = {"prompt_cache_key": cache, "user": user, "safety_identifier": safety}
    more = {name: value for name, value in named.items() if value is not None}
    said = {"messages": [{"role": "user", "content": "x"}]} if dialect == "chat" else {"input": "x"}
    source = body(**said, **more)
    expected = conversation_key(source, [Message("user", (Text("x"),))], session=session)
    assert Exchange(dialect, source).affinity(session) == expected
