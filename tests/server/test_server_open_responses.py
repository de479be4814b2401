"""The HTTP rows of the public compliance suite of Open Responses, over real sockets.

Each row asks what the row of that name asks, checks what it checks, and that the words reached the model. The
rows over WebSocket stand in `test_server_websocket.py`.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.support.asking import Reply, ask, check
from tests.support.gateway import Gateway, gateway
from tests.support.open_responses import check_item, streamed, whole

Json = dict[str, Any]

WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "Tell the weather of a place.",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "A city and its state."}},
        "required": ["location"],
    },
}
ARGUMENTS = {"location": "San Francisco, CA"}
CALL = f"#script:tool-then-text #call:{json.dumps({'name': 'get_weather', 'args': ARGUMENTS})}"
ASK_WEATHER = f"How is the weather in San Francisco? {CALL}"


@pytest.fixture(scope="module")
def served() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


def said(role: str, content: str | list[Json], **more: Any) -> Json:
    return {"type": "message", "role": role, "content": content, **more}


def post(served: Gateway, body: Json) -> Reply:
    reply = ask(served, "POST", "/v1/responses", body)
    assert reply.status == 200, reply.content
    return reply


def answer(served: Gateway, *items: Json, **more: Any) -> Json:
    """Ask as the rows do; return a response that has all a response must have."""
    body = {"model": "gpt-4o", "input": list(items), "stream": False, **more}
    reply = post(served, body)
    assert reply.headers["content-type"] == "application/json"
    response = whole(reply.content, body)
    assert response["status"] == "completed"
    assert response["output"]
    return response


def events(served: Gateway, *items: Json, **more: Any) -> list[Json]:
    body = {"model": "gpt-4o", "input": list(items), "stream": True, **more}
    reply = post(served, body)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    return streamed(reply.content, body)


def text(response: Json) -> str:
    (message,) = [item for item in response["output"] if item["type"] == "message"]
    found: str = "".join(part["text"] for part in message["content"])
    return found


def call(response: Json) -> Json:
    found: Json
    (found,) = [item for item in response["output"] if item["type"] == "function_call"]
    assert found["name"] == "get_weather"
    assert json.loads(found["arguments"]) == ARGUMENTS
    return found


def sent(served: Gateway, words: str) -> Json:
    """Return the newest upstream request in which these words stand."""
    bodies = [record.body for record in served.simulator.requests]
    found: Json = next(body for body in reversed(bodies) if words in json.dumps(body))
    return found


def roles(body: Json) -> list[str]:
    return [content["role"] for content in body["contents"]]


def inlined(body: Json) -> Json:
    found: Json
    (found,) = [
        part["inlineData"]
        for content in body["contents"]
        for part in content["parts"]
        if "inlineData" in part
    ]
    return found


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def image() -> str:
    """Return 32 by 32 red points as a PNG, in base64."""
    lines = (b"\0" + b"\xff\0\0" * 32) * 32
    head = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def row_basic_response(served: Gateway) -> None:
    response = answer(served, said("user", "Greet me in three words."))
    assert text(response) == "Greet me in three words."


def row_assistant_phase(served: Gateway) -> None:
    response = answer(
        served,
        said("assistant", "I look it up.", phase="commentary"),
        said("assistant", "It is 42.", phase="final_answer"),
        said("user", "Say it again, briefly."),
    )
    assert text(response) == "Say it again, briefly."
    assert "It is 42." in json.dumps(sent(served, "I look it up."))


def row_streaming_response(served: Gateway) -> None:
    told = events(served, said("user", "Count up to five."))
    deltas = [event["delta"] for event in told if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == text(told[-1]["response"]) == "Count up to five."
    assert told[-1]["type"] == "response.completed"


def row_system_prompt(served: Gateway) -> None:
    answer(served, said("system", "Speak as a sailor."), said("user", "Greet the harbour."))
    body = sent(served, "Greet the harbour.")
    assert body["systemInstruction"]["parts"] == [{"text": "Speak as a sailor."}]
    assert roles(body) == ["user"]


def row_tool_calling(served: Gateway) -> None:
    response = answer(served, said("user", ASK_WEATHER), tools=[WEATHER])
    assert call(response)["status"] == "completed"
    (tool,) = response["tools"]
    assert {name: tool[name] for name in WEATHER} == WEATHER


def row_image_input(served: Gateway) -> None:
    data = image()
    parts = [
        {"type": "input_text", "text": "What is in the picture?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{data}"},
    ]
    assert "What is in the picture?" in text(answer(served, said("user", parts)))
    shown = inlined(sent(served, "What is in the picture?"))
    assert shown == {"mimeType": "image/png", "data": data}


def row_multi_turn(served: Gateway) -> None:
    answer(
        served,
        said("user", "I am called Ada."),
        said("assistant", "Good day, Ada."),
        said("user", "How am I called?"),
    )
    body = sent(served, "How am I called?")
    assert roles(body) == ["user", "model", "user"]
    assert body["contents"][1]["parts"] == [{"text": "Good day, Ada."}]


def row_compact_response(served: Gateway) -> None:
    body = {
        "model": "gpt-4o",
        "input": [said("user", "My dog is Rex."), said("assistant", "A fine name.")],
        "prompt_cache_key": "compact-row",
    }
    reply = ask(served, "POST", "/v1/responses/compact", body)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    resource = reply.data
    check("CompactResource", resource)
    assert resource["object"] == "response.compaction"
    assert type(resource["created_at"]) is int
    assert resource["usage"]["total_tokens"] > 0
    (compaction,) = [item for item in resource["output"] if item["type"] == "compaction"]
    check_item(compaction)
    goes_on = answer(served, *resource["output"], said("user", "Who is the dog?"))
    assert text(goes_on).endswith("Who is the dog?")
    assert "My dog is Rex." in json.dumps(sent(served, "Who is the dog?"))


def row_compact_missing_model(served: Gateway) -> None:
    reply = ask(served, "POST", "/v1/responses/compact", {"input": [said("user", "Hello.")]})
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["message"] == "you must provide a model parameter"


def row_tool_calling_streaming(served: Gateway) -> None:
    told = events(served, said("user", ASK_WEATHER), tools=[WEATHER])
    called = call(told[-1]["response"])
    items = [event for event in told if event.get("item", {}).get("type") == "function_call"]
    assert [event["type"] for event in items] == [
        "response.output_item.added",
        "response.output_item.done",
    ]
    assert [event["item"]["id"] for event in items] == [called["id"]] * 2
    assert items[0]["item"]["arguments"] == ""
    pieces = [e for e in told if e["type"].startswith("response.function_call_arguments.")]
    assert {piece["item_id"] for piece in pieces} == {called["id"]}
    assert len(pieces) > 1
    assert "".join(piece["delta"] for piece in pieces[:-1]) == called["arguments"]
    assert pieces[-1]["arguments"] == called["arguments"]


def row_file_input(served: Gateway) -> None:
    data = base64.b64encode(b"%PDF-1.4\n%%EOF\n").decode()
    file = {
        "type": "input_file",
        "filename": "paper.pdf",
        "file_data": f"data:application/pdf;base64,{data}",
    }
    ask_for = {"type": "input_text", "text": "What does the paper say?"}
    assert "What does the paper say?" in text(answer(served, said("user", [ask_for, file])))
    shown = inlined(sent(served, "What does the paper say?"))
    assert (shown["mimeType"], shown["data"]) == ("application/pdf", data)


def row_previous_response_id(served: Gateway) -> None:
    first = answer(served, said("user", "My cat is Tom."))
    assert first["store"] is True
    second = answer(served, said("user", "Who is the cat?"), previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    assert second["id"] != first["id"]
    body = sent(served, "Who is the cat?")
    assert roles(body) == ["user", "model", "user"]
    assert body["contents"][0]["parts"] == [{"text": "My cat is Tom."}]


def row_function_call_round_trip(served: Gateway) -> None:
    choice = {"type": "function", "name": "get_weather"}
    asked = said("user", f"And the wind? {CALL}")
    first = answer(served, asked, tools=[WEATHER], tool_choice=choice)
    called = call(first)
    output = {
        "type": "function_call_output",
        "call_id": called["call_id"],
        "output": "A fresh breeze from the west.",
    }
    second = answer(served, output, tools=[WEATHER], previous_response_id=first["id"])
    assert "A fresh breeze from the west." in text(second)
    body = sent(served, "A fresh breeze from the west.")
    assert roles(body) == ["user", "model", "user"]
    assert body["contents"][1]["parts"][-1]["functionCall"]["args"] == ARGUMENTS


ROWS: tuple[Callable[[Gateway], None], ...] = (
    row_basic_response,
    row_assistant_phase,
    row_streaming_response,
    row_system_prompt,
    row_tool_calling,
    row_image_input,
    row_multi_turn,
    row_compact_response,
    row_compact_missing_model,
    row_tool_calling_streaming,
    row_file_input,
    row_previous_response_id,
    row_function_call_round_trip,
)


@pytest.mark.parametrize("row", ROWS, ids=[row.__name__.removeprefix("row_") for row in ROWS])
def test_row(served: Gateway, row: Callable[[Gateway], None]) -> None:
    row(served)


def test_every_row_at_once(served: Gateway) -> None:
    """The suite starts all its rows together."""
    with ThreadPoolExecutor(2 * len(ROWS)) as threads:
        for done in [threads.submit(row, served) for row in ROWS * 2]:
            done.result(20)


def test_everybody_gets_the_answer_to_what_they_asked(served: Gateway) -> None:
    def one(number: int) -> list[str]:
        message = said("user", f"This is question {number}.")
        streaming = number % 2
        response = events(served, message)[-1]["response"] if streaming else answer(served, message)
        assert text(response) == f"This is question {number}."
        return [response["id"], *(item["id"] for item in response["output"])]

    with ThreadPoolExecutor(16) as threads:
        ids = [each for found in threads.map(one, range(32)) for each in found]
    assert len(set(ids)) == len(ids) >= 64


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("thoughts", "completed"),
        ("long:20", "completed"),
        ("max-tokens", "incomplete"),
        ("thinking-ate-all", "incomplete"),
        ("finish:SAFETY", "incomplete"),
        ("block:SAFETY", "incomplete"),
        ("parallel-calls", "completed"),
        ("partial-args", "completed"),
        ("long:9 #script:cut-after:3", "failed"),
        ("long:9 #script:error-after:3", "failed"),
    ],
)
def test_however_an_answer_ends_its_events_are_known(script: str, status: str) -> None:
    more = {"reasoning": {"effort": "low", "summary": "auto"}, "tools": [WEATHER]}
    # A gateway of its own: what fails rests its credential.
    with gateway() as fresh:
        told = events(fresh, said("user", f"A long story. #script:{script}"), **more)
    assert told[-1]["response"]["status"] == status


def reads(served: Gateway, body: Json) -> tuple[bytes, list[bytes]]:
    """Ask on a plain socket; return the head of the answer and what each read after it gave."""
    data = json.dumps({"model": "gpt-4o", "stream": True, **body}).encode()
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plug:
        plug.sendall(
            b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (served.port, len(data), data)
        )
        received = b""
        while b"\r\n\r\n" not in received:
            received += plug.recv(1 << 20)
        head, _, rest = received.partition(b"\r\n\r\n")
        return head, [each for each in (rest, *iter(lambda: plug.recv(1 << 20), b"")) if each]


def payloads(body: bytes) -> list[bytes]:
    """Take the chunks of HTTP apart; fails where one of them is not whole."""
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n", "half a chunk"
        found.append(rest[:length])
        body = rest[length + 2 :]
    return found


def are_frames(payload: bytes) -> bool:
    """Tell whether these are whole frames, each a name and one line of data."""
    *frames, rest = payload.split(b"\n\n")
    for frame in frames:
        name, _, data = frame.rpartition(b"data: ")
        if data == b"[DONE]":
            assert name == b""
        else:
            assert name == b"event: %s\n" % json.loads(data)["type"].encode()
    return rest == b"" and frames != []


def test_every_read_of_the_network_ends_with_a_frame(served: Gateway) -> None:
    """The suite's reader forgets half a frame at each read, and reads CRLF as no end of a line."""
    head, got = reads(served, {"input": "#script:long:6 #script:pace:40 x"})
    assert head.startswith(b"HTTP/1.1 200")
    lines = head.decode().lower().split("\r\n")
    assert "content-type: text/event-stream; charset=utf-8" in lines
    assert "cache-control: no-cache" in lines
    assert "transfer-encoding: chunked" in lines
    assert not [line for line in lines if line.startswith("content-length")]
    assert len([read for read in got if b"response.output_text.delta" in read]) >= 5
    sizes = [payloads(read) for read in got]
    frames = [payload for found in sizes for payload in found]
    assert frames.pop() == b""
    assert all(are_frames(each) for each in frames)
    whole_body = b"".join(frames)
    assert b"\r" not in whole_body
    assert whole_body.endswith(b"\n\ndata: [DONE]\n\n")
    streamed(whole_body, {})


def test_a_frame_larger_than_a_read_is_one_chunk(served: Gateway) -> None:
    words = "long words\r\n " * 40_000
    _, got = reads(served, {"input": "x", "instructions": words})
    assert len(got) > 1
    *frames, end = payloads(b"".join(got))
    assert end == b""
    assert all(are_frames(each) for each in frames)
    told = streamed(b"".join(frames), {})
    assert told[-1]["response"]["instructions"] == words
