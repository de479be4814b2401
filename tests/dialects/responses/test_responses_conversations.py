"""The bodies of calls on conversations: whatever they are, items or the client's 400."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oaicompat.dialects.responses.conversations import (
    read_conversation,
    read_items,
    read_metadata,
)
from oaicompat.errors import InvalidRequestError

Reader = Callable[[bytes], object]
READERS: dict[str, Reader] = {
    "conversation": lambda body: read_conversation(body, "t"),
    "items": lambda body: read_items(body, "t"),
    "metadata": read_metadata,
}
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_TYPES = st.sampled_from(
    ["message", "reasoning", "function_call", "function_call_output", "item_reference", "x", None]
)
_ITEM = st.fixed_dictionaries(
    {},
    optional={
        "type": _TYPES | _VALUES,
        "role": st.sampled_from(["user", "assistant"]) | _VALUES,
        **dict.fromkeys(
            ("content", "id", "call_id", "name", "arguments", "output", "summary", "more"),
            st.text() | _VALUES,
        ),
    },
)
_BODY = st.fixed_dictionaries(
    {},
    optional={
        "items": st.lists(_ITEM, max_size=22) | _VALUES,
        "metadata": st.dictionaries(st.text(), st.text()) | _VALUES,
    },
)


@pytest.mark.parametrize("name", READERS)
@given(body=st.binary() | (_BODY | _VALUES).map(lambda data: json.dumps(data).encode()))
def test_any_body_is_read_or_refused(name: str, body: bytes) -> None:
    with contextlib.suppress(InvalidRequestError):
        READERS[name](body)


@given(items=st.lists(_ITEM, max_size=20))
def test_what_is_read_is_what_was_sent(items: list[dict[str, Any]]) -> None:
    try:
        kept = read_items(json.dumps({"items": items}).encode(), "t")
    except InvalidRequestError:
        return
    assert len(kept) == len(items)
    for item, sent in zip(kept, items, strict=True):
        data = json.loads(item.body)
        assert data["id"] == item.id
        for name, value in sent.items():
            if name == "content" and isinstance(value, str):
                assert data[name][0]["text"] == value
            elif name not in ("content", "id", "type"):
                assert data[name] == value


def test_ids_of_one_call_differ() -> None:
    body = json.dumps({"items": [{"role": "user", "content": "x"}] * 20}).encode()
    assert len({item.id for item in read_items(body, "t")}) == 20
