"""Rows B9 to B12, B17, B20: answers that are odd, broken, refused or blocked, told as what they are."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support import faulty, raw
from tests.support.faulty import Told, answers, body_of, event, failure, replying, shapes
from tests.support.gateway import Gateway
from tests.support.recordings import accepted
from tests.support.shared import needs_recordings

from oaicompat_server import upstream as upstream_module
from oaicompat_server.simulator import Body, Close, Drip, Finish, Head, Stall
from oaicompat_server.simulator.faults import Step

Json = dict[str, Any]


@pytest.fixture(scope="module", params=faulty.KINDS)
def running(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with faulty.faulty(request.param) as started:
        yield started


@pytest.fixture
def served(running: Gateway) -> Gateway:
    running.relay.pool.reset()
    return running


USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8}
STOP = {"finishReason": "STOP"}
ODD: dict[str, list[Json]] = {
    "a finish without content": [event({"text": "fine"}), event(**STOP)],
    "a finish with empty content": [
        event({"text": "fine"}),
        event(content={"role": "model"}, **STOP),
    ],
    "a finish with an empty text": [event({"text": "fine"}), event({"text": ""}, **STOP)],
    "usage after the finish": [event({"text": "fine"}, **STOP), {"usageMetadata": USAGE}],
    "usage before anything": [{"usageMetadata": USAGE}, event({"text": "fine"}, **STOP)],
    "usage that shrinks": [
        event({"text": "fine"}) | {"usageMetadata": {"totalTokenCount": 90}},
        event(**STOP) | {"usageMetadata": USAGE},
    ],
    "two finishes": [event({"text": "fi"}, **STOP), event({"text": "ne"}, **STOP)],
    "text after the finish": [event(**STOP), event({"text": "fine"}, **STOP)],
    "an empty event": [{}, event({"text": "fine"}, **STOP)],
    "no candidates in between": [
        event({"text": "fi"}),
        {"candidates": []},
        event({"text": "ne"}, **STOP),
    ],
    "unknown fields everywhere": [
        event({"text": "fine", "new": [1]}, newer={"a": None}, **STOP) | {"newest": 1.5}
    ],
    "a candidate without an index": [
        {"candidates": [{"content": {"parts": [{"text": "fine"}]}, **STOP}]}
    ],
    "a second candidate": [
        {
            "candidates": [
                {"index": 0, "content": {"parts": [{"text": "fine"}]}, **STOP},
                {"index": 1, "content": {"parts": [{"text": "other"}]}, **STOP},
            ]
        }
    ],
    "a prompt that was looked at": [
        {"promptFeedback": {"safetyRatings": []}},
        event({"text": "fine"}, **STOP),
    ],
}
"""Answers that are unusual and nonetheless whole: all say "fine"."""


def in_shapes(table: Mapping[str, Sequence[Json]]) -> pytest.MarkDecorator:
    """Parametrize over a table in every shape, but several chunks only as a stream."""
    return pytest.mark.parametrize(
        ("name", "path", "stream"),
        [
            (name, path, stream)
            for name, chunks in table.items()
            for path, stream in faulty.SHAPES
            if stream or len(chunks) == 1
        ],
    )


@in_shapes(ODD)
def test_b9_an_odd_answer_is_an_answer(served: Gateway, name: str, path: str, stream: bool) -> None:
    """Finishes without content, usage in any place, repeated finishes and unknown fields are all understood."""
    told = answers(served, replying(body_of(ODD[name], stream), stream), path, stream)
    assert faulty.success(told) == "fine"
    assert b"other" not in told.reply.content


RECORDED = [each for each in accepted() if each.candidates == 1 and len(each.body) < 40_000][::6]


@needs_recordings
@in_shapes({each.name[:40]: each.chunks for each in RECORDED})
def test_b9_what_was_recorded_is_an_answer(
    served: Gateway, name: str, path: str, stream: bool
) -> None:
    """Answers recorded from the real services reach clients whole, or as an error that says what was wrong."""
    (chunks,) = (each.chunks for each in RECORDED if each.name.startswith(name))
    told = answers(served, replying(body_of(chunks, stream), stream), path, stream)
    if any("finishReason" in json.dumps(each) for each in chunks):
        if told.error is None:
            assert told.ends
        else:
            assert failure(told)["code"] in ("malformed_function_call", "upstream_empty")
    elif told.error is not None:
        failure(told)


def test_b9_the_table_is_broad() -> None:
    """At least 25 shapes of answers are served where the recordings are there."""
    assert len(ODD) + len(RECORDED) >= (25 if RECORDED else 12)


def _google(code: int, name: str, message: str = "sentinel-free words") -> Json:
    return {"error": {"code": code, "message": message, "status": name}}


@pytest.fixture(scope="module", params=faulty.KINDS)
def pair(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with faulty.faulty(request.param, "", "", attempts=2) as started:
        yield started


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
@pytest.mark.parametrize(
    ("code", "name"), [(503, "UNAVAILABLE"), (500, "INTERNAL"), (429, "RESOURCE_EXHAUSTED")]
)
@pytest.mark.parametrize("framed", [False, True])
def test_b10_an_error_as_the_first_event_may_be_tried_again(
    pair: Gateway, path: str, code: int, name: str, framed: bool
) -> None:
    """An error inside a stream, before anything was sent to the client, is tried again as any other."""
    pair.relay.pool.reset()
    before = len(raw.calls(pair))
    body = json.dumps(_google(code, name)).encode()
    data = body_of([body], True) if framed else body + b"\n"
    assert faulty.success(answers(pair, replying(data, True), path, True)) == "hello"
    assert len(raw.calls(pair)) == before + 2


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
@pytest.mark.parametrize("framed", [False, True])
@pytest.mark.parametrize(
    ("code", "name", "told_code"),
    [(503, "UNAVAILABLE", None), (429, "RESOURCE_EXHAUSTED", "rate_limit_exceeded")],
)
def test_b10_an_error_as_the_fifth_event_ends_the_stream(
    served: Gateway, path: str, framed: bool, code: int, name: str, told_code: str | None
) -> None:
    """An error inside a stream that has begun ends it, is not tried again, and rests what is limited."""
    before = len(raw.calls(served))
    body = json.dumps(_google(code, name)).encode()
    good = body_of([event({"text": f"part {number} "}) for number in range(4)], True)
    last = body_of([body], True) if framed else body + b"\n"
    told = answers(served, replying([good, last], True), path, True)
    error = failure(told)
    if told_code:
        assert error["code"] == told_code
    assert b"part 3" in told.reply.content
    assert len(raw.calls(served)) == before + 1
    outlook = served.relay.pool.outlook(time.monotonic(), told.reply.headers["x-mapped-model"])
    assert bool(outlook.wait) == (code == 429)


SENTINEL = "sentinel-7f3a"
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.just(SENTINEL),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.just(SENTINEL), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def broken_events(draw: st.DrawFn) -> bytes:
    """Draw an event that is cut, garbage, or has a wrong type or null in some place."""
    good: Any = event({"text": SENTINEL}, finishReason="STOP") | {"usageMetadata": dict(USAGE)}
    how = draw(st.sampled_from(["cut", "garbage", "type"]))
    if how == "garbage":
        return draw(st.binary(min_size=1, max_size=30)).translate(None, b"\r\n") + b"\x00{"
    if how == "type":
        place, keys = good, draw(st.integers(1, 5))
        for _ in range(keys):
            key = draw(
                st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
            )
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner:
                break
            last, place = (place, key), inner
        else:
            place, key = last
        place[key] = draw(_JSON)
    data = json.dumps(good).encode()
    return data[: draw(st.integers(1, len(data) - 1))] if how == "cut" else data


def _honest(told: Told, *, begun: bool) -> None:
    """Fail where an answer neither ended well nor failed, or a failure quotes what it could not read."""
    if told.error is None:
        assert told.ends
        return
    error = failure(told)
    assert SENTINEL not in error["message"]
    assert "\\u0000" not in error["message"]
    assert told.reply.status == (200 if begun else 502), told.reply.content


UNCOUNTED = json.dumps(event({"text": "all"}, **STOP) | {"usageMetadata": []}).encode()
"""An end whose counts cannot be read: it was told as `stop` before it failed."""


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
@given(broken=broken_events())
@example(broken=UNCOUNTED)
def test_b11_a_broken_event_fails_the_stream(running: Gateway, path: str, broken: bytes) -> None:
    """An event that cannot be read ends the stream as an error that does not quote it."""
    running.relay.pool.reset()
    good = body_of([event({"text": "so far"})], True)
    running.simulator.enqueue(replying([good, body_of([broken], True)], True))
    told = faulty.tell(running, path, True)
    _honest(told, begun=True)
    if told.error is not None:
        assert told.error["code"] in ("upstream_malformed", "upstream_incomplete")


@shapes
@given(broken=broken_events())
def test_b11_a_broken_answer_is_a_502(
    running: Gateway, path: str, stream: bool, broken: bytes
) -> None:
    """An answer of which the first or only part cannot be read is a 502 that does not quote it."""
    running.relay.pool.reset()
    running.simulator.enqueue(replying(body_of([broken], stream), stream))
    told = faulty.tell(running, path, stream)
    _honest(told, begun=told.reply.status == 200)


SPLIT = "naïve 🙂 テスト\u2028 end"
FRAMED = body_of([event({"text": each}) for each in (SPLIT[:7], SPLIT[7:])] + [event(**STOP)], True)
VARIANTS: dict[str, bytes] = {
    "as it is": FRAMED,
    "LF": FRAMED.replace(b"\r\n", b"\n"),
    "CR": FRAMED.replace(b"\r\n", b"\r"),
    "no space": FRAMED.replace(b"data: ", b"data:"),
    "a byte order mark": b"\xef\xbb\xbf" + FRAMED,
    "comments": FRAMED.replace(b"data: ", b": comment\r\n:\r\ndata: "),
    "other fields": FRAMED.replace(b"data: ", b"event: message\r\nid: 7\r\nretry: 10\r\ndata: "),
    "lines of data": FRAMED.replace(b'"role"', b'\r\ndata: "role"'),
    "no last line end": FRAMED.removesuffix(b"\r\n"),
    "no last event end": FRAMED.removesuffix(b"\r\n\r\n"),
}


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("cut", ["whole", "bytes", "odd"])
def test_b12_framing_and_cuts_change_nothing(
    served: Gateway, path: str, name: str, cut: str
) -> None:
    """Line ends, comments, marks, several lines of data and cuts inside a character change nothing."""
    data = VARIANTS[name]
    size = {"whole": len(data), "odd": 37}.get(cut, 1)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    steps = replying(pieces, True)
    if cut == "bytes":
        steps = [steps[0], Drip(data, 0), Finish()]
    told = answers(served, steps, path, True)
    assert faulty.success(told) == SPLIT


STATUSES = (400, 401, 403, 404, 408, 409, 413, 429, 500, 502, 503, 504)
_PAGE = (
    b"<!DOCTYPE html><html><title>Error</title><p>secret AIzaSyA-sentinel-sentinel-sentinel-0000"
)
BODIES: dict[str, list[Step]] = {
    "a page": [Body(_PAGE), Finish()],
    "nothing": [Finish()],
    "5 MB": [Body(b'{"error":{"message":"' + b"x" * 5_000_000), Stall()],
    "not UTF-8": [Body(b'{"error":{"message":"\xff\xfe\x80sentinel"}}'), Finish()],
    "a cut body": [Body(b'{"error":{"code":'), Close()],
    "a body that stalls": [Body(b'{"error":{"code":'), Stall()],
}


BY_STATUS = {
    400: 400, 401: 503, 403: 403, 404: 502, 408: 503, 409: 400,
    413: 413, 429: 429, 500: 503, 502: 503, 503: 503, 504: 503,
}  # fmt: skip
"""What is told of a failure of the service itself: whose fault it is decides."""
OF_A_PAGE = {status: 502 if status < 500 else 503 for status in STATUSES} | {408: 503, 429: 503}
"""What is told of a page, which some other server before the service wrote."""


@shapes
@pytest.mark.parametrize("name", BODIES)
def test_b17_an_error_is_told_by_its_status_whatever_its_body(
    served: Gateway, path: str, stream: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page, nothing, 5 MB, or a body that is cut or stalls: the status says whose fault it was."""
    if name == "a body that stalls":
        monkeypatch.setattr(upstream_module, "ERROR_BODY_SECONDS", 0.02)
    shown = {}
    for status in STATUSES:
        served.relay.pool.reset()
        served.simulator.enqueue([Head(status, "text/html", framing="chunked"), *BODIES[name]])
        told = faulty.tell(served, path, stream)
        error = failure(told)
        assert "<" not in error["message"]
        assert "sentinel" not in told.reply.content.decode()
        shown[status] = told.reply.status
        assert told.seconds < 0.5
    assert shown == (OF_A_PAGE if name == "a page" else BY_STATUS)


BLOCKED: dict[str, list[Json]] = {
    "a blocked prompt": [{"promptFeedback": {"blockReason": "SAFETY"}}],
    "a forbidden prompt": [{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}],
    "a blocked prompt with usage": [
        {"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": USAGE}
    ],
    "an answer stopped at once": [event(finishReason="SAFETY")],
    "an answer stopped on its way": [event({"text": "so"}), event(finishReason="BLOCKLIST")],
    "a recitation": [event(finishReason="RECITATION")],
    "no candidates": [{"usageMetadata": USAGE}],
    "an empty list of candidates": [{"candidates": [], "usageMetadata": USAGE}],
}


@in_shapes(BLOCKED)
def test_b20_a_blocked_answer_is_no_empty_success(
    served: Gateway, name: str, path: str, stream: bool
) -> None:
    """A blocked prompt or answer says `content_filter`, and no answer at all is an error: neither is `stop`."""
    told = answers(served, replying(body_of(BLOCKED[name], stream), stream), path, stream)
    if "candidates" in name:
        assert failure(told)["code"] == "upstream_empty"
        return
    assert told.error is None
    assert not {"stop", "completed"} & set(told.ends)
    assert "content_filter" in told.reply.content.decode()
