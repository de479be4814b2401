"""generationConfig: what was asked for, as the model takes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    AudioOutput,
    Message,
    OutputFormat,
    Reasoning,
    Request,
    Text,
)
from oaicompat.notes import Notes
from oaicompat.providers.gemini.endpoints import GEMINI_API, Target
from oaicompat.providers.gemini.request import EncodeOptions, encode_request
from oaicompat.sampling import Sampling

VERTEX = Target("vertex", project="project-1", location="global")
HELLO = (Message("user", (Text("Hello"),), "messages[0]"),)
OLD, MIDDLE, NEW = "gemini-2.0-flash", "gemini-2.5-flash", "gemini-3.8-flash"
Noted = list[tuple[str, str]]


def config(
    model: str = MIDDLE,
    target: Target = GEMINI_API,
    candidates: int | None = None,
    thoughts: bool | None = None,
    **fields: Any,
) -> tuple[Any, Noted]:
    notes = Notes()
    encoded = encode_request(
        Request(model, HELLO, **fields),
        target,
        notes,
        candidates=candidates,
        options=EncodeOptions(thoughts=thoughts),
    )
    body = json.loads(encoded.body)
    return body.get("generationConfig"), [(note.path, note.action) for note in notes]


@pytest.mark.parametrize(
    ("asked", "model", "sent", "noted"),
    [
        ({"temperature": 0.0, "top_p": 0.0, "top_k": 3}, MIDDLE, {"temperature": 0, "topP": 0, "topK": 3}, []),
        ({"temperature": 0.3}, NEW, {"temperature": 0.3}, [("temperature", "dropped")]),
        ({"temperature": 1}, NEW, {"temperature": 1}, []),
        ({"max_output_tokens": 5}, NEW, {"maxOutputTokens": 5}, []),
        ({"seed": 0}, NEW, {"seed": 0}, []),
        ({"seed": -1}, NEW, {"seed": -1}, []),
        ({"seed": 2**31}, NEW, {"seed": -(2**31)}, [("seed", "rewritten")]),
        ({"seed": 2**40 + 7}, NEW, {"seed": 7}, [("seed", "rewritten")]),
        ({"presence_penalty": 0.5}, OLD, {"presencePenalty": 0.5}, []),
        ({"frequency_penalty": 2.0}, OLD, {"frequencyPenalty": 1.9999}, [("frequency_penalty", "clamped")]),
        ({"frequency_penalty": -2.0}, OLD, {"frequencyPenalty": -2}, []),
        ({"presence_penalty": 0.5}, NEW, None, [("presence_penalty", "dropped")]),
        ({"presence_penalty": 0.0}, NEW, {"presencePenalty": 0}, []),
        ({"logprobs": True, "top_logprobs": 3}, OLD, {"responseLogprobs": True, "logprobs": 3}, []),
        ({"logprobs": True, "top_logprobs": 0}, OLD, {"responseLogprobs": True}, []),
        ({"logprobs": True}, NEW, None, [("logprobs", "dropped")]),
        ({"logprobs": False}, NEW, None, []),
        ({"top_logprobs": 2}, OLD, None, [("top_logprobs", "dropped")]),
        ({"candidates": 1}, MIDDLE, None, []),
        ({"candidates": 3}, MIDDLE, {"candidateCount": 3}, []),
        ({"candidates": 9}, MIDDLE, {"candidateCount": 8}, [("candidates", "clamped")]),
        ({"candidates": 3}, NEW, None, [("candidates", "dropped")]),
    ],
)  # fmt: skip
def test_sampling(asked: dict[str, Any], model: str, sent: Any, noted: Noted) -> None:
    """envoy#1680, Portkey#1114, langwatch#6290: parameters that vanished."""
    assert config(model, sampling=Sampling(**asked)) == (sent, noted)


def test_the_exchange_decides_how_many_answers_one_call_gives() -> None:
    asked = Sampling(candidates=3)
    assert config(sampling=asked, candidates=1) == (None, [])
    assert config(NEW, sampling=asked, candidates=1) == (None, [])
    assert config(sampling=asked, candidates=2) == ({"candidateCount": 2}, [])


def test_logprobs_cannot_be_streamed_on_vertex() -> None:
    asked = Sampling(logprobs=True)
    assert config(sampling=asked, target=VERTEX) == ({"responseLogprobs": True}, [])
    assert config(sampling=asked, target=VERTEX, stream=True) == (
        None,
        [("logprobs", "dropped")],
    )


def test_notes_use_the_clients_names() -> None:
    spelling = {"candidates": "n", "seed": "random_seed"}
    _, noted = config(NEW, sampling=Sampling(candidates=3, seed=2**31), spelling=spelling)
    assert noted == [("n", "dropped"), ("random_seed", "rewritten")]


def test_stop_sequences() -> None:
    """quill-router#130, NA: never parsed, or cut without a word."""
    stop = tuple("abcde")
    assert config(stop=stop) == ({"stopSequences": list(stop)}, [])
    assert config(stop=("", "a")) == ({"stopSequences": ["a"]}, [("stop", "dropped")])
    assert config(stop=("",)) == (None, [("stop", "dropped")])
    with pytest.raises(InvalidRequestError) as caught:
        config(stop=(*stop, "f"))
    assert caught.value.param == "stop"


def test_output_formats() -> None:
    """bifrost#6498: a model nobody knows has the newest abilities."""
    mime = {"responseMimeType": "application/json"}
    assert config(output=OutputFormat("json_object")) == (mime, [])
    schema = {"type": "object", "properties": {"z": {}, "a": {}}, "title": "T"}
    wanted = OutputFormat("json_schema", Raw(json.dumps(schema).encode()), "name")
    for model in (MIDDLE, NEW, "who-knows"):
        assert config(model, output=wanted) == (
            {**mime, "responseJsonSchema": schema},
            [],
        )
    sent, _ = config("gemini-1.5-pro", output=wanted)
    assert list(sent) == ["responseMimeType", "responseSchema"]
    with pytest.raises(InvalidRequestError) as caught:
        config(output=OutputFormat("json_schema", Raw(b"1"), path="text.format"))
    assert caught.value.param == "text.format"


@pytest.mark.parametrize(
    ("effort", "model", "sent", "noted"),
    [
        ("none", MIDDLE, {"thinkingBudget": 0}, None),
        ("low", MIDDLE, {"thinkingBudget": 1024}, None),
        ("high", "gemini-2.5-pro", {"thinkingBudget": 24576}, None),
        ("none", "gemini-2.5-pro", {"thinkingBudget": 128}, "approximated"),
        ("minimal", NEW, {"thinkingLevel": "LOW"}, "clamped"),
        ("medium", NEW, {"thinkingLevel": "MEDIUM"}, None),
        ("xhigh", NEW, {"thinkingLevel": "HIGH"}, "clamped"),
        ("low", OLD, None, "dropped"),
    ],
)
def test_effort(effort: str, model: str, sent: Any, noted: str | None) -> None:
    """Portkey#1486, vercel#19038, #18989."""
    found, notes = config(model, reasoning=Reasoning(effort, path="reasoning.effort"))
    assert found == (sent and {"thinkingConfig": sent})
    assert notes == ([("reasoning.effort", noted)] if noted else [])


def test_an_unknown_effort_is_refused_by_its_path() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        config(reasoning=Reasoning("enormous", path="reasoning.effort"))
    assert caught.value.param == "reasoning.effort"


@pytest.mark.parametrize(
    ("reasoning", "option", "model", "sent"),
    [
        (Reasoning("low"), None, MIDDLE, {"thinkingBudget": 1024}),
        (
            Reasoning("low", True),
            None,
            MIDDLE,
            {"includeThoughts": True, "thinkingBudget": 1024},
        ),
        (Reasoning(None, True), None, NEW, {"includeThoughts": True}),
        (Reasoning(None, False), True, NEW, None),
        (Reasoning("low", False), None, MIDDLE, {"thinkingBudget": 1024}),
        (Reasoning("none", True), None, MIDDLE, {"thinkingBudget": 0}),
        (None, True, NEW, {"includeThoughts": True}),
        (None, False, NEW, None),
        (None, True, OLD, None),
    ],
)
def test_visibility_and_effort_are_independent(
    reasoning: Reasoning | None, option: bool | None, model: str, sent: Any
) -> None:
    """hermes-agent#64036: hiding the thoughts lowered the effort."""
    found, noted = config(model, reasoning=reasoning, thoughts=option)
    assert found == (sent and {"thinkingConfig": sent})
    assert noted == []


def test_thoughts_of_a_model_that_does_not_think_are_noted() -> None:
    assert config(OLD, reasoning=Reasoning(None, True)) == (
        None,
        [("reasoning_effort", "dropped")],
    )


@pytest.mark.parametrize(
    ("given", "model", "sent", "noted"),
    [
        (
            {"thinking_budget": 99999},
            MIDDLE,
            {"thinkingBudget": 24576},
            "thinking_budget",
        ),
        ({"thinking_budget": -1}, MIDDLE, {"thinkingBudget": -1}, None),
        ({"thinking_level": "low"}, MIDDLE, {"thinkingBudget": 1024}, None),
        ({"thinking_level": "HIGH"}, NEW, {"thinkingLevel": "HIGH"}, None),
        (
            {"thinking_budget": 1024},
            "gemini-4-argon",
            {"thinkingLevel": "LOW"},
            "thinking_budget",
        ),
        ({"include_thoughts": True}, OLD, None, ""),
        ({"include_thoughts": False}, MIDDLE, None, None),
    ],
)
def test_explicit_thinking_is_fitted_to_the_model(
    given: dict[str, Any], model: str, sent: Any, noted: str | None
) -> None:
    """CLIProxyAPI#278, python-genai#782: a budget outside the model's range."""
    extra = {"thinking_config": Raw(json.dumps(given).encode())}
    found, notes = config(model, extra=extra)
    assert found == (sent and {"thinkingConfig": sent})
    path = "extra_body.google.thinking_config"
    assert [where for where, _ in notes] == (
        [] if noted is None else [f"{path}.{noted}".rstrip(".")]
    )


def test_modalities_and_voices() -> None:
    assert config(modalities=("text", "image")) == (
        {"responseModalities": ["TEXT", "IMAGE"]},
        [],
    )
    sent, noted = config(
        "gemini-3.8-flash-tts",
        modalities=("text", "audio"),
        audio=AudioOutput("alloy", "wav"),
    )
    assert sent == {
        "responseModalities": ["AUDIO"],
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
    }
    assert noted == [("modalities", "approximated"), ("audio.voice", "approximated")]


def test_a_voice_of_geminis_own_is_passed_on() -> None:
    sent, noted = config(audio=AudioOutput("zephyr", "pcm16"))
    assert "Zephyr" in json.dumps(sent)
    assert noted == []


def test_a_sound_format_nobody_can_write_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        config(audio=AudioOutput("alloy", "opus"))
    assert caught.value.param == "audio.format"


def test_a_limit_beyond_what_the_service_can_hold_is_refused_by_the_clients_name() -> None:
    spelling = {"max_output_tokens": "max_tokens"}
    request = Request(
        "gemini-2.5-flash",
        (Message("user", (Text("x"),)),),
        sampling=Sampling(max_output_tokens=2**31),
        spelling=spelling,
    )
    with pytest.raises(InvalidRequestError) as caught:
        encode_request(request, GEMINI_API, Notes())
    assert (caught.value.param, caught.value.code) == ("max_tokens", "integer_above_max_value")
