"""Messages to contents: what goes where, and what the service's demands cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    Media,
    Message,
    Part,
    Refusal,
    Request,
    Text,
    ToolCall,
    ToolResult,
)
from oaicompat.notes import Notes
from oaicompat.providers.gemini.endpoints import GEMINI_API, Target
from oaicompat.providers.gemini.request import encode_request

VERTEX = Target("vertex", project="project-1", location="global")
PNG = Media("image/png", "iVBORw0K", path="messages[0].content[1].image_url")
INLINE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0K"}}
SPACE = {"role": "user", "parts": [{"text": " "}]}


def said(*turns: tuple[Any, Any]) -> tuple[Message, ...]:
    messages = []
    for index, (role, parts) in enumerate(turns):
        if isinstance(parts, str):
            parts = (Text(parts),)
        messages.append(Message(role, tuple(parts), f"messages[{index}]"))
    return tuple(messages)


def sent(
    *turns: tuple[Any, Any],
    model: str = "gemini-2.5-flash",
    target: Target = GEMINI_API,
) -> tuple[Any, list[tuple[str, str]]]:
    notes = Notes()
    body: Any = json.loads(encode_request(Request(model, said(*turns)), target, notes).body)
    return body, [(note.path, note.action) for note in notes]


def user(*texts: str) -> dict[str, Any]:
    return {"role": "user", "parts": [{"text": text} for text in texts]}


def model(*texts: str) -> dict[str, Any]:
    return {"role": "model", "parts": [{"text": text} for text in texts]}


def test_leading_system_messages_become_the_system_instruction() -> None:
    body, notes = sent(("system", "A"), ("system", (Text("B"), Text(""), Text("C"))), ("user", "x"))
    assert body == {
        "contents": [user("x")],
        "systemInstruction": {"parts": [{"text": "A"}, {"text": "B"}, {"text": "C"}]},
    }
    assert notes == []


def test_a_later_system_message_stays_in_its_place() -> None:
    body, notes = sent(("user", "x"), ("assistant", "y"), ("system", "S"), ("user", "z"))
    assert body["contents"] == [user("x"), model("y"), user("S", "z")]
    assert notes == [("messages[2]", "approximated")]


def test_only_system_messages_become_the_user_turn() -> None:
    """litellm#9733, #13769: empty contents are refused upstream."""
    body, notes = sent(("system", "A"), ("system", "B"))
    assert body == {"contents": [user("A", "B")]}
    assert notes == [("messages[0]", "approximated"), ("messages[1]", "approximated")]


def test_neighbours_of_one_role_are_one_turn() -> None:
    body, notes = sent(
        ("user", "a"),
        ("user", "b"),
        ("assistant", "c"),
        ("assistant", "d"),
        ("user", "e"),
    )
    assert body["contents"] == [user("a", "b"), model("c", "d"), user("e")]
    assert notes == []


def test_a_history_that_starts_with_the_assistant_gets_a_blank_turn() -> None:
    """CLIProxyAPI#4959, #5048."""
    body, notes = sent(("assistant", "Hi!"), ("user", "x"))
    assert body["contents"] == [SPACE, model("Hi!"), user("x")]
    assert notes == [("messages[0]", "approximated")]


def test_a_trailing_assistant_message_passes_where_the_model_takes_it() -> None:
    body, notes = sent(("user", "x"), ("assistant", "The"))
    assert body["contents"] == [user("x"), model("The")]
    assert notes == []


def test_a_trailing_assistant_message_is_refused_where_the_model_refuses_it() -> None:
    """mastra#23320, bifrost#6363: "Requests ending with a model turn are not supported."."""
    with pytest.raises(InvalidRequestError) as caught:
        sent(("user", "x"), ("assistant", "The"), model="gemini-3.6-flash")
    assert caught.value.param == "messages[1]"


def test_empty_texts_are_left_out() -> None:
    """litellm#5515, CLIProxyAPI#4043, #3554."""
    body, notes = sent(("user", (Text(""), PNG)), ("assistant", ""), ("user", "x"))
    assert body["contents"] == [{"role": "user", "parts": [INLINE, {"text": "x"}]}]
    assert notes == []


@pytest.mark.parametrize(
    ("turns", "contents", "noted"),
    [
        ((("user", ""),), [SPACE], ["messages[0]"]),
        (
            (("user", "x"), ("assistant", "y"), ("user", "")),
            [user("x"), model("y"), SPACE],
            2,
        ),
        (
            (("user", ""), ("assistant", "y"), ("user", "z")),
            [SPACE, model("y"), user("z")],
            0,
        ),
    ],
)
def test_an_empty_turn_that_must_exist_is_one_space(turns: Any, contents: Any, noted: Any) -> None:
    body, notes = sent(*turns)
    assert body["contents"] == contents
    where = noted if isinstance(noted, list) else [f"messages[{noted}]"]
    assert notes == [(path, "approximated") for path in where]


def test_no_messages_are_refused() -> None:
    for turns in ((), (("assistant", ""),)):
        with pytest.raises(InvalidRequestError) as caught:
            sent(*turns)
        assert caught.value.param == "messages"


def test_the_model_sees_its_own_refusal() -> None:
    body, _ = sent(("user", "x"), ("assistant", (Refusal("No."), Refusal(""))), ("user", "y"))
    assert body["contents"][1] == model("No.")


def test_text_is_untouched() -> None:
    text = ' <b>"q" \\ \n\t é 😀 [undefined] 2026-01-01 \u2028 '
    body, _ = sent(("user", text))
    assert body["contents"][0]["parts"][0]["text"] == text


def image(part: Media, **keywords: Any) -> tuple[Any, list[tuple[str, str]]]:
    body, notes = sent(("user", (part,)), **keywords)
    return body["contents"][0]["parts"][0], notes


def test_media_by_address() -> None:
    path = "messages[0].content[0].image_url.url"
    cases: list[tuple[str, str, Target, dict[str, str]]] = [
        ("https://x.org/a.png?b", "", GEMINI_API, {"mimeType": "image/png"}),
        ("https://x.org/a.png", "image/webp", GEMINI_API, {"mimeType": "image/webp"}),
        ("gs://bucket/a.pdf", "", VERTEX, {"mimeType": "application/pdf"}),
        ("https://youtu.be/x", "", VERTEX, {"mimeType": "video/mp4"}),
        (
            "https://generativelanguage.googleapis.com/v1beta/files/x",
            "",
            GEMINI_API,
            {},
        ),
    ]
    for uri, mime, target, expected in cases:
        part, notes = image(Media(mime, uri=uri, path=path), target=target)
        assert part == {"fileData": {"fileUri": uri, **expected}}
        assert notes == []


def test_a_files_api_name_becomes_its_full_address() -> None:
    part, _ = image(Media("", uri="files/abc-1"))
    uri = "https://generativelanguage.googleapis.com/v1beta/files/abc-1"
    assert part == {"fileData": {"fileUri": uri}}


def test_an_address_that_does_not_tell_its_type_is_an_image() -> None:
    part, notes = image(Media("", uri="https://x.org/a", path="p"))
    assert part == {"fileData": {"fileUri": "https://x.org/a", "mimeType": "image/jpeg"}}
    assert notes == [("p", "approximated")]


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("gs://bucket/a.png", GEMINI_API),
        ("files/abc", VERTEX),
        ("http://x.org/a.png", GEMINI_API),
        ("file:///etc/passwd", GEMINI_API),
        ("/etc/passwd", GEMINI_API),
        ("file-abc", GEMINI_API),
        ("data:image/png;base64,iVBORw0K", GEMINI_API),
    ],
)
def test_addresses_the_backend_cannot_read_are_refused(uri: str, target: Target) -> None:
    path = "messages[0].content[0].image_url.url"
    with pytest.raises(InvalidRequestError) as caught:
        image(Media("image/png", uri=uri, path=path), target=target)
    assert (caught.value.code, caught.value.param) == ("invalid_image_url", path)


def test_bytes_of_no_known_type_are_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        image(Media("", "AAAA", path="p"))
    assert caught.value.param == "p"


def test_file_names_go_to_vertex_only() -> None:
    document = Media("application/pdf", "JVBERi0=", name="a.pdf", path="p.url")
    part, notes = image(document, target=VERTEX)
    assert part["inlineData"]["displayName"] == "a.pdf"
    assert notes == []
    part, notes = image(document)
    assert part == {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}}
    assert notes == [("p.filename", "dropped")]


def test_a_stretch_of_a_video() -> None:
    video = Media("video/mp4", uri="https://youtu.be/x", start=1.5, end=60, rate=0.5)
    part, _ = image(video)
    assert part["videoMetadata"] == {
        "startOffset": "1.5s",
        "endOffset": "60s",
        "fps": 0.5,
    }
    assert image(Media("video/mp4", uri="https://youtu.be/x", start=0))[0]["videoMetadata"] == {
        "startOffset": "0s"
    }


def test_image_detail_stands_on_the_part_from_3_on() -> None:
    part, notes = image(Media("image/png", "AAAA", detail="low"), model="gemini-3.5-flash")
    assert part["mediaResolution"] == {"level": "MEDIA_RESOLUTION_LOW"}
    part, _ = image(Media("image/png", "AAAA", detail="auto"), model="gemini-3.5-flash")
    assert "mediaResolution" not in part
    assert notes == []


@pytest.mark.parametrize(
    ("details", "resolution", "noted"),
    [
        (("low",), "MEDIA_RESOLUTION_LOW", False),
        (("high", "low"), "MEDIA_RESOLUTION_HIGH", True),
        (("original",), "MEDIA_RESOLUTION_HIGH", False),
        (("low", None), None, True),
        ((None,), None, False),
        (("auto",), None, False),
    ],
)
def test_image_detail_is_the_highest_asked_for_before_3(
    details: tuple[str | None, ...], resolution: str | None, noted: bool
) -> None:
    parts = [Media("image/png", "AAAA", detail=detail) for detail in details]
    body, notes = sent(("user", parts))
    assert body.get("generationConfig", {}).get("mediaResolution") == resolution
    assert bool(notes) is noted
    assert all("mediaResolution" not in part for part in body["contents"][0]["parts"])


def test_an_unknown_detail_is_noted() -> None:
    _, notes = image(
        Media("image/png", "AAAA", detail="tiny", path="p.url"), model="gemini-3.5-flash"
    )
    assert notes == [("p.detail", "dropped")]


def test_media_in_system_messages_are_noted() -> None:
    body, notes = sent(("system", (Text("A"), PNG)), ("user", "x"))
    assert body["systemInstruction"] == {"parts": [{"text": "A"}]}
    assert notes == [("messages[0]", "dropped")]


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("user", ToolCall("a", "f", "{}", path="p")),
        ("assistant", ToolResult("a", (Text("x"),), path="p")),
    ],
)
def test_tool_parts_in_the_wrong_turn_are_noted(role: str, part: Part) -> None:
    body, notes = sent(("user", "x"), (role, (Text("y"), part)), ("user", "z"))
    assert json.dumps(body).count("function") == 0
    assert notes == [("p", "dropped")]
