"""Calls of tools that the client runs, and their outputs, in every form Responses has for them.

One rule: an output says which call it answers in the way of its type.
"""

from __future__ import annotations

from hypothesis import strategies as st

from oaicompat.testing.conversations import arguments
from oaicompat.testing.responses_parts import IMAGE, STATUS, TEXT
from oaicompat.testing.responses_tools import function_tools
from oaicompat.testing.values import Json, json_objects, names, some, texts

_CALLER = st.sampled_from((None, {"type": "direct"}, {"type": "program", "caller_id": "prog_1"}))


def _patches() -> st.SearchStrategy[Json]:
    paths = st.sampled_from(("a.txt", "ä/b.py"))
    written = st.builds(
        lambda kind, path, diff: {"type": kind, "path": path, "diff": diff},
        st.sampled_from(("create_file", "update_file")),
        paths,
        texts(),
    )
    return st.one_of(written, paths.map(lambda path: {"type": "delete_file", "path": path}))


def _commands() -> st.SearchStrategy[Json]:
    limits = some(
        timeout_ms=st.one_of(st.none(), st.integers(1, 10**6)),
        max_output_length=st.one_of(st.none(), st.integers(1, 10**6)),
    )
    lists = st.lists(texts(), min_size=1, max_size=2)
    return st.builds(lambda commands, more: {"commands": commands, **more}, lists, limits)


def _local_commands() -> st.SearchStrategy[Json]:
    limits = some(
        timeout_ms=st.one_of(st.none(), st.integers(1, 10**6)),
        working_directory=st.one_of(st.none(), texts()),
        user=st.one_of(st.none(), texts()),
    )
    return st.builds(
        lambda command, env, more: {"type": "exec", "command": command, "env": env, **more},
        st.lists(texts(), min_size=1, max_size=2),
        st.dictionaries(names(), texts(min_size=0), max_size=2),
        limits,
    )


_ENVIRONMENT = some(environment=st.sampled_from((None, {"type": "local"})), caller=_CALLER)
_CALLS: dict[str, st.SearchStrategy[Json]] = {
    "function_call": st.builds(
        lambda name, text, more: {"name": name, "arguments": text, **more},
        names(),
        arguments(),
        some(namespace=names(), caller=_CALLER, id=st.just("fc_1"), status=STATUS),
    ),
    "custom_tool_call": st.builds(
        lambda name, text, more: {"name": name, "input": text, **more},
        names(),
        texts(min_size=0),
        some(namespace=names(), caller=_CALLER, id=st.just("ctc_1")),
    ),
    "local_shell_call": _local_commands().map(
        lambda action: {"id": "lsh_1", "action": action, "status": "completed"}
    ),
    "shell_call": st.builds(
        lambda action, more: {"action": action, **more}, _commands(), _ENVIRONMENT
    ),
    "apply_patch_call": _patches().map(
        lambda operation: {"operation": operation, "status": "completed"}
    ),
    "tool_search_call": json_objects().map(
        lambda wanted: {"execution": "client", "arguments": wanted}
    ),
}
_RESULT = st.one_of(texts(min_size=0), st.lists(st.one_of(TEXT, IMAGE), min_size=1, max_size=2))
_ENDS = st.sampled_from(({"type": "exit", "exit_code": 1}, {"type": "timeout"}))
_WRITTEN = st.builds(
    lambda out, err, end: {"stdout": out, "stderr": err, "outcome": end},
    texts(min_size=0),
    texts(min_size=0),
    _ENDS,
)
_OUTPUTS: dict[str, st.SearchStrategy[Json]] = {
    "function_call": st.builds(
        lambda output, more: {"output": output, **more},
        _RESULT,
        some(id=st.just("fco_1"), caller=_CALLER, status=STATUS),
    ),
    "custom_tool_call": _RESULT.map(lambda output: {"output": output}),
    "local_shell_call": texts(min_size=0).map(lambda output: {"output": output}),
    "shell_call": st.builds(
        lambda output, more: {"output": output, **more},
        st.lists(_WRITTEN, min_size=1, max_size=2),
        some(max_output_length=st.integers(1, 100), caller=_CALLER, status=STATUS),
    ),
    "apply_patch_call": st.builds(
        lambda status, more: {"status": status, **more},
        st.sampled_from(("completed", "failed")),
        some(output=st.one_of(st.none(), texts())),
    ),
    "tool_search_call": st.lists(
        function_tools(), min_size=1, max_size=2, unique_by=lambda tool: tool["name"]
    ).map(lambda tools: {"execution": "client", "tools": tools}),
}


_IDENTIFIED = {"local_shell_call": {"id": "lsho_1"}}


@st.composite
def tool_steps(draw: st.DrawFn, number: int) -> list[Json]:
    """Draw one step of tool use: the calls, and their outputs in any order; `number` makes ids unique."""
    calls: list[Json] = []
    outputs: list[Json] = []
    for position in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(sorted(_CALLS)))
        call_id = f"call_{number}_{position}"
        calls.append({"type": kind, "call_id": call_id, **draw(_CALLS[kind])})
        named = {"call_id": call_id} | _IDENTIFIED.get(kind, {})
        answer = kind.replace("_search_call", "_search")
        outputs.append({"type": f"{answer}_output", **named, **draw(_OUTPUTS[kind])})
    return [*calls, *draw(st.permutations(outputs))]
