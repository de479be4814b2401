"""The ledger: every property of a chat request is mapped, noted or refused, and running the decoder proves it.

`docs/parameters.md` is written from the table in `tests/support/chat_ledger.py`; after a change there, run this
module with OAICOMPAT_UPDATE_DOCS=1 in the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.chat_ledger import BASE, EXTENSIONS, OPENAI, Row

from oaicompat.dialects import chat
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import Request
from oaicompat.notes import Notes

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "parameters.md"
SCHEMAS = ROOT.parent / "shared" / "openai" / "openai_schemas.json"

LEDGER = (*OPENAI, *EXTENSIONS)

HEAD = """# Parameters of chat completions

What becomes of every property of a `POST /v1/chat/completions` request. *Mapped*: it reaches the model's
request. *Noted*: it has no counterpart and is reported in the conversion notes; strict mode refuses it, unless
it is inert (without effect on the answer). *Refused*: a 400 that names it. `[user]` stands for the kind of an
array's item.

This page is generated from the table that the tests prove.
"""


def decode(fields: dict[str, Any]) -> tuple[Request, set[tuple[str, bool]]]:
    """Return the request, and the path of each note with whether it is inert."""
    notes = Notes()
    request = chat.decode_request(msgspec.json.encode(BASE | fields), notes)
    return request, {(_plain(note.path), note.inert) for note in notes}


def _plain(path: str) -> str:
    return re.sub(r"\[[^\]]*\]", "", path)


def _names(path: str, name: str) -> bool:
    """Tell whether a path of a note or an error names the property, or what is below it."""
    return path == name or path.startswith(f"{name}.")


@pytest.mark.parametrize("row", LEDGER, ids=[row.name for row in LEDGER])
def test_each_property_ends_as_the_ledger_says(row: Row) -> None:
    name = _plain(row.name)
    without, silent = decode(row.without)
    if row.outcome == "refused":
        with pytest.raises(InvalidRequestError) as caught:
            decode(row.fields)
        assert _names(_plain(caught.value.param or ""), name)
        return
    request, notes = decode(row.fields)
    inert = {inert for path, inert in notes - silent if _names(path, name)}
    assert inert == ({"(inert)" in row.text} if row.outcome == "noted" else set())
    assert (request != without) == (row.outcome == "mapped")


def test_no_property_stands_in_the_ledger_twice() -> None:
    names = [row.name for row in LEDGER]
    assert sorted(set(names)) == sorted(names)


def test_the_page_shows_the_ledger() -> None:
    page = rendered()
    if os.environ.get("OAICOMPAT_UPDATE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page


def rendered() -> str:
    lines = [HEAD, "## OpenAI's properties\n", *_table(OPENAI), ""]
    lines += ["## Extensions that clients send\n", *_table(EXTENSIONS)]
    return "\n".join(lines) + "\n"


def _table(rows: tuple[Row, ...]) -> list[str]:
    lines = [f"| `{row.name}` | {row.outcome} | {row.text} |" for row in rows]
    return ["| property | outcome | how |", "|---|---|---|", *lines]


@pytest.mark.skipif(
    not SCHEMAS.exists(), reason="OpenAI's published schemas are not beside the checkout"
)
def test_the_ledger_is_complete() -> None:
    definitions = msgspec.json.decode(SCHEMAS.read_bytes())["$defs"]
    published = set(_properties(definitions["CreateChatCompletionRequest"], "", definitions))
    listed = {row.name: row for row in OPENAI}
    missing = {name for name in published if not _covered(name, listed)}
    assert missing == set()
    assert set(listed) - published == set()


def _covered(name: str, listed: dict[str, Row]) -> bool:
    """A property is covered by its row, by the rows of all below it, or by a row for the whole above it."""
    if name in listed or any(_below(other, name) for other in listed):
        return True
    return any(row.whole and _below(name, row.name) for row in listed.values())


def _below(name: str, above: str) -> bool:
    return name.startswith((f"{above}.", f"{above}["))


def _properties(
    schema: dict[str, Any], path: str, definitions: dict[str, Any], seen: tuple[str, ...] = ()
) -> Iterator[str]:
    if "$ref" in schema:
        target = schema["$ref"].rpartition("/")[2]
        if target not in seen:
            yield from _properties(definitions[target], path, definitions, (*seen, target))
        return
    for member in (*schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _properties(member, path, definitions, seen)
    properties = schema.get("properties", {})
    tag = _tag(properties)
    if tag is not None:
        path = f"{path.removesuffix('[]')}[{properties[tag]['enum'][0]}]"
    for name, inner in properties.items():
        if name != tag:
            where = f"{path}.{name}" if path else name
            yield where
            yield from _properties(inner, where, definitions, seen)
    if "items" in schema:
        yield from _properties(schema["items"], f"{path}[]", definitions, seen)


def _tag(properties: dict[str, Any]) -> str | None:
    """Return the property that tells the kind of an object: it allows one value only."""
    for name in ("role", "type"):
        if len(properties.get(name, {}).get("enum", ())) == 1:
            return name
    return None
