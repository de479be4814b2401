"""Tools of a Responses request, and the choices among them.

One rule: a list of tools can be declared together: no name twice, and of the tools that the service runs each
kind once. Tools that are refused wherever they stand are drawn on request only.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from oaicompat.testing.chat import schemas
from oaicompat.testing.values import Json, names, some, texts

FORMED = ("local_shell", "shell", "apply_patch", "tool_search")
"""Tools the client runs that have a form of their own, and so no name."""

HOSTED = ("web_search", "code_interpreter", "file_search")
"""Tools the service runs, by the start of their type."""

_CALLERS = st.sampled_from((None, ["direct"], ["direct", "programmatic"]))
_PLACE = {"type": "approximate", "country": "DE", "city": "Köln"}
_PREVIEWS = ("web_search_preview", "web_search_preview_2025_03_11")
_PAINTED = {"size": "1024x1024", "quality": "low", "output_format": "png"}


def tool_names() -> st.SearchStrategy[str]:
    """Draw names of tools that are not those of a form."""
    return names().filter(lambda name: name not in FORMED)


def function_tools() -> st.SearchStrategy[Json]:
    """Draw functions, with all that the schema lets them have."""
    required: dict[str, st.SearchStrategy[Any]] = {
        "type": st.just("function"),
        "name": tool_names(),
        "parameters": st.one_of(st.none(), schemas(), schemas()),
        "strict": st.sampled_from((None, True, False)),
    }
    optional: dict[str, st.SearchStrategy[Any]] = {
        "description": st.one_of(st.none(), texts()),
        "output_schema": st.one_of(st.none(), schemas()),
        "defer_loading": st.booleans(),
        "allowed_callers": _CALLERS,
    }
    return st.fixed_dictionaries(required, optional=optional)


def _custom() -> st.SearchStrategy[Json]:
    grammars = st.sampled_from((("lark", 'start: "a"+ "\\n"'), ("regex", "[a-z]+")))
    formats = st.one_of(
        st.just({"type": "text"}),
        grammars.map(lambda each: {"type": "grammar", "syntax": each[0], "definition": each[1]}),
    )
    optional: dict[str, st.SearchStrategy[Any]] = {
        "description": texts(),
        "format": formats,
        "defer_loading": st.booleans(),
        "allowed_callers": _CALLERS,
    }
    return st.fixed_dictionaries(
        {"type": st.just("custom"), "name": tool_names()}, optional=optional
    )


def _named(tool: Json) -> str:
    name: str = tool["name"]
    return name


def _namespaces() -> st.SearchStrategy[Json]:
    members = st.lists(
        st.one_of(function_tools(), _custom()), min_size=1, max_size=2, unique_by=_named
    )
    fields = {"name": names(), "description": texts(), "tools": members}
    return st.fixed_dictionaries({"type": st.just("namespace"), **fields})


def _formed() -> st.SearchStrategy[Json]:
    skill = {"name": "a", "description": "b", "path": "/c"}
    local = st.sampled_from((None, {"type": "local"}, {"type": "local", "skills": [skill]}))
    search = some(
        execution=st.sampled_from(("client", "client", "server")),
        description=st.one_of(st.none(), texts()),
        parameters=st.one_of(st.none(), schemas()),
    )
    return st.one_of(
        st.just({"type": "local_shell"}),
        some(environment=local, allowed_callers=_CALLERS).map(
            lambda each: {"type": "shell", **each}
        ),
        some(allowed_callers=_CALLERS).map(lambda each: {"type": "apply_patch", **each}),
        search.map(lambda each: {"type": "tool_search", **each}),
    )


def _searches() -> st.SearchStrategy[Json]:
    sizes = st.sampled_from(("low", "medium", "high"))
    plain = some(
        external_web_access=st.booleans(),
        filters=st.sampled_from((None, {"allowed_domains": ["example.com"]})),
        user_location=st.sampled_from((None, _PLACE)),
        search_context_size=sizes,
    )
    preview = some(
        user_location=st.sampled_from((None, _PLACE)),
        search_context_size=sizes,
        search_content_types=st.just(["text"]),
    )
    kinds = st.sampled_from(("web_search", "web_search_2025_08_26"))
    return st.one_of(
        st.builds(lambda kind, more: {"type": kind, **more}, kinds, plain),
        st.builds(lambda kind, more: {"type": kind, **more}, st.sampled_from(_PREVIEWS), preview),
    )


def _hosted() -> st.SearchStrategy[Json]:
    container = st.sampled_from(("cntr_1", {"type": "auto"}, {"type": "auto", "file_ids": ["f"]}))
    found = some(
        max_num_results=st.integers(1, 50),
        ranking_options=st.just({"score_threshold": 0.5}),
        filters=st.sampled_from((None, {"type": "eq", "key": "a", "value": "b"})),
    )
    return st.one_of(
        _searches(),
        st.builds(
            lambda where, more: {"type": "code_interpreter", "container": where, **more},
            container,
            some(allowed_callers=_CALLERS),
        ),
        found.map(
            lambda more: {"type": "file_search", "vector_store_ids": ["fileSearchStores/s"], **more}
        ),
    )


def _unserved() -> st.SearchStrategy[Json]:
    """Draw tools that are left out with a note."""
    mcp = some(
        server_url=st.just("https://example.com/mcp"),
        server_description=texts(),
        allowed_tools=st.sampled_from((None, ["a"], {"tool_names": ["a"]})),
        require_approval=st.sampled_from((None, "never", {"always": {"read_only": True}})),
        headers=st.just({"x-a": "b"}),
    )
    return st.one_of(
        st.just({"type": "programmatic_tool_calling"}),
        mcp.map(lambda more: {"type": "mcp", "server_label": "s", **more}),
        st.sampled_from(({}, _PAINTED)).map(lambda more: {"type": "image_generation", **more}),
    )


_REFUSED: tuple[Json, ...] = (
    {"type": "computer"},
    {
        "type": "computer_use_preview",
        "environment": "browser",
        "display_width": 1024,
        "display_height": 768,
    },
    {"type": "shell", "environment": {"type": "container_auto"}},
    {"type": "shell", "environment": {"type": "container_reference", "container_id": "local"}},
)


_FUNCTIONS = function_tools()
_CUSTOM = _custom()
_KINDS = [_FUNCTIONS, _CUSTOM, _namespaces(), _formed(), _hosted(), _unserved()]


def hosted_kind(tool: Json) -> str | None:
    """Return the kind of a tool that the service runs."""
    return next((kind for kind in HOSTED if tool["type"].startswith(kind)), None)


def _identity(tool: Json) -> str:
    name: str = tool.get("name") or hosted_kind(tool) or tool["type"]
    return name


def served_tools(tools: list[Json]) -> list[Json]:
    """Return the tools of a request that the model gets to know of."""
    return [
        tool
        for tool in tools
        if tool["type"]
        in ("function", "custom", "namespace", "local_shell", "shell", "apply_patch")
        or (tool["type"] == "tool_search" and tool.get("execution") == "client")
        or hosted_kind(tool)
    ]


def tool_lists(*, refused: bool = False) -> st.SearchStrategy[list[Json]]:
    """Draw the tools of a request; `refused` adds those that nobody can serve and a request fails for."""
    kinds = [*_KINDS, st.sampled_from(_REFUSED)] if refused else _KINDS
    return st.lists(st.one_of(kinds), min_size=1, max_size=4, unique_by=_identity)


def tool_choices(tools: list[Json]) -> st.SearchStrategy[Any]:
    """Draw choices, in every form, among what of these tools is served, and of what is not."""
    served = served_tools(tools)
    idle: list[Any] = ["none", "auto"]
    idle += [{"type": tool["type"]} for tool in tools if tool["type"] in _NOT_SERVED]
    idle += [{"type": "mcp", "server_label": "s", "name": "a"}, {"type": "image_generation"}]
    references = [_reference(tool) for tool in served if tool["type"] != "namespace"]
    forms = [st.sampled_from(idle)]
    if served:
        forms.append(st.just("required"))
    if references:
        others = [{"type": "mcp", "server_label": "s"}, {"type": "image_generation"}]
        direct = [each for each in references if each["type"] in _CHOSEN]
        forms += [st.sampled_from(direct)] if direct else []
        forms.append(_allowed([*references, *others]))
    return st.one_of(forms)


_CHOSEN = (
    *("function", "custom", "shell", "apply_patch"),
    *("web_search_preview", "code_interpreter", "file_search"),
)
"""Types a choice may be of; the other tools can only stand among those that are allowed."""

_NOT_SERVED = ("programmatic_tool_calling", "image_generation")


def _reference(tool: Json) -> Json:
    if hosted_kind(tool) == "web_search":
        return {"type": "web_search_preview"}
    named = {"name": tool["name"]} if "name" in tool else {}
    return {"type": tool["type"], **named}


def _allowed(references: list[Json]) -> st.SearchStrategy[Json]:
    chosen = st.lists(st.sampled_from(references), min_size=1, max_size=3, unique_by=str)
    return st.builds(
        lambda mode, tools: {"type": "allowed_tools", "mode": mode, "tools": tools},
        st.sampled_from(("auto", "required")),
        chosen,
    )
