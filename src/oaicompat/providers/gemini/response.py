"""Gemini's answer, whole or streamed, as events.

What comes in are chunks of candidates of parts; `candidate` classifies the parts, here chunks are decoded and
the answer as a whole is ended. A finish reason may come early, twice or never, so it is looked at only when
the body ends. Events follow the grammar of `oaicompat.events`: nothing comes after `Completed` or `Failed`.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from hashlib import blake2s

import msgspec
from msgspec import Struct, field

from oaicompat.errors import OaicompatError, UpstreamProtocolError
from oaicompat.events import (
    UNOPENED,
    Choice,
    Completed,
    Event,
    Failed,
    Metered,
    Opened,
    Response,
    Usage,
)
from oaicompat.messages import Text
from oaicompat.notes import Notes
from oaicompat.providers.gemini.answer_schema import (
    Candidate,
    GenerateContentResponse,
    PlainAnswer,
    PromptFeedback,
)
from oaicompat.providers.gemini.candidate import CandidateDecoder, Reading, plain_text
from oaicompat.providers.gemini.errors import decode_status
from oaicompat.providers.gemini.finish import (
    CONTINUATION,
    Ending,
    blocked,
    no_candidates,
    withheld,
)
from oaicompat.providers.gemini.lane import EVENT_END, Lane
from oaicompat.providers.gemini.parameters import client_parameter
from oaicompat.providers.gemini.usage import Counter, usage
from oaicompat.sse import Decoder as FrameDecoder

_UNREADABLE = (OaicompatError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_decode_chunk = msgspec.json.Decoder(GenerateContentResponse).decode
_decode_plain = msgspec.json.Decoder(PlainAnswer).decode


class Decoder(Struct, eq=False):
    """Decodes the body of one upstream call, in any pieces, into events.

    `feed` and `close` return what became known and never raise: what goes wrong is a `Failed` event, the last
    one. `continuation` is set after `close` where the provider wants the request again with that token; the
    body that then comes is for the decoder that `resumed` returns.
    """

    _reading: Reading
    _notes: Notes
    continuation: str | None = None
    _opened: bool = False
    _opening: Opened = UNOPENED
    _dead: bool = False
    _spent: Usage | None = None
    _feedback: PromptFeedback | None = None
    _resume: str | None = None
    _token: str = ""
    _candidates: dict[int, CandidateDecoder] = {}
    _counter: Counter = field(default_factory=Counter)
    _body: list[bytes] = []
    _frames: FrameDecoder | None = None
    _lane: Lane = field(default_factory=Lane)

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes of the body and return the events they complete."""
        events: list[Event] = []
        if not self._reading.streamed:
            self._body.append(data)
            return events
        if self._dead:
            return events
        if self._frames is None:
            self._frames = FrameDecoder()
        try:
            self._feed(self._frames, data, events)
        except _UNREADABLE as error:
            self._die(error, events)
        return events

    def _feed(self, frames: FrameDecoder, data: bytes, events: list[Event]) -> None:
        """Take event after event in the lane; one that does not match, slowly, as the next template."""
        position = 0
        while position < len(data):
            if frames.between:
                position = self._lane.take(data, position, events)
                if position == len(data):
                    return
            found = data.find(EVENT_END, position)
            end = len(data) if found < 0 else found + len(EVENT_END)
            for payload in frames.feed(data[position:end]):
                self._take_slowly(payload, events)
            position = end

    def close(self) -> list[Event]:
        """Take the end of the body and return the remaining events."""
        if self._dead:
            return []
        events: list[Event] = []
        try:
            self._end(events)
        except _UNREADABLE as error:
            self._die(error, events)
        return events

    def plain(self) -> Response | None:
        """Take the end of a whole body that is one plain text; any other is `None` here and left to `close`.

        The answer is the one that the events of the body fold to, and comes at a fraction of the cost.
        """
        reading = self._reading
        if not reading.fast or reading.candidates != 1 or self._candidates:
            return None
        try:
            answer = _decode_plain(b"".join(self._body))
        except _UNREADABLE:
            return None
        if answer.error:
            return None
        choice = Choice((Text(answer.candidates[0].content.parts[0].text),), "stop", "STOP")
        counts = answer.usage_metadata
        spent = None if counts is None else usage(counts)
        return Response((choice,), spent, answer.response_id or "", answer.model_version or "")

    def resumed(self) -> Decoder:
        """Return a decoder for a body that continues this one, which stays as it is."""
        shared = (self._reading, self._notes)
        other = deepcopy(self, {id(each): each for each in shared})
        for candidate in other._candidates.values():
            candidate.reopen()
        other._settle()
        other.continuation = other._resume = None
        other._body, other._frames, other._lane = [], None, Lane()
        return other

    def _die(self, error: Exception, events: list[Event]) -> None:
        self._dead = True
        self._open(events)
        events.append(Failed(error if isinstance(error, OaicompatError) else _malformed()))

    def _take_slowly(self, payload: bytes, events: list[Event]) -> None:
        self._leave_lane()
        chunk = _decode_chunk(payload)
        self._take(chunk, payload, events)
        if self._reading.fast and self._reading.candidates == 1:
            text = plain_text(chunk)
            if text is not None and 0 in self._candidates:
                self._lane.learn(payload, text, *self._candidates[0].open_text())

    def _leave_lane(self) -> None:
        """Count what the last chunk in the lane counted, and forget the lane."""
        last = self._lane.leave()
        counts = _decode_chunk(last).usage_metadata if last else b""
        if counts:
            self._counter.add(bytes(counts))

    def _take(self, chunk: GenerateContentResponse, payload: bytes, events: list[Event]) -> None:
        if chunk.error:
            reading = self._reading
            named = partial(client_parameter, spelling=reading.spelling)
            raise decode_status(payload, model=reading.model, parameter=named)
        if chunk.usage_metadata:
            self._counter.add(bytes(chunk.usage_metadata))
        if chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason:
            self._feedback = chunk.prompt_feedback
        if not self._opened:
            self._introduce(chunk)
        if chunk.candidates:
            if not self._token:
                token = self._reading.token or self._opening.response_id
                self._token = token or blake2s(payload, digest_size=9).hexdigest()
            self._take_candidates(chunk.candidates, events)
            self._open(events)

    def _take_candidates(self, candidates: list[Candidate], events: list[Event]) -> None:
        for position, candidate in enumerate(candidates):
            index = position if candidate.index is None else candidate.index
            if not 0 <= index < self._reading.candidates:
                self._notes.dropped("choices", "the provider returned more than asked for")
                continue
            if candidate.continuation_token:
                self._resume = candidate.continuation_token
            self._candidate(index).take(candidate, events)

    def _introduce(self, chunk: GenerateContentResponse) -> None:
        """Take the ids, which an answer without content tells before there is any event."""
        known = self._opening
        self._opening = Opened(
            known.response_id or chunk.response_id or "",
            known.model_version or chunk.model_version or "",
        )

    def _open(self, events: list[Event]) -> None:
        """Put the opening in front of the first events there are."""
        if events and not self._opened:
            self._opened = True
            events.insert(0, self._opening)

    def _candidate(self, index: int) -> CandidateDecoder:
        found = self._candidates.get(index)
        if found is None:
            number = self._reading.first + index
            found = CandidateDecoder(number, self._reading, self._notes, self._token)
            self._candidates[index] = found
        return found

    def _end(self, events: list[Event]) -> None:
        if self._frames is not None:
            for payload in self._frames.close():
                self._take_slowly(payload, events)
        elif not self._reading.streamed:
            payload = b"".join(self._body)
            self._take(_decode_chunk(payload), payload, events)
        if self._continues():
            return
        # Counts that cannot be read fail the answer, which must not have been ended by then.
        self._settle()
        self._finish(events)
        self._open(events)
        if self._spent is not None:
            events.append(Metered(self._spent))
        events.append(Completed())

    def _continues(self) -> bool:
        first = self._candidates.get(0)
        if first is None or first.native != CONTINUATION or not self._resume:
            return False
        self.continuation = self._resume
        return True

    def _finish(self, events: list[Event]) -> None:
        """End every choice: a candidate that a refused prompt cut short, or that never came, too."""
        feedback, seen = self._feedback, self._candidates
        count = wanted = self._reading.candidates
        if seen:
            count = max(seen) + 1
            if len(seen) < wanted:
                missing = f"the provider returned {wanted - len(seen)} fewer than asked for"
                self._notes.dropped("choices", missing)
        elif feedback is None:
            raise no_candidates()
        endings = [self._ending(index, feedback) for index in range(count)]
        for index, how in enumerate(endings):
            self._candidate(index).finish(how, events)

    def _ending(self, index: int, feedback: PromptFeedback | None) -> Ending:
        """Decide how a choice ended; raises before any of them is ended, so that all can be tried again."""
        seen = self._candidates.get(index)
        if feedback is not None and (seen is None or seen.native is None):
            return blocked(str(feedback.block_reason), feedback.block_reason_message)
        return withheld() if seen is None else seen.ending()

    def _settle(self) -> None:
        """Add what this body cost to what the bodies before it did."""
        self._leave_lane()
        spent = self._counter.take()
        if spent is not None:
            self._spent = self._spent + spent if self._spent else spent


def _malformed() -> UpstreamProtocolError:
    return UpstreamProtocolError(
        "The upstream sent data that could not be read.",
        code="upstream_malformed",
        cause="network",
        retryable=True,
    )
