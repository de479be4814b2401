"""openai-python against the gateway: each failure arrives as the exception its users catch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from tests.support.gateway import Gateway, gateway

from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config, RequestSettings
from oaicompat_server.simulator import Body, Finish, Head, running

pytestmark = pytest.mark.clients

Fresh = Callable[..., Gateway]


@contextmanager
def asking(url: str, **settings: Any) -> Iterator[Callable[..., Any]]:
    settings = {"api_key": "any", "max_retries": 0, **settings}
    with openai.OpenAI(base_url=url, **settings) as client:

        def ask(text: str, **more: Any) -> Any:
            asked: dict[str, Any] = {
                "messages": [{"role": "user", "content": text}],
                "model": "gpt-4o",
            }
            return client.chat.completions.create(**{**asked, **more})

        yield ask


def caught(served: Gateway, text: str, kind: type[Exception], **more: Any) -> Any:
    with asking(served.url) as ask, pytest.raises(kind) as found:
        ask(text, **more)
    return found.value


def test_wrong_key_and_no_key(fresh: Fresh) -> None:
    config = Config(auth=AuthSettings(mode="all_except_health", keys=(Secret("sk-right"),)))
    served = fresh(config)
    with (
        asking(served.url, api_key="sk-wrong") as ask,
        pytest.raises(openai.AuthenticationError) as found,
    ):
        ask("hi")
    assert found.value.code == "invalid_api_key"
    assert "sk-wrong" not in str(found.value)
    with asking(served.url, api_key="sk-right") as ask:
        assert ask("let in").choices[0].message.content == "let in"
    for header in ("x-api-key", "x-goog-api-key"):
        headers = {"Authorization": openai.Omit(), header: "sk-right"}
        with asking(served.url) as ask:
            assert ask("in", extra_headers=headers).choices[0].message.content == "in"


def test_unknown_model() -> None:
    with running() as simulator, gateway(upstream=simulator) as served:
        error = caught(served, "hi", openai.NotFoundError, model="gemini-0-nothing")
    assert (error.code, error.param, error.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert "gemini-0-nothing" in str(error)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 9}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}, "messages[0].tool_call_id"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"n": 0}, "n"),
        ({"stop": list("abcdef")}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"extra_body": {"stream": "yes"}}, "stream"),
    ],
)  # fmt: skip
def test_bad_request_names_the_parameter(served: Gateway, more: Any, param: str) -> None:
    error = caught(served, "hi", openai.BadRequestError, **more)
    assert error.param == param
    assert error.type == "invalid_request_error"


def test_what_the_upstream_refuses_names_the_clients_parameter(served: Gateway) -> None:
    """The upstream speaks of generation_config; the client reads its own field."""
    message = "* GenerateContentRequest.generation_config.top_p: must be in the range (0.0, 1.0]"
    refusal = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}
    served.simulator.enqueue(
        [Head(400, framing="chunked"), Body(json.dumps(refusal).encode()), Finish()]
    )
    error = caught(served, "hi", openai.BadRequestError, top_p=0.5)
    assert error.param == "top_p"


def test_what_the_model_cannot_do_is_noted(served: Gateway) -> None:
    with openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}], logprobs=True
        )
    assert "logprobs=dropped" in raw.headers["x-oaicompat-notes"]
    assert raw.parse().choices[0].logprobs is None


def test_image_link_without_https_is_refused(served: Gateway) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://example.com/cat.png"}}
    error = caught(
        served, "", openai.BadRequestError, messages=[{"role": "user", "content": [part]}]
    )
    assert error.code == "invalid_image_url"
    assert error.param == "messages[0].content[0].image_url.url"


def test_strict_mode_refuses_what_would_be_dropped(fresh: Fresh) -> None:
    served = fresh(Config(request=RequestSettings(strict=True)))
    error = caught(served, "hi", openai.BadRequestError, logit_bias={"1": 5})
    assert error.param == "logit_bias"
    with asking(served.url) as ask:
        assert ask("hi", user="somebody").choices[0].message.content == "hi"


def test_rate_limit_tells_when_to_come_back(fresh: Fresh) -> None:
    error = caught(fresh(), "#script:error:429:rate:30", openai.RateLimitError)
    assert (error.code, error.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert int(error.response.headers["retry-after"]) >= 29
    assert "Please try again in" in str(error)


def test_sdk_waits_for_retry_after_and_succeeds(fresh: Fresh) -> None:
    """The only key is limited for a second; the SDK's own retry honours the header and gets its answer."""
    with running(any_model=True, keys={"only": ["429:rate:1"]}) as simulator:
        served = fresh(upstream=simulator, keys=("only",))
        started = time.monotonic()
        with asking(served.url, max_retries=2) as ask:
            answer = ask("patience")
        assert answer.choices[0].message.content == "patience"
        assert time.monotonic() - started >= 0.9


def test_spent_quota_is_not_retried(fresh: Fresh) -> None:
    served = fresh()
    with asking(served.url, max_retries=2) as ask, pytest.raises(openai.RateLimitError) as found:
        ask("#script:error:429:day")
    assert found.value.code == "insufficient_quota"
    assert found.value.response.headers["x-should-retry"] == "false"
    assert len(served.simulator.requests) == 1


def test_another_key_answers_when_one_is_limited(fresh: Fresh) -> None:
    with running(any_model=True, keys={"limited": ["429:rate:30*"]}) as simulator:
        served = fresh(upstream=simulator, keys=("limited", "good"))
        with asking(served.url) as ask:
            assert [ask("hi").choices[0].message.content for _ in range(3)] == ["hi"] * 3


def test_overload_is_a_status_error(fresh: Fresh) -> None:
    error = caught(fresh(), "#script:error:503:overloaded", openai.APIStatusError)
    assert isinstance(error, openai.InternalServerError)
    assert (error.status_code, error.code) == (503, "server_is_overloaded")


def test_refused_credential_is_not_the_clients_400(fresh: Fresh) -> None:
    error = caught(fresh(), "#script:error:400:key", openai.InternalServerError)
    assert error.status_code == 503
    assert error.response.headers["x-should-retry"] == "false"
    assert "first-key" not in str(error)


@pytest.mark.parametrize("script", ["error-after:2", "cut-after:2", "reset-after:2", "garbage"])
def test_stream_that_fails_is_an_exception_after_its_text(fresh: Fresh, script: str) -> None:
    seen: list[Any] = []

    def read(stream: Any) -> None:
        for chunk in stream:
            seen.append(chunk.choices[0])

    with asking(fresh().url) as ask:
        stream = ask(f"#script:{script} one two three four five six", stream=True)
        with pytest.raises(openai.APIError), stream:
            read(stream)
    assert "".join(choice.delta.content or "" for choice in seen)
    assert all(choice.finish_reason is None for choice in seen)


def test_error_before_the_first_chunk_is_an_ordinary_status(fresh: Fresh) -> None:
    with asking(fresh().url) as ask, pytest.raises(openai.RateLimitError):
        ask("#script:error:429:day", stream=True)


def test_route_that_is_not_served_names_those_that_are(served: Gateway) -> None:
    with (
        openai.OpenAI(base_url=served.url, api_key="any", max_retries=0) as client,
        pytest.raises(openai.NotFoundError) as found,
    ):
        client.moderations.create(input="hi")
    assert "Invalid URL (POST /v1/moderations)" in str(found.value)
    assert "/v1/chat/completions" in str(found.value)


def test_malformed_call_is_not_a_stop(fresh: Fresh) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    with asking(fresh().url) as ask:
        try:
            reason = ask("#script:malformed-call", tools=[tool]).choices[0].finish_reason
        except openai.APIStatusError as error:
            reason = str(error.code)
    assert reason not in ("stop", "tool_calls", "None")
