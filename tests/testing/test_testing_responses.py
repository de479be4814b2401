"""What `responses_requests` draws: all of OpenAI's schema, and only what is asked for.

That every drawn request is served and valid for OpenAI is proved with the laws of requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from tests.support.shared import needs_checker, schemas

from oaicompat.testing import chat_requests, responses_requests
from oaicompat.testing.responses import INCLUDE
from oaicompat.testing.responses_items import input_items
from oaicompat.testing.responses_tools import tool_choices, tool_lists

Json = dict[str, Any]

hunting = settings(
    max_examples=600,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate,),
)
STORED = {"previous_response_id", "conversation"}
CHOICES = (
    *("function", "custom", "allowed_tools", "mcp", "image_generation", "shell", "apply_patch"),
    *("web_search_preview", "code_interpreter", "file_search", "programmatic_tool_calling"),
)
FORMATS = ("text", "json_object", "json_schema")


def properties() -> set[str]:
    """Return every property of a request in OpenAI's schema."""
    found: set[str] = set()
    names = ["CreateResponse"]
    while names:
        definition = schemas().bundle["$defs"][names.pop()]
        for branch in definition.get("allOf", [definition]):
            if "$ref" in branch:
                names.append(branch["$ref"].rsplit("/", 1)[1])
            found |= set(branch.get("properties", ()))
    return found


def kinds(name: str) -> set[str]:
    """Return the values of `type` that a union of OpenAI's schema tells apart."""
    definition = schemas().bundle["$defs"][name]
    found = set(definition.get("properties", {}).get("type", {}).get("enum", ()))
    for branch in (*definition.get("anyOf", ()), *definition.get("oneOf", ())):
        if "$ref" in branch:
            found |= kinds(branch["$ref"].rsplit("/", 1)[1])
    return found


def never_drawn(values: st.SearchStrategy[Any], wanted: set[str]) -> set[str]:
    """Return what no value has, of these pieces of JSON."""
    missing = set(wanted)

    def all_seen(value: Any) -> bool:
        text = json.dumps(value)
        missing.difference_update([each for each in missing if each in text])
        return not missing

    with suppress(NoSuchExample):
        find(values, all_seen, settings=hunting)
    return missing


def tagged(tags: Iterable[str]) -> set[str]:
    return {f'"type": "{tag}"' for tag in tags}


@needs_checker
def test_every_property_format_and_reference_is_drawn_sooner_or_later() -> None:
    wanted = {f'"{name}": ' for name in properties()} | {f'"{each}"' for each in INCLUDE}
    wanted |= {f'"format": {{"type": "{kind}"' for kind in FORMATS} | tagged(["item_reference"])
    wanted |= tagged(["compaction_trigger"])
    assert never_drawn(responses_requests(stored=True, refused=True), wanted) == set()


@needs_checker
def test_every_type_of_item_and_part_is_drawn_sooner_or_later() -> None:
    wanted = kinds("Item") | kinds("InputContent") | kinds("OutputMessageContent")
    assert len(wanted) > 30
    assert never_drawn(input_items(), tagged(wanted)) == set()


@needs_checker
def test_every_type_of_tool_is_drawn_sooner_or_later() -> None:
    assert len(kinds("Tool")) > 15
    assert never_drawn(tool_lists(refused=True), tagged(kinds("Tool"))) == set()


def test_every_form_of_choice_is_drawn_sooner_or_later() -> None:
    wanted = {f'"chosen": {{"type": "{kind}"' for kind in CHOICES}
    wanted |= {f'"chosen": "{mode}"' for mode in ("none", "auto", "required")}
    choices = tool_lists().flatmap(tool_choices).map(lambda choice: {"chosen": choice})
    assert never_drawn(choices, wanted) == set()


@given(responses_requests())
def test_a_store_is_needed_only_where_it_is_asked_for(body: Json) -> None:
    assert not STORED & set(body)
    assert "item_reference" not in json.dumps(body["input"])
    assert "msg_9" not in json.dumps(body["input"])


def test_regression_what_is_drawn_is_the_callers_own() -> None:
    seen: list[Json] = []

    @settings(max_examples=60, deadline=None, database=None)
    @given(responses_requests(), chat_requests())
    def spoil(one: Json, other: Json) -> None:
        for body in (one, other):
            text = json.dumps(body)
            assert "spoilt" not in text
            seen.append(body)
            _spoil(body)

    spoil()
    assert seen


def _spoil(value: Any) -> None:
    for each in list(value.values()) if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            _spoil(each)
    if isinstance(value, dict):
        value["spoilt"] = True
    else:
        value.append("spoilt")
