"""What a request finds of earlier ones, and what it leaves for later ones.

One rule: an exchange names what it wants and what is to be kept as data; where that lies is decided here, and
no session asks.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from msgspec.structs import replace

from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat.supplies import Effect, Item, KeepResponse, Needs, RememberSignature, Supplies
from oaicompat_server.bodies import BodyBudget, counted
from oaicompat_server.store import NotStored, Store, StoredResponse, StoreError
from oaicompat_server.store.remembering import Signatures

LEASE_SECONDS = 60.0
"""How long a response that runs in the background counts as running after its last sign of life."""


class Recall(Protocol):
    """Finds and keeps for one client."""

    async def find(self, wanted: Needs) -> Supplies:
        """Return what is there of what is wanted; raises `OaicompatError` where the store is of no use."""
        ...

    async def keep(self, effects: Iterable[Effect]) -> None:
        """Keep what an answer leaves; raises as `find`."""
        ...

    def release(self) -> None:
        """Let go of the memory that what was found takes; the request is answered."""
        ...


class StoredRecall:
    """Finds and keeps in what requests share; `owner` is whose it is (see `auth.OWNER`)."""

    def __init__(self, signatures: Signatures, store: Store, owner: str) -> None:
        self._signatures = signatures
        self._store = store
        self._owner = owner

    async def find(self, wanted: Needs) -> Supplies:
        """Return what is there of what is wanted."""
        asked = wanted.signatures
        signatures = await self._signatures.find(self._owner, asked) if asked else {}
        if not (wanted.responses or wanted.conversations or wanted.items):
            return Supplies(signatures=signatures)
        try:
            return Supplies(
                signatures=signatures,
                responses=await self._histories(wanted.responses),
                conversations=await self._conversations(wanted.conversations),
                items=await self._store.items(self._owner, wanted.items) if wanted.items else {},
            )
        except StoreError as error:
            raise unavailable(error) from error

    async def _histories(self, ids: Iterable[str]) -> dict[str, tuple[Item, ...]]:
        found: dict[str, tuple[Item, ...]] = {}
        for response_id in ids:
            response = await self._store.find(self._owner, response_id)
            if response is None:
                continue
            if response.running_until:
                raise InvalidRequestError(
                    "The previous response has not ended yet.", param="previous_response_id"
                )
            try:
                found[response_id] = await self._store.history(
                    self._owner, response_id, time.time()
                )
            except NotStored:
                continue
        return found

    async def _conversations(self, ids: Iterable[str]) -> dict[str, tuple[Item, ...]]:
        found: dict[str, tuple[Item, ...]] = {}
        for conversation_id in ids:
            items = await self._store.conversation_items(self._owner, conversation_id, time.time())
            if items is not None:
                found[conversation_id] = items
        return found

    async def keep(self, effects: Iterable[Effect]) -> None:
        """Keep what an answer leaves."""
        for effect in effects:
            match effect:
                case RememberSignature():
                    self._signatures.remember(self._owner, effect.call_id, effect.signature)
                case KeepResponse():
                    try:
                        await self._keep_response(effect)
                    except StoreError as error:
                        raise unavailable(error) from error

    def release(self) -> None:
        """Do nothing: what is found here is small."""

    async def _keep_response(self, effect: KeepResponse) -> None:
        now = time.time()
        conversation = "" if effect.failed else effect.conversation
        if effect.store:
            kept = await self._store.save(
                self._owner, stored_response(effect, conversation, now), effect.frames, now
            )
        elif conversation:
            items = (*effect.input, *effect.output)
            kept = await self._store.add_items(self._owner, conversation, items, now)
        else:
            return
        if conversation and not kept:
            raise conversation_gone(conversation)


class CountingRecall:
    """Counts what a request goes on from like its body: at most `limit` bytes, and in the budget of all."""

    def __init__(self, stored: Recall, limit: int, budget: BodyBudget) -> None:
        self._stored = stored
        self._limit = limit
        self._budget = budget
        self._held = 0

    async def find(self, wanted: Needs) -> Supplies:
        """Return what is there of what is wanted."""
        found = await self._stored.find(wanted)
        size = counted(checked_size(found, self._limit))
        self._budget.take(size)
        self._held += size
        return found

    async def keep(self, effects: Iterable[Effect]) -> None:
        """Keep what an answer leaves."""
        await self._stored.keep(effects)

    def release(self) -> None:
        """Give back what was taken for what was found."""
        self._budget.give(self._held)
        self._held = 0


Fetch = Callable[[Sequence[str], Callable[[int], None]], Awaitable[Supplies]]
"""Returns the media at these URLs, or refuses them; tells how much memory it takes, before it does."""


class FetchingRecall:
    """Finds linked media as well, which count like the body until the request is answered."""

    def __init__(self, stored: Recall, fetch: Fetch, budget: BodyBudget) -> None:
        self._stored = stored
        self._fetch = fetch
        self._budget = budget
        self._held = 0

    async def find(self, wanted: Needs) -> Supplies:
        """Return what is there of what is wanted."""
        found = await self._stored.find(wanted)
        if not wanted.media:
            return found
        fetched = await self._fetch(wanted.media, self._hold)
        return replace(found, media=fetched.media, refused=fetched.refused)

    async def keep(self, effects: Iterable[Effect]) -> None:
        """Keep what an answer leaves."""
        await self._stored.keep(effects)

    def release(self) -> None:
        """Give back what was taken for media, and for what else was found."""
        self._stored.release()
        self._budget.give(self._held)
        self._held = 0

    def _hold(self, size: int) -> None:
        self._budget.take(size)
        self._held += size


def size_of(items: Iterable[Item]) -> int:
    """Return how many bytes items take."""
    return sum(len(item.body) for item in items)


def checked_size(found: Supplies, limit: int) -> int:
    """Return the bytes of what was stored; raises a 400 where that is more than a body may have."""
    kept = (*found.responses.values(), *found.conversations.values(), found.items.values())
    size = sum(size_of(each) for each in kept)
    if size > limit:
        raise InvalidRequestError(
            f"What this request goes on from is larger than the limit of {limit} bytes.",
            code="context_length_exceeded",
        )
    return size


def stored_response(effect: KeepResponse, conversation: str, now: float) -> StoredResponse:
    """Return what the store keeps of a response; `conversation` is what it is to be added to."""
    return StoredResponse(
        effect.id,
        float(effect.created),
        effect.body,
        effect.input,
        effect.output,
        effect.previous,
        conversation,
        now + LEASE_SECONDS if effect.running else 0.0,
    )


def conversation_gone(conversation: str) -> OaicompatError:
    """Return the error for an answer whose conversation was deleted while it was made."""
    return InvalidRequestError(
        f"Conversation with id '{conversation}' not found.", status=404, param="conversation"
    )


def unavailable(error: StoreError) -> OaicompatError:
    """Return the error for a store that cannot be used."""
    return OaicompatError(
        f"The gateway's state cannot be used now: {error}",
        status=503,
        type="server_error",
        code="state_unavailable",
    )
