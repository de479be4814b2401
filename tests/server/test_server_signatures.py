"""Clients that keep nothing but a call's id still send its signature back, through the gateway's memory."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from tests.support.gateway import Gateway, gateway

from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config

TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
ASK = "#script:tool-then-text"


def _call(client: openai.OpenAI, *, stream: bool) -> tuple[str, str]:
    """Make the model call a tool; return the call's id and arguments, all that this client keeps."""
    messages: Any = [{"role": "user", "content": ASK}]
    if not stream:
        answer = client.chat.completions.create(
            model="gemini-3-flash", messages=messages, tools=TOOLS
        )
        call: Any = (answer.choices[0].message.tool_calls or [])[0]
        return call.id, call.function.arguments
    with client.chat.completions.stream(
        model="gemini-3-flash", messages=messages, tools=TOOLS
    ) as streamed:
        final: Any = streamed.get_final_completion().choices[0].message.tool_calls
    return final[0].id, final[0].function.arguments


def _reply(client: openai.OpenAI, call_id: str, arguments: str) -> None:
    function = {"name": "look", "arguments": arguments}
    messages: Any = [
        {"role": "user", "content": ASK},
        {
            "role": "assistant",
            "tool_calls": [{"id": call_id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": call_id, "content": "seen"},
    ]
    client.chat.completions.create(model="gemini-3-flash", messages=messages, tools=TOOLS)


def _sent_signature(served: Gateway) -> str:
    signature: str = served.simulator.requests[-1].body["contents"][1]["parts"][0][
        "thoughtSignature"
    ]
    return signature


@pytest.mark.parametrize("stream", [False, True])
def test_a_dropped_signature_is_remembered(stream: bool) -> None:
    with gateway() as served, openai.OpenAI(base_url=served.url, api_key="any") as client:
        _reply(client, *_call(client, stream=stream))
        assert _sent_signature(served) != "skip_thought_signature_validator"


def test_somebody_elses_call_is_not_found() -> None:
    config = Config(auth=AuthSettings(mode="strict", keys=(Secret("mine"), Secret("theirs"))))
    with (
        gateway(config) as served,
        openai.OpenAI(base_url=served.url, api_key="mine") as mine,
        openai.OpenAI(base_url=served.url, api_key="theirs") as theirs,
    ):
        call = _call(mine, stream=False)
        _reply(theirs, *call)
        assert _sent_signature(served) == "skip_thought_signature_validator"
        _reply(mine, *call)
        assert _sent_signature(served) != "skip_thought_signature_validator"
