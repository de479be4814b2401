"""openai-python against the gateway's Responses API; its stream helper and its parser read strictly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pydantic
import pytest
from tests.support.gateway import Gateway

pytestmark = pytest.mark.clients

MODEL = "gemini-3-flash-preview"
SENTINEL = "skip_thought_signature_validator"
CALL = 'Rome? #script:tool-then-text #call:{"name": "weather", "args": {"city": "Rome", "days": 2}}'
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS: Any = [
    {"type": "function", "name": name, "parameters": SCHEMA, "strict": False}
    for name in ("weather", "time")
]


class Weather(pydantic.BaseModel):
    city: str
    days: int


@pytest.fixture
def client(served: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as made:
        yield made


@pytest.fixture(params=["plain", "streamed"])
def answer(request: pytest.FixtureRequest, client: openai.OpenAI) -> Callable[..., Any]:
    """Return the final response, by `create` and by the stream helper."""

    def create(text: Any, model: str = "gpt-4o", **more: Any) -> Any:
        return client.responses.create(model=model, input=text, store=False, **more)

    def stream(text: Any, model: str = "gpt-4o", **more: Any) -> Any:
        with client.responses.stream(model=model, input=text, store=False, **more) as events:
            *_, last = events
        return last.response  # type: ignore[union-attr]

    return create if request.param == "plain" else stream


def of(response: Any, kind: str) -> list[Any]:
    return [item for item in response.output if item.type == kind]


def test_text(answer: Callable[..., Any]) -> None:
    response = answer("Hello, you")
    assert response.output_text == "Hello, you"
    assert (response.status, response.model) == ("completed", "gpt-4o")
    assert response.id.startswith("resp_")
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_every_event_is_typed(client: openai.OpenAI) -> None:
    text = "a stream of several words, long enough to be cut"
    stream = client.responses.create(model="gpt-4o", input=text, store=False, stream=True)
    with stream:
        events: list[Any] = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == text
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"


def test_stream_helper_keeps_a_snapshot(client: openai.OpenAI) -> None:
    with client.responses.stream(model="gpt-4o", input="one two three", store=False) as stream:
        seen = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert seen[-1] == "one two three" == final.output_text


def test_calls_and_what_follows(
    answer: Callable[..., Any], served: Gateway, fresh: Callable[..., Gateway]
) -> None:
    """The items go back as they came, to a gateway that has seen nothing, with the call's signature."""
    first = answer(CALL, MODEL, tools=TOOLS)
    (call,) = of(first, "function_call")
    assert (call.name, call.arguments) == ("weather", '{"city":"Rome","days":2}')
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    items = [item.model_dump(exclude={"parsed_arguments"}) for item in first.output]
    history: Any = [{"role": "user", "content": CALL}, *items, result]
    other = fresh(upstream=served.simulator)
    with openai.OpenAI(base_url=other.url, api_key="any", max_retries=0) as client:
        second = client.responses.create(model=MODEL, input=history, tools=TOOLS, store=False)
    assert "sunny" in second.output_text
    (turn,) = [t for t in served.simulator.requests[-1].body["contents"] if t["role"] == "model"]
    assert turn["parts"][0]["thoughtSignature"] not in ("", SENTINEL)


@pytest.mark.parametrize("script", ["parallel-calls", "calls-apart"])
def test_several_calls(answer: Callable[..., Any], script: str) -> None:
    calls = of(answer(f"#script:{script}", MODEL, tools=TOOLS), "function_call")
    assert [call.name for call in calls] == ["weather", "time"]
    assert len({call.call_id for call in calls}) == 2


def test_arguments_in_pieces(client: openai.OpenAI) -> None:
    text = CALL.replace("tool-then-text", "partial-args")
    with client.responses.stream(model=MODEL, input=text, tools=TOOLS, store=False) as stream:
        pieces = [e.delta for e in stream if e.type == "response.function_call_arguments.delta"]
        (call,) = of(stream.get_final_response(), "function_call")
    assert len(pieces) > 1
    assert "".join(pieces) == call.arguments
    assert Weather.model_validate_json(call.arguments) == Weather(city="Rome", days=2)


def test_custom_tool(answer: Callable[..., Any]) -> None:
    text = '#script:tool-then-text #call:{"name": "shout", "args": {"input": "HEY\\n\\"you\\""}}'
    (call,) = of(
        answer(text, MODEL, tools=[{"type": "custom", "name": "shout"}]), "custom_tool_call"
    )
    assert (call.name, call.input) == ("shout", 'HEY\n"you"')


def test_reasoning(answer: Callable[..., Any]) -> None:
    response = answer(
        "#script:thoughts deep",
        reasoning={"effort": "low", "summary": "auto"},
        include=["reasoning.encrypted_content"],
    )
    told = "".join(part.text for item in of(response, "reasoning") for part in item.summary)
    assert told.startswith("**Reading the request**")
    assert any(item.encrypted_content for item in of(response, "reasoning"))
    assert "Reading" not in response.output_text


def test_refusal(answer: Callable[..., Any]) -> None:
    response = answer("#script:block:SAFETY")
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "content_filter")
    (part,) = of(response, "message")[-1].content
    assert "SAFETY" in part.refusal


def test_incomplete(answer: Callable[..., Any]) -> None:
    response = answer("#script:max-tokens half of it")
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text


def test_sources_of_a_search(answer: Callable[..., Any]) -> None:
    response = answer("#script:grounding where?", tools=[{"type": "web_search"}])
    (part,) = of(response, "message")[0].content
    first = part.annotations[0]
    assert part.text[first.start_index : first.end_index] == "Zürich liegt am Zürichsee."
    assert of(response, "web_search_call")


def test_parse(client: openai.OpenAI, served: Gateway) -> None:
    asked: Any = {"model": "gpt-4o", "input": "where?", "text_format": Weather, "store": False}
    assert isinstance(client.responses.parse(**asked).output_parsed, Weather)
    with client.responses.stream(**asked) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Weather)
    sent = served.simulator.requests[-1].body["generationConfig"]
    assert set(sent["responseJsonSchema"]["properties"]) == {"city", "days"}


def test_parse_with_a_pydantic_tool(client: openai.OpenAI) -> None:
    text = CALL.replace('"weather"', '"Weather"')
    asked: Any = {
        "model": MODEL,
        "input": text,
        "tools": [openai.pydantic_function_tool(Weather)],
        "store": False,
    }
    (call,) = of(client.responses.parse(**asked), "function_call")
    assert call.parsed_arguments == Weather(city="Rome", days=2)
    with client.responses.stream(**asked) as stream:
        (call,) = of(stream.get_final_response(), "function_call")
    assert call.parsed_arguments == Weather(city="Rome", days=2)


def test_earlier_response(
    answer: Callable[..., Any], client: openai.OpenAI, served: Gateway
) -> None:
    first = client.responses.create(model="gpt-4o", input="my word is tulip")
    second = client.responses.create(model="gpt-4o", input="and?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    said = [turn["parts"][0]["text"] for turn in served.simulator.requests[-1].body["contents"]]
    assert said == ["my word is tulip", "my word is tulip", "and?"]
    assert client.responses.retrieve(second.id).output_text == "and?"
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)


def test_async_client(served: Gateway) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        text = f"number {number}"
        if number % 2:
            response = await client.responses.create(model="gpt-4o", input=text, store=False)
            return response.output_text
        async with client.responses.stream(model="gpt-4o", input=text, store=False) as stream:
            return (await stream.get_final_response()).output_text

    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=served.url, api_key="any", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(12)))

    assert asyncio.run(run()) == [f"number {number}" for number in range(12)]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 9}, "temperature"),
        ({"input": [{"role": "wizard", "content": "hi"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
    ],
)
def test_bad_request_names_the_parameter(client: openai.OpenAI, more: Any, param: str) -> None:
    asked: dict[str, Any] = {"model": "gpt-4o", "input": "hi", "store": False, **more}
    with pytest.raises(openai.BadRequestError) as found:
        client.responses.create(**asked)
    assert found.value.param == param
    assert found.value.type == "invalid_request_error"


@pytest.mark.parametrize("script", ["error-after:2", "cut-after:2", "reset-after:2", "garbage"])
def test_stream_that_fails_is_an_exception_after_its_text(
    fresh: Callable[..., Gateway], script: str
) -> None:
    """`create` meets the `error` event, the helper as well: neither takes it for the end."""
    served = fresh(keys=("first-key", "second-key"))
    text = f"#script:{script} one two three four five six"
    seen: list[str] = []

    def read(stream: Any) -> None:
        for event in stream:
            seen.append(getattr(event, "delta", ""))

    with openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as client:
        asked: Any = {"model": "gpt-4o", "input": text, "store": False}
        stream = client.responses.create(**asked, stream=True)
        with pytest.raises(openai.APIError), stream:
            read(stream)
        assert "".join(seen)
        with pytest.raises(openai.APIError), client.responses.stream(**asked) as helped:
            read(helped)


def test_error_before_the_first_event_is_an_ordinary_status(fresh: Callable[..., Gateway]) -> None:
    with openai.OpenAI(base_url=fresh().url, api_key="any", max_retries=0) as client:
        asked: Any = {"model": "gpt-4o", "input": "#script:error:429:day", "store": False}
        with pytest.raises(openai.RateLimitError) as found:
            client.responses.create(**asked, stream=True)
    assert found.value.code == "insufficient_quota"
