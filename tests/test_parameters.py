"""The ledger: every property of a request is mapped, noted or refused, and running the decoder proves it.

`docs/parameters.md` is written from the tables in `tests/support`, one for each dialect; after a change there,
run this module with OAICOMPAT_UPDATE_DOCS=1 in the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support import responses_ledger
from tests.support.chat_ledger import BASE, EXTENSIONS, OPENAI, Row
from tests.support.responses_ledger import RESPONSES

from oaicompat.dialects import Decoded, Dialect, chat, responses
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import Request
from oaicompat.notes import Notes
from oaicompat.supplies import Supplies

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "parameters.md"
SCHEMAS = ROOT.parent / "shared" / "openai" / "openai_schemas.json"

LEDGER = (*OPENAI, *EXTENSIONS)
SPOKEN: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "chat": (chat, BASE),
    "responses": (responses, responses_ledger.BASE),
}
ROWS = [pytest.param("chat", row, id=row.name) for row in LEDGER]
ROWS += [pytest.param("responses", row, id=f"responses-{row.name}") for row in RESPONSES]

HEAD = """# Parameters

What becomes of every property of a `POST /v1/chat/completions` request, and of a Responses request. *Mapped*:
it reaches the model's request. *Noted*: it has no counterpart and is reported in the conversion notes; strict
mode refuses it, unless it is inert (without effect on the answer). *Refused*: a 400 that names it. `[user]`
stands for the kind of an array's item.

This page is generated from the table that the tests prove.
"""


def decode(fields: dict[str, Any], name: str = "chat") -> tuple[Request, set[tuple[str, bool]]]:
    """Return the request, and the path of each note with whether it is inert."""
    notes = Notes()
    dialect, base = SPOKEN[name]
    decoded = dialect.decode(msgspec.json.encode(base | fields), notes, "")
    if not isinstance(decoded, Decoded):
        decoded = decoded.complete(Supplies())
    return decoded.request, {(_plain(note.path), note.inert) for note in notes}


def _plain(path: str) -> str:
    return re.sub(r"\[[^\]]*\]", "", path)


def _names(path: str, name: str) -> bool:
    """Tell whether a path of a note or an error names the property, or what is below it."""
    return path == name or path.startswith(f"{name}.")


@pytest.mark.parametrize(("dialect", "row"), ROWS)
def test_each_property_ends_as_the_ledger_says(dialect: str, row: Row) -> None:
    name = _plain(row.name)
    without, silent = decode(row.without, dialect)
    if row.outcome == "refused":
        with pytest.raises(InvalidRequestError) as caught:
            decode(row.fields, dialect)
        assert _names(_plain(caught.value.param or ""), name)
        return
    request, notes = decode(row.fields, dialect)
    inert = {inert for path, inert in notes - silent if _names(path, name)}
    assert inert == ({"(inert)" in row.text} if row.outcome == "noted" else set())
    assert (request != without) == (row.outcome == "mapped")


def test_no_property_stands_in_the_ledger_twice() -> None:
    for ledger in (LEDGER, RESPONSES):
        names = [row.name for row in ledger]
        assert sorted(set(names)) == sorted(names)


def test_the_page_shows_the_ledger() -> None:
    page = rendered()
    if os.environ.get("OAICOMPAT_UPDATE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page


def rendered() -> str:
    lines = [HEAD, "## OpenAI's properties\n", *_table(OPENAI), ""]
    lines += ["## Extensions that clients send\n", *_table(EXTENSIONS), ""]
    lines += ["## OpenAI's properties of Responses\n", *_table(RESPONSES)]
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


@pytest.mark.skipif(
    not SCHEMAS.exists(), reason="OpenAI's published schemas are not beside the checkout"
)
def test_the_ledger_of_responses_is_complete() -> None:
    definitions = msgspec.json.decode(SCHEMAS.read_bytes())["$defs"]
    published = set(_properties(definitions["CreateResponse"], "", definitions))
    listed = {row.name: row for row in RESPONSES}
    assert {name for name in published if not _covered(name, listed)} == set()
    assert {
        name
        for name in listed
        if name not in published and not any(_below(each, name) for each in published)
    } == set()


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
