"""Chat requests: content parts, tool turns, and what earlier answers bring back."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from oaicompat import signatures
from oaicompat.dialects import chat
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    MINTED,
    Code,
    CodeResult,
    Media,
    Message,
    Part,
    Refusal,
    Signature,
    Text,
    Thought,
    ToolCall,
    ToolResult,
)
from oaicompat.notes import Note, Notes

PNG = "iVBORw0KGgo="
USER = {"role": "user", "content": "hi"}


def decode(*messages: Any) -> tuple[tuple[Message, ...], list[Note]]:
    notes = Notes()
    body = msgspec.json.encode({"model": "m", "messages": messages})
    return chat.decode_request(body, notes).messages, list(notes)


def clean(*messages: Any) -> tuple[Message, ...]:
    read, notes = decode(*messages)
    assert notes == []
    return read


def noted(*messages: Any) -> list[tuple[str, str, bool]]:
    return [(note.path, note.action, note.inert) for note in decode(*messages)[1]]


def refused(*messages: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decode(*messages)
    assert caught.value.status == 400
    return caught.value


def user(*parts: Any) -> tuple[Part, ...]:
    return clean({"role": "user", "content": parts})[0].parts


def answer(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant"} | fields


def call(call_id: str, name: str = "f", **fields: Any) -> dict[str, Any]:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": "{}"},
    } | fields


def result(call_id: str, content: Any = "r") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def assistant_parts(**fields: Any) -> tuple[Part, ...]:
    return clean(answer(**fields))[0].parts


def test_every_role_in_its_place() -> None:
    read = clean(
        {"role": "system", "content": "s"},
        USER,
        {"role": "developer", "content": [{"type": "text", "text": "d"}]},
        answer(content="a"),
    )
    assert [(message.role, message.parts) for message in read] == [
        ("system", (Text("s"),)),
        ("user", (Text("hi"),)),
        ("system", (Text("d"),)),
        ("assistant", (Text("a"),)),
    ]
    assert [message.path for message in read] == [f"messages[{index}]" for index in range(4)]


AT = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "text", "text": "t"}, Text("t")),
        ({"type": "input_text", "text": "t"}, Text("t")),
        ({"type": "output_text", "text": "t", "annotations": []}, Text("t")),
        ({"type": "refusal", "refusal": "no"}, Text("no")),
        (
            {
                "type": "image_url",
                "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"},
            },
            Media("image/png", PNG, detail="low", path=f"{AT}.image_url.url"),
        ),
        (
            {"type": "image_url", "image_url": "https://a.b/c.jpg"},
            Media("image/jpeg", uri="https://a.b/c.jpg", path=f"{AT}.image_url"),
        ),
        (
            {"type": "input_image", "image_url": "https://a.b/c", "detail": "original"},
            Media("", uri="https://a.b/c", detail="original", path=f"{AT}.image_url"),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
            Media("audio/mp3", "AAAA", path=f"{AT}.input_audio.data"),
        ),
        (
            {
                "type": "input_audio",
                "input_audio": {"data": "data:audio/x;base64,AAAA", "format": "wav"},
            },
            Media("audio/wav", "AAAA", path=f"{AT}.input_audio.data"),
        ),
        (
            {"type": "file", "file": {"file_data": "AAAA", "filename": "a.pdf"}},
            Media("application/pdf", "AAAA", name="a.pdf", path=f"{AT}.file.file_data"),
        ),
        (
            {"type": "file", "file": {"file_data": "data:text/plain;base64,AAAA"}},
            Media("text/plain", "AAAA", path=f"{AT}.file.file_data"),
        ),
        (
            {"type": "input_file", "file_url": "https://a.b/c.pdf", "filename": "x"},
            Media("application/pdf", uri="https://a.b/c.pdf", name="x", path=f"{AT}.file_url"),
        ),
        (
            {
                "type": "video_url",
                "video_url": {"url": "gs://b/v.mp4", "start": 1, "end": 2.5, "fps": 2},
            },
            Media(
                "video/mp4",
                uri="gs://b/v.mp4",
                start=1,
                end=2.5,
                rate=2,
                path=f"{AT}.video_url.url",
            ),
        ),
    ],
)
def test_parts(part: Any, expected: Part) -> None:
    assert user(part) == (expected,)


def test_files_of_the_files_api() -> None:
    [media] = user({"type": "file", "file": {"file_id": "files/abc"}})
    assert isinstance(media, Media)
    assert media.uri.endswith("/files/abc")


def test_parts_keep_their_order() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}
    kinds = user({"type": "text", "text": "a"}, image, {"type": "text", "text": "b"})
    assert [type(part) for part in kinds] == [Text, Media, Text]


def test_a_video_whose_address_does_not_tell_its_type_is_noted() -> None:
    part = {"type": "video_url", "video_url": "https://a.b/c"}
    assert noted({"role": "user", "content": [part]}) == [
        (f"{AT}.video_url", "approximated", False)
    ]


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "zip"}, f"{AT}.type"),
        ({"text": "t"}, f"{AT}.type"),
        ({"type": "text"}, f"{AT}.text"),
        ({"type": "image_url", "image_url": {}}, f"{AT}.image_url.url"),
        ({"type": "image_url", "image_url": {"url": 3}}, f"{AT}.image_url.url"),
        ({"type": "image_url", "image_url": {"url": "/etc/passwd"}}, f"{AT}.image_url.url"),
        ({"type": "image_url", "image_url": {"url": "http://a.b/c.png"}}, f"{AT}.image_url.url"),
        ({"type": "input_image"}, f"{AT}.image_url"),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "midi"}},
            f"{AT}.input_audio.format",
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "?", "format": "wav"}},
            f"{AT}.input_audio.data",
        ),
        ({"type": "file", "file": {"filename": "a.pdf"}}, f"{AT}.file.file_data"),
        ({"type": "file", "file": {"file_data": "AAAA"}}, f"{AT}.file.file_data"),
        ({"type": "file", "file": {"file_id": "file-abc"}}, f"{AT}.file.file_id"),
        ("text", AT),
    ],
)
def test_parts_that_cannot_be_read_name_their_field(part: Any, param: str) -> None:
    assert refused({"role": "user", "content": [part]}).param == param


def test_system_messages_hold_text_only() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}
    assert refused({"role": "system", "content": [part]}).param == f"{AT}.type"


def test_cache_marks_are_inert_and_names_are_dropped() -> None:
    part = {"type": "text", "text": "t", "cache_control": {"type": "ephemeral"}}
    assert noted({"role": "user", "content": [part], "name": "bob"}) == [
        ("messages[0].name", "dropped", False),
        (f"{AT}.cache_control", "dropped", True),
    ]
    marked = part | {"cache_control": None, "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert noted({"role": "user", "content": [marked]}) == [
        (f"{AT}.prompt_cache_breakpoint", "dropped", True)
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user"},
        {"role": "system"},
        {"role": "tool", "tool_call_id": "a"},
        {"role": "robot"},
        {},
    ],
)
def test_messages_that_are_none(message: Any) -> None:
    assert (refused(message).param or "").startswith("messages[0].")


@pytest.mark.parametrize("empty", [None, "", [], [{"type": "text", "text": ""}], "absent"])
def test_an_answer_of_calls_has_no_empty_text(empty: Any) -> None:
    fields = {} if empty == "absent" else {"content": empty}
    [message, _] = clean(answer(tool_calls=[call("c1")], **fields), result("c1"))
    assert message.parts == (ToolCall("c1", "f", "{}", path="messages[0].tool_calls[0]"),)


def test_calls_and_results() -> None:
    custom = {"id": "c2", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    _, second, first = clean(
        answer(content="a", tool_calls=[call("c1") | {"index": 0}, custom]),
        result(
            "c2",
            [
                {"type": "text", "text": "x"},
                {"type": "image_url", "image_url": "https://a.b/c.png"},
            ],
        ),
        result("c1", ""),
    )
    assert second.role == "tool"
    [found] = second.parts
    assert isinstance(found, ToolResult)
    assert (found.call_id, found.name, found.path) == ("c2", "patch", "messages[1]")
    assert [type(part) for part in found.parts] == [Text, Media]
    assert first.parts == (ToolResult("c1", (Text(""),), "f", "messages[2]"),)


def test_arguments_are_untouched() -> None:
    arguments = '{ "title" : "x",  "n": 1.0 }'
    item = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    [part] = assistant_parts(tool_calls=[item])
    assert isinstance(part, ToolCall)
    assert part.arguments == arguments


def test_empty_ids_pair_by_position() -> None:
    read = clean(answer(tool_calls=[call("", "f"), call("", "g")]), result(""), result(""))
    calls = [part for part in read[0].parts if isinstance(part, ToolCall)]
    results = [part for message in read[1:] for part in message.parts]
    assert [one.id for one in calls] == [f"{MINTED}0_0", f"{MINTED}0_1"]
    assert [(one.call_id, one.name) for one in results if isinstance(one, ToolResult)] == [
        (f"{MINTED}0_0", "f"),
        (f"{MINTED}0_1", "g"),
    ]


def test_repeated_ids_belong_to_the_latest_call() -> None:
    read = clean(
        *(answer(tool_calls=[call("c", "f")]), result("c")),
        *(answer(tool_calls=[call("c", "g")]), result("c")),
    )
    names = [
        part.name for message in read for part in message.parts if isinstance(part, ToolResult)
    ]
    assert names == ["f", "g"]


@pytest.mark.parametrize("call_id", ["other", "", None])
def test_results_of_no_call_are_refused(call_id: Any) -> None:
    before = [answer(tool_calls=[call("c1")]), result("c1")]
    assert refused(*before, result(call_id)).param == "messages[2].tool_call_id"


def test_legacy_calls_pair_by_name() -> None:
    called = {"name": "f", "arguments": '{"a":1}'}
    answered = {"role": "function", "name": "f", "content": "r"}
    read = clean(
        answer(content=None, function_call=called), answered, answer(function_call=called), answered
    )
    assert read[0].parts == (
        ToolCall(f"{MINTED}0_0", "f", '{"a":1}', path="messages[0].function_call"),
    )
    assert read[1].parts == (ToolResult(f"{MINTED}0_0", (Text("r"),), "f", "messages[1]"),)
    assert read[3].parts == (ToolResult(f"{MINTED}2_0", (Text("r"),), "f", "messages[3]"),)
    assert refused(answered).param == "messages[0].name"
    assert refused(answer(function_call=called), answered, answered).param == "messages[2].name"


def test_a_call_without_function_names_the_field() -> None:
    assert refused(answer(tool_calls=[{"id": "c"}])).param == "messages[0].tool_calls[0].function"


def test_refusals_and_speech_of_earlier_answers() -> None:
    assert assistant_parts(content=None, refusal="no") == (Refusal("no"),)
    assert assistant_parts(content=[{"type": "refusal", "refusal": "no"}]) == (Refusal("no"),)
    error = refused(answer(audio={"id": "audio_1"}))
    assert error.param == "messages[0].audio.id"
    spoken = answer(content=None, audio={"id": "audio_1", "transcript": "hello", "data": "AA"})
    assert decode(spoken)[0][0].parts == (Text("hello"),)
    assert noted(spoken) == [("messages[0].audio", "approximated", False)]


def test_fields_that_answers_come_with_are_taken() -> None:
    fields: dict[str, Any] = {"annotations": [], "parsed": None, "refusal": None}
    fields["provider_specific_fields"] = {}
    assert assistant_parts(content="a", function_call=None, audio=None, **fields) == (Text("a"),)


def test_images_shown_as_markdown_are_images_again() -> None:
    text = f"a ![x](data:image/png;base64,{PNG}) b ![y](data:image/png;base64,{PNG})"
    [message], notes = decode(answer(content=text))
    assert [part.text if isinstance(part, Text) else type(part) for part in message.parts] == [
        *("a ", Media, " b ", Media),
    ]
    assert [(note.path, note.action, note.inert) for note in notes] == [
        ("messages[0].content", "rewritten", True)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "](data:image/png;base64,AAAA)",
        "![x](data:image/png;base64,AAAA",
        "![x](https://a.b/c.png)",
        "Use ![logo](data:image/png;base64,...) in README",
        "![s](data:image/svg+xml;utf8,<svg/>)",
        "![x](data:image/png;base64,AAAA)",
        f"in code: `![x](data:image/png;base64,{PNG})`",
        f"```\n![x](data:image/png;base64,{PNG})\n```",
    ],
)
def test_what_only_looks_like_an_image_stays_text(text: str) -> None:
    assert assistant_parts(content=text) == (Text(text),)


def test_listed_images_follow_the_text() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}, "index": 0}
    parts = assistant_parts(content="a", images=[image])
    assert parts == (
        Text("a"),
        Media("image/png", PNG, path="messages[0].images[0].image_url.url"),
    )


def test_foreign_thoughts_stay_here() -> None:
    fields = {
        "reasoning_content": "hm",
        "reasoning": "hm",
        "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "claude"}],
    }
    read, _ = decode(answer(content="a", **fields))
    assert read[0].parts == (Text("a"),)
    assert noted(answer(content="a", **fields)) == [
        ("messages[0].reasoning_content", "dropped", True),
        ("messages[0].reasoning", "dropped", True),
        ("messages[0].reasoning_details[0]", "dropped", True),
    ]


EXPLICIT: dict[str, Any] = {
    "extra_content": {"google": {"thought_signature": "explicit", "backend": "vertex"}}
}
DETAILS = {
    "reasoning_details": [
        {"type": "reasoning.encrypted", "data": "detail", "id": "c1", "format": "google-gemini-v1"}
    ]
}
BLOCKS = {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "block"}]}
SUFFIXED = "c1__thought__suffix"


@pytest.mark.parametrize(
    ("item", "fields", "expected"),
    [
        (call(SUFFIXED, **EXPLICIT), DETAILS | BLOCKS, Signature("explicit", "vertex")),
        (call(SUFFIXED), DETAILS | BLOCKS, Signature("detail")),
        (call(SUFFIXED), BLOCKS, Signature("block")),
        (call(SUFFIXED), {}, Signature("suffix")),
        (
            call("c1", provider_specific_fields={"thought_signature": "fields"}),
            {},
            Signature("fields"),
        ),
        (call("c1"), {}, None),
    ],
)
def test_signatures_are_read_by_priority(
    item: Any, fields: Any, expected: Signature | None
) -> None:
    read = clean(answer(tool_calls=[item], **fields), result(item["id"]))
    [part] = read[0].parts
    assert isinstance(part, ToolCall)
    assert (part.id, part.signature) == ("c1", expected)
    [answered] = read[1].parts
    assert isinstance(answered, ToolResult)
    assert answered.call_id == "c1"


def test_details_sign_the_call_they_name() -> None:
    parts = assistant_parts(tool_calls=[call("c0"), call("c1")], **DETAILS)
    assert [getattr(part, "signature", None) for part in parts] == [None, Signature("detail")]


def test_a_lower_source_is_not_asked_once_a_higher_one_gave_something() -> None:
    details = [{"type": "reasoning.encrypted", "data": "detail", "id": "c2"}]
    calls = [call("c1"), call("c2")]
    parts = assistant_parts(tool_calls=calls, reasoning_details=details, **BLOCKS)
    assert [getattr(part, "signature", None) for part in parts] == [None, Signature("detail")]


def test_no_signature_goes_back_twice() -> None:
    details = [
        {"type": "reasoning.encrypted", "data": "same", "id": "c1"},
        {"type": "reasoning.encrypted", "data": "same", "id": "c2"},
        {"type": "reasoning.summary", "data": "other", "id": "c2"},
    ]
    parts = assistant_parts(tool_calls=[call("c1"), call("c2")], reasoning_details=details)
    assert [getattr(part, "signature", None) for part in parts] == [Signature("same"), None]


def test_the_signature_of_a_text() -> None:
    google = {"google": {"thought_signature": "s"}}
    assert assistant_parts(content="a", extra_content=google) == (Text("a", Signature("s")),)
    assert assistant_parts(content="a", **BLOCKS) == (Text("a", Signature("block")),)


def test_signatures_of_other_services_are_not_used() -> None:
    details = [{"type": "reasoning.encrypted", "data": "x", "format": "anthropic-claude-v1"}]
    assert assistant_parts(content="a", reasoning_details=details) == (Text("a"),)


TURN: tuple[Part, ...] = (
    Thought("thinking", Signature("s0", "gemini")),
    Text("one", Signature("s1", "gemini")),
    Code("print()", signature=Signature("s2", "gemini")),
    CodeResult("OUTCOME_OK", "x"),
    Text("two"),
    ToolCall("c1", "f", "{}", signature=Signature("s3", "gemini")),
)


def carried(**changes: Any) -> dict[str, Any]:
    shown = {Thought: "thinking", Code: "", CodeResult: "", ToolCall: ""}
    described = [
        signatures.describe(part, part.text if isinstance(part, Text) else shown[type(part)])
        for part in TURN
    ]
    google = signatures.carrier([each for each in described if each], "gemini")
    fields = {
        "content": "onetwo",
        "reasoning_content": "thinking",
        "tool_calls": [call("c1")],
        "extra_content": {"google": google},
    }
    return answer(**(fields | changes))


def test_a_carrier_restores_the_turn() -> None:
    [message] = clean(carried())
    called = ToolCall(
        "c1", "f", "{}", signature=Signature("s3", "gemini"), path="messages[0].tool_calls[0]"
    )
    assert message.parts == (*TURN[:-1], called)


def test_a_carrier_restores_content_given_as_parts() -> None:
    texts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert clean(carried(content=texts)) == clean(carried())


def test_a_carrier_signs_images_shown_and_listed() -> None:
    shown = f"![image](data:image/png;base64,{PNG})"
    image = Media("image/png", PNG, signature=Signature("s", "vertex"))
    for content, images, text in (
        (f"a{shown}", [], shown),
        ("a", [{"image_url": {"url": f"data:image/png;base64,{PNG}"}}], ""),
    ):
        described = [signatures.describe(Text("a"), "a"), signatures.describe(image, text)]
        google = signatures.carrier([each for each in described if each], "vertex")
        sent = answer(content=content, images=images, extra_content={"google": google})
        [message], _ = decode(sent)
        assert message.parts[0] == Text("a")
        assert getattr(message.parts[1], "signature", None) == Signature("s", "vertex")


def test_a_changed_text_voids_the_carrier() -> None:
    message = carried(content="other")
    assert decode(message)[0][0].parts[0] == Text("other")
    assert ("messages[0].extra_content.google.parts", "rewritten", False) in noted(message)


def test_two_user_turns_in_a_row_stay_two() -> None:
    assert len(clean(USER, USER)) == 2


def test_histories_are_read_in_time_that_grows_with_them() -> None:
    def history(size: int) -> tuple[dict[str, Any], ...]:
        calls = [
            {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            for number in range(size)
        ]
        details = [
            {"type": "reasoning.encrypted", "data": f"s{number}", "id": f"c{number}"}
            for number in range(size)
        ]
        results = [{"role": "tool", "tool_call_id": f"c{n}", "content": ""} for n in range(size)]
        text = "](data:image/" * size + ")"
        return (USER, answer(content=text, tool_calls=calls, reasoning_details=details), *results)

    def seconds(size: int) -> float:
        asked = history(size)
        began = time.process_time()
        decode(*asked)
        return time.process_time() - began

    # Eight times as much; a search that starts anew for each part would take 64 times as long.
    assert min(seconds(4000) for _ in range(3)) < 24 * min(seconds(500) for _ in range(3))


def test_a_result_for_the_call_of_an_older_turn_names_its_id() -> None:
    def called(name: str) -> dict[str, Any]:
        call = {"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        return {"role": "assistant", "tool_calls": [call]}

    result = {"role": "tool", "tool_call_id": "a", "content": ""}
    error = refused(USER, called("a"), result, called("b"), result)
    assert (error.param, error.code) == ("messages[4].tool_call_id", "invalid_value")
