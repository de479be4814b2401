"""Bodies of POST /v1/chat/completions, every field of OpenAI's schema among them.

One rule: a request is valid for OpenAI and can be served: what some model refuses in combination (tools with
a JSON format before Gemini 3, streamed WAV) is not drawn together.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from oaicompat.testing.conversations import conversations, legacy_conversations
from oaicompat.testing.values import Json, names, some, texts

MODELS = ("gpt-4o", "gemini-2.5-pro", "gemini-3.5-flash")
NEWEST = MODELS[-1]
"""A model that takes tools together with a JSON format, and functions together with search."""

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_TYPES = ("string", "integer", "number", "boolean", "null")
_VOICES = ("alloy", "verse", "Kore")


def schemas() -> st.SearchStrategy[Json]:
    """Draw JSON Schemas of objects, with keywords that converters tend to trip over."""
    leaf = st.one_of(
        st.sampled_from(_TYPES).map(lambda kind: {"type": kind}),
        st.just({"type": ["string", "null"]}),
        st.lists(texts(), min_size=1, max_size=3, unique=True).map(
            lambda values: {"type": "string", "enum": values}
        ),
        st.just({"$ref": "#/$defs/thing"}),
        st.just({"type": "string", "pattern": "^a+$", "minLength": 1, "description": "an a"}),
    )
    inner = st.one_of(
        leaf,
        leaf.map(lambda item: {"type": "array", "items": item, "maxItems": 3}),
        st.lists(leaf, min_size=1, max_size=2).map(lambda options: {"anyOf": options}),
    )
    properties = st.dictionaries(
        st.one_of(names(), st.sampled_from(("title", "type", "const", "additionalProperties"))),
        inner,
        max_size=3,
    )
    return st.builds(_object_schema, properties, st.booleans())


def _object_schema(properties: Json, strict: bool) -> Json:
    schema: Json = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "$defs": {"thing": {"type": "integer", "exclusiveMinimum": 0}},
    }
    return schema | ({"additionalProperties": False} if strict else {})


def _functions(*, strict: bool) -> st.SearchStrategy[Json]:
    optional: dict[str, st.SearchStrategy[Any]] = {"description": texts(), "parameters": schemas()}
    if strict:
        optional["strict"] = st.booleans()
    return st.fixed_dictionaries({"name": names()}, optional=optional)


_GRAMMARS = st.one_of(
    st.just({"type": "text"}),
    st.just({"type": "grammar", "grammar": {"syntax": "lark", "definition": 'start: "a"+ "\\n"'}}),
    st.just({"type": "grammar", "grammar": {"syntax": "regex", "definition": "[a-z]+"}}),
)
_CUSTOM = st.fixed_dictionaries(
    {"name": names()}, optional={"description": texts(), "format": _GRAMMARS}
)


def _tools() -> st.SearchStrategy[list[Json]]:
    tool = st.one_of(
        _functions(strict=True).map(lambda each: {"type": "function", "function": each}),
        _CUSTOM.map(lambda each: {"type": "custom", "custom": each}),
    )
    return st.lists(tool, min_size=1, max_size=3, unique_by=_tool_name)


def _tool_name(tool: Json) -> str:
    name: str = tool[tool["type"]]["name"]
    return name


def _references(tools: list[Json]) -> list[Json]:
    return [{"type": tool["type"], tool["type"]: {"name": _tool_name(tool)}} for tool in tools]


def _choices(tools: list[Json]) -> st.SearchStrategy[Any]:
    allowed = st.builds(
        lambda mode, tools: {
            "type": "allowed_tools",
            "allowed_tools": {"mode": mode, "tools": tools},
        },
        st.sampled_from(("auto", "required")),
        st.lists(st.sampled_from(_references(tools)), min_size=1, max_size=2, unique_by=str),
    )
    plain = st.sampled_from(("none", "auto", "required"))
    return st.one_of(plain, st.sampled_from(_references(tools)), allowed)


def _formats() -> st.SearchStrategy[Json]:
    schema = st.fixed_dictionaries(
        {"name": names()},
        optional={"schema": schemas(), "strict": st.booleans(), "description": texts()},
    )
    return st.one_of(
        st.sampled_from(({"type": "text"}, {"type": "json_object"})),
        schema.map(lambda each: {"type": "json_schema", "json_schema": each}),
    )


def _scalars() -> st.SearchStrategy[Json]:
    """Draw the parameters that combine with everything."""
    tokens = st.integers(1, 65536)
    return some(
        temperature=st.floats(0, 2, width=16),
        top_p=st.floats(0, 1, width=16),
        n=st.integers(1, 3),
        seed=st.integers(-(2**40), 2**40),
        presence_penalty=st.floats(-2, 2, width=16),
        frequency_penalty=st.floats(-2, 2, width=16),
        max_tokens=tokens,
        max_completion_tokens=tokens,
        stop=st.one_of(texts(), st.lists(texts(), min_size=1, max_size=4)),
        reasoning_effort=st.sampled_from(_EFFORTS),
        service_tier=st.sampled_from(("auto", "default", "flex", "scale", "priority", "fast")),
        metadata=st.dictionaries(names(), texts(min_size=0), max_size=2),
        logit_bias=st.dictionaries(
            st.integers(0, 10**5).map(str), st.integers(-100, 100), max_size=2
        ),
    )


def _idle() -> st.SearchStrategy[Json]:
    """Draw the parameters that reach no model."""
    prediction = texts().map(lambda text: {"type": "content", "content": text})
    return some(
        user=texts(),
        safety_identifier=texts(),
        store=st.booleans(),
        verbosity=st.sampled_from(("low", "medium", "high")),
        prompt_cache_key=texts(),
        prompt_cache_options=st.just({"mode": "implicit", "ttl": "30m"}),
        prompt_cache_retention=st.sampled_from(("in_memory", "24h")),
        moderation=st.just({"model": "omni-moderation-latest"}),
        prediction=prediction,
    )


def _locations() -> st.SearchStrategy[Json]:
    near = {"type": "approximate", "approximate": {"country": "DE", "city": "Köln"}}
    return some(
        user_location=st.just(near), search_context_size=st.sampled_from(("low", "medium", "high"))
    )


@st.composite
def _sound(draw: st.DrawFn, streamed: bool) -> Json:
    """Draw what asks for speech; a stream of it is raw PCM."""
    form = "pcm16" if streamed else draw(st.sampled_from(("wav", "pcm16")))
    voice = draw(st.one_of(st.sampled_from(_VOICES), st.just({"id": "Puck"})))
    wanted = draw(st.sampled_from((["audio"], ["text", "audio"])))
    return {"modalities": wanted, "audio": {"voice": voice, "format": form}}


@st.composite
def _tooling(draw: st.DrawFn) -> Json:
    """Draw tools with a choice, legacy functions with one, or a search."""
    kind = draw(st.sampled_from(("tools", "functions", "search")))
    if kind == "search":
        return {"web_search_options": draw(_locations())}
    if kind == "functions":
        functions = draw(
            st.lists(
                _functions(strict=False),
                min_size=1,
                max_size=2,
                unique_by=lambda each: each["name"],
            )
        )
        named = {"name": functions[0]["name"]}
        choice = st.sampled_from(("none", "auto", named))
        return {"functions": functions} | draw(
            some(function_call=choice, parallel_tool_calls=st.booleans())
        )
    tools = draw(_tools())
    return {"tools": tools} | draw(
        some(tool_choice=_choices(tools), parallel_tool_calls=st.booleans())
    )


def _streaming() -> st.SearchStrategy[Json]:
    options = some(include_usage=st.booleans(), include_obfuscation=st.booleans())
    streamed = options.map(lambda chosen: {"stream": True, "stream_options": chosen})
    return st.one_of(st.sampled_from(({}, {"stream": False}, {"stream": True})), streamed)


@st.composite
def chat_requests(draw: st.DrawFn) -> Json:
    """Draw bodies of chat requests as plain data: valid, and such that they can be served.

    Every field of OpenAI's schema is drawn sooner or later: conversations of all roles with text, images,
    sound and files, calls and their results in any order, tools of both kinds and each form of choice, legacy
    functions, formats, speech, and all parameters.
    """
    streaming = draw(_streaming())
    body: Json = {"model": draw(st.sampled_from(MODELS)), **streaming}
    tooling = draw(st.one_of(st.just({}), _tooling()))
    shape = draw(st.sampled_from(("plain", "format", "sound", "logprobs")))
    if shape == "format":
        body["response_format"] = draw(_formats())
    elif shape == "sound":
        body |= draw(_sound(bool(streaming.get("stream"))))
    elif shape == "logprobs":
        body |= {"logprobs": True} | draw(some(top_logprobs=st.integers(0, 20)))
    if tooling and shape == "format":
        body["model"] = NEWEST
    talk = legacy_conversations() if "functions" in tooling else conversations()
    body["messages"] = draw(talk)
    body |= tooling | draw(_scalars()) | draw(_idle())
    # What is drawn from a fixed value is that value, and whoever asked may change what he got.
    return deepcopy(body)
