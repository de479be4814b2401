"""The plain chat request, which most small ones are: texts, a few numbers and nothing else.

It changes cost, never the outcome: what is not plain does not decode here and is left to `request`; what does
becomes the request that comes of it there, where nothing is noted either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import astuple, replace

from oaicompat.dialects.chat.schema import SPELLING, SPELLINGS
from oaicompat.dialects.chat.turns import PATHS
from oaicompat.dialects.markdown import MARK
from oaicompat.dialects.parts import Wire
from oaicompat.messages import Message, Request, Role, Text
from oaicompat.sampling import Sampling, respell

LONGEST = 8192
"""Bytes of the longest body that is tried: in a longer one it is the bytes that cost, and may cost twice."""


class PlainMessage(Wire, tag_field="role", frozen=True):
    """A message that is one text."""

    content: str


class System(PlainMessage, tag="system", frozen=True):
    """What the application tells the model."""


class Developer(PlainMessage, tag="developer", frozen=True):
    """What newer models call system."""


class User(PlainMessage, tag="user", frozen=True):
    """What the user says."""


class Assistant(PlainMessage, tag="assistant", frozen=True):
    """An earlier answer."""


class PlainStreamOptions(Wire, frozen=True):
    """How a stream is dressed."""

    include_usage: bool | None = None


class PlainRequest(Wire, kw_only=True, frozen=True):
    """A request without its scalar parameters, which are added in front."""

    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[
        list[System | Developer | User | Assistant], Meta(min_length=1, max_length=len(PATHS))
    ]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stream: bool | None = None
    stream_options: PlainStreamOptions | None = None


_ROLES: Mapping[type[PlainMessage], Role] = {
    System: "system",
    Developer: "system",
    User: "user",
    Assistant: "assistant",
}
_SCALARS = len(Sampling.__struct_fields__)
_NOT_PLAIN = (msgspec.MsgspecError, UnicodeError, RecursionError)
_decode = msgspec.json.Decoder(respell(PlainRequest, SPELLING)).decode


def read_plain(body: bytes) -> Request | None:
    """Read a plain request; None where it is not one, or where there is more to tell of it."""
    if len(body) > LONGEST:
        return None
    try:
        wire = _decode(body)
    except _NOT_PLAIN:
        return None
    options = wire.stream_options
    messages = _messages(wire)
    if messages is None or (options is not None and not wire.stream):
        return None
    sampling = Sampling(*astuple(wire)[:_SCALARS])
    named, limit = SPELLING["max_output_tokens"], wire.max_tokens
    if sampling.top_logprobs is not None or (limit and sampling.max_output_tokens):
        return None
    if limit:
        named = "max_tokens"
        sampling = replace(sampling, max_output_tokens=limit)
    return Request(
        wire.model,
        messages,
        sampling=sampling,
        stream=wire.stream is True,
        include_usage=options is not None and options.include_usage is True,
        spelling=SPELLINGS[named],
    )


def _messages(wire: PlainRequest) -> tuple[Message, ...] | None:
    messages = []
    for index, message in enumerate(wire.messages):
        role, text = _ROLES[type(message)], message.content
        if role == "assistant" and (not text or MARK in text):
            return None
        messages.append(Message(role, (Text(text),), PATHS[index]))
    return tuple(messages)
