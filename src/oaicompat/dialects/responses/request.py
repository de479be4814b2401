"""A Responses request to the neutral form, as far as it needs nothing remembered.

One rule: what refers to stored state is refused in OpenAI's words, never ignored: the answer would be to
another conversation than the client means.
"""

from __future__ import annotations

import msgspec

from oaicompat.dialects.generation import Inert, model_of, note_unused, output_format
from oaicompat.dialects.responses.items import Reader
from oaicompat.dialects.responses.schema import REQUEST, CreateResponse
from oaicompat.dialects.responses.tools import read_all, read_any_choice, with_later
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import Message, Reasoning, Request, Text
from oaicompat.notes import Notes
from oaicompat.sampling import Sampling, scalars
from oaicompat.wire import decode_body, given
from oaicompat.wire_errors import clipped

CONTENT = frozenset({"input", "instructions", "tools", "text", "stop"})
"""Fields that hold what people and programs wrote, where "[undefined]" is a text like any other."""

LOGPROBS = "message.output_text.logprobs"

SPELLED = {
    "messages": "input",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}
"""What this dialect calls what others call otherwise, for notes and errors."""

_CACHING = Inert("the provider caches by itself")
UNUSED = {
    "user": Inert("the provider is not told who the user is"),
    "safety_identifier": Inert("the provider is not told who the user is"),
    "prompt_cache_key": _CACHING,
    "prompt_cache_options": _CACHING,
    "prompt_cache_retention": _CACHING,
    "client_metadata": Inert("it says nothing to the model"),
    "store": Inert("responses are not stored", inert=False, harmless=(b"false",)),
    "background": Inert("answers are made at once", inert=False, harmless=(b"false",)),
    "truncation": Inert("nothing is cut", inert=False, harmless=(b'"disabled"',)),
    "max_tool_calls": Inert("the number of calls cannot be limited", inert=False),
    "prompt": Inert("there are no stored prompts", inert=False),
    "context_management": Inert("the context is not compacted", inert=False, harmless=(b"[]",)),
    "moderation": Inert("answers are not moderated here", inert=False),
}
"""Fields that reach no model, and why; each leaves a note."""

_UNUSED = tuple(UNUSED.items())


def decode_request(body: bytes, notes: Notes) -> Request:
    """Decode the body of a Responses request; raises `InvalidRequestError` naming `param`."""
    wire = decode_body(body, REQUEST, notes, CONTENT)
    _refuse_state(wire)
    note_unused(wire, _UNUSED, notes)
    if wire.stream_options is not None and given(wire.stream_options.include_obfuscation):
        path = "stream_options.include_obfuscation"
        notes.dropped(path, "streams are never padded", inert=True)
    reader = Reader(notes)
    messages = _messages(wire, reader)
    tools = with_later(read_all(wire.tools or (), notes), reader.tools)
    stop = wire.stop
    form = wire.text.format if wire.text else None
    if wire.text is not None and given(wire.text.verbosity):
        inert = bytes(wire.text.verbosity) == b'"medium"'
        notes.dropped("text.verbosity", "the models have no such setting", inert=inert)
    return Request(
        model=model_of(wire.model),
        messages=messages,
        tools=tools,
        tool_choice=read_any_choice(wire.tool_choice, tools, notes),
        parallel_tool_calls=wire.parallel_tool_calls,
        sampling=_sampling(wire, notes),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        output=output_format(form, "text.format", notes),
        reasoning=_reasoning(wire, notes),
        service_tier=wire.service_tier,
        metadata=wire.metadata,
        stream=bool(wire.stream),
        include_usage=bool(wire.stream_options and wire.stream_options.include_usage),
        spelling=SPELLED,
    )


def _refuse_state(wire: CreateResponse) -> None:
    previous = wire.previous_response_id
    if previous is not None:
        raise InvalidRequestError(
            f"Previous response with id '{clipped(previous)}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    if given(wire.conversation):
        message = "Conversations are not stored here."
        raise InvalidRequestError(message, param="conversation", code="unsupported_parameter")


def _messages(wire: CreateResponse, reader: Reader) -> tuple[Message, ...]:
    messages: tuple[Message, ...] = ()
    if wire.instructions:
        messages = (Message("system", (Text(wire.instructions),), "instructions"),)
    if isinstance(wire.input, str):
        messages += (Message("user", (Text(wire.input),), "input"),)
    elif wire.input:
        messages += reader.read(wire.input)
    if not messages:
        message = "Missing required parameter: 'input'."
        raise InvalidRequestError(message, param="input", code="missing_required_parameter")
    return messages


def _sampling(wire: CreateResponse, notes: Notes) -> Sampling:
    sampling = scalars(wire)
    wanted = LOGPROBS in (wire.include or ())
    if sampling.top_logprobs and not wanted:
        notes.dropped("top_logprobs", f"include does not name {LOGPROBS}", inert=True)
    top = sampling.top_logprobs if wanted else None
    return msgspec.structs.replace(sampling, logprobs=wanted or None, top_logprobs=top)


def _reasoning(wire: CreateResponse, notes: Notes) -> Reasoning | None:
    nested = wire.reasoning
    if nested is None:
        return None
    for name in ("context", "mode"):
        if given(getattr(nested, name)):
            notes.dropped(f"reasoning.{name}", "the models have no such setting")
    visible = True if nested.summary or nested.generate_summary else None
    if nested.effort is None and visible is None:
        return None
    return Reasoning(nested.effort, visible, "reasoning.effort")
