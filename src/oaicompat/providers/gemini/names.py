"""Tool names: Gemini takes fewer of them than OpenAI, so some travel under another name.

One rule: a legal name is never touched, and a changed one can be told from every other name of the request,
so that the answer's call finds its way back. The changed name depends on nothing but the original (and, in
theory, on a collision): declarations, history and later requests agree on it, which keeps cached prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from hashlib import blake2s

from oaicompat.messages import Declared, HostedTool, Request, ToolCall

MAXIMUM_LENGTH = 64

# Specifications say 128, real errors said 64 (gemini-wire section 3, mappings section 3).
is_legal = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}").fullmatch
_ILLEGAL = re.compile(r"[^A-Za-z0-9_.:-]")
_STARTS = re.compile(r"[A-Za-z_]")
_DIGEST_BYTES = 5
UNCHANGED: Mapping[str, str] = {}


def renamed(request: Request) -> Mapping[str, str]:
    """Map the tool names that Gemini would refuse, in declarations and in history, as `upstream_names`."""
    tools = request.tools
    called = set()
    for message in request.messages:
        if message.role == "assistant":
            for part in message.parts:
                if type(part) is ToolCall:
                    called.add(part.name)
    if not (tools or called):
        return UNCHANGED
    if isinstance(tools, Declared):
        if called <= tools.names and _are_legal(tools.names):
            return UNCHANGED
        return upstream_names(tools.names | called)
    declared = [tool.name for tool in tools if not isinstance(tool, HostedTool)]
    return upstream_names(called.union(declared))


@lru_cache(64)
def _are_legal(names: frozenset[str]) -> bool:
    return all(map(is_legal, names))


def upstream_names(names: Collection[str]) -> Mapping[str, str]:
    """Map each name that Gemini would refuse to the one it travels under."""
    taken = set(names)
    illegal = [name for name in taken if not is_legal(name)]
    mapped: dict[str, str] = {}
    for name in sorted(illegal):
        mapped[name] = _mangled(name, taken)
        taken.add(mapped[name])
    return mapped


def _mangled(name: str, taken: set[str]) -> str:
    readable = _ILLEGAL.sub("_", name)
    if not _STARTS.match(readable):
        readable = f"_{readable}"
    attempt = 0
    while True:
        found = f"{readable[: MAXIMUM_LENGTH - 1 - 2 * _DIGEST_BYTES]}_{_digest(name, attempt)}"
        if found not in taken:
            return found
        attempt += 1


def _digest(name: str, attempt: int) -> str:
    salted = f"{attempt}:{name}" if attempt else name
    return blake2s(salted.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
