"""Streams whose frames are there already, or come from somebody else's work.

One rule: the client's leaving ends the work of asking for more; a failure after the first frame is told in
band.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from oaicompat.dialects.responses.broken import error_frame
from oaicompat.errors import InvalidRequestError, OaicompatError
from oaicompat.events import Frame
from oaicompat_server.cuts import Cuts, shutting_down
from oaicompat_server.framing import Answer, common_headers
from oaicompat_server.handlers.context import Context
from oaicompat_server.leaving import listen
from oaicompat_server.recall import unavailable
from oaicompat_server.span import Span
from oaicompat_server.store import StoreError

logger = logging.getLogger("oaicompat")


async def send_stream(
    context: Context, frames: AsyncIterator[tuple[Frame, ...]], cuts: Cuts
) -> None:
    """Send frames as they come; returns when they are sent, or the client has left.

    Raises `OaicompatError` and `StoreError` where nothing was sent yet.
    """
    answer = Answer(context.send, True, lambda: common_headers(context.request_id, context.started))
    span = Span(cuts.following)
    ignore = listen(context.scope, context.receive, lambda: span.end("left"))
    try:
        await _send(answer, frames, span)
    finally:
        ignore()


async def _send(answer: Answer, frames: AsyncIterator[tuple[Frame, ...]], span: Span) -> None:
    last = -1
    try:
        with span:
            async for each in frames:
                await answer.write(each)
                last = max(last, *(frame.sequence for frame in each))
        if span.ended == "left":
            return
        if span.ended == "cut":
            raise shutting_down()
    except (OaicompatError, StoreError) as error:
        if not answer.started:
            raise
        logger.warning("a stored stream was broken off: %s", error)
        told = unavailable(error) if isinstance(error, StoreError) else error
        await answer.fail(told, [error_frame(told, last + 1)])
        return
    if not answer.started:
        raise InvalidRequestError("The events of this response were not kept.", param="stream")
    await answer.end()
