"""The SSE codec: independent of the cut, exact on the standard, liberal where Gemini deviates from it."""

from __future__ import annotations

import itertools
import time

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oaicompat import sse
from oaicompat.errors import OaicompatError, UpstreamProtocolError

EVENT = b'data: {"a": "b"}\r\n\r\n'

ERROR_BLOCK = b"""{
  "error": {
    "code": 503,
    "message": "a } brace, a \\" quote and a \\\\",
    "status": "UNAVAILABLE"
  }
}"""

# The pieces that mean something to the decoder, so that a short example reaches every state.
PIECES = st.sampled_from(
    [
        *(bytes([byte]) for byte in b"\r\n:{}[],\"\\ \tx\x00\xe2\xef\xbb\xbf"),
        *(b"data", b"data:", b"data: ", b"event: x", b"\r\n", b"\n\n", b"\r\n\r\n", EVENT, b"\xef\xbb\xbf"),
    ]
)  # fmt: skip
LINES = st.tuples(
    st.sampled_from(
        [b"", b"data: a", b"data:b", b" data: c", b"x", b": d", b'{"e": "\\""}', b"[", b","]
    ),
    st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\n\n", b""]),
).map(b"".join)
BODIES = st.lists(PIECES, max_size=24).map(b"".join) | st.lists(LINES, max_size=8).map(b"".join)
CUTS = st.lists(st.integers(0, 60), max_size=8)


def pieces_of(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


def read(pieces: list[bytes], max_event: int = sse.MAX_EVENT) -> list[bytes | str]:
    """Everything a decoder says to these pieces, a failure as its message."""
    decoder = sse.Decoder(max_event)
    said: list[bytes | str] = []
    try:
        for piece in pieces:
            said += decoder.feed(piece)
        said += decoder.close()
    except OaicompatError as error:
        said.append(error.message)
    return said


def oracle(body: bytes) -> list[bytes]:
    """The algorithm of the standard, read off the page; a last event may lack its blank line."""
    text = body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[bytes] = []
    data: list[bytes] = []
    for line in [*text.split(b"\n"), b""]:
        name, _, value = line.partition(b":")
        if line == b"":
            if data:
                events.append(b"\n".join(data))
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" "))
    return events


@given(BODIES, CUTS, st.sampled_from([1, 3, 8, sse.MAX_EVENT]))
@example(b"data:\r\n\n", [6, 7], sse.MAX_EVENT)
@example(b"data: a\r\ndata: b\n\n", [8], sse.MAX_EVENT)
@example(b" data: a\n\n", [1], sse.MAX_EVENT)
@example(b"data: a\rb\n\r\n", [3], sse.MAX_EVENT)
@example(EVENT * 2 + b"data: " + b"x" * 9, [3, 50], 17)
def test_the_cut_changes_nothing(body: bytes, cuts: list[int], max_event: int) -> None:
    assert read(pieces_of(body, cuts), max_event) == read([body], max_event)


@given(BODIES | st.binary(max_size=60), st.sampled_from([1, 3, 8, sse.MAX_EVENT]))
def test_byte_by_byte_changes_nothing(body: bytes, max_event: int) -> None:
    assert read([bytes([byte]) for byte in body], max_event) == read([body], max_event)


@given(BODIES.map(lambda body: body.replace(b"{", b"")))
@example(b"data:\r\n\n")
@example(b"data: a\n\r\ndata: b\r\n\rdata: c\n\n\n")
def test_a_body_without_unframed_objects_is_read_as_the_standard_says(body: bytes) -> None:
    assert read([body]) == oracle(body)


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"", []),
        (b"data: a\n\n", [b"a"]),
        (b"data:a\r\n\r\n", [b"a"]),
        (b"data:  a\r\r", [b" a"]),
        (b"data:\r\n\n", [b""]),
        (b"data\n\n", [b""]),
        (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\n\ndata: b", [b"a", b"b"]),
        (b"data: a\n\ndata: b\n", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"\xef\xbbdata: a\n\n", []),
        (b": ping\n\ndata: a\n\n: ping\n\n", [b"a"]),
        (b"event: x\nid: 1\nretry: 5\ndata: a\nother\n\n", [b"a"]),
        (b"Data: a\n\ndatax: b\n\n data: c\n\n", []),
        (b"data: a\rdata: b\r\n\r\n", [b"a\nb"]),
        (b"data: a\rx\n\r\n", [b"a"]),
        (b"data: a\r\ndata: b\r\n\r\n", [b"a\nb"]),
        (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
        ("data: \u2028é\x0c\x1c\n\n".encode(), ["\u2028é\x0c\x1c".encode()]),
        (b"data: [DONE]\n\n", [b"[DONE]"]),
        (b"[DONE]\n\n", []),
    ],
)
def test_framing(body: bytes, events: list[bytes]) -> None:
    assert read([body]) == events
    assert read([bytes([byte]) for byte in body]) == events


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (EVENT + ERROR_BLOCK, [b'{"a": "b"}', ERROR_BLOCK]),
        (EVENT + ERROR_BLOCK + b"\r\n\r\n" + EVENT, [b'{"a": "b"}', ERROR_BLOCK, b'{"a": "b"}']),
        (b"data: 1\r\n" + ERROR_BLOCK, [b"1", ERROR_BLOCK]),
        (b"\xef\xbb\xbf" + ERROR_BLOCK, [ERROR_BLOCK]),
        (b"\r\n  " + ERROR_BLOCK + b"\n", [ERROR_BLOCK]),
        (b"[" + ERROR_BLOCK + b"\n]", [ERROR_BLOCK]),
        (b'[{"a": 1}\n,\r\n{"a": 2}\n]', [b'{"a": 1}', b'{"a": 2}']),
        (b'[{"a":[1,{"b":"]}"}]},{}, {"c":"\\\\"}]', [b'{"a":[1,{"b":"]}"}]}', b"{}", b'{"c":"\\\\"}']),
        (b"[]", []),
        (b'{"error": {"code": 5', [b'{"error": {"code": 5']),
        (b'data: {"a":\ndata: 1}\n\n', [b'{"a":\n1}']),
    ],
)  # fmt: skip
def test_objects_outside_the_framing(body: bytes, events: list[bytes]) -> None:
    assert read([body]) == events
    assert read([bytes([byte]) for byte in body]) == events


JSON_OBJECTS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text('{}[]"\\,\n é', max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
        max_leaves=6,
    ),
    max_size=3,
)


@given(st.lists(JSON_OBJECTS, max_size=4), st.sampled_from([0, 2]), CUTS)
def test_a_json_array_comes_out_as_its_elements(
    elements: list[dict[str, object]], indent: int, cuts: list[int]
) -> None:
    texts = [msgspec.json.format(msgspec.json.encode(one), indent=indent) for one in elements]
    body = b"[" + b"\n,\r\n".join(texts) + b"\n]"
    assert read(pieces_of(body, cuts)) == texts


@given(
    st.lists(st.binary(max_size=40).map(lambda data: data.translate(None, b"\r\n")), max_size=6),
    st.none() | st.sampled_from(["response.created", "error"]),
    CUTS,
)
def test_what_is_encoded_is_decoded(events: list[bytes], name: str | None, cuts: list[int]) -> None:
    body = b"".join(sse.encode(event, name) + sse.comment("ping") for event in events)
    assert read(pieces_of(body, cuts)) == events


def test_frames_as_written() -> None:
    assert sse.encode(b"{}") == b"data: {}\n\n"
    assert sse.encode(b"{}", "error") == b"event: error\ndata: {}\n\n"
    assert sse.comment("a\r\ndata: b") == b": a  data: b\n\n"
    assert sse.DONE == b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "body",
    [
        b"data: 123456\r\n\r\n",
        b"data: 12\ndata: 34\ndata: 56\ndata: 78\n\n",
        b": a comment\n\n",
        b'{"a": "12345"}',
        b"data: 123456789",
    ],
)
@pytest.mark.parametrize("size", [1, 4, 100])
def test_what_is_too_long_fails_after_the_events_before_it(body: bytes, size: int) -> None:
    whole = b"data: 1\n\ndata: 2\n\n" + body
    decoder = sse.Decoder(max_event=10)
    events: list[bytes] = []

    def read_all() -> None:
        for start in range(0, len(whole), size):
            events.extend(decoder.feed(whole[start : start + size]))
        events.extend(decoder.close())

    with pytest.raises(UpstreamProtocolError) as caught:
        read_all()
    assert events == [b"1", b"2"]
    assert caught.value.status == 502
    with pytest.raises(UpstreamProtocolError):
        decoder.feed(b"data: 3\n\n")


def test_what_is_just_short_enough_passes() -> None:
    assert read([b"data: 1234\r\n\r\n"], 10) == [b"1234"]
    assert read([b"data: 12\ndata: 34\ndata: 56\n\n"], 8) == [b"12\n34\n56"]


@pytest.mark.parametrize(
    "body",
    [
        b'data: "' + b"A" * 8_000_000 + b'"\r\n\r\n',
        b'[{"a": "' + b"A" * 8_000_000 + b'"}\n]',
        b" " * 8_000_000,
    ],
)
def test_a_huge_line_in_small_reads_costs_linear_time(body: bytes) -> None:
    pieces = [body[start : start + 4096] for start in range(0, len(body), 4096)]
    started = time.process_time()
    read(list(pieces))
    # A decoder that copies what it holds on every read takes ten seconds.
    assert time.process_time() - started < 0.5


def test_many_lines_in_one_read_cost_linear_time() -> None:
    body = b"data: 1\r" * 2_000 + b": " + b"x" * 32_000_000
    started = time.process_time()
    assert len(read([body])) == 1
    # A search for the absent line feed that starts anew on every line takes seconds.
    assert time.process_time() - started < 0.5


def test_nothing_is_read_after_a_failure() -> None:
    decoder = sse.Decoder(max_event=10)
    assert decoder.feed(b"data: 1\n\n") == [b"1"]
    for data in (b"data: 123456789\n\n", b"data: 2\n\n"):
        with pytest.raises(UpstreamProtocolError):
            decoder.feed(data)


@pytest.mark.parametrize("brackets", [b"{", b'{"a":', b'[{"a":['])
def test_bare_braces_are_given_up_on_at_once(brackets: bytes) -> None:
    body = brackets * 4_000_000
    started = time.process_time()
    [said] = read([body])
    # A decoder that counts every brace takes seconds.
    assert time.process_time() - started < 0.2
    assert said == "The upstream sent an object nested more than 512 levels deep."


@given(CUTS, st.integers(0, 30))
@example([], 10)
def test_the_cut_changes_nothing_where_nesting_ends(cuts: list[int], short: int) -> None:
    body = EVENT + b'{"a":[' * (sse.MAX_NESTING // 2) + b"[" * 10
    around = [len(body) - 40 + cut for cut in cuts]
    for limit in (sse.MAX_NESTING * 3 - short, sse.MAX_EVENT):
        assert read(pieces_of(body, around), limit) == read([body], limit)
    assert read([body])[0] == b'{"a": "b"}'
    assert "levels deep" in str(read([body])[1])


def test_nesting_up_to_the_limit_passes() -> None:
    deep = b'{"a":' * sse.MAX_NESTING + b"1" + b"}" * sse.MAX_NESTING
    assert read([deep]) == [deep]
