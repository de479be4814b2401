"""One request as the handlers see it, and the replies they make of it.

One rule: every reply carries the common headers, and a refusal closes the connection only where some of the
body was not read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from oaicompat.dialects.chat import encode_error
from oaicompat.errors import OaicompatError
from oaicompat_server.bodies import Reading, has_body
from oaicompat_server.framing import (
    JSON_TYPE,
    Fields,
    Headers,
    Send,
    common_headers,
    find_header,
    refuse,
    retry_headers,
    send_body,
)

CONTEXT = "oaicompat.context"
"""Where the router leaves in the scope the `Context` of a request."""


class Route(Struct, frozen=True):
    """What a path means: the canonical suffix, and the ids the path holds."""

    suffix: str
    id: str = ""
    item: str = ""


class Context(Struct, frozen=True):
    """One request; `started` is on the monotonic clock, `owner` tells whose it is (see `auth.OWNER`)."""

    scope: Any
    headers: Fields
    receive: Reading
    send: Send
    route: Route
    request_id: str
    started: float
    method: str
    owner: str

    async def reply(self, data: object, headers: Headers | None = None) -> None:
        """Answer 200 with JSON: bytes are JSON already."""
        body = data if isinstance(data, bytes) else msgspec.json.encode(data)
        more = common_headers(self.request_id, self.started)
        await send_body(self.send, 200, [JSON_TYPE, *more, *(headers or ())], body)

    async def refuse(self, error: OaicompatError, more: Headers | None = None) -> None:
        """Answer with an error; what is held for the body is let go first."""
        self.receive.release()
        headers = [*common_headers(self.request_id, self.started), *(more or ())]
        if error.status == 426 and find_header(headers, b"upgrade") is None:
            headers.append((b"upgrade", b"HTTP/1.1"))
        if has_body(self.headers) and not self.receive.complete:
            await refuse(self.receive, self.send, error, headers)
            return
        headers += [JSON_TYPE, *retry_headers(error)]
        await send_body(self.send, error.status, headers, encode_error(error))


Handler = Callable[[Context], Awaitable[None]]
Table = Mapping[str, Mapping[str, Handler]]
"""Handlers by canonical suffix and method."""


def read_only(handler: Handler) -> dict[str, Handler]:
    """Return the methods of a route that is only read."""
    return {"GET": handler, "HEAD": handler}


def shown(text: str) -> str:
    """Return a text of the client's, safe and short enough to quote."""
    return "".join(one if one.isprintable() else "?" for one in text[:200])
