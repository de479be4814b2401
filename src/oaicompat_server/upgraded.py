"""uvicorn's WebSocket protocol under limits: the counterpart of `guard` after an upgrade.

One rule: a reader that stops reading is cut, a shutdown lets what runs finish, and nothing of a request's
address is logged.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.events import Ping
from wsproto.utilities import LocalProtocolError

from oaicompat.dialects.chat import encode_error
from oaicompat.errors import InvalidRequestError
from oaicompat_server.limits import Limits
from oaicompat_server.stalling import WriteStall

DRAIN = "oaicompat.drain"
"""The type of the message that asks the application to finish and close."""

_BODY = encode_error(InvalidRequestError("The request to upgrade cannot be read."))
_UNREADABLE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)

_quiet = logging.getLogger("oaicompat.websocket")
_quiet.setLevel(logging.WARNING)


class UpgradedProtocol(WSProtocol):
    """uvicorn's wsproto protocol under `limits`; `upgraded()` makes a class with other limits."""

    limits: ClassVar[Limits] = Limits()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.logger = _quiet
        self._write_stall = WriteStall(self.loop, self.limits.write_stall_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._write_stall.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends; a head that cannot be read gets a 400, as any other such request."""
        try:
            super().data_received(data)
        except (LocalProtocolError, UnicodeError):
            if not (self.handshake_complete or self.transport.is_closing()):
                self.transport.write(_UNREADABLE)
            self._write_stall.close(self.transport)

    def handle_ping(self, event: Ping) -> None:
        """Answer a ping, unless the client does not read: its pongs would pile up in memory."""
        if self.writable.is_set():
            super().handle_ping(event)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_stall.begin(self.transport)

    def resume_writing(self) -> None:
        self._write_stall.resume(self.transport)
        super().resume_writing()

    def shutdown(self) -> None:
        """Ask the application to close once what runs has ended."""
        if self.handshake_complete and not self.close_sent:
            message: Any = {"type": DRAIN}
            self.queue.put_nowait(message)
        elif not self.transport.is_closing():
            super().shutdown()


def upgraded(limits: Limits) -> type[UpgradedProtocol]:
    """Return a protocol class, as uvicorn's `ws` setting takes it, that keeps `limits`."""
    return type("UpgradedProtocol", (UpgradedProtocol,), {"limits": limits})
