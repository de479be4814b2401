"""The neutral request as the body of a Gemini generateContent call.

One rule: the body says what the client said and nothing more. A model name and one message give one content;
what cannot be said is noted or refused under the client's own name for it. The parts of the work have a
module each: `contents`, `tools`, `generation`, `thinking`, `extras`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import CustomTool, HostedTool, Request
from oaicompat.notes import Notes
from oaicompat.providers.gemini.contents import encode_conversation
from oaicompat.providers.gemini.context import Context, EncodeOptions
from oaicompat.providers.gemini.endpoints import Target
from oaicompat.providers.gemini.extras import NOTHING, Extras, merge, read_extras
from oaicompat.providers.gemini.generation import encode_generation
from oaicompat.providers.gemini.names import UNCHANGED, renamed
from oaicompat.providers.gemini.profiles import profile
from oaicompat.providers.gemini.schema import GenerateContentRequest
from oaicompat.providers.gemini.thinking import encode_thinking
from oaicompat.providers.gemini.tools import NO_TOOLS, encode_tools

__all__ = ["EncodeOptions", "Encoded", "encode_request"]

_DEFAULT_OPTIONS = EncodeOptions()
_encode = msgspec.json.Encoder().encode

_TIERS = {"default": "standard", "flex": "flex", "priority": "priority"}
_is_label_key = re.compile(r"[a-z][a-z0-9_-]{0,62}").fullmatch
_is_label_value = re.compile(r"[a-z0-9_-]{0,63}").fullmatch


class Encoded(Struct, frozen=True, gc=False):
    """A body, and what its answer needs to be read.

    `body` is the JSON of a GenerateContentRequest, `names` maps the names of tools that travel under another
    one back to the client's, `custom` holds the client's names of tools that take free text. `served` is
    `None` unless the provider runs functions itself (MCP); then it holds the upstream names of those that
    are the client's to run all the same.
    """

    body: bytes
    names: Mapping[str, str] = {}
    custom: frozenset[str] = frozenset()
    served: frozenset[str] | None = None


def encode_request(
    request: Request,
    target: Target,
    notes: Notes,
    *,
    candidates: int | None = None,
    sentinel: bool = False,
    continuation: str | None = None,
    options: EncodeOptions = _DEFAULT_OPTIONS,
) -> Encoded:
    """Encode a request for one attempt against one target.

    `candidates` is how many answers this call is to give (`None`: as many as the client wants), `sentinel`
    replaces the current turn's thought signatures after the service refused one, `continuation` is the token
    of an answer that goes on. Raises `InvalidRequestError` naming the client's field.
    """
    changed = renamed(request)
    capable = profile(target.model or request.model, target.backend)
    context = Context(request, target, capable, notes, changed, options, sentinel)
    extras = read_extras(request, notes, target.backend) if request.extra else NOTHING
    try:
        encoded = _encode(_body(context, extras, candidates, continuation))
    except UnicodeEncodeError:
        raise InvalidRequestError("The request holds text that is not valid Unicode.") from None
    if not request.tools and changed is UNCHANGED and extras is NOTHING:
        return Encoded(encoded)
    custom = [tool.name for tool in request.tools if isinstance(tool, CustomTool)]
    names = {upstream: name for name, upstream in changed.items()}
    served = None if extras.served is None else _served(context, extras.served)
    return Encoded(encoded, names, frozenset(custom), served)


def _served(context: Context, served: frozenset[str]) -> frozenset[str]:
    own = (tool.name for tool in context.request.tools if not isinstance(tool, HostedTool))
    return served | frozenset(context.upstream_name(name) for name in own)


def _body(
    context: Context, extras: Extras, candidates: int | None, continuation: str | None
) -> GenerateContentRequest:
    request = context.request
    conversation = encode_conversation(context)
    tools, thinking = NO_TOOLS, None
    if request.tools or request.tool_choice is not None:
        tools = encode_tools(context, built_ins=extras.built_ins)
    if request.reasoning is not None or extras.thinking is not None or context.options.thoughts:
        thinking = encode_thinking(context, extras.thinking)
    body = GenerateContentRequest(
        contents=conversation.contents,
        system_instruction=conversation.system,
        tools=tools.tools,
        tool_config=tools.config,
        generation_config=encode_generation(context, candidates, thinking),
        continuation_token=continuation,
    )
    if context.options.safety_settings is not None:
        body = replace(body, safety_settings=context.options.safety_settings)
    if request.service_tier is not None:
        body = replace(body, service_tier=_service_tier(request.service_tier, context))
    if request.metadata:
        body = replace(body, labels=_labels(request.metadata, context))
    return merge(body, extras, context) if request.extra else body


def _service_tier(tier: str, context: Context) -> str | None:
    """Translate the service tier; `auto` leaves it to the service."""
    path = context.request.spelled("service_tier")
    if tier == "auto" or (tier == "default" and context.on_vertex):
        return None
    if tier not in _TIERS:
        context.notes.dropped(path, f"there is no service tier {tier[:64]!r}")
        return None
    if context.on_vertex:
        context.notes.dropped(path, "Vertex AI takes the service tier in a header, not in the body")
        return None
    return _TIERS[tier]


def _labels(metadata: Mapping[str, str], context: Context) -> Mapping[str, str] | None:
    """Turn metadata into the labels of Vertex AI, which are lower case."""
    path = context.request.spelled("metadata")
    if not context.on_vertex:
        context.notes.dropped(path, "the Gemini API keeps no labels", inert=True)
        return None
    labels: dict[str, str] = {}
    for name, value in metadata.items():
        key, label = name.lower(), value.lower()
        if not (_is_label_key(key) and _is_label_value(label)) or key in labels:
            context.notes.dropped(f"{path}.{name}", "not a valid label", inert=True)
            continue
        if (key, label) != (name, value):
            context.notes.rewritten(f"{path}.{name}", "labels are lower case", inert=True)
        labels[key] = label
    return labels or None
