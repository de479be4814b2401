"""The fast lane of plain text: what takes it, what must not, and that nobody can tell."""

from __future__ import annotations

import pytest
from tests.support.driving import ask, decoded, events_of, exchanged

from oaicompat import Options
from oaicompat.events import Delta, Metered, fold
from oaicompat.messages import Text
from oaicompat.providers.gemini.lane import Lane

END = b"\r\n\r\n"


def chunk(
    text: bytes = b'"one"',
    *,
    index: int = 0,
    counted: bytes = b'"promptTokenCount":7,"candidatesTokenCount":3',
    model: bytes = b"gemini-2.5-flash",
) -> bytes:
    return (
        b'{"candidates":[{"content":{"parts":[{"text":%s}],"role":"model"},"index":%d}],'
        b'"usageMetadata":{%s},"modelVersion":"%s","responseId":"r1"}'
        % (text, index, counted, model)
    )


def event(*args: bytes, **fields: bytes | int) -> bytes:
    return b"data: " + chunk(*args, **fields) + END  # type: ignore[arg-type]


def lane() -> tuple[Lane, list[bytes]]:
    pieces: list[bytes] = [b'"one"']
    learned = Lane()
    learned.learn(chunk(), b'"one"', 0, pieces)
    return learned, pieces


TAKEN = {
    "another text": event(b'"two"'),
    "no text": event(b'""'),
    "a quote in it": event(rb'"say \"x\""'),
    "a backslash at its end": event(rb'"c:\\"'),
    "other counts": event(b'"two"', counted=b'"promptTokenCount":9,"candidatesTokenCount":4'),
}
LEFT = {
    "another choice": event(b'"two"', index=1),
    "another model": event(b'"two"', model=b"gemini-2.5-pro"),
    "a longer count": event(b'"two"', counted=b'"promptTokenCount":7,"candidatesTokenCount":13'),
    "another count": event(b'"two"', counted=b'"promptTokenCount":7,"thoughtsTokenCount":3'),
    "a count that is gone": event(b'"two"', counted=b'"promptTokenCount":7'),
    "half a surrogate pair": event(rb'"\ud800"'),
    "bytes that are no text": event(b'"\xff"'),
    "no end of the text": b"data: " + chunk()[:60],
    "another line end": event(b'"two"').replace(END, b"\n\n"),
    "half of its end": event(b'"two"')[:-2],
    "no field": event(b'"two"')[6:],
    "nothing": b"",
}


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_takes_what_differs_in_text_and_counts_alone(data: bytes) -> None:
    learned, pieces = lane()
    events: list[object] = []
    assert learned.take(data, 0, events) == len(data)  # type: ignore[arg-type]
    assert [each.raw for each in events if isinstance(each, Delta)] == pieces[1:]
    assert learned.leave() == data[6:-4]


@pytest.mark.parametrize("data", LEFT.values(), ids=LEFT)
def test_leaves_what_differs_in_more(data: bytes) -> None:
    learned, pieces = lane()
    events: list[object] = []
    assert learned.take(data, 0, events) == 0  # type: ignore[arg-type]
    assert (events, pieces, learned.leave()) == ([], [b'"one"'], b"")


def test_takes_whole_events_up_to_the_first_that_differs() -> None:
    learned, pieces = lane()
    taken = event(b'"two"') + event(b'"three"')
    assert learned.take(taken + event(b'"four"', index=1), 0, []) == len(taken)
    assert pieces == [b'"one"', b'"two"', b'"three"']


def test_takes_nothing_before_where_it_begins() -> None:
    learned, pieces = lane()
    data = event(b'"two"') + event(b'"three"')
    assert learned.take(data, len(event(b'"two"')), []) == len(data)
    assert pieces == [b'"one"', b'"three"']


@pytest.mark.parametrize("data", [*TAKEN.values(), *LEFT.values()], ids=[*TAKEN, *LEFT])
def test_nobody_can_tell(data: bytes) -> None:
    last = b'data: {"candidates":[{"finishReason":"STOP","index":0}]}' + END
    request = ask(stream=True, stream_options={"include_usage": True})
    reads = [event(), event(b'" and"'), data, event(b'" more"'), last]
    fast = exchanged(request, reads)
    slow = exchanged(request, reads, Options(fast=False))
    assert decoded(fast.sent) == decoded(slow.sent)
    assert fast.error == slow.error


def test_the_last_counts_are_those_of_the_last_chunk_in_the_lane() -> None:
    counts = b'"promptTokenCount":7,"candidatesTokenCount":%d'
    first, *others = [event(counted=counts % number) for number in (1, 2, 5)]
    last = b'data: {"candidates":[{"finishReason":"STOP","index":0}]}' + END
    events = events_of([first, b"".join(others), last])
    assert [each.usage.output for each in events if isinstance(each, Metered)] == [5]
    assert fold(events).choices[0].parts == (Text("one" * 3),)
