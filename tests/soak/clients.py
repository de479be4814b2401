"""Clients of the soak: what they ask, how they misbehave, and what they make of the answers.

One rule: a client knows what it may be told. An answer that says it is complete holds its word once; everything
else has to be an error that says so.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from collections import Counter
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from tests.support.processes import KEY

FAULTS = (
    "error:429", "error:429:rate:1", "error:500", "error:503", "error:503:overloaded", "error:403",
    "html:502", "redirect:302", "garbage", "error-after:2", "framed-error-after:2", "cut-after:2",
    "cut-bytes:300", "wrong-length:50", "close-after:0", "close-after:2", "half-close-after:2",
    "reset-after:0", "reset-after:2", "stall-after:0", "stall-after:2", "gzip", "no-candidates", "empty",
    "block:SAFETY", "finish:RECITATION", "malformed-call", "idle-close:1", "drip:1", "huge:200000",
    "endless", "slow:200", "informational:3", "framing:close", "framing:length", "newline:cr", "bom",
)  # fmt: skip
"""What the upstream is told to do."""

_EXAMPLES = 20
_WAIT_SECONDS = 30.0


class Tally:
    """What all clients have seen."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.whole = 0
        self.lost = 0
        self.doubled = 0
        self.mixed = 0
        self.faults = 0
        self.examples: list[str] = []

    def example(self, what: str, seen: bytes) -> None:
        """Keep what was seen of something that must not be, some of it."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append(f"{what}: {seen[-300:]!r}")


class Client:
    """Asks one question after the other, each in its own way."""

    def __init__(self, port: int, number: int, chance: random.Random, tally: Tally) -> None:
        self._port = port
        self._number = number
        self._chance = chance
        self._tally = tally
        self._count = 0
        self._previous = ""

    async def run(self, stop: float) -> None:
        """Ask until the time is over."""
        while time.monotonic() < stop:
            self._count += 1
            chat = self._chance.random() < 0.5
            stream = self._chance.random() < 0.6
            fault = self._chance.choice(FAULTS) if self._chance.random() < 0.5 else ""
            leaves = self._chance.choice(("", "", "close", "reset", "stall"))
            word = f"w{self._number}x{self._count}w"
            text = f"{word} #script:long:6 #script:pace:5"
            if fault:
                text = f"{word} #script:{fault}"
            elif not leaves:
                text = word
            kind = f"{'chat' if chat else 'responses'} {'stream' if stream else 'plain'}"
            self._tally.asked[
                f"{kind}{' leaving' if leaves else ''}{' fault' if fault else ''}"
            ] += 1
            body = self._body(chat, stream, text)
            raw = await self._ask("/v1/chat/completions" if chat else "/v1/responses", body, leaves)
            if not leaves:
                self._judge(raw, word, chat, stream, fault)

    def _body(self, chat: bool, stream: bool, text: str) -> bytes:
        if chat:
            messages = [{"role": "user", "content": text}]
            return json.dumps({"model": "gpt-4o", "messages": messages, "stream": stream}).encode()
        body: dict[str, Any] = {"model": "gpt-4o", "input": text, "stream": stream}
        if self._previous and self._chance.random() < 0.5:
            body["previous_response_id"] = self._previous
        return json.dumps(body).encode()

    async def _ask(self, path: str, body: bytes, leaves: str) -> bytes:
        """Send a request and return all that came back; a client that leaves does so at some moment."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nConnection: close\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            if leaves:
                return await self._leave(reader, writer, leaves)
            async with asyncio.timeout(_WAIT_SECONDS):
                return await reader.read(-1)
        except TimeoutError:
            self._tally.lost += 1
            self._tally.example("no end", body)
            return b""
        except OSError:
            return b""
        finally:
            writer.close()

    async def _leave(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, how: str
    ) -> bytes:
        await asyncio.sleep(self._chance.random() * 0.08)
        if how == "reset":
            plug = writer.get_extra_info("socket")
            plug.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        if how == "stall":
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(self._chance.random() * 0.5)
        return b""

    def _judge(self, raw: bytes, word: str, chat: bool, stream: bool, fault: str) -> None:
        head, _, body = raw.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0
        if status == 500 and b"request ID" in body:
            self._tally.faults += 1
        if not status:
            self._tally.lost += 1
            self._tally.example(f"{fault or 'no fault'}: no answer", raw)
            return
        if status != 200:
            return
        text, complete = (_streamed if stream else _plain)(_unchunked(head, body), chat)
        if text is None or complete is None:
            self._tally.lost += 1
            self._tally.example(f"{fault or 'no fault'}: neither an end nor an error", body)
        elif complete and not fault:
            self._count_words(text, word, body)
        elif not complete and not fault:
            self._tally.example("an error without a fault", body)
        # What a faulty answer leaves out, its question would tell the upstream once more.
        if not chat and complete and not fault:
            self._previous = _id_of(body) or self._previous

    def _count_words(self, text: str, word: str, body: bytes) -> None:
        seen = text.count(word)
        self._tally.whole += seen == 1
        if seen == 0:
            self._tally.lost += 1
            self._tally.example("the answer is not there", body)
        if seen > 1:
            self._tally.doubled += 1
            self._tally.example("the answer is there twice", body)
        if any(part.startswith("w") and part != word for part in text.split() if "x" in part):
            self._tally.mixed += 1
            self._tally.example("the answer of another", body)


def _unchunked(head: bytes, body: bytes) -> bytes:
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)


Judged = tuple[str | None, bool | None]


def _plain(body: bytes, chat: bool) -> Judged:
    """Return the text, and whether it is said to be complete; None where the body is of no use."""
    try:
        data = json.loads(body)
        if chat:
            choice = data["choices"][0]
            return choice["message"]["content"] or "", choice["finish_reason"] == "stop"
        texts = [
            part.get("text", "") for item in data["output"] for part in item.get("content", ())
        ]
        return "".join(texts), data["status"] == "completed"
    except (ValueError, KeyError, IndexError, TypeError):
        return None, None


def _streamed(body: bytes, chat: bool) -> Judged:
    events = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    reader: Callable[[list[Any]], Judged] = _chat_events if chat else _response_events
    return reader(events)


def _chat_events(events: list[Any]) -> Judged:
    if any("error" in event for event in events):
        return "", False
    choices = [choice for event in events for choice in event.get("choices", ())]
    ends = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    if len(ends) != 1:
        return None, None
    return "".join(each["delta"].get("content") or "" for each in choices), ends[0] == "stop"


def _response_events(events: list[Any]) -> Judged:
    ends = [
        event["type"]
        for event in events
        if event["type"] in ("response.completed", "response.incomplete", "response.failed")
    ]
    if len(ends) != 1:
        return None, None
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    return "".join(deltas), ends[0] == "response.completed"


def _id_of(body: bytes) -> str:
    at = body.find(b'"resp_')
    return body[at + 1 : body.find(b'"', at + 1)].decode() if at >= 0 else ""
