"""Input items of a Responses request, every type of OpenAI's schema among them.

One rule: they are a legal conversation: every call has its output, in any order but before anybody speaks
again, and the last word is not the model's.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from oaicompat.signatures import Sealed, seal
from oaicompat.testing.responses_calls import tool_steps
from oaicompat.testing.responses_parts import FILE, PARTS, STATUS, TEXTS
from oaicompat.testing.responses_tools import function_tools
from oaicompat.testing.values import Json, images, signatures, some, texts

_TYPED = st.sampled_from(({}, {"type": "message"}))


def _said(role: str, content: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.builds(
        lambda said, typed, more: {"role": role, "content": said, **typed, **more},
        content,
        _TYPED,
        some(status=STATUS),
    )


_USER = _said("user", st.one_of(texts(), texts(min_size=0), PARTS))
_SYSTEM = st.one_of(*(_said(role, st.one_of(texts(), TEXTS)) for role in ("system", "developer")))
_SOURCE = {
    "type": "url_citation",
    "start_index": 0,
    "end_index": 1,
    "url": "https://example.com/a",
    "title": "a",
}
_OUTPUT_TEXT = st.builds(
    lambda text, sources: {
        "type": "output_text",
        "text": text,
        "annotations": sources,
        "logprobs": [],
    },
    texts(),
    st.sampled_from(([], [_SOURCE])),
)
_REFUSAL = texts().map(lambda text: {"type": "refusal", "refusal": text})
_PHASE = some(phase=st.sampled_from((None, "commentary", "final_answer")))


def _answers() -> st.SearchStrategy[Json]:
    """Draw messages of the model's, in both forms they are sent back in."""
    whole = st.builds(
        lambda content, status, more: {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "content": content,
            "status": status,
            **more,
        },
        st.lists(st.one_of(_OUTPUT_TEXT, _OUTPUT_TEXT, _REFUSAL), min_size=1, max_size=2),
        STATUS,
        _PHASE,
    )
    short = st.builds(
        lambda content, typed, more: {"role": "assistant", "content": content, **typed, **more},
        st.one_of(texts(), TEXTS),
        _TYPED,
        _PHASE,
    )
    return st.one_of(whole, short)


def _foreign_or_null() -> st.SearchStrategy[str | None]:
    return st.one_of(st.none(), signatures().map(lambda text: f"gAAAA{text}"))


_REASONING = st.fixed_dictionaries(
    {
        "type": st.just("reasoning"),
        "id": st.just("rs_1"),
        "summary": st.lists(
            texts().map(lambda text: {"type": "summary_text", "text": text}), max_size=2
        ),
    },
    optional={
        "encrypted_content": _foreign_or_null(),
        "content": st.just([{"type": "reasoning_text", "text": "hm"}]),
        "status": STATUS,
    },
)
_CODE = st.builds(
    lambda code, outputs: {
        "type": "code_interpreter_call",
        "id": "ci_1",
        "status": "completed",
        "container_id": "cntr_1",
        "code": code,
        "outputs": outputs,
    },
    texts(),
    st.one_of(
        st.none(), st.lists(texts().map(lambda text: {"type": "logs", "logs": text}), max_size=2)
    ),
)
_PAINTING = st.one_of(st.none(), images().map(lambda image: image[1])).map(
    lambda data: {
        "type": "image_generation_call",
        "id": "ig_1",
        "status": "completed",
        "result": data,
    }
)
_UNREAD: tuple[Json, ...] = (
    {
        "type": "file_search_call",
        "id": "fs_1",
        "status": "completed",
        "queries": ["a"],
        "results": [{"file_id": "f", "text": "b", "score": 0.5}],
    },
    {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "a", "queries": ["a"]},
    },
    {
        "type": "computer_call",
        "id": "cu_1",
        "call_id": "cu",
        "status": "completed",
        "action": {"type": "screenshot"},
        "pending_safety_checks": [],
    },
    {
        "type": "computer_call_output",
        "call_id": "cu",
        "output": {"type": "computer_screenshot", "file_id": FILE},
        "acknowledged_safety_checks": [{"id": "s"}],
    },
    {
        "type": "mcp_list_tools",
        "id": "mcpl_1",
        "server_label": "s",
        "tools": [{"name": "a", "input_schema": {}}],
        "error": None,
    },
    {
        "type": "mcp_call",
        "id": "mcp_1",
        "server_label": "s",
        "name": "a",
        "arguments": "{}",
        "output": "b",
        "status": "completed",
        "approval_request_id": None,
    },
    {
        "type": "mcp_approval_request",
        "id": "mcpr_1",
        "server_label": "s",
        "name": "a",
        "arguments": "{}",
    },
    {
        "type": "mcp_approval_response",
        "approval_request_id": "mcpr_1",
        "request_id": "mcpr_1",
        "approve": True,
        "reason": "b",
    },
    {"type": "program", "id": "pg_1", "call_id": "pg", "code": "a", "fingerprint": "b"},
    {
        "type": "program_output",
        "id": "pgo_1",
        "call_id": "pg",
        "result": "a",
        "status": "completed",
    },
    {
        "type": "tool_search_call",
        "id": "tsc_1",
        "call_id": None,
        "execution": "server",
        "arguments": {},
        "status": "completed",
    },
)


_BESIDES = st.lists(
    st.one_of(
        _REASONING, _CODE, _PAINTING, st.sampled_from(_UNREAD), st.sampled_from(_UNREAD[::-1])
    ),
    max_size=3,
)
"""What a turn of the model holds besides its messages and calls."""


def _summary(text: str) -> Json:
    return {"type": "compaction", "encrypted_content": seal(Sealed(summary=text))}


_BETWEEN = st.one_of(
    _SYSTEM,
    st.lists(function_tools(), max_size=2, unique_by=lambda tool: tool["name"]).map(
        lambda tools: {"type": "additional_tools", "role": "developer", "tools": tools}
    ),
    texts().map(_summary),
    signatures().map(lambda text: {"type": "compaction", "encrypted_content": f"gAAAA{text}"}),
)
"""What stands between turns."""

_LEADING = st.lists(_SYSTEM, max_size=1)
_ANSWERED = _answers().map(lambda item: [item])
_TURNS = tuple(st.one_of(_ANSWERED, tool_steps(number)) for number in range(2))
_FOLLOWING = st.lists(_BETWEEN, max_size=1)


@st.composite
def input_items(draw: st.DrawFn) -> list[Json]:
    """Draw the items of whole conversations, with up to two turns of the model's."""
    items: list[Json] = draw(_LEADING)
    for turn in _TURNS[: draw(st.integers(0, 2))]:
        items.append(draw(_USER))
        items += draw(_BESIDES)
        items += draw(turn)
        items += draw(_FOLLOWING)
    if not items or not items[-1].get("type", "").endswith("_output") or draw(st.booleans()):
        items.append(draw(_USER))
    return items
