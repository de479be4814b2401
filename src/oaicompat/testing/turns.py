"""Turns of a Gemini model, as lists of answer parts.

One rule: what is drawn is in normal form, the one a decoder and an encoder can agree on: neighbouring texts
(or thoughts) without a signature are one part, and a part without content has at least a signature.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from oaicompat.testing.values import Json, images, json_objects, names, signatures, texts

_OUTCOMES = ("OUTCOME_OK", "OUTCOME_FAILED", "OUTCOME_DEADLINE_EXCEEDED")


def _text() -> st.SearchStrategy[list[Json]]:
    return texts().map(lambda text: [{"text": text}])


def _thought() -> st.SearchStrategy[list[Json]]:
    return texts().map(lambda text: [{"text": text, "thought": True}])


def _signed_text() -> st.SearchStrategy[list[Json]]:
    thought = st.sampled_from(({}, {"thought": True}))
    return st.builds(
        lambda text, signature, extra: [{"text": text, "thoughtSignature": signature, **extra}],
        texts(min_size=0),
        signatures(),
        thought,
    )


def _call() -> st.SearchStrategy[list[Json]]:
    fields = st.fixed_dictionaries(
        {"name": names(), "args": json_objects()}, optional={"id": st.just("")}
    )
    return fields.flatmap(lambda call: _perhaps_signed({"functionCall": call}))


def _image() -> st.SearchStrategy[list[Json]]:
    return images().flatmap(
        lambda image: _perhaps_signed({"inlineData": {"mimeType": image[0], "data": image[1]}})
    )


def _perhaps_signed(part: Json) -> st.SearchStrategy[list[Json]]:
    signed = signatures().map(lambda signature: [{**part, "thoughtSignature": signature}])
    return st.one_of(st.just([part]), signed)


@st.composite
def _code(draw: st.DrawFn) -> list[Json]:
    """Draw code the service ran: its results, several of them at times, name it where it has an id."""
    named = draw(st.booleans())
    code: Json = {"language": "PYTHON", "code": draw(texts())}
    results = draw(
        st.lists(
            st.builds(
                lambda outcome, output: {"outcome": outcome, "output": output},
                st.sampled_from(_OUTCOMES),
                texts(min_size=0),
            ),
            max_size=2,
        )
    )
    if named:
        code["id"] = ""
        results = [{**result, "id": ""} for result in results]
    parts: list[Json] = [{"executableCode": code}]
    parts += [{"codeExecutionResult": result} for result in results]
    return [draw(_perhaps_signed(part))[0] for part in parts]


@st.composite
def _server_tool(draw: st.DrawFn) -> list[Json]:
    """Draw a tool the service ran: its call and its response, both with the same id."""
    kind = draw(st.sampled_from(("GOOGLE_SEARCH_WEB", "URL_CONTEXT", "FILE_SEARCH")))
    call = {"id": "", "toolType": kind, "args": draw(json_objects())}
    response = {"id": "", "toolType": kind, "response": draw(json_objects())}
    first = draw(_perhaps_signed({"toolCall": call}))
    return first + draw(_perhaps_signed({"toolResponse": response}))


_IDENTIFIED = (
    "functionCall",
    "executableCode",
    "codeExecutionResult",
    "toolCall",
    "toolResponse",
)


def _identified(groups: list[list[Json]]) -> list[Json]:
    """Join groups of parts; the parts of one group that want an id share one of their own."""
    parts: list[Json] = []
    for number, group in enumerate(groups):
        for part in group:
            parts.append({key: _with_id(key, value, number) for key, value in part.items()})
    return parts


def _with_id(key: str, value: Any, number: int) -> Any:
    if key in _IDENTIFIED and "id" in value:
        return {**value, "id": f"id-{number}"}
    return value


def _same_kind(left: Json, right: Json) -> bool:
    return all(
        "text" in part and "thoughtSignature" not in part for part in (left, right)
    ) and left.get("thought") == right.get("thought")


def _merged(parts: list[Json]) -> list[Json]:
    merged: list[Json] = []
    for part in parts:
        if merged and _same_kind(merged[-1], part):
            merged[-1] = {**merged[-1], "text": merged[-1]["text"] + part["text"]}
        else:
            merged.append(part)
    return merged


def gemini_turns(
    *, min_size: int = 1, max_size: int = 5, server_tools: bool = True
) -> st.SearchStrategy[list[Json]]:
    """Draw the parts of one model turn, in normal form.

    There are texts, thoughts, function calls with and without ids, inline images, code with its results and
    tools the service ran; any part may be signed, and an empty last text may hold nothing but a signature.
    Calls are drawn twice as often as the rest, since parallel ones are where converters go wrong.
    `min_size` and `max_size` bound the number of groups (a call of a service tool and its response are one);
    `server_tools=False` leaves `toolCall` and `toolResponse` out, which only Gemini 3 and later take back.
    """
    kinds = [_text(), _thought(), _signed_text(), _call(), _call(), _image(), _code()]
    if server_tools:
        kinds.append(_server_tool())
    closing = signatures().map(lambda signature: [{"text": "", "thoughtSignature": signature}])
    groups = st.lists(st.one_of(kinds), min_size=min_size, max_size=max_size)
    nothing: st.SearchStrategy[list[Json]] = st.just([])
    last = st.one_of(nothing, nothing, closing)
    return st.builds(lambda body, end: _merged(_identified([*body, end])), groups, last)
