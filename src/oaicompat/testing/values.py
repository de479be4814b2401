"""The small values everything else is made of: texts, names, JSON, base64.

One rule: a text is any text Unicode allows in JSON, because that is where converters go wrong.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from hypothesis import strategies as st

Json = dict[str, Any]

_AWKWARD = (
    "é",
    "日本語",
    "👩‍👩‍👧",
    "\u2028",
    "\x00",
    "\r\n\r\ndata: x",
    '"',
    "\\",
    "<a href='x'>&</a>",
    "[DONE]",
    "\ufeff",
    " ",
)
_MAGIC = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBP",
}


def texts(*, min_size: int = 1) -> st.SearchStrategy[str]:
    """Draw texts, with the characters that break framings, offsets and encoders more often than chance."""
    plain = st.text(st.characters(codec="utf-8"), max_size=8)
    mixed = st.lists(st.one_of(st.sampled_from(_AWKWARD), plain), max_size=4).map("".join)
    return mixed.filter(lambda text: len(text) >= min_size)


def names() -> st.SearchStrategy[str]:
    """Draw names of functions that both wires take."""
    return st.from_regex(r"[a-z_][a-z0-9_-]{0,11}", fullmatch=True)


def json_values() -> st.SearchStrategy[Any]:
    """Draw JSON values of which no number loses precision as a double."""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False, width=32),
        texts(min_size=0),
    )
    return st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(texts(min_size=0), inner, max_size=3)
        ),
        max_leaves=5,
    )


def json_objects() -> st.SearchStrategy[Json]:
    """Draw JSON objects."""
    return st.dictionaries(texts(min_size=0), json_values(), max_size=3)


def base64_data(head: bytes = b"") -> st.SearchStrategy[str]:
    """Draw standard base64 of a few bytes that begin with `head`."""
    return st.binary(min_size=1, max_size=9).map(lambda data: b64encode(head + data).decode())


def signatures() -> st.SearchStrategy[str]:
    """Draw thought signatures: opaque base64."""
    return st.binary(min_size=3, max_size=12).map(lambda data: b64encode(b"sig" + data).decode())


def images() -> st.SearchStrategy[tuple[str, str]]:
    """Draw images as (MIME type, base64)."""
    return st.sampled_from(sorted(_MAGIC)).flatmap(
        lambda mime: base64_data(_MAGIC[mime]).map(lambda data: (mime, data))
    )


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Draw objects that have any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)
