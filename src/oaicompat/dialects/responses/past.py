"""What a Responses request refers to: a response it continues, a conversation, single items.

One rule: what is not there is an error in the words clients look for (openai-wire section 4), and what was
compacted is read from its summary on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Raw

from oaicompat.dialects.responses.schema import (
    ConversationReference,
    CreateResponse,
    Item,
    kind_of,
)
from oaicompat.errors import InvalidRequestError
from oaicompat.notes import Notes
from oaicompat.signatures import unseal
from oaicompat.supplies import Item as StoredItem
from oaicompat.supplies import Needs, Supplies
from oaicompat.wire import decode_part
from oaicompat.wire_errors import clipped


def continued(wire: CreateResponse) -> str:
    """Return the id of the conversation a request goes on with, or an empty text."""
    conversation = wire.conversation
    if isinstance(conversation, ConversationReference):
        conversation = conversation.id
    if conversation and wire.previous_response_id:
        raise InvalidRequestError(
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. "
            "Give only one of them.",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    return conversation or ""


def wanted(wire: CreateResponse, conversation: str) -> Needs:
    """Return what a request refers to."""
    items = wire.input if isinstance(wire.input, list) else ()
    references = (item.id or "" for item in items if kind_of(item) == "item_reference")
    return Needs(
        responses=(wire.previous_response_id,) if wire.previous_response_id is not None else (),
        conversations=(conversation,) if conversation else (),
        items=tuple(dict.fromkeys(references)),
    )


def history(wire: CreateResponse, conversation: str, found: Supplies) -> tuple[Item, ...]:
    """Return the items that come before the input; raises `InvalidRequestError` where they are not there."""
    if wire.previous_response_id is not None:
        past = found.responses.get(wire.previous_response_id)
        if past is None:
            raise previous_not_found(wire.previous_response_id)
        return _since_compacted(_decoded(past))
    if conversation:
        past = found.conversations.get(conversation)
        if past is None:
            raise InvalidRequestError(
                f"Conversation with id '{clipped(conversation)}' not found.",
                status=404,
                param="conversation",
            )
        return _since_compacted(_decoded(past))
    return ()


def resolved(item: Item, index: int, found: Supplies) -> Item:
    """Return the item that a reference names, or the item itself; raises where it is not there."""
    if kind_of(item) != "item_reference":
        return item
    stored = found.items.get(item.id or "")
    if stored is None:
        raise InvalidRequestError(
            f"Item with id '{clipped(item.id or '')}' not found. Items are not persisted when `store` is set"
            " to false. Try again with `store` set to true, or remove this item from your input.",
            status=404,
            param="input",
        )
    return _read(stored, f"input[{index}]")


def previous_not_found(response_id: str) -> InvalidRequestError:
    """Return the error for a response to go on from that is not there."""
    return InvalidRequestError(
        f"Previous response with id '{clipped(response_id)}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def _decoded(past: Iterable[StoredItem]) -> list[Item]:
    return [_read(item, "previous_response_id") for item in past]


def _read(stored: StoredItem, path: str) -> Item:
    item: Item = decode_part(Raw(stored.body), Item, path, Notes())
    return item


def _since_compacted(items: Sequence[Item]) -> tuple[Item, ...]:
    """Leave out what a summary covers."""
    for position in range(len(items) - 1, 0, -1):
        if items[position].type == "compaction":
            sealed = unseal(items[position].encrypted_content or "")
            if sealed is not None and sealed.covers:
                return tuple(items[position:])
    return tuple(items)
