"""Parts of the messages and outputs in a Responses request.

One rule: a part says where its media is in one of the ways OpenAI knows: in itself, by address, by id.
"""

from __future__ import annotations

from hypothesis import strategies as st

from oaicompat.testing.values import Json, base64_data, images, some, texts

FILE = "files/abc-123"
"""A file that was uploaded before."""

STATUS = st.sampled_from(("in_progress", "completed", "incomplete"))
"""The states of most items."""

_LINKS = ("https://example.com/a.png", "https://example.com/a%20b.jpg?x=1")
_BREAKPOINT = some(prompt_cache_breakpoint=st.just({"mode": "explicit"}))
_DETAILS = ("auto", "low", "high")


def _part(kind: str, fields: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.builds(lambda inner, mark: {"type": kind, **inner, **mark}, fields, _BREAKPOINT)


TEXT = _part("input_text", texts(min_size=0).map(lambda text: {"text": text}))
IMAGE = _part(
    "input_image",
    st.builds(
        lambda where, detail: {**where, "detail": detail},
        st.one_of(
            images().map(lambda image: {"image_url": f"data:{image[0]};base64,{image[1]}"}),
            st.sampled_from(_LINKS).map(lambda link: {"image_url": link}),
            st.just({"file_id": FILE}),
        ),
        st.sampled_from((*_DETAILS, "original")),
    ),
)
DOCUMENT = _part(
    "input_file",
    st.builds(
        lambda where, detail: {**where, **detail},
        st.one_of(
            base64_data(b"%PDF-").map(lambda data: {"filename": "a.pdf", "file_data": data}),
            base64_data(b"%PDF-").map(
                lambda data: {"file_data": f"data:application/pdf;base64,{data}"}
            ),
            st.sampled_from(({"file_id": FILE}, {"file_url": "https://example.com/a.pdf"})),
        ),
        some(detail=st.sampled_from(_DETAILS)),
    ),
)
PARTS = st.lists(st.one_of(TEXT, IMAGE, DOCUMENT), min_size=1, max_size=3)
TEXTS = st.lists(TEXT, min_size=1, max_size=2)
