"""What is done to the store while nobody asks: from time to time it forgets what it may forget.

One rule: a store that fails is asked again at the next turn; requests never wait for this.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from oaicompat_server.beside import beside
from oaicompat_server.store import Store, StoreError

SWEEP_SECONDS = 300.0

logger = logging.getLogger("oaicompat")


@asynccontextmanager
async def kept_up(store: Store, every: float | None = None) -> AsyncIterator[None]:
    """Sweep the store at once and `every` so many seconds, as long as the context lasts."""
    async with beside(_sweep(store, every or SWEEP_SECONDS)):
        yield


async def _sweep(store: Store, every: float) -> None:
    while True:
        try:
            await store.sweep(time.time())
        except StoreError as error:
            logger.warning("the store was not swept: %s", error)
        except Exception:
            logger.exception("the store was not swept by a fault of the gateway")
        await asyncio.sleep(every)
