"""Where whatever a request fails with becomes its answer: around the whole application.

One rule: every failure has an answer in OpenAI's form. That of a fault of our own is opaque, with the request's
id; the fault itself stands in the log only.
"""

from __future__ import annotations

import logging
import time

from oaicompat.dialects.chat import encode_error
from oaicompat.errors import OaicompatError
from oaicompat_server.auth import App
from oaicompat_server.bodies import ClientLeft
from oaicompat_server.framing import (
    CLOSE,
    JSON_TYPE,
    Receive,
    Scope,
    Send,
    common_headers,
    request_id_of,
    retry_headers,
    send_body,
)
from oaicompat_server.handlers.context import CONTEXT, Context
from oaicompat_server.recall import unavailable
from oaicompat_server.relay import internal_error
from oaicompat_server.store import StoreError

logger = logging.getLogger("oaicompat")


class Isolated:
    """Pure ASGI middleware that answers what the application lets escape.

    Those behind it return what is to be waited for: a request that waits keeps each coroutine around it.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as failure:
            if scope["type"] != "http":
                raise
            if not isinstance(failure, ClientLeft):
                await _answer(scope.get(CONTEXT), failure, scope, send)
        finally:
            # It refers to the scope in turn.
            context: Context | None = scope.pop(CONTEXT, None)
            if context is not None:
                context.receive.release()


async def _answer(context: Context | None, failure: Exception, scope: Scope, send: Send) -> None:
    """Answer with what a request failed with, as the handlers do where it came as far as that."""
    request_id = context.request_id if context is not None else request_id_of(scope["headers"])
    error = _error_of(failure, request_id)
    if context is not None:
        try:
            await context.refuse(error)
            return
        except Exception:
            _tell_log(request_id)
            error = internal_error(request_id)
    headers = [JSON_TYPE, CLOSE, *common_headers(request_id, time.monotonic())]
    headers += retry_headers(error)
    try:
        await send_body(send, error.status, headers, encode_error(error))
    except RuntimeError:
        # Left without an end, which closes it.
        logger.warning("request %s had been answered in part", request_id)


def _error_of(failure: Exception, request_id: str) -> OaicompatError:
    """Return what the client is told of a failure; the log is told the rest."""
    match failure:
        case OaicompatError():
            return failure
        case StoreError():
            logger.warning("request %s: %s", request_id, failure)
            return unavailable(failure)
        case _:
            _tell_log(request_id)
            return internal_error(request_id)


def _tell_log(request_id: str) -> None:
    logger.exception("request %s failed by a fault of the gateway", request_id)
