"""The body as a whole: minimal, honest about what it leaves out, merged with what the client spelled out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    CustomTool,
    FunctionTool,
    Message,
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
CONTENTS = [{"role": "user", "parts": [{"text": "Hello"}]}]
MODEL = "gemini-2.5-flash"


def sent(request: Request, target: Target = GEMINI_API, **keywords: Any) -> tuple[Any, Notes]:
    notes = Notes()
    body: Any = json.loads(encode_request(request, target, notes, **keywords).body)
    return body, notes


def extra(**fields: Any) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}


def paths(notes: Notes) -> list[tuple[str, str]]:
    return [(note.path, note.action) for note in notes]


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.8-flash", "something-else"])
@pytest.mark.parametrize("target", [GEMINI_API, VERTEX])
def test_a_model_and_a_message_give_one_content_and_nothing_else(
    model: str, target: Target
) -> None:
    notes = Notes()
    encoded = encode_request(Request(model, HELLO), target, notes)
    assert encoded.body == b'{"contents":[{"role":"user","parts":[{"text":"Hello"}]}]}'
    assert (encoded.names, encoded.custom, len(notes)) == ({}, frozenset(), 0)


def test_the_model_of_the_target_decides_what_is_possible() -> None:
    request = Request("gemini-2.5-flash", HELLO, reasoning=Reasoning("low"))
    body, _ = sent(request, Target(model="gemini-3.5-flash"))
    assert body["generationConfig"] == {"thinkingConfig": {"thinkingLevel": "LOW"}}


def test_a_continued_answer_resends_the_request_with_the_token() -> None:
    body, _ = sent(Request(MODEL, HELLO), continuation="dG9rZW4=")
    assert body == {"contents": CONTENTS, "continuationToken": "dG9rZW4="}


def test_configured_safety_settings_are_sent_and_the_clients_win() -> None:
    options = EncodeOptions(safety_settings=Raw(b'[{"category":"A","threshold":"OFF"}]'))
    body, _ = sent(Request(MODEL, HELLO), options=options)
    assert body["safetySettings"] == [{"category": "A", "threshold": "OFF"}]
    body, notes = sent(Request(MODEL, HELLO, extra=extra(safety_settings=[])), options=options)
    assert body["safetySettings"] == []
    assert not len(notes)


@pytest.mark.parametrize(
    ("tier", "target", "body_tier", "noted"),
    [
        ("auto", GEMINI_API, None, False),
        ("default", GEMINI_API, "standard", False),
        ("flex", GEMINI_API, "flex", False),
        ("priority", GEMINI_API, "priority", False),
        ("scale", GEMINI_API, None, True),
        ("auto", VERTEX, None, False),
        ("default", VERTEX, None, False),
        ("priority", VERTEX, None, True),
    ],
)
def test_service_tier(tier: str, target: Target, body_tier: str | None, noted: bool) -> None:
    body, notes = sent(Request(MODEL, HELLO, service_tier=tier), target)
    assert body.get("serviceTier") == body_tier
    assert paths(notes) == ([("service_tier", "dropped")] if noted else [])


def test_metadata_becomes_labels_on_vertex_only() -> None:
    metadata = {"Team": "Blue", "run": "7", "1st": "x", "note": "two words", "RUN": "8"}
    body, notes = sent(Request(MODEL, HELLO, metadata=metadata), VERTEX)
    assert body["labels"] == {"team": "blue", "run": "7"}
    assert paths(notes) == [
        ("metadata.Team", "rewritten"),
        ("metadata.1st", "dropped"),
        ("metadata.note", "dropped"),
        ("metadata.RUN", "dropped"),
    ]
    body, notes = sent(Request(MODEL, HELLO, metadata=metadata))
    assert "labels" not in body
    assert paths(notes) == [("metadata", "dropped")]
    assert not any(note.refusable for note in notes)


def test_google_fields_are_taken_in_snake_and_in_camel_case() -> None:
    for fields in (
        extra(thinking_config={"thinking_budget": 512, "include_thoughts": True}),
        extra(thinkingConfig={"thinkingBudget": 512, "includeThoughts": True}),
        extra(generation_config={"thinking_config": {"thinkingBudget": 512, "include_thoughts": 1}})
        if False
        else extra(
            generationConfig={"thinkingConfig": {"thinkingBudget": 512, "includeThoughts": True}}
        ),
    ):
        body, notes = sent(Request(MODEL, HELLO, extra=fields))
        thinking = {"includeThoughts": True, "thinkingBudget": 512}
        assert body == {
            "contents": CONTENTS,
            "generationConfig": {"thinkingConfig": thinking},
        }
        assert not len(notes)


def test_google_fields_are_merged_and_win_over_openais() -> None:
    request = Request(
        MODEL,
        HELLO,
        sampling=Sampling(temperature=0.5, top_p=0.5),
        extra=extra(
            generation_config={
                "temperature": 0.7,
                "image_config": {"aspectRatio": "1:1"},
            },
            media_resolution="MEDIA_RESOLUTION_LOW",
            labels={"a": "b"},
            tool_config={"retrieval_config": {"languageCode": "de"}},
            tools=[{"google_search": {}}],
        ),
    )
    body, notes = sent(request)
    assert body["generationConfig"] == {
        "temperature": 0.7,
        "topP": 0.5,
        "imageConfig": {"aspectRatio": "1:1"},
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
    }
    assert body["labels"] == {"a": "b"}
    assert body["toolConfig"] == {"retrievalConfig": {"languageCode": "de"}}
    assert body["tools"] == [{"google_search": {}}]
    assert paths(notes) == [("extra_body.google.temperature", "rewritten")]


def test_names_that_are_no_body_fields_are_noted() -> None:
    fields = extra(
        thought_tag_marker="think",
        contents=[],
        system_instruction={},
        model_armor_config={},
    )
    fields |= extra(generation_config={"surprise": 1}, tool_config={"surprise": 1}, store=None)
    body, notes = sent(Request(MODEL, HELLO, extra=fields))
    assert body == {"contents": CONTENTS}
    assert paths(notes) == [
        (f"extra_body.google.{name}", "dropped")
        for name in (
            "thought_tag_marker",
            "contents",
            "system_instruction",
            "model_armor_config",
            "generation_config.surprise",
            "tool_config.surprise",
        )
    ]


@pytest.mark.parametrize(
    "fields",
    [
        extra(thinking_config=1),
        extra(thinking_config={"thinking_budget": "much"}),
        extra(thinking_config={"thinking_budget": 1, "thinking_level": "LOW"}),
        extra(thinking_config={"surprise": 1}),
        extra(generation_config=[]),
        extra(tool_config="x"),
        extra(tools={}),
        extra(tools=[1]),
        extra(cached_content=5),
    ],
)
def test_google_fields_of_the_wrong_form_are_the_clients_fault(
    fields: dict[str, Raw],
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        sent(Request(MODEL, HELLO, extra=fields))
    assert str(caught.value.param).startswith("extra_body.google.")


def test_effort_and_thinking_config_are_refused_together() -> None:
    """Google's own OpenAI endpoint refuses them too."""
    request = Request(MODEL, HELLO, reasoning=Reasoning("low"), extra=extra(thinking_config={}))
    with pytest.raises(InvalidRequestError) as caught:
        sent(request)
    assert caught.value.param == "reasoning_effort"


def test_cached_content_is_passed_on_alone() -> None:
    cached = extra(cached_content="cachedContents/x")
    body, _ = sent(Request(MODEL, HELLO, extra=cached))
    assert body == {"contents": CONTENTS, "cachedContent": "cachedContents/x"}
    system = (Message("system", (Text("Be brief."),), "messages[0]"), *HELLO)
    for request in (
        Request(MODEL, system, extra=cached),
        Request(MODEL, HELLO, (FunctionTool("f"),), extra=cached),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            sent(request)
        assert caught.value.param == "extra_body.google.cached_content"


def test_custom_tools_and_changed_names_are_told() -> None:
    request = Request(MODEL, HELLO, (CustomTool("apply patch"), FunctionTool("f")))
    notes = Notes()
    encoded = encode_request(request, GEMINI_API, notes)
    assert encoded.custom == {"apply patch"}
    assert list(encoded.names.values()) == ["apply patch"]


def test_text_that_is_not_unicode_is_the_clients_fault() -> None:
    with pytest.raises(InvalidRequestError):
        sent(Request(MODEL, (Message("user", (Text("\ud800"),)),)))
