"""Calls and their results: equal counts, call order, nothing else in the turn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import (
    MINTED,
    Media,
    Message,
    Request,
    Text,
    ToolCall,
    ToolResult,
)
from oaicompat.notes import Notes
from oaicompat.providers.gemini.endpoints import GEMINI_API, Target
from oaicompat.providers.gemini.request import encode_request

VERTEX = Target("vertex", project="project-1", location="global")
PNG = Media("image/png", "iVBORw0K", path="messages[2].content[0].image_url")
WAV = Media("audio/wav", "UklGRg==", path="messages[2].content[0].input_audio")
DEEP = '{"a":' * 9999 + "1" + "}" * 9999
ASK = Message("user", (Text("go"),), "messages[0]")


def calls(*ids: str, names: str = "fghij") -> Message:
    parts = tuple(
        ToolCall(id, name, f'{{"n":{index}}}', path=f"messages[1].tool_calls[{index}]")
        for index, (id, name) in enumerate(zip(ids, names, strict=False))
    )
    return Message("assistant", parts, "messages[1]")


def result(id: str, *parts: Text | Media | str, name: str | None = None, index: int = 2) -> Message:
    content = tuple(Text(part) if isinstance(part, str) else part for part in parts)
    path = f"messages[{index}]"
    return Message("tool", (ToolResult(id, content, name, path),), path)


def sent(
    *messages: Message, model: str = "gemini-2.5-flash", target: Target = GEMINI_API
) -> tuple[list[Any], list[tuple[str, str]]]:
    notes = Notes()
    body = json.loads(encode_request(Request(model, messages), target, notes).body)
    return body["contents"], [(note.path, note.action) for note in notes]


def responses(content: dict[str, Any]) -> list[dict[str, Any]]:
    assert content["role"] == "user"
    assert all(list(part) == ["functionResponse"] for part in content["parts"])
    return [part["functionResponse"] for part in content["parts"]]


def outputs(content: dict[str, Any]) -> list[Any]:
    return [each["response"].get("output") for each in responses(content)]


def test_one_call_and_its_result() -> None:
    contents, notes = sent(ASK, calls("a1"), result("a1", "sunny"))
    assert contents[1:] == [
        {
            "role": "model",
            "parts": [{"functionCall": {"name": "f", "args": {"n": 0}, "id": "a1"}}],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "name": "f",
                        "response": {"output": "sunny"},
                        "id": "a1",
                    }
                }
            ],
        },
    ]
    assert notes == []


def test_results_are_put_into_call_order_in_a_turn_of_their_own() -> None:
    """any-llm, pydantic-ai#4210: results b, a for calls a, b, and user text right after them."""
    contents, notes = sent(
        ASK,
        calls("a", "b"),
        result("b", "B"),
        result("a", "A"),
        Message("user", (Text("and?"),), "messages[4]"),
    )
    assert outputs(contents[2]) == ["A", "B"]
    assert contents[3] == {"role": "user", "parts": [{"text": "and?"}]}
    assert notes == []


def test_a_missing_result_is_filled_in_and_noted() -> None:
    """gemini-cli#16543, #5443, #21830: the service demands equal counts."""
    contents, notes = sent(ASK, calls("a", "b"), result("b", "B"))
    first, second = responses(contents[2])
    assert (first["name"], list(first["response"])) == ("f", ["error"])
    assert second["response"] == {"output": "B"}
    assert notes == [("messages[1].tool_calls[0]", "approximated")]


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-3.8-flash"])
def test_calls_at_the_end_are_answered_too(model: str) -> None:
    contents, notes = sent(ASK, calls("a"), model=model)
    assert list(responses(contents[2])[0]["response"]) == ["error"]
    assert notes == [("messages[1].tool_calls[0]", "approximated")]


def test_calls_followed_by_user_text_are_answered_first() -> None:
    contents, _ = sent(ASK, calls("a"), Message("user", (Text("never mind"),), "messages[2]"))
    assert list(responses(contents[2])[0]["response"]) == ["error"]
    assert contents[3]["parts"] == [{"text": "never mind"}]


def test_results_of_an_earlier_round_with_the_same_ids_stay_there() -> None:
    """praxis-proxy/ai PR#1000: ids that restart at each answer."""
    contents, notes = sent(
        ASK,
        calls("0", names="f"),
        result("0", "1st"),
        calls("0", names="g"),
        result("0", "2nd"),
    )
    assert [each["name"] for each in responses(contents[2]) + responses(contents[4])] == ["f", "g"]
    assert outputs(contents[2]) + outputs(contents[4]) == ["1st", "2nd"]
    assert notes == []


def test_empty_ids_are_paired_by_position() -> None:
    """vercel#19091."""
    contents, notes = sent(ASK, calls("", ""), result("", "A"), result("", "B"))
    assert outputs(contents[2]) == ["A", "B"]
    assert all("id" not in each for each in responses(contents[2]))
    assert notes == []


def test_ids_that_occur_twice_are_paired_by_position_and_sent_once() -> None:
    """bifrost: the same function twice under equal ids."""
    contents, _ = sent(ASK, calls("x", "x", names="ff"), result("x", "A"), result("x", "B"))
    assert outputs(contents[2]) == ["A", "B"]
    assert [each.get("id") for each in responses(contents[2])] == ["x", None]
    assert [p["functionCall"].get("id") for p in contents[1]["parts"]] == ["x", None]


def test_a_result_without_id_does_not_take_the_call_of_one_with_id() -> None:
    contents, _ = sent(ASK, calls("a", "b"), result("", "B"), result("a", "A"))
    assert outputs(contents[2]) == ["A", "B"]


def test_legacy_results_are_paired_by_function_name() -> None:
    contents, _ = sent(
        ASK,
        calls("", "", names="gf"),
        result("", "F", name="f"),
        result("", "G", name="g"),
    )
    assert outputs(contents[2]) == ["G", "F"]


@pytest.mark.parametrize(
    "messages",
    [
        (ASK, calls("a"), result("zzz", "x")),
        (ASK, result("a", "x", index=2)),
        (ASK, result("", "x", index=2)),
        (ASK, calls("a"), result("a", "x", index=1), result("", "y", index=2)),
        (
            ASK,
            calls("a"),
            result("a", "x"),
            Message("assistant", (Text("k"),)),
            result("a", "y"),
        ),
    ],
)
def test_a_result_nobody_asked_for_is_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        sent(*messages)
    assert caught.value.param == "messages[2]"


def test_a_second_result_for_one_call_is_noted() -> None:
    contents, notes = sent(ASK, calls("a"), result("a", "A"), result("a", "again", index=3))
    assert outputs(contents[2]) == ["A"]
    assert notes == [("messages[3]", "dropped")]


def test_ids_are_echoed_only_where_they_are_native() -> None:
    """vercel#17902, #15317, remix-studio PR#35: a backend refuses ids, another demands them."""
    minted = f"{MINTED}t_0_0"
    for id, model, target, told in (
        ("n1", "gemini-2.5-flash", GEMINI_API, "n1"),
        ("n1", "gemini-3.5-flash", VERTEX, "n1"),
        ("n1", "gemini-2.5-flash", VERTEX, None),
        (minted, "gemini-2.5-flash", GEMINI_API, None),
    ):
        contents, _ = sent(ASK, calls(id), result(id, "x"), model=model, target=target)
        assert contents[1]["parts"][0]["functionCall"].get("id") == told
        assert responses(contents[2])[0].get("id") == told


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ('{"a": [1, 2.50, "é"]}', '{"a": [1, 2.50, "é"]}'),
        (' {"b":1,"a":1e3} ', '{"b":1,"a":1e3}'),
        ("plain", '{"output":"plain"}'),
        ("", '{"output":""}'),
        ("[1]", '{"output":"[1]"}'),
        ('{"a":', '{"output":"{\\"a\\":"}'),
        ('{"a": NaN}', '{"output":"{\\"a\\": NaN}"}'),
        ("12345678901234567890", '{"output":"12345678901234567890"}'),
    ],
)
def test_the_payload_of_a_result(text: str, payload: str) -> None:
    """The text of a JSON object stays that object, byte for byte."""
    request = Request("gemini-2.5-flash", (ASK, calls("a"), result("a", text)))
    body = encode_request(request, GEMINI_API, Notes()).body.decode()
    assert f'"response":{payload}' in body


def test_a_result_nested_too_deeply_to_check_is_text() -> None:
    contents, _ = sent(ASK, calls("a"), result("a", DEEP))
    assert outputs(contents[2]) == [DEEP]


def test_several_texts_stay_several_and_none_is_empty() -> None:
    contents, _ = sent(ASK, calls("a"), result("a", "x", "y"))
    assert outputs(contents[2]) == [["x", "y"]]
    contents, _ = sent(ASK, calls("a"), result("a"))
    assert outputs(contents[2]) == [""]


@pytest.mark.parametrize(
    "text",
    ['{"$ref": "#/a"}', '{"a": [{"b": {"$ref": 1}}]}', '{"\\u0024ref": 1}'],
)
def test_an_object_with_a_ref_key_is_sent_as_text(text: str) -> None:
    """bifrost#7694, litellm#38223: the service reads the key as a pointer to a part."""
    contents, notes = sent(ASK, calls("a"), result("a", text))
    assert outputs(contents[2]) == [text]
    assert notes == [("messages[2]", "rewritten")]


def test_a_ref_that_is_only_a_value_stays_an_object() -> None:
    contents, notes = sent(ASK, calls("a"), result("a", '{"a": "$ref", "b": "\\u0041"}'))
    assert responses(contents[2])[0]["response"] == {"a": "$ref", "b": "A"}
    assert notes == []


def test_media_go_inside_the_response_from_3_on() -> None:
    """litellm#23809, #23814, #23815: images in tool results are lost."""
    contents, notes = sent(ASK, calls("a"), result("a", PNG), model="gemini-3.5-flash")
    assert responses(contents[2]) == [
        {
            "name": "f",
            "response": {},
            "id": "a",
            "parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0K"}}],
        }
    ]
    assert len(contents) == 3
    assert notes == []


@pytest.mark.parametrize(("media", "model"), [(PNG, "gemini-2.5-flash"), (WAV, "gemini-3.5-flash")])
def test_other_media_follow_all_responses(media: Media, model: str) -> None:
    contents, notes = sent(
        ASK,
        calls("a", "b"),
        result("a", "see", media),
        result("b", "B"),
        Message("user", (Text("so?"),), "messages[4]"),
        model=model,
    )
    assert outputs(contents[2]) == ["see", "B"]
    inline = {"mimeType": media.mime, "data": media.data}
    assert contents[3] == {
        "role": "user",
        "parts": [{"inlineData": inline}, {"text": "so?"}],
    }
    assert notes == [(media.path, "rewritten")]


@pytest.mark.parametrize("text", ["", "  "])
def test_no_arguments_are_an_empty_object(text: str) -> None:
    """litellm invents arguments here."""
    call = Message("assistant", (ToolCall("a", "f", text),))
    contents, _ = sent(ASK, call, result("a", "x"))
    assert contents[1]["parts"][0]["functionCall"]["args"] == {}


def test_arguments_keep_their_bytes() -> None:
    text = '{"title": "x", "type": "y", "z": 1, "a": 12345678901234567890, "properties": {}}'
    call = Message("assistant", (ToolCall("a", "f", text),))
    request = Request("gemini-2.5-flash", (ASK, call, result("a", "x")))
    assert f'"args":{text}'.encode() in encode_request(request, GEMINI_API, Notes()).body


@pytest.mark.parametrize(
    "text",
    ["[]", "null", "1", '"x"', '{"a": "unfin', '{"a":1} x', '{"a":NaN}', '{"a":1e400}', DEEP],
)
def test_arguments_that_are_no_object_do_not_lock_an_agent_out_of_its_history(text: str) -> None:
    path = "messages[1].tool_calls[0]"
    call = Message("assistant", (ToolCall("a", "f", text, path=path),))
    contents, notes = sent(ASK, call, result("a", "x"))
    assert contents[1]["parts"][0]["functionCall"]["args"] == {"_raw": text}
    assert notes == [(path, "approximated")]


def test_arguments_that_are_not_unicode_are_refused() -> None:
    path = "messages[1].tool_calls[0]"
    call = Message("assistant", (ToolCall("a", "f", "\ud800", path=path),))
    with pytest.raises(InvalidRequestError) as caught:
        sent(ASK, call, result("a", "x"))
    assert (caught.value.status, caught.value.param) == (400, path)


def test_a_result_behind_other_words_is_moved_with_a_note() -> None:
    between = Message("user", (Text("mid"),), "messages[2]")
    contents, notes = sent(ASK, calls("a"), between, result("a", "x", index=3))
    assert outputs(contents[2]) == ["x"]
    assert contents[3]["parts"] == [{"text": "mid"}]
    assert notes == [("messages[3]", "approximated")]


def test_a_result_with_a_number_no_service_can_hold_is_sent_as_text() -> None:
    contents, _ = sent(ASK, calls("a"), result("a", '{"a":1e400}'))
    assert outputs(contents[2]) == ['{"a":1e400}']


def test_a_custom_call_in_history_goes_back_as_its_one_property() -> None:
    """9router#1371, CLIProxyAPI PR#3790."""
    text = '*** Begin Patch\n"x"'
    call = Message("assistant", (ToolCall("a", "apply_patch", text, custom=True),))
    contents, _ = sent(ASK, call, result("a", "Done"))
    assert contents[1]["parts"][0]["functionCall"]["args"] == {"input": text}
    assert outputs(contents[2]) == ["Done"]


def test_pairing_many_results_takes_linear_time() -> None:
    ids = [str(index) for index in range(20_000)]
    parts = tuple(ToolCall(id, "f", "{}") for id in ids)
    answers = [result(id, "x") for id in reversed(ids)]
    contents, notes = sent(ASK, Message("assistant", parts), *answers)
    assert [each["id"] for each in responses(contents[2])] == ids
    assert notes == []
