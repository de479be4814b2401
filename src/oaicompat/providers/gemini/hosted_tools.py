"""Tools the service runs itself, and what of their options Gemini understands.

One rule: an option that Gemini has no field for is noted under its own name; one that changes what is sent
has a line in its tool's function. Sources: peers 1.2 and 2.7, gemini-wire section 3 "Tool".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
from msgspec import Raw

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import HostedTool
from oaicompat.providers.gemini.context import EMPTY_OBJECT, Context
from oaicompat.providers.gemini.schema import Tool

Options = Mapping[str, Raw]

# Says nothing about how the tool works: the tool's own type, and the sandbox OpenAI asks everybody to name.
_INERT = frozenset({"type", "name", "container"})


def encode_hosted(tools: Iterable[HostedTool], context: Context) -> list[Tool]:
    """Encode each kind of tool once, in the client's order.

    Raises `InvalidRequestError`, param the tool's path, for one that the backend does not have.
    """
    encoded: dict[str, Tool] = {}
    seen: dict[str, Options] = {}
    for tool in tools:
        options = _options(tool)
        if seen.setdefault(tool.kind, options) != options:
            context.notes.dropped(
                tool.path, f"a tool of the type {tool.kind!r} stands there already"
            )
        if tool.kind in encoded:
            continue
        encoder = _ENCODERS.get(tool.kind)
        if encoder is None:
            raise _refused(tool, f"tools of the type {tool.kind[:64]!r} do not exist upstream")
        encoded[tool.kind] = encoder(tool, options, context)
    return list(encoded.values())


def _options(tool: HostedTool) -> Options:
    if tool.options is None:
        return {}
    try:
        return msgspec.json.decode(tool.options, type=dict[str, Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _refused(tool, "its options must be an object") from None


def _refused(tool: HostedTool, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"Invalid tool: {why}.", param=tool.path or "tools")


def _note_unused(tool: HostedTool, options: Options, used: Sequence[str], context: Context) -> None:
    for name, value in options.items():
        if name in used or bytes(value) == b"null":
            continue
        context.notes.dropped(
            f"{tool.path}.{name}", "Gemini's tool has no such option", inert=name in _INERT
        )


def _web_search(tool: HostedTool, options: Options, context: Context) -> Tool:
    _note_unused(tool, options, ("type",), context)
    return Tool(google_search=EMPTY_OBJECT)


def _code_execution(tool: HostedTool, options: Options, context: Context) -> Tool:
    if b"file_ids" in bytes(options.get("container", b"")):
        context.notes.dropped(f"{tool.path}.container.file_ids", "the sandbox takes no files")
    _note_unused(tool, options, ("type",), context)
    return Tool(code_execution=EMPTY_OBJECT)


def _url_context(tool: HostedTool, options: Options, context: Context) -> Tool:
    _note_unused(tool, options, ("type",), context)
    return Tool(url_context=EMPTY_OBJECT)


def _maps(tool: HostedTool, options: Options, context: Context) -> Tool:
    _note_unused(tool, options, ("type", "enable_widget"), context)
    sent = {"enableWidget": options["enable_widget"]} if "enable_widget" in options else {}
    return Tool(google_maps=Raw(msgspec.json.encode(sent)))


def _file_search(tool: HostedTool, options: Options, context: Context) -> Tool:
    if context.on_vertex:
        raise _refused(tool, "file search exists on the Gemini API only")
    stores = options.get("vector_store_ids") or options.get("file_search_store_names")
    if stores is None:
        raise _refused(tool, "file search needs vector_store_ids")
    used = ("type", "vector_store_ids", "file_search_store_names", "max_num_results")
    _note_unused(tool, options, used, context)
    sent = {"fileSearchStoreNames": stores}
    if "max_num_results" in options:
        sent["topK"] = options["max_num_results"]
    return Tool(file_search=Raw(msgspec.json.encode(sent)))


def _computer_use(tool: HostedTool, options: Options, context: Context) -> Tool:
    if bytes(options.get("environment", b'"browser"')) != b'"browser"':
        context.notes.approximated(f"{tool.path}.environment", "only a browser can be used")
    _note_unused(tool, options, ("type", "environment"), context)
    return Tool(computer_use=Raw(b'{"environment":"ENVIRONMENT_BROWSER"}'))


_ENCODERS: Mapping[str, Callable[[HostedTool, Options, Context], Tool]] = {
    "web_search": _web_search,
    "code_execution": _code_execution,
    "url_context": _url_context,
    "maps": _maps,
    "file_search": _file_search,
    "computer_use": _computer_use,
}
