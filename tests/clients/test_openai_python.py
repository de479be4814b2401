"""openai-python against the gateway: answers of every kind, streamed and not."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from tests.support.gateway import Gateway

pytestmark = pytest.mark.clients

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
SPEAKING = "gemini-2.5-flash-preview-tts"


class Person(pydantic.BaseModel):
    name: str
    age: int
    tags: list[str]


@pytest.fixture
def client(served: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as made:
        yield made


def user(content: Any) -> Any:
    return [{"role": "user", "content": content}]


def upstream_body(served: Gateway) -> Any:
    return served.simulator.requests[-1].body


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=user("Hello, you"))
    assert answer.choices[0].message.content == "Hello, you"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.object, answer.model) == ("chat.completion", "gpt-4o")
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_stream(client: openai.OpenAI) -> None:
    text = "a stream of several words, long enough to be cut"
    with client.chat.completions.create(model="gpt-4o", messages=user(text), stream=True) as stream:
        chunks = list(stream)
    assert len(chunks) > 3
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert [chunk.choices[0].delta.role for chunk in chunks if chunk.choices[0].delta.role] == [
        "assistant"
    ]
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert not any("usage" in chunk.model_fields_set for chunk in chunks)


def test_usage_comes_last_in_a_stream_that_asked_for_it(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="gpt-4o", messages=user("count"), stream=True, stream_options={"include_usage": True}
    ) as stream:
        *before, last = stream
    assert all(chunk.usage is None and chunk.choices for chunk in before)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.prompt_tokens > 0


def test_stream_helper_accumulates_the_same_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="gpt-4o", messages=user("one two three")) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"content.delta", "content.done", "chunk"} <= kinds
    assert final.choices[0].message.content == "one two three"
    assert final.choices[0].finish_reason == "stop"


def test_parse_returns_the_pydantic_model(client: openai.OpenAI, served: Gateway) -> None:
    answer = client.chat.completions.parse(
        model="gpt-4o", messages=user("who?"), response_format=Person
    )
    assert isinstance(answer.choices[0].message.parsed, Person)
    sent = upstream_body(served)["generationConfig"]
    assert sent["responseMimeType"] == "application/json"
    assert set(sent["responseJsonSchema"]["properties"]) == {"name", "age", "tags"}


def test_parse_in_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="gpt-4o", messages=user("who?"), response_format=Person
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Person)


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices(client: openai.OpenAI, stream: bool) -> None:
    if stream:
        with client.chat.completions.stream(model="gpt-4o", messages=user("pick"), n=3) as chunks:
            choices: Any = chunks.until_done().get_final_completion().choices
    else:
        choices = client.chat.completions.create(model="gpt-4o", messages=user("pick"), n=3).choices
    assert [choice.index for choice in choices] == [0, 1, 2]
    assert all(choice.message.content.endswith("pick") for choice in choices)
    assert [choice.finish_reason for choice in choices] == ["stop"] * 3


def test_image_in_as_data(client: openai.OpenAI, served: Gateway) -> None:
    url = f"data:image/png;base64,{PIXEL}"
    answer = client.chat.completions.create(
        model="gpt-4o", messages=user([{"type": "image_url", "image_url": {"url": url}}])
    )
    assert answer.choices[0].message.content == "[image/png 8 bytes]"
    part = upstream_body(served)["contents"][0]["parts"][0]
    assert part["inlineData"] == {"mimeType": "image/png", "data": PIXEL}


def test_image_in_by_https_is_fetched_by_the_upstream(
    client: openai.OpenAI, served: Gateway
) -> None:
    link = {"type": "image_url", "image_url": {"url": "https://example.com/cat.webp"}}
    client.chat.completions.create(
        model="gpt-4o", messages=user([{"type": "text", "text": "what?"}, link])
    )
    parts = upstream_body(served)["contents"][0]["parts"]
    assert parts[1]["fileData"] == {
        "mimeType": "image/webp", "fileUri": "https://example.com/cat.webp",
    }  # fmt: skip


def test_image_out(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gemini-2.5-flash-image", messages=user("#script:image draw")
    )
    images: Any = (answer.choices[0].message.model_extra or {})["images"]
    header, _, data = images[0]["image_url"]["url"].partition(",")
    assert header == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")


def test_image_out_in_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="gemini-2.5-flash-image", messages=user("#script:image draw")
    ) as stream:
        message: Any = stream.get_final_completion().choices[0].message
    assert [image["image_url"]["url"][:22] for image in message.images] == [
        "data:image/png;base64,"
    ]


def test_audio_in(client: openai.OpenAI, served: Gateway) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}
    answer = client.chat.completions.create(model="gpt-4o", messages=user([sound]))
    assert answer.choices[0].message.content == "[audio/mp3 3 bytes]"


def test_audio_out_is_a_wave_file(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=SPEAKING,
        messages=user("#script:audio say it"),
        modalities=["audio"],
        audio={"voice": "alloy", "format": "wav"},
    )
    audio = answer.choices[0].message.audio
    assert audio is not None
    sound = base64.b64decode(audio.data)
    assert (sound[:4], sound[8:12]) == (b"RIFF", b"WAVE")


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gemini-2.0-flash", messages=user("Zürich"), logprobs=True, top_logprobs=2
    )
    found = answer.choices[0].logprobs
    assert found is not None
    tokens = found.content or []
    assert "".join(token.token for token in tokens) == "Zürich"
    assert bytes(byte for token in tokens for byte in token.bytes or []).decode() == "Zürich"
    assert all(len(token.top_logprobs) == 2 for token in tokens)


def test_thoughts_arrive_as_reasoning_content(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "gpt-4o",
        "messages": user("#script:thoughts deep"),
        "reasoning_effort": "low",
    }
    plain: Any = client.chat.completions.create(**asked).choices[0].message
    with client.chat.completions.create(**asked, stream=True) as stream:
        streamed = "".join(
            (chunk.choices[0].delta.model_extra or {}).get("reasoning_content") or ""
            for chunk in stream
        )
    assert plain.reasoning_content.startswith("**Reading the request**")
    assert streamed == plain.reasoning_content
    assert "Reading" not in plain.content


def test_extra_body_of_google_reaches_the_request(client: openai.OpenAI, served: Gateway) -> None:
    extra = {"google": {"thinking_config": {"thinking_budget": 128, "include_thoughts": True}}}
    client.chat.completions.create(
        model="gemini-2.5-flash", messages=user("think"), extra_body={"extra_body": extra}
    )
    sent = upstream_body(served)["generationConfig"]["thinkingConfig"]
    assert sent == {"thinkingBudget": 128, "includeThoughts": True}


def test_grounding_becomes_citations_with_code_point_offsets(client: openai.OpenAI) -> None:
    message = (
        client.chat.completions.create(
            model="gpt-4o", messages=user("#script:grounding where?"), web_search_options={}
        )
        .choices[0]
        .message
    )
    cited = [
        (message.content or "")[found.url_citation.start_index : found.url_citation.end_index]
        for found in message.annotations or []
    ]
    assert cited[0] == "Zürich liegt am Zürichsee."
    assert cited[1].startswith("東京タワー")


@pytest.mark.parametrize(
    ("script", "reason", "refused"),
    [
        ("#script:block:SAFETY", "content_filter", True),
        ("#script:finish:SAFETY said", "content_filter", True),
        ("#script:max-tokens half of it", "length", False),
        ("#script:finish:STOP said", "stop", False),
    ],
)
def test_endings(client: openai.OpenAI, script: str, reason: str, refused: bool) -> None:
    plain = client.chat.completions.create(model="gpt-4o", messages=user(script)).choices[0]
    assert plain.finish_reason == reason
    assert bool(plain.message.refusal) is refused
    with client.chat.completions.create(
        model="gpt-4o", messages=user(script), stream=True
    ) as stream:
        chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason == reason
    said = "".join(chunk.choices[0].delta.refusal or "" for chunk in chunks)
    assert said == (plain.message.refusal or "")


def test_models(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"gpt-4o", "gemini-2.5-flash"} <= names
    assert client.models.retrieve("gemini-2.5-flash").id == "gemini-2.5-flash"
    assert client.models.retrieve("gpt-4o").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_headers_of_the_reply(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=user("hi"), logit_bias={"50256": -100}
    )
    assert raw.headers["x-mapped-model"] == "gemini-2.5-flash"
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["x-account-email"] == "first-key"
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert "logit_bias=dropped" in raw.headers["x-oaicompat-notes"]
    assert raw.parse().choices[0].message.content == "hi"


def test_headers_of_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="gpt-4o", messages=user("hi"), stream=True
    ) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["x-mapped-model"] == "gemini-2.5-flash"
        lines = [line for line in raw.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


def test_async_client_runs_many_at_once(served: Gateway) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=user(f"number {number}"), stream=True
        )
        async with stream:
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=served.url, api_key="any", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(20)))

    assert asyncio.run(run()) == [f"number {number}" for number in range(20)]


@pytest.mark.parametrize(
    "suffix", ["", "/v1", "/v1/", "/v1/v1", "/v1/chat/completions", "/chat/completions"]
)
def test_base_url_in_every_spelling(served: Gateway, suffix: str) -> None:
    with openai.OpenAI(base_url=served.origin + suffix, api_key="any", max_retries=0) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=user("found it"))
        assert answer.choices[0].message.content == "found it"
        assert "gemini-2.5-flash" in {model.id for model in client.models.list()}
