"""One upstream call of an exchange, with the calls that continue it.

A strand answers a run of choices. Each attempt has a decoder of its own: the first starts fresh, one that
continues an answer starts from a copy of where the last whole body ended, so that an attempt that fails leaves
nothing behind, however far it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from msgspec import Struct

from oaicompat.events import Completed, Event, Failed, Response, fold
from oaicompat.notes import Notes
from oaicompat.providers.gemini.candidate import Reading
from oaicompat.providers.gemini.counting import CountDecoder
from oaicompat.providers.gemini.errors import decode_error
from oaicompat.providers.gemini.parameters import client_parameter
from oaicompat.providers.gemini.response import Decoder

ERROR_BODY = 64 * 1024
"""Bytes of an upstream error body that are read; the rest is of no use to anybody."""


class Strand(Struct, eq=False):
    """The choices from `first`, `candidates` of them, and where their answer stands.

    `due` says that a call is to be made, `complete` that the answer is whole; `notes` are those on the request
    of the last attempt. `model` names the client's model in errors, `spelling` its parameters.
    """

    first: int
    candidates: int
    model: str
    spelling: Mapping[str, str]
    due: bool = True
    complete: bool = False
    continuation: str | None = None
    notes: Notes | None = None
    _held: tuple[Event, ...] = ()
    _decoder: Decoder | CountDecoder | None = None
    _resumed: Decoder | CountDecoder | None = None
    _status: int = 200
    _headers: Mapping[str, str] = {}
    _error_body: bytes = b""

    def begin(self, reading: Reading | None, request_notes: Notes, answer_notes: Notes) -> None:
        """Start an attempt; without a reading it counts tokens."""
        self.notes = request_notes
        # Nearly all answers are a 200: then nothing is set, which costs a struct more than asking.
        if self._status != 200:
            self._status = 200
            self._error_body = b""
        if reading is None:
            self._decoder = CountDecoder()
        elif self._resumed is None:
            self._decoder = Decoder(reading, answer_notes)
        else:
            self._decoder = self._resumed.resumed()

    def receive_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the head of the upstream's answer."""
        if status != 200:
            self._status, self._headers = status, headers

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes of the body; those of an error are kept for `close`."""
        if self._status >= 300:
            self._error_body += data[: ERROR_BODY - len(self._error_body)]
            return []
        decoder = self._decoder or self._reader()
        return decoder.feed(data)

    def close(self) -> list[Event]:
        """Take the end of the body; raises the error it was."""
        if self._status >= 300:
            raise decode_error(
                self._status,
                self._headers,
                self._error_body,
                model=self.model,
                parameter=partial(client_parameter, spelling=self.spelling),
            )
        decoder = self._reader()
        events = decoder.close()
        if decoder.continuation is not None:
            self._resumed = decoder
            self.continuation = decoder.continuation
            self.due = True
        return events

    def answer(self) -> Response | None:
        """Take the end of the body of an answer that is not streamed; return it once it is whole.

        Raises the error it was.
        """
        decoder = self._decoder
        if type(decoder) is Decoder and self._status < 300:
            plain = decoder.plain()
            if plain is not None:
                return plain
        events = self.close()
        last = events[-1] if events else None
        if type(last) is Failed:
            raise last.error
        self._held += tuple(events)
        return fold(self._held) if type(last) is Completed else None

    def _reader(self) -> Decoder | CountDecoder:
        if self._decoder is None:
            raise ValueError("an attempt is begun before its answer is read")
        return self._decoder
