"""Clients that ask a gateway until it is killed, and remember what they were told.

One rule: a response counts as told when all of its body, or its `response.completed`, has come.
"""

from __future__ import annotations

import http.client
import threading
import time
from itertools import count
from typing import Any, NamedTuple

from tests.support.processes import GatewayProcess

Json = dict[str, Any]

LANES = 6
SCRIPTS = (" #script:long:3", " #script:long:4 #script:pace:15")
"""What stands behind the words that are answered by a stream; with a pause it is often cut."""


class Told(NamedTuple):
    """A response that a client was told is complete; `words` are those of its chain, oldest first."""

    response: Json
    words: tuple[str, ...]
    conversation: str


class Lane:
    """One client: it asks, streamed and not, and goes on from what it was told, until there is nobody to ask.

    The first one has a conversation. `begun` are the streams it saw begin, `queued` what it did not wait for.
    """

    def __init__(self, turn: int, lane: int) -> None:
        self.name = f"Turn {turn}, lane {lane}"
        self.conversing = lane == 0
        self.script = SCRIPTS[lane % len(SCRIPTS)]
        self.told: list[Told] = []
        self.begun: list[str] = []
        self.queued: list[str] = []

    def run(self, served: GatewayProcess) -> None:
        try:
            self._ask(served)
        except (OSError, http.client.HTTPException):
            return

    def _ask(self, served: GatewayProcess) -> None:
        conversation = ""
        if self.conversing:
            conversation = served.data("POST", "/conversations", {})["id"]
        for number in count():
            words = f"{self.name}, question {number}."
            body: Json = {"model": "gpt-4o", "input": words}
            past: tuple[str, ...] = ()
            if conversation:
                body["conversation"] = conversation
            elif number % 4:
                last = self.told[-1]
                body["previous_response_id"] = last.response["id"]
                past = last.words
            response = self._streamed(served, body) if number % 2 else self._whole(served, body)
            self.told.append(Told(response, (*past, words), conversation))
            if number % 8 == 3:
                self.queued.append(served.create(words, background=True)["id"])

    def _whole(self, served: GatewayProcess, body: Json) -> Json:
        made: Json = served.data("POST", "/responses", body)
        return made

    def _streamed(self, served: GatewayProcess, body: Json) -> Json:
        body["input"] += self.script
        for event in served.events("/responses", {**body, "stream": True}):
            assert event["type"] not in ("error", "response.failed", "response.incomplete"), event
            if event["type"] == "response.created":
                self.begun.append(event["response"]["id"])
            if event["type"] == "response.completed":
                found: Json = event["response"]
                return found
        raise ConnectionError("the stream was cut")


def words_of(text: str) -> str:
    """Return what was asked, without a script."""
    return text.partition(" #script")[0]


def run_and_kill(served: GatewayProcess, turn: int, seconds: float) -> list[Lane]:
    """Have clients ask, and kill the gateway while they do."""
    lanes = [Lane(turn, each) for each in range(LANES)]
    threads = [threading.Thread(target=lane.run, args=(served,)) for lane in lanes]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 10
    while time.monotonic() < until and not all(lane.told for lane in lanes):
        time.sleep(0.005)
    time.sleep(seconds)
    served.kill()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return lanes
