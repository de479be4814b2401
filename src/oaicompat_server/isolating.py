"""The last place where a fault of our own is caught: around the whole application.

One rule: whatever layer fails, the client gets the same opaque answer with the request's id, and the fault
itself stands in the log only.
"""

from __future__ import annotations

import logging
import time

from oaicompat.dialects.chat import encode_error
from oaicompat_server.auth import App
from oaicompat_server.framing import (
    CLOSE,
    JSON_TYPE,
    Receive,
    Scope,
    Send,
    common_headers,
    request_id_of,
    send_body,
)
from oaicompat_server.relay import internal_error

logger = logging.getLogger("oaicompat")


class Isolated:
    """Pure ASGI middleware that answers what the application lets escape."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A layer that is no coroutine may fail as it is called, so the call stands in here too.
        try:
            await self._app(scope, receive, send)
        except Exception:
            if scope["type"] != "http":
                raise
            request_id = request_id_of(scope["headers"])
            logger.exception("request %s failed by a fault of the gateway", request_id)
            await _answer(send, request_id)


async def _answer(send: Send, request_id: str) -> None:
    """Answer where nothing was sent; an answer that has begun is left without an end, which closes it."""
    headers = [JSON_TYPE, CLOSE, *common_headers(request_id, time.monotonic())]
    try:
        await send_body(send, 500, headers, encode_error(internal_error(request_id)))
    except RuntimeError:
        logger.warning("request %s had been answered in part", request_id)
