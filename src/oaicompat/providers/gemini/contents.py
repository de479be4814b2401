"""Messages to contents: the conversation as Gemini accepts it.

One rule: the client's turns keep their words and their order; what the service demands of their shape (it
starts with a user turn, neighbours of one role are one turn, every call is answered at once) is met with the
least that does it, and reported. Sources: mappings 1.4 and B, gemini-wire section 3 "Conversation rules".
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import Message, Text, ToolResult
from oaicompat.messages import Part as NeutralPart
from oaicompat.providers.gemini.context import Context
from oaicompat.providers.gemini.model_turns import ModelTurn
from oaicompat.providers.gemini.parts import encode_part
from oaicompat.providers.gemini.schema import Content, Part, TextPart
from oaicompat.providers.gemini.tool_turns import encode_results, unasked_result

_SPACE = TextPart(" ")


class Conversation(Struct, frozen=True, gc=False):
    """The two places a conversation goes to."""

    system: Content | None
    contents: list[Content]


class UserTurn(Struct, gc=False):
    """Everything the client says between two model turns."""

    path: str
    parts: list[Part | TextPart] = []
    results: list[ToolResult] = []

    def add(self, message: Message, context: Context) -> None:
        for part in message.parts:
            if type(part) is Text and part.signature is None:
                if part.text:
                    self.parts.append(TextPart(part.text))
            elif type(part) is ToolResult:
                if self.parts:
                    why = "the result is sent before what stands between it and its call"
                    context.notes.approximated(part.path or message.path, why)
                self.results.append(part)
            elif (encoded := encode_part(part, message.path, context)) is not None:
                self.parts.append(encoded)


Turn = UserTurn | ModelTurn


def encode_conversation(context: Context) -> Conversation:
    """Encode all messages.

    Raises `InvalidRequestError` for what no legal conversation can hold: no messages, results without
    calls, arguments that are not a JSON object, media the backend cannot read, and a trailing assistant
    message where the model takes none.
    """
    messages = context.request.messages
    count = 0
    for message in messages:
        if message.role != "system":
            break
        count += 1
    if count == len(messages):
        count = 0
        why = "there are only system messages; sent as the user"
        for message in messages:
            context.notes.approximated(message.path, why)
    said = messages[count:] if count else messages
    contents = _texts(said)
    if contents is None:
        turns = _turns(said, context)
        if not turns:
            where = context.request.spelled("messages")
            raise InvalidRequestError("The messages have no content.", param=where)
        contents = _contents(turns, context)
    return Conversation(_system(messages[:count], context) if count else None, contents)


def _texts(messages: Sequence[Message]) -> list[Content] | None:
    """Return what most conversations become: one text a turn, the user's first and last; None for others."""
    contents: list[Content] = []
    users = True
    for message in messages:
        part = message.parts[0] if len(message.parts) == 1 else None
        if type(part) is not Text or part.signature is not None or not part.text:
            return None
        if message.role != ("user" if users else "assistant"):
            return None
        contents.append(Content("user" if users else "model", (TextPart(part.text),)))
        users = not users
    return None if users else contents


def _system(leading: Sequence[Message], context: Context) -> Content | None:
    parts: list[TextPart] = []
    for message in leading:
        for part in message.parts:
            if not isinstance(part, Text):
                context.notes.dropped(message.path, "system instructions hold only text")
            elif part.text:
                parts.append(TextPart(part.text))
    return Content(parts=parts) if parts else None


def _turns(messages: Sequence[Message], context: Context) -> list[Turn]:
    """Group messages into turns that alternate; a model turn without parts vanishes."""
    turns: list[Turn] = []
    last: Turn | None = None
    current_from: int | None = None
    only_system = messages[0].role == "system" if messages else False
    for index, message in enumerate(messages):
        if message.role == "assistant":
            if current_from is None:
                current_from = _last_user(messages)
            turn = last if type(last) is ModelTurn else ModelTurn(index > current_from)
            turn.add(message, context)
            if turn is not last and turn.parts:
                turns.append(turn)
                last = turn
            continue
        if message.role == "system" and not only_system:
            context.notes.approximated(
                message.path, "a system message after the first turn is sent as the user's"
            )
        if type(last) is not UserTurn:
            last = UserTurn(message.path)
            turns.append(last)
        last.add(message, context)
    return turns


def _last_user(messages: Sequence[Message]) -> int:
    """Find the last real user message: signatures are checked only after it."""
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if message.role == "user":
            for part in message.parts:
                if _says_something(part):
                    return index
    return -1


def _says_something(part: NeutralPart) -> bool:
    return part.text != "" if type(part) is Text else type(part) is not ToolResult


def _contents(turns: Sequence[Turn], context: Context) -> list[Content]:
    contents: list[Content] = []
    if isinstance(first := turns[0], ModelTurn):
        context.notes.approximated(first.path, "a blank user turn was put before the first answer")
        contents.append(Content("user", (_SPACE,)))
    model: ModelTurn | None = None
    for turn in turns:
        if isinstance(turn, ModelTurn):
            model = turn
            contents.append(Content("model", turn.parts))
            continue
        parts = turn.parts
        if model is not None and model.calls:
            # The results of its calls come first, in a turn of their own.
            responses, following = encode_results(model.calls, turn.results, context)
            contents.append(Content("user", responses))
            parts = [*following, *parts]
        elif turn.results:
            raise unasked_result(turn.results)
        elif not parts:
            context.notes.approximated(turn.path, "an empty user turn is sent as one space")
            parts = [_SPACE]
        if parts:
            contents.append(Content("user", parts))
        model = None
    if model is not None:
        _end(model, contents, context)
    return contents


def _end(model: ModelTurn, contents: list[Content], context: Context) -> None:
    """Add what a conversation that ends with the assistant needs."""
    if model.calls:
        contents.append(Content("user", encode_results(model.calls, (), context)[0]))
    elif not context.profile.prefill:
        raise InvalidRequestError(
            "This model does not support assistant message prefill: "
            "the conversation must end with a user message.",
            param=model.path or context.request.spelled("messages"),
        )
