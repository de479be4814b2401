"""A Responses request to the neutral form.

One rule: what refers to stored state is read with it or refused in OpenAI's words, never ignored: the answer
would be to another conversation than the client means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from oaicompat.affinity import told_by
from oaicompat.dialects import Decoded, Keep
from oaicompat.dialects.declared import declared
from oaicompat.dialects.generation import Inert, Unused, model_of, output_format
from oaicompat.dialects.responses.compaction import asked_to_compact
from oaicompat.dialects.responses.items import Reader
from oaicompat.dialects.responses.memo import Memo
from oaicompat.dialects.responses.past import continued, history, resolved, wanted
from oaicompat.dialects.responses.schema import REQUEST, CreateResponse, Item
from oaicompat.dialects.responses.tools import read_all, read_any_choice, with_later
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import Message, Reasoning, Request, Text
from oaicompat.notes import Notes
from oaicompat.sampling import Sampling, scalars
from oaicompat.supplies import Item as StoredItem
from oaicompat.supplies import Supplies
from oaicompat.wire import decode_body, given

CONTENT = frozenset({"input", "instructions", "tools", "text", "stop"})
"""Fields that hold what people and programs wrote, where "[undefined]" is a text like any other."""

LOGPROBS = "message.output_text.logprobs"

TOLD = frozenset(
    {
        LOGPROBS,
        "web_search_call.action.sources",
        "code_interpreter_call.outputs",
        "reasoning.encrypted_content",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
    }
)
"""What `include` asks for that answers and listings of items tell; some of it always."""

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
    "truncation": Inert("nothing is cut", inert=False, harmless=(b'"disabled"',)),
    "max_tool_calls": Inert("the number of calls cannot be limited", inert=False),
    "prompt": Inert("there are no stored prompts", inert=False),
    "context_management": Inert("the context is not compacted", inert=False, harmless=(b"[]",)),
    "moderation": Inert("answers are not moderated here", inert=False),
}
"""Fields that reach no model, and why; each leaves a note."""

_UNUSED = Unused(UNUSED)


def decode_request(body: bytes, notes: Notes) -> Request:
    """Decode a request that refers to nothing stored; raises `InvalidRequestError` naming `param`."""
    decoded = decode(body, notes)
    return decoded.complete(Supplies()).request if isinstance(decoded, Draft) else decoded.request


def decode(body: bytes, notes: Notes, keep: Keep = "") -> Decoded | Draft:
    """Decode the body of a Responses request; raises `InvalidRequestError` naming `param`."""
    return drafted(read_body(body, notes), notes, keep)


def read_body(body: bytes, notes: Notes) -> CreateResponse:
    """Read a body as it stands, without what it refers to; raises `InvalidRequestError` naming `param`."""
    wire: CreateResponse = decode_body(body, REQUEST, notes, CONTENT)
    return wire


def drafted(
    wire: CreateResponse,
    notes: Notes,
    keep: Keep,
    finish: Callable[[Decoded], Decoded] = lambda decoded: decoded,
    *,
    compacts: bool = False,
) -> Decoded | Draft:
    """Return what a body says, or a draft of it where that refers to what is stored.

    `finish` makes of it what another call than the creation of a response needs.
    """
    draft = Draft(wire, notes, keep, finish, compacts)
    return draft if draft.needs else draft.complete(Supplies())


class Draft:
    """A request whose body was read, and that may refer to what is stored."""

    def __init__(
        self,
        wire: CreateResponse,
        notes: Notes,
        keep: Keep,
        finish: Callable[[Decoded], Decoded],
        compacts: bool,
    ) -> None:
        self._wire = wire
        self._notes = notes
        self._finish = finish
        self._compacts = compacts
        self._conversation = continued(wire)
        self.needs = wanted(wire, self._conversation)
        self._kept, self._stored = _kept(wire, self._conversation, notes, keep)

    def complete(self, found: Supplies) -> Decoded:
        """Read the request with what it refers to; raises `InvalidRequestError` for what was not found."""
        wire, reader = self._wire, Reader(self._notes)
        past = history(wire, self._conversation, found)
        messages = _messages(wire, reader, past, found)
        request = _request(wire, messages, reader, self._notes)
        compacts = self._compacts or reader.compacts
        memo = Memo(
            self._kept,
            self._stored,
            bool(wire.background) and self._stored,
            compacts,
            wire.previous_response_id or "",
            self._conversation,
            found.items,
            self._past(found) if compacts else (),
        )
        if compacts:
            request = asked_to_compact(request, self._notes)
        told = told_by(wire)
        return self._finish(Decoded(request, memo, memo.background, self._kept, told=told))

    def _past(self, found: Supplies) -> tuple[StoredItem, ...]:
        if self._conversation:
            return found.conversations[self._conversation]
        return found.responses.get(self._wire.previous_response_id or "", ())


def _kept(wire: CreateResponse, conversation: str, notes: Notes, keep: Keep) -> tuple[bool, bool]:
    """Return whether the answer is to be kept at all, and for later connections too."""
    if not keep:
        if wire.store:
            notes.dropped("store", "responses are not stored")
        if wire.background:
            notes.dropped("background", "the answer is made at once")
        return False, False
    if wire.background and wire.store is False:
        message = "Background mode requires 'store' to be true."
        raise InvalidRequestError(message, param="background", code="invalid_value")
    stored = wire.store is not False
    return stored or bool(conversation) or keep == "all", stored


def _request(
    wire: CreateResponse, messages: tuple[Message, ...], reader: Reader, notes: Notes
) -> Request:
    _UNUSED.note(wire, notes)
    for index, asked in enumerate(wire.include or ()):
        if asked not in TOLD:
            notes.dropped(f"include[{index}]", "no answer holds it")
    if wire.stream_options is not None and given(wire.stream_options.include_obfuscation):
        path = "stream_options.include_obfuscation"
        notes.dropped(path, "streams are never padded", inert=True)
    tools = with_later(declared(wire.tools, read_all, notes).tools, reader.tools, notes)
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


def _messages(
    wire: CreateResponse, reader: Reader, past: Sequence[Item], found: Supplies
) -> tuple[Message, ...]:
    messages: tuple[Message, ...] = ()
    if wire.instructions:
        messages = (Message("system", (Text(wire.instructions),), "instructions"),)
    reader.remember(past, "previous_response_id" if wire.previous_response_id else "conversation")
    if isinstance(wire.input, str):
        reader.says(wire.input)
    else:
        reader.read([resolved(item, index, found) for index, item in enumerate(wire.input or ())])
    messages += reader.messages()
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
