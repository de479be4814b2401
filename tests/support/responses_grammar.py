"""Checks the events of a Responses stream against their grammar, and adds them up as a client does.

One rule: nothing is taken from the event that ends an item, only from those it grew by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

ENDS = ("response.completed", "response.incomplete", "response.failed")
_GROWING = {
    "response.output_text.delta": ("content", "text"),
    "response.refusal.delta": ("content", "refusal"),
    "response.reasoning_summary_text.delta": ("summary", "text"),
}
_WHOLE = {
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
}


class Reader:
    """Follows one stream; every rule it breaks is an assertion that fails."""

    def __init__(self) -> None:
        self.items: list[Json] = []
        self.grown: Json | None = None
        self.parts: dict[tuple[str, int], str] = {}
        self.closed: set[tuple[str, int]] = set()

    def take(self, event: Json) -> None:
        """Take an event between the first two and the last one."""
        kind = event["type"]
        if kind == "response.output_item.added":
            assert self.grown is None, "an item within an item"
            assert event["output_index"] == len(self.items)
            self.grown, self.parts, self.closed = event["item"], {}, set()
            return
        if kind in ("error", "keepalive"):
            return
        assert self.grown is not None, f"{kind} outside of an item"
        assert event["output_index"] == len(self.items)
        assert event.get("item_id", self.grown["id"]) == self.grown["id"]
        if kind == "response.output_item.done":
            self._end(event["item"])
        else:
            self._grow(kind, event)

    def _place(self, event: Json) -> tuple[str, int]:
        if "summary_index" in event:
            return "summary", event["summary_index"]
        return "content", event["content_index"]

    def _grow(self, kind: str, event: Json) -> None:
        if kind in _WHOLE:
            place = (_WHOLE[kind], 0)
            self.parts[place] = self.parts.get(place, "") + event["delta"]
        elif kind in _GROWING:
            place = self._place(event)
            assert place not in self.closed, "a closed part grows"
            self.parts[place] += event["delta"]
        elif kind.endswith("_part.added"):
            place = self._place(event)
            assert place not in self.parts, "a part begins twice"
            self.parts[place] = ""
        elif kind.endswith("_part.done"):
            place = self._place(event)
            assert place in self.parts, "a part ends that never began"
            assert place not in self.closed, "a part ends twice"
            self.closed.add(place)

    def _end(self, item: Json) -> None:
        assert self.grown is not None
        assert (item["id"], item["type"]) == (self.grown["id"], self.grown["type"])
        for (field, index), text in self.parts.items():
            if field in _WHOLE.values():
                assert item[field] == text
            else:
                part = item[field][index]
                assert part.get("text", part.get("refusal")) == text
                assert (field, index) in self.closed, "an item ends within a part"
        self.items.append(item)
        self.grown = None


def check(events: Sequence[Json]) -> tuple[list[Json], Json]:
    """Check the events of one whole stream; return the items they add up to, and the Response that ends it."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert [kind for kind in kinds if kind in ENDS] == kinds[-1:]
    reader = Reader()
    for event in events[2:-1]:
        reader.take(event)
    assert reader.grown is None, "the stream ends within an item"
    last: Json = events[-1]["response"]
    return reader.items, last
