"""Bodies of POST /v1/responses, every field of OpenAI's schema among them.

One rule: a request is valid for OpenAI and can be served, unless it is asked for one that needs a store or
that nobody can serve; what some model refuses in combination is not drawn together with it.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from oaicompat.testing.chat import MODELS, NEWEST, schemas
from oaicompat.testing.responses_items import input_items
from oaicompat.testing.responses_tools import tool_choices, tool_lists
from oaicompat.testing.values import Json, names, some, texts

INCLUDE = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
)
"""What an answer can be asked to tell besides."""

_EFFORTS = (None, "none", "minimal", "low", "medium", "high", "xhigh", "max")
_SUMMARIES = st.sampled_from((None, "auto", "concise", "detailed"))
_TIERS = (None, "auto", "default", "flex", "scale", "priority", "fast")


def _reasoning() -> st.SearchStrategy[Json | None]:
    fields = some(
        effort=st.sampled_from(_EFFORTS),
        summary=_SUMMARIES,
        generate_summary=_SUMMARIES,
        context=st.sampled_from((None, "auto", "current_turn", "all_turns")),
        mode=st.sampled_from(("standard", "pro")),
    )
    return st.one_of(st.none(), fields, fields)


def _formats() -> st.SearchStrategy[Json]:
    schema = st.fixed_dictionaries(
        {"type": st.just("json_schema"), "name": names(), "schema": schemas()},
        optional={"strict": st.sampled_from((None, True, False)), "description": texts()},
    )
    plain = st.sampled_from(({"type": "text"}, {"type": "json_object"}))
    return st.one_of(plain, schema, schema)


def _text() -> st.SearchStrategy[Json]:
    return some(format=_formats(), verbosity=st.sampled_from((None, "low", "medium", "high")))


def _scalars() -> st.SearchStrategy[Json]:
    """Draw the parameters that combine with everything."""
    pairs = st.dictionaries(names(), texts(min_size=0), max_size=2)
    return some(
        instructions=st.one_of(st.none(), texts(min_size=0)),
        temperature=st.one_of(st.none(), st.floats(0, 2, width=16)),
        top_p=st.one_of(st.none(), st.floats(0, 1, width=16)),
        max_output_tokens=st.one_of(st.none(), st.integers(16, 65536)),
        service_tier=st.sampled_from(_TIERS),
        metadata=st.one_of(st.none(), pairs),
        parallel_tool_calls=st.sampled_from((None, True, False)),
        reasoning=_reasoning(),
        include=st.lists(st.sampled_from((*INCLUDE, *INCLUDE[-1:])), max_size=4, unique=True),
        top_logprobs=st.integers(0, 20),
    )


def _idle() -> st.SearchStrategy[Json]:
    """Draw the parameters that reach no model."""
    compaction = some(compact_threshold=st.one_of(st.none(), st.integers(1000, 9999)))
    prompts = some(version=st.one_of(st.none(), texts()), variables=st.just({"a": "b"}))
    return some(
        user=texts(),
        safety_identifier=st.one_of(st.none(), texts()).filter(lambda text: len(text or "") < 65),
        store=st.sampled_from((None, True, False)),
        background=st.sampled_from((None, True, False)),
        truncation=st.sampled_from((None, "auto", "disabled")),
        max_tool_calls=st.one_of(st.none(), st.integers(1, 9)),
        prompt=st.one_of(st.none(), prompts.map(lambda more: {"id": "pmpt_1", **more})),
        context_management=st.one_of(
            st.none(),
            st.lists(
                compaction.map(lambda more: {"type": "compaction", **more}), min_size=1, max_size=1
            ),
        ),
        prompt_cache_key=st.one_of(st.none(), texts()),
        prompt_cache_options=st.just({"mode": "implicit", "ttl": "30m"}),
        prompt_cache_retention=st.sampled_from((None, "in_memory", "24h")),
        moderation=st.sampled_from((None, {"model": "omni-moderation-latest"})),
    )


def _streaming() -> st.SearchStrategy[Json]:
    options = some(include_obfuscation=st.booleans())
    streamed = options.map(lambda chosen: {"stream": True, "stream_options": chosen})
    plain = st.sampled_from(({}, {"stream": None}, {"stream": False}, {"stream": True}))
    return st.one_of(plain, streamed)


@st.composite
def _tooling(draw: st.DrawFn, refused: bool) -> Json:
    tools = draw(tool_lists(refused=refused))
    return {"tools": tools, **draw(some(tool_choice=tool_choices(tools)))}


_GOING_ON: st.SearchStrategy[Json] = st.sampled_from(
    (
        {},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
    )
)
"""The ways to go on from what is stored."""

_PARAMETERS = (_scalars(), _idle(), _streaming(), some(text=_text()))
_TOOLING = {refused: st.one_of(st.just({}), _tooling(refused)) for refused in (False, True)}
_ITEMS = input_items()
_TEXT = texts()


@st.composite
def _input(draw: st.DrawFn, stored: bool) -> Any:
    if not draw(st.integers(0, 4)):
        return draw(_TEXT)
    items = draw(_ITEMS)
    if stored and draw(st.booleans()):
        items.insert(
            0, draw(st.sampled_from(({"type": "item_reference", "id": "msg_9"}, {"id": "msg_9"})))
        )
    if not draw(st.integers(0, 7)):
        items.append({"type": "compaction_trigger"})
    return items


@st.composite
def responses_requests(draw: st.DrawFn, *, stored: bool = False, refused: bool = False) -> Json:
    """Draw bodies of Responses requests as plain data: valid, and by default such that they can be served.

    Every field of OpenAI's schema is drawn sooner or later: items, parts and tools of all types, each form of
    choice and format, reasoning, and all parameters. `stored` adds what only a store can resolve: responses
    and conversations to go on from (`resp_1`, `conv_1`), and references to the item `msg_9`; `refused` adds
    what is valid for OpenAI and answered with a 400.
    """
    body: Json = {"model": draw(st.sampled_from(MODELS)), "input": draw(_input(stored))}
    for fields in (*_PARAMETERS, _TOOLING[refused]):
        body |= draw(fields)
    if _demanding(body):
        body["model"] = NEWEST
    if stored:
        body |= draw(_GOING_ON)
    if refused and not draw(st.integers(0, 4)):
        body["service_tier"] = "ultrafast"
    # What is drawn from a fixed value is that value, and whoever asked may change what he got.
    return deepcopy(body)


def _demanding(body: Json) -> bool:
    """Tell whether only the newest models take the request: tools of both kinds, or with a JSON format."""
    return "tools" in body or body.get("text", {}).get("format", {}).get("type", "text") != "text"
