"""openai-python's tool loops against the gateway, on a model that demands its thought signatures back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pydantic
import pytest
from tests.support.gateway import Gateway, gateway

pytestmark = pytest.mark.clients

MODEL = "gemini-3-flash-preview"
SENTINEL = "skip_thought_signature_validator"
CALL = 'Rome? #script:tool-then-text #call:{"name": "weather", "args": {"city": "Rome", "days": 2}}'
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Tell the {name}.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
    for name in ("weather", "time")
]


class Weather(pydantic.BaseModel):
    city: str
    days: int


@pytest.fixture
def client(served: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, messages: Any, **more: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS, **more)


def results(message: Any) -> list[dict[str, str]]:
    return [
        {"role": "tool", "tool_call_id": call.id, "content": f"result {index}"}
        for index, call in enumerate(message.tool_calls)
    ]


def model_turn(served: Gateway) -> Any:
    """Return the parts of the model's turn as the upstream was sent them."""
    contents = served.simulator.requests[-1].body["contents"]
    return next(turn for turn in contents if turn["role"] == "model")["parts"]


def test_round_trip(client: openai.OpenAI, served: Gateway) -> None:
    history: list[Any] = [{"role": "user", "content": CALL}]
    choice = ask(client, history).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.name == "weather"
    assert choice.message.tool_calls[0].function.arguments == '{"city":"Rome","days":2}'
    history += [choice.message, *results(choice.message)]
    answer = ask(client, history).choices[0]
    assert answer.finish_reason == "stop"
    assert "result 0" in answer.message.content
    assert model_turn(served)[0]["thoughtSignature"] not in ("", SENTINEL)


def test_signatures_return_with_a_dumped_message(client: openai.OpenAI, served: Gateway) -> None:
    """A history kept as JSON (`model_dump`) carries the signatures as well as the objects do."""
    history: list[Any] = [{"role": "user", "content": "#script:parallel-calls"}]
    message = ask(client, history).choices[0].message
    assert len(message.tool_calls) == 2
    carried = message.tool_calls[0].model_extra["extra_content"]["google"]["thought_signature"]
    history += [message.model_dump(), *results(message)]
    ask(client, history)
    parts = model_turn(served)
    assert parts[0]["thoughtSignature"] == carried
    assert "thoughtSignature" not in parts[1]


@pytest.mark.parametrize("remembered", [True, False])
def test_client_that_strips_unknown_fields(
    client: openai.OpenAI, served: Gateway, remembered: bool
) -> None:
    """The gateway remembers the signature by the call's id; another gateway sends Google's placeholder."""
    history: list[Any] = [{"role": "user", "content": "#script:parallel-calls"}]
    message = ask(client, history).choices[0].message
    carried = message.tool_calls[0].model_extra["extra_content"]["google"]["thought_signature"]
    stripped = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in message.tool_calls
    ]
    history += [{"role": "assistant", "content": None, "tool_calls": stripped}, *results(message)]
    with ExitStack() as stack:
        other = served if remembered else stack.enter_context(gateway(upstream=served.simulator))
        asking = stack.enter_context(openai.OpenAI(base_url=other.url, api_key="any"))
        assert "result 1" in ask(asking, history).choices[0].message.content
    parts = model_turn(served)
    assert parts[0]["thoughtSignature"] == (carried if remembered else SENTINEL)
    assert "thoughtSignature" not in parts[1]


def test_calls_have_unique_ids_and_running_indexes_in_a_stream(client: openai.OpenAI) -> None:
    with ask(client, [{"role": "user", "content": "#script:calls-apart"}], stream=True) as stream:
        chunks = list(stream)
    opened: Any = [
        call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or [] if call.id
    ]
    assert [call.index for call in opened] == [0, 1]
    assert len({call.id for call in opened}) == 2
    assert [call.function.name for call in opened] == ["weather", "time"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_streamed_calls_round_trip_by_the_helper(client: openai.OpenAI, served: Gateway) -> None:
    history: list[Any] = [{"role": "user", "content": "#script:parallel-calls"}]
    with client.chat.completions.stream(model=MODEL, messages=history, tools=TOOLS) as stream:
        message = stream.get_final_completion().choices[0].message
    calls: Any = message.tool_calls
    carried = calls[0].model_extra["extra_content"]["google"]["thought_signature"]
    history += [message.model_dump(exclude={"parsed"}), *results(message)]
    assert "result 1" in ask(client, history).choices[0].message.content
    assert model_turn(served)[0]["thoughtSignature"] == carried


def test_arguments_streamed_in_pieces(client: openai.OpenAI) -> None:
    text = CALL.replace("tool-then-text", "partial-args")
    with client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": text}], tools=TOOLS
    ) as stream:
        pieces = [
            e.arguments_delta for e in stream if e.type == "tool_calls.function.arguments.delta"
        ]
        calls: Any = stream.get_final_completion().choices[0].message.tool_calls
    assert "".join(pieces) == calls[0].function.arguments
    assert Weather.model_validate_json(calls[0].function.arguments) == Weather(city="Rome", days=2)


def test_parse_with_a_pydantic_tool(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": CALL.replace('"weather"', '"Weather"')}],
        tools=[openai.pydantic_function_tool(Weather)],
    )
    calls = answer.choices[0].message.tool_calls or []
    assert calls[0].function.parsed_arguments == Weather(city="Rome", days=2)


def test_forced_choice_names_the_function(client: openai.OpenAI, served: Gateway) -> None:
    message = (
        ask(
            client,
            [{"role": "user", "content": "now"}],
            tool_choice={"type": "function", "function": {"name": "time"}},
        )
        .choices[0]
        .message
    )
    assert [call.function.name for call in message.tool_calls] == ["time"]
    config = served.simulator.requests[-1].body["toolConfig"]["functionCallingConfig"]
    assert config == {"mode": "ANY", "allowedFunctionNames": ["time"]}


def test_custom_tool_answers_with_free_text(client: openai.OpenAI) -> None:
    text = '#script:tool-then-text #call:{"name": "shout", "args": {"input": "HEY\\n\\"you\\""}}'
    message = (
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": text}],
            tools=[{"type": "custom", "custom": {"name": "shout"}}],
        )
        .choices[0]
        .message
    )
    call: Any = (message.tool_calls or [])[0]
    assert (call.type, call.custom.name, call.custom.input) == ("custom", "shout", 'HEY\n"you"')


def test_legacy_functions(client: openai.OpenAI, served: Gateway) -> None:
    history: list[Any] = [{"role": "user", "content": CALL}]
    asked: Any = {"model": MODEL, "functions": [TOOLS[0]["function"]], "function_call": "auto"}
    choice = client.chat.completions.create(messages=history, **asked).choices[0]
    assert choice.finish_reason == "function_call"
    called = choice.message.function_call
    assert called is not None
    assert (called.name, called.arguments) == ("weather", '{"city":"Rome","days":2}')
    history += [choice.message, {"role": "function", "name": "weather", "content": "sunny"}]
    answer = client.chat.completions.create(messages=history, **asked).choices[0]
    assert "sunny" in (answer.message.content or "")
    assert answer.finish_reason == "stop"
