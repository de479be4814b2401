"""What the gateway remembers between requests.

`Store` is the one interface to responses, conversations and signatures; `memory`, `sqlite` and `redis` satisfy
it alike.
One rule: every row has an owner (a digest of the client's key, empty with auth off), and what belongs to
somebody else is not there. Time is passed in as Unix seconds; items, responses and metadata are JSON that no
store reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from oaicompat.events import Frame
from oaicompat.messages import Signature
from oaicompat.supplies import Item
from oaicompat_server.store.signatures import KeptSignature, SignatureBounds, SignatureStore

__all__ = [
    "LONGEST_CHAIN",
    "Conversation",
    "Item",
    "KeptSignature",
    "NotStored",
    "SignatureBounds",
    "SignatureStore",
    "Store",
    "StoreError",
    "StoredResponse",
]


LONGEST_CHAIN = 10_000
"""How many responses may continue each other."""


class StoredResponse(Struct, frozen=True):
    """One response.

    `body` is the Response object, `input` what its request added (not what it continued), `output` its items.
    `previous` and `conversation` are ids, empty where there is none. `running_until` is 0 for a response that
    has ended; one that runs in the background is given up as lost when that time has passed.
    """

    id: str
    created: float
    body: bytes
    input: tuple[Item, ...] = ()
    output: tuple[Item, ...] = ()
    previous: str = ""
    conversation: str = ""
    running_until: float = 0.0


class Conversation(Struct, frozen=True):
    """One conversation without its items."""

    id: str
    created: float
    metadata: Mapping[str, str] = {}


class StoreError(Exception):
    """The store cannot be used now; the text holds no secret."""


class NotStored(Exception):
    """A response that another one continues is not there; `id` is its id."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id


class Store(Protocol):
    """Keeps responses, conversations and signatures. Every method may raise `StoreError`.

    What a method that writes was told is durable when it returns: it survives the end of the process at any
    moment (of the memory store, nothing does).
    """

    async def save(
        self, owner: str, response: StoredResponse, frames: Sequence[Frame], now: float
    ) -> bool:
        """Keep a response, with frames that follow those kept for it before, all or nothing.

        One that was kept before is replaced while it is running; False, and nothing is changed, where it has
        ended or was deleted meanwhile: an id that was deleted is not used again. A response that has ended
        adds its input and output to its conversation in the same step; False where that is gone.
        """
        ...

    async def append(
        self, owner: str, response_id: str, frames: Sequence[Frame], running_until: float
    ) -> bool:
        """Keep more frames of a running response; False where it has ended or was deleted."""
        ...

    async def find(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response."""
        ...

    async def frames(self, owner: str, response_id: str, after: int) -> tuple[Frame, ...]:
        """Return the frames kept for a response whose sequence is greater than `after`, in order.

        A frame whose sequence is -1 (the end mark) comes last and always.
        """
        ...

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget a response with its items and frames; False where it is not there.

        What it added to a conversation stays there.
        """
        ...

    async def history(self, owner: str, response_id: str, now: float) -> tuple[Item, ...]:
        """Return the items of a response and of all it continues, oldest first, input before output.

        Marks them all as used. Raises `NotStored` with the id of the response that is missing, and
        `StoreError` for a chain of more than `LONGEST_CHAIN` responses. One that continues itself comes once.
        """
        ...

    async def items(self, owner: str, ids: Sequence[str]) -> dict[str, Item]:
        """Return those of these items that are kept, of responses and of conversations, by id.

        Where an id occurs more than once, the item that was kept last wins.
        """
        ...

    async def create_conversation(
        self, owner: str, conversation: Conversation, items: Sequence[Item]
    ) -> None:
        """Keep a new conversation, used when it was created; one with its id is forgotten."""
        ...

    async def conversation(self, owner: str, conversation_id: str) -> Conversation | None:
        """Return a conversation."""
        ...

    async def update_conversation(
        self, owner: str, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation | None:
        """Replace the metadata of a conversation; return it."""
        ...

    async def delete_conversation(self, owner: str, conversation_id: str) -> bool:
        """Forget a conversation and its items; False where it is not there. Responses keep theirs."""
        ...

    async def add_items(
        self, owner: str, conversation_id: str, items: Sequence[Item], now: float
    ) -> bool:
        """Add items at the end of a conversation; False where it is not there."""
        ...

    async def conversation_items(
        self, owner: str, conversation_id: str, now: float
    ) -> tuple[Item, ...] | None:
        """Return the items of a conversation, oldest first, and mark it as used."""
        ...

    async def delete_item(self, owner: str, conversation_id: str, item_id: str) -> bool:
        """Take one item out of a conversation; False where it is not there. Responses keep theirs."""
        ...

    async def keep_signatures(self, rows: Sequence[KeptSignature], now: float) -> None:
        """Keep signatures of calls, each for a lifetime; of two of one call the later one stays.

        Where they become more, or larger, than the store may hold, those that were kept first are forgotten;
        one that is larger than that by itself is not kept.
        """
        ...

    async def find_signatures(
        self, owner: str, ids: Sequence[str], now: float
    ) -> dict[str, Signature]:
        """Return those signatures of these calls that are kept, by the call's id."""
        ...

    async def sweep(self, now: float) -> None:
        """Forget what was not used for the retention time, and the least recently used above the size limit.

        Saving, adding items, `history` and `conversation_items` are uses. A running response is not forgotten
        before its `running_until`.
        """
        ...

    async def aclose(self) -> None:
        """Release what is held open."""
        ...
