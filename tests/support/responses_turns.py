"""Turns of the model whose calls come back in every form that Responses has for one."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from oaicompat.testing import gemini_turns
from oaicompat.testing.values import json_objects, signatures, some, texts

Json = dict[str, Any]

_F: Json = {"type": "function", "name": "f", "parameters": None, "strict": None}
TOOLS: list[Json] = [
    {"type": "namespace", "name": "space", "description": "d", "tools": [_F]},
    {"type": "custom", "name": "Free"},
    {"type": "local_shell"},
    {"type": "shell"},
    {"type": "apply_patch"},
    {"type": "tool_search", "execution": "client"},
]
"""One tool of each form."""

_COMMANDS = st.lists(texts(), min_size=1, max_size=2)
_TIMES = some(timeout_ms=st.one_of(st.none(), st.integers(1, 10**6)))
_FITTING: dict[str, st.SearchStrategy[Json]] = {
    "space.f": json_objects(),
    "Free": texts(min_size=0).map(lambda text: {"input": text}),
    "local_shell": st.builds(lambda words, more: {"command": words, **more}, _COMMANDS, _TIMES),
    "shell": st.builds(lambda words, more: {"commands": words, **more}, _COMMANDS, _TIMES),
    "apply_patch": st.one_of(
        st.just({"type": "delete_file", "path": "a"}),
        texts().map(lambda diff: {"type": "update_file", "path": "a", "diff": diff}),
    ),
    "tool_search": json_objects(),
}


@st.composite
def _calls(draw: st.DrawFn) -> list[Json]:
    parts: list[Json] = []
    for number, name in enumerate(draw(st.lists(st.sampled_from(sorted(_FITTING)), max_size=3))):
        part: Json = {"functionCall": {"name": name, "args": draw(_FITTING[name])}}
        if draw(st.booleans()):
            part["functionCall"]["id"] = f"native-{number}"
        if draw(st.booleans()):
            part["thoughtSignature"] = draw(signatures())
        parts.append(part)
    return parts


def turns_with_tools() -> st.SearchStrategy[list[Json]]:
    """Draw the parts of a turn; after all others come calls of `TOOLS`."""
    return st.builds(lambda parts, calls: [*parts, *calls], gemini_turns(max_size=3), _calls())
