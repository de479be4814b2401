"""What the simulator says over a real socket: the convention, every directive, both front doors."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from oaicompat_server.simulator import Simulator, running

FLASH, THREE = "gemini-2.5-flash", "gemini-3-flash-preview"
VERTEX = "/v1/projects/p/locations/global/publishers/google/models/"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {
        "functionDeclarations": [
            {"name": "mcp_get_weather", "parametersJsonSchema": SCHEMA},
            {"name": "get_time", "parameters": {"type": "OBJECT", "properties": {}}},
        ]
    }
]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running() as started:
        yield started


def send(
    simulator: Simulator, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", simulator.port, timeout=5)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, headers or {"x-goog-api-key": "k"})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def events(data: bytes) -> list[Any]:
    pieces = data.split(b"\r\n\r\n")
    assert pieces.pop() == b""
    return [json.loads(piece.removeprefix(b"data: ")) for piece in pieces]


def body(text: str | list[Any], **fields: Any) -> dict[str, Any]:
    contents = [{"role": "user", "parts": [{"text": text}]}] if isinstance(text, str) else text
    return {"contents": contents, **fields}


def stream(simulator: Simulator, asked: Any, model: str = FLASH) -> list[Any]:
    path = f"/v1beta/models/{model}:streamGenerateContent?alt=sse"
    status, headers, data = send(simulator, "POST", path, asked)
    assert status == 200, data
    assert headers["content-type"] == "text/event-stream"
    return check_usage(events(data))


def unary(simulator: Simulator, asked: Any, model: str = FLASH) -> Any:
    path = f"/v1beta/models/{model}:generateContent"
    status, _, data = send(simulator, "POST", path, asked)
    assert status == 200, data
    return check_usage([json.loads(data)])[0]


def check_usage(bodies: list[Any]) -> list[Any]:
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    for one in bodies:
        usage = one["usageMetadata"]
        total = sum(usage.get(name, 0) for name in (*names, "toolUsePromptTokenCount"))
        assert usage["totalTokenCount"] == total
    assert len({one["responseId"] for one in bodies}) == 1
    return bodies


def parts(bodies: list[Any], index: int = 0) -> list[Any]:
    return [
        part
        for one in bodies
        for candidate in one.get("candidates", [])
        if candidate["index"] == index
        for part in candidate["content"].get("parts", [])
    ]


def text(bodies: list[Any], index: int = 0) -> str:
    found = [part for part in parts(bodies, index) if not part.get("thought")]
    return "".join(part.get("text", "") for part in found)


def finishes(bodies: list[Any]) -> list[str]:
    found = [one["candidates"][0].get("finishReason") for one in bodies]
    return [reason for reason in found if reason]


def test_without_a_script_the_last_user_turn_comes_back(simulator: Simulator) -> None:
    asked = "<b>ünï 'code' & = 🗼</b> " * 5
    turns = [
        {"role": "user", "parts": [{"text": "first"}]},
        {"role": "model", "parts": [{"text": "said"}]},
        {"role": "user", "parts": [{"text": asked}, {"text": "second part"}]},
    ]
    assert text(stream(simulator, body(turns))) == f"{asked}\nsecond part"
    assert text([unary(simulator, body(turns))]) == f"{asked}\nsecond part"


def test_the_bytes_are_framed_and_escaped_as_the_service_does(simulator: Simulator) -> None:
    path = f"/v1beta/models/{FLASH}:"
    _, _, data = send(simulator, "POST", path + "streamGenerateContent?alt=sse", body("<a>&'="))
    assert data.startswith(b'data: {"candidates"')
    assert data.endswith(b"}\r\n\r\n")
    assert rb"\u003ca\u003e\u0026\u0027\u003d" in data
    _, _, data = send(simulator, "POST", path + "generateContent", body("<"))
    assert data.startswith(b'{\n  "candidates": [')
    _, headers, data = send(simulator, "POST", path + "streamGenerateContent", body("x" * 40))
    assert headers["content-type"].startswith("application/json")
    assert b"\n,\r\n" in data
    assert text(json.loads(data)) == "x" * 40


def test_media_without_text_is_described(simulator: Simulator) -> None:
    data = base64.b64encode(b"x" * 68).decode()
    turn = [{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": data}}]}]
    assert text([unary(simulator, body(turn))]) == "[image/png 68 bytes]"


def test_three_signs_its_text_and_two_does_not(simulator: Simulator) -> None:
    chunks = stream(simulator, body("hello"), THREE)
    last = parts(chunks)[-1]
    assert last["text"] == ""
    assert b"gemini" in base64.b64decode(last["thoughtSignature"])
    (whole,) = parts([unary(simulator, body("hello"), THREE)])
    assert (whole["text"], bool(whole["thoughtSignature"])) == ("hello", True)
    assert parts([unary(simulator, body("hello"))]) == [{"text": "hello"}]


NAMED = 'do it #script:tool-then-text #call:{"name": "get_weather", "args": {"city": "Bonn"}} now'


def test_a_named_call_then_its_result(simulator: Simulator) -> None:
    asked = body(NAMED, tools=TOOLS)
    for model in (FLASH, THREE):
        chunks = stream(simulator, asked, model)
        (said,) = [part for part in parts(chunks) if "functionCall" in part]
        assert said["functionCall"]["name"] == "mcp_get_weather"
        assert said["functionCall"]["args"] == {"city": "Bonn"}
        assert finishes(chunks) == ["STOP"]
        response = {"name": "mcp_get_weather", "response": {"output": "rain-4711"}}
        if "id" in said["functionCall"]:
            response["id"] = said["functionCall"]["id"]
        turns = [
            *asked["contents"],
            {"role": "model", "parts": [said]},
            {"role": "user", "parts": [{"functionResponse": response}]},
        ]
        assert "rain-4711" in text([unary(simulator, body(turns, tools=TOOLS), model)])


def test_the_end_of_a_call_differs_by_generation(simulator: Simulator) -> None:
    two = stream(simulator, body(NAMED, tools=TOOLS))
    assert len(two) == 1
    assert two[0]["candidates"][0]["finishMessage"] == "Model generated function call(s)."
    call, last = stream(simulator, body(NAMED, tools=TOOLS), THREE)
    assert "finishReason" not in call["candidates"][0]
    assert call["candidates"][0]["content"]["parts"][0]["thoughtSignature"]
    assert last["candidates"][0]["content"]["parts"] == [{"text": ""}]
    whole = unary(simulator, body(NAMED, tools=TOOLS), THREE)
    assert len(whole["candidates"][0]["content"]["parts"]) == 1


def test_a_call_without_a_name_is_made_from_the_schema(simulator: Simulator) -> None:
    (said,) = parts([unary(simulator, body("#script:tool-then-text", tools=TOOLS))])
    assert said["functionCall"] == {"name": "mcp_get_weather", "args": {"city": "text"}}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": TOOLS, "toolConfig": {"functionCallingConfig": {"mode": "NONE"}}},
        {"tools": [{"functionDeclarations": [{"name": "other"}]}]},
    ],
    ids=["no tools", "mode NONE", "not declared"],
)
def test_where_nothing_can_be_called_the_text_comes_back(simulator: Simulator, fields: Any) -> None:
    assert text([unary(simulator, body(NAMED, **fields))]) == NAMED


def test_mode_any_forces_a_call_without_a_script(simulator: Simulator) -> None:
    forced = {"mode": "ANY", "allowedFunctionNames": ["get_time"]}
    asked = body("hi", tools=TOOLS, toolConfig={"functionCallingConfig": forced})
    (said,) = parts([unary(simulator, asked)])
    assert said["functionCall"]["name"] == "get_time"


def test_parallel_calls_and_calls_apart(simulator: Simulator) -> None:
    together = stream(simulator, body("#script:parallel-calls", tools=TOOLS), THREE)
    first, second = together[0]["candidates"][0]["content"]["parts"]
    assert "thoughtSignature" in first
    assert "thoughtSignature" not in second
    assert first["functionCall"]["id"] != second["functionCall"]["id"]
    apart = stream(simulator, body("#script:calls-apart", tools=TOOLS), THREE)
    assert [len(parts([one])) for one in apart] == [1, 1, 1]


def test_arguments_can_come_in_pieces(simulator: Simulator) -> None:
    chunks = stream(simulator, body(NAMED.replace("tool-then-text", "partial-args"), tools=TOOLS))
    calls = [part["functionCall"] for part in parts(chunks)]
    assert calls[0] == {"name": "mcp_get_weather", "willContinue": True}
    assert calls[1]["partialArgs"] == [
        {"jsonPath": "$.city", "stringValue": "Bonn", "willContinue": True}
    ]
    assert calls[2]["partialArgs"] == [{"jsonPath": "$.city", "stringValue": ""}]
    assert calls[-1] == {}


def test_schemas_are_satisfied(simulator: Simulator) -> None:
    wanted = {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    said = text([unary(simulator, body("hi", generationConfig=wanted))])
    assert json.loads(said) == {"city": "text"}
    free = {"responseMimeType": "application/json"}
    assert json.loads(text([unary(simulator, body("hi", generationConfig=free))])) == {"text": "hi"}


def test_candidates_are_numbered(simulator: Simulator) -> None:
    chunks = stream(simulator, body("a longer text", generationConfig={"candidateCount": 2}))
    assert [text(chunks, at) for at in (0, 1)] == ["[0] a longer text", "[1] a longer text"]
    whole = unary(simulator, body("hi", generationConfig={"candidateCount": 2}))
    assert [one["index"] for one in whole["candidates"]] == [0, 1]


ENDINGS = [
    ("max-tokens", "MAX_TOKENS"),
    ("thinking-ate-all", "MAX_TOKENS"),
    ("malformed-call", "MALFORMED_FUNCTION_CALL"),
    ("unexpected-call", "UNEXPECTED_TOOL_CALL"),
    ("finish:SAFETY", "SAFETY"),
    ("finish:recitation", "RECITATION"),
    ("empty", "STOP"),
    ("image", "STOP"),
    ("audio", "STOP"),
    ("code", "STOP"),
    ("grounding", "STOP"),
    ("stop-early", "STOP"),
    ("continuation:1", "CONTINUATION"),
    ("long:3", "STOP"),
]


@pytest.mark.parametrize(("directive", "reason"), ENDINGS)
@pytest.mark.parametrize("model", [FLASH, THREE])
def test_an_answer_ends_as_asked(
    simulator: Simulator, directive: str, reason: str, model: str
) -> None:
    chunks = stream(simulator, body(f"some text #script:{directive}"), model)
    assert finishes(chunks) == [reason]
    whole = unary(simulator, body(f"some text #script:{directive}"), model)
    assert whole["candidates"][0]["finishReason"] == reason
    assert text([whole]) == text(chunks)


def ask(simulator: Simulator, directive: str, **fields: Any) -> list[Any]:
    return stream(simulator, body(f"some text #script:{directive}", **fields))


def test_partial_texts(simulator: Simulator) -> None:
    assert text(ask(simulator, "max-tokens")) == "some text #scr"
    assert text(ask(simulator, "long:3")) == "chunk 1 of 3. chunk 2 of 3. chunk 3 of 3. "
    assert text(ask(simulator, "stop-early", generationConfig={"stopSequences": ["te"]})) == "some "
    assert parts(ask(simulator, "thinking-ate-all")) == []
    assert ask(simulator, "empty")[0]["candidates"][0]["content"] == {"role": "model"}


def test_a_blocked_prompt_and_no_candidates(simulator: Simulator) -> None:
    (blocked,) = ask(simulator, "block:SAFETY")
    assert blocked["promptFeedback"] == {"blockReason": "SAFETY"}
    (nothing,) = ask(simulator, "no-candidates")
    assert not {"candidates", "promptFeedback"} & (blocked.keys() - {"promptFeedback"})
    assert not {"candidates", "promptFeedback"} & nothing.keys()


def test_text_can_come_after_an_empty_stop(simulator: Simulator) -> None:
    chunks = ask(simulator, "late-text")
    assert finishes(chunks) == ["STOP", "STOP"]
    assert parts(chunks[:1]) == [{"text": ""}]
    assert text(chunks) == "some text #script:late-text"


def test_media_are_real(simulator: Simulator) -> None:
    (image,) = [
        part["inlineData"] for part in parts(ask(simulator, "image")) if "inlineData" in part
    ]
    data = base64.b64decode(image["data"])
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (2, 2)
    (sound,) = [
        part["inlineData"] for part in parts(ask(simulator, "audio")) if "inlineData" in part
    ]
    assert sound["mimeType"] == "audio/L16;codec=pcm;rate=24000"
    assert len(base64.b64decode(sound["data"])) == 480


def test_grounding_counts_bytes(simulator: Simulator) -> None:
    chunks = ask(simulator, "grounding")
    said = text(chunks).encode()
    metadata = chunks[-1]["candidates"][0]["groundingMetadata"]
    segments = [support["segment"] for support in metadata["groundingSupports"]]
    assert "startIndex" not in segments[0]
    for segment in segments:
        cut = said[segment.get("startIndex", 0) : segment["endIndex"]]
        assert cut.decode() == segment["text"]


def test_code_has_two_results(simulator: Simulator) -> None:
    chunks = ask(simulator, "code")
    kinds = [next(iter(part)) for part in parts(chunks)][:3]
    assert kinds == ["executableCode", "codeExecutionResult", "codeExecutionResult"]
    assert chunks[-1]["usageMetadata"]["toolUsePromptTokenCount"]


def test_thoughts_and_their_signature(simulator: Simulator) -> None:
    shown = {"thinkingConfig": {"includeThoughts": True}}
    chunks = ask(simulator, "thoughts", generationConfig=shown)
    assert [part.get("thought") for part in parts(chunks)][:2] == [True, True]
    assert parts(chunks)[-1].keys() == {"text", "thoughtSignature"}
    assert finishes(chunks) == ["STOP"]
    assert chunks[-1]["usageMetadata"]["thoughtsTokenCount"]
    hidden = ask(simulator, "thoughts")
    assert not any(part.get("thought") for part in parts(hidden))
    off = {"thinkingConfig": {"thinkingBudget": 0}}
    quiet = ask(simulator, "thoughts", generationConfig=off)
    assert "thoughtsTokenCount" not in quiet[-1]["usageMetadata"]


def test_logprobs_cover_the_text(simulator: Simulator) -> None:
    result = ask(simulator, "logprobs")[-1]["candidates"][0]["logprobsResult"]
    said = "".join(one["token"] for one in result["chosenCandidates"])
    assert said == "some text #script:logprobs"


def test_hops_together_are_the_text(simulator: Simulator) -> None:
    asked = body("a rather long text #script:continuation:2")
    said, hops = "", 0
    while True:
        chunks = stream(simulator, asked, "gemini-4-argon")
        said, hops = said + text(chunks), hops + 1
        token = chunks[-1]["candidates"][0].get("continuationToken")
        if token is None:
            break
        asked["continuationToken"] = token
    assert (said, hops) == (asked["contents"][0]["parts"][0]["text"], 3)


def test_vertex_answers_in_its_own_manner(simulator: Simulator) -> None:
    path = f"{VERTEX}{THREE}:streamGenerateContent?alt=sse"
    status, _, data = send(simulator, "POST", path, body("hello you"), Authorization="Bearer t")
    assert status == 200
    first, *_, last = events(data)
    assert first["usageMetadata"] == {"trafficType": "ON_DEMAND"}
    assert last["usageMetadata"]["totalTokenCount"]
    assert "index" not in first["candidates"][0]
    signature = last["candidates"][0]["content"]["parts"][0]["thoughtSignature"]
    assert b"vertex" in base64.b64decode(signature)


CREDENTIALS = [
    (f"/v1beta/models/{FLASH}", {"x": "y"}, 403, "PERMISSION_DENIED"),
    (f"/v1beta/models/{FLASH}", {"x-goog-api-key": "invalid-1"}, 400, "API_KEY_INVALID"),
    (f"/v1beta/models/{FLASH}", {"Authorization": "Bearer t"}, 200, "hello"),
    (f"{VERTEX}{FLASH}", {"x": "y"}, 401, "CREDENTIALS_MISSING"),
    (f"{VERTEX}{FLASH}", {"x-goog-api-key": "k"}, 401, "API keys are not supported"),
    (f"{VERTEX}{FLASH}", {"Authorization": "Bearer invalid"}, 401, "invalid authentication"),
    (f"{VERTEX}{FLASH}", {"Authorization": "Bearer t"}, 200, "hello"),
    (f"/v1/publishers/google/models/{FLASH}", {"x-goog-api-key": "k"}, 200, "hello"),
    ("/v1beta/models/gemini-9", {"x-goog-api-key": "k"}, 404, "models/gemini-9 is not found for API"),
    (f"{VERTEX}gemini-9", {"Authorization": "Bearer t"}, 404, "Publisher Model `projects/p/loc"),
    ("/v1/publishers/x", {"x-goog-api-key": "k"}, 404, "<!DOCTYPE html>"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "headers", "status", "phrase"), CREDENTIALS)
def test_credentials_and_models(
    simulator: Simulator, path: str, headers: dict[str, str], status: int, phrase: str
) -> None:
    got, _, data = send(simulator, "POST", path + ":generateContent", body("hello"), **headers)
    assert got == status
    assert phrase in data.decode()


def test_models_come_in_pages(simulator: Simulator) -> None:
    names, token = [], ""
    while True:
        _, _, data = send(simulator, "GET", f"/v1beta/models?pageSize=10&pageToken={token}")
        page = json.loads(data)
        assert len(page["models"]) <= 10
        names += [model["name"] for model in page["models"]]
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert "models/gemini-2.5-flash" in names
    assert "models/gemini-2.0-flash" not in names
    assert len(names) == len(set(names)) > 20
    _, _, data = send(simulator, "GET", "/v1/models/gemini-2.5-pro")
    assert json.loads(data)["thinking"] is True


def test_tokens_are_counted(simulator: Simulator) -> None:
    path = f"/v1beta/models/{FLASH}:countTokens"
    _, _, plain = send(simulator, "POST", path, body("x" * 40))
    inner = {"generateContentRequest": {"model": f"models/{FLASH}", **body("x" * 40)}}
    _, _, wrapped = send(simulator, "POST", path, inner)
    assert json.loads(plain)["totalTokens"] == json.loads(wrapped)["totalTokens"] == 10
    status, _, data = send(simulator, "POST", path, body("x", tools=TOOLS))
    assert (status, b"Unknown name" in data) == (400, True)


def test_embeddings_are_the_same_for_the_same_text(simulator: Simulator) -> None:
    path = "/v1beta/models/gemini-embedding-001:"
    one = {"content": {"parts": [{"text": "hello"}]}, "outputDimensionality": 8}
    _, _, single = send(simulator, "POST", path + "embedContent", one)
    batch = {"requests": [{"model": "models/gemini-embedding-001", **one}] * 2}
    _, _, several = send(simulator, "POST", path + "batchEmbedContents", batch)
    values = json.loads(single)["embedding"]["values"]
    assert sum(value * value for value in values) == pytest.approx(1)
    assert [made["values"] for made in json.loads(several)["embeddings"]] == [values, values]
    status, _, data = send(simulator, "POST", f"/v1beta/models/{FLASH}:embedContent", one)
    assert (status, b"not supported for embedContent" in data) == (404, True)


def test_predict_embeds_on_vertex(simulator: Simulator) -> None:
    asked = {"instances": [{"content": "hello"}], "parameters": {"outputDimensionality": 4}}
    path = f"{VERTEX}gemini-embedding-001:predict"
    _, _, data = send(simulator, "POST", path, asked, Authorization="Bearer t")
    (prediction,) = json.loads(data)["predictions"]
    assert len(prediction["embeddings"]["values"]) == 4


@pytest.mark.parametrize(
    ("text", "name", "called"),
    [
        ("What's the weather like in San Francisco?", "get_weather", True),
        ("What is the current weather?", "get_current_weather", True),
        ("What is the weather?", "get_current_weather", False),
        ("How is the weather?", "set_weather", False),
        ("Hello", "get_weather", False),
        ("weather #script:long:2", "get_weather", False),
    ],
)
def test_a_helpful_simulator_calls_what_a_question_asks_for(
    text: str, name: str, called: bool
) -> None:
    schema = {"type": "object", "properties": {"location": {"type": "string"}}}
    body = {
        "contents": [{"role": "user", "parts": [{"text": text}]}],
        "tools": [{"functionDeclarations": [{"name": name, "parametersJsonSchema": schema}]}],
    }
    with running(helpful=True) as helpful, running() as plain:
        assert ("functionCall" in _first_part(helpful.url, body)) is called
        assert "functionCall" not in _first_part(plain.url, body)


def _first_part(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/v1beta/models/gemini-2.5-flash:generateContent",
        json.dumps(body).encode(),
        {"x-goog-api-key": "any", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as reply:
        found: dict[str, Any] = json.load(reply)["candidates"][0]["content"]["parts"][0]
    return found
