# mypy: disable-error-code="import-not-found, untyped-decorator, no-any-return, misc"
"""Cases for openai-agents and LangChain, run by an interpreter that has them; see `test_agents.py`.

Takes the gateway's base URL, prints one JSON object: name to "ok" or a traceback.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import agents
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic import BaseModel

URL = sys.argv[1]
MODEL = "gemini-3-flash-preview"
CALL = '#script:tool-then-text #call:{"name": "%s", "args": {"city": "Rome", "days": 2}}'
CASES: dict[str, Callable[[], None]] = {}


class Trip(BaseModel):
    city: str
    days: int


def case(run: Callable[[], None]) -> Callable[[], None]:
    CASES[run.__name__] = run
    return run


@agents.function_tool
def weather(city: str, days: int) -> str:
    """Tell the weather."""
    return f"sunny in {city} for {days} days"


def agent(**more: Any) -> Any:
    client = AsyncOpenAI(base_url=URL, api_key="any", max_retries=0)
    model = agents.OpenAIResponsesModel(model=MODEL, openai_client=client)
    return agents.Agent(name="guide", instructions="Be brief.", model=model, **more)


@case
def agent_with_a_tool() -> None:
    result = agents.Runner.run_sync(agent(tools=[weather]), CALL % "weather")
    assert "sunny in Rome for 2 days" in result.final_output, result.final_output


@case
def agent_streamed() -> None:
    async def run() -> tuple[list[str], str]:
        result = agents.Runner.run_streamed(agent(tools=[weather]), CALL % "weather")
        kinds = [event.type async for event in result.stream_events()]
        return kinds, result.final_output

    kinds, said = asyncio.run(run())
    assert "raw_response_event" in kinds, kinds
    assert "run_item_stream_event" in kinds, kinds
    assert "sunny in Rome for 2 days" in said, said


@case
def agent_two_turns() -> None:
    guide = agent(tools=[weather])
    first = agents.Runner.run_sync(guide, CALL % "weather")
    history = [*first.to_input_list(), {"role": "user", "content": "and now?"}]
    assert agents.Runner.run_sync(guide, history).final_output == "and now?"


@case
def agent_two_turns_kept_by_the_gateway() -> None:
    guide = agent()
    first = agents.Runner.run_sync(guide, "my word is tulip")
    second = agents.Runner.run_sync(guide, "and now?", previous_response_id=first.last_response_id)
    assert second.final_output == "and now?"


@case
def agent_handoff() -> None:
    other = agent(handoff_description="Knows Rome.").clone(name="roman")
    text = '#script:tool-then-text #call:{"name": "transfer_to_roman", "args": {}}'
    result = agents.Runner.run_sync(agent(handoffs=[other]), text)
    assert result.last_agent.name == "roman", result.last_agent
    assert "roman" in result.final_output


@case
def agent_with_an_output_type() -> None:
    result = agents.Runner.run_sync(agent(output_type=Trip), "where?")
    assert isinstance(result.final_output, Trip)


@tool
def forecast(city: str, days: int) -> str:
    """Tell the weather."""
    return f"sunny in {city} for {days} days"


def chat(**more: Any) -> Any:
    fixed = {"use_responses_api": True, "store": False, "max_retries": 0}
    included = {"include": ["reasoning.encrypted_content"], "output_version": "responses/v1"}
    return ChatOpenAI(model=MODEL, base_url=URL, api_key="any", **fixed, **included, **more)


@case
def langchain_answer() -> None:
    answer = chat().invoke("Hello")
    assert answer.text == "Hello", answer
    assert answer.usage_metadata["total_tokens"] > 0


@case
def langchain_stream() -> None:
    chunks = list(chat().stream("a few words, one after another"))
    assert "".join(chunk.text for chunk in chunks) == "a few words, one after another"
    assert len([chunk for chunk in chunks if chunk.text]) > 1


def langchain_loop(ask: Callable[[Any, list[Any]], Any]) -> None:
    model = chat().bind_tools([forecast])
    history: list[Any] = [HumanMessage(CALL % "forecast")]
    history.append(ask(model, history))
    (call,) = history[-1].tool_calls
    assert call["args"] == {"city": "Rome", "days": 2}, call
    history.append(ToolMessage(forecast.invoke(call["args"]), tool_call_id=call["id"]))
    assert "sunny in Rome for 2 days" in ask(model, history).text


@case
def langchain_tool() -> None:
    langchain_loop(lambda model, history: model.invoke(history))


@case
def langchain_tool_streamed() -> None:
    def ask(model: Any, history: list[Any]) -> Any:
        first, *rest = model.stream(history)
        for chunk in rest:
            first += chunk
        return first

    langchain_loop(ask)


@case
def langchain_structured() -> None:
    assert isinstance(chat().with_structured_output(Trip).invoke("where?"), Trip)


def outcome(run: Callable[[], None]) -> str:
    try:
        run()
    except Exception:
        return traceback.format_exc()
    return "ok"


if __name__ == "__main__":
    agents.set_tracing_disabled(True)
    print(json.dumps({name: outcome(run) for name, run in CASES.items()}))
