"""Log lines hold no secret and no line end of their own."""

from __future__ import annotations

import logging

import pytest

from oaicompat_server.logs import SafeFormatter
from oaicompat_server.secret import Secret


def _line(message: str, *arguments: object) -> str:
    record = logging.LogRecord("oaicompat", logging.INFO, "", 1, message, arguments, None)
    return SafeFormatter([Secret("sentinel-key"), Secret("")]).format(record)


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\r\nFAKE line", "\x1b[2J", "\x00", "a\u202eb", "\u2028", "\x85", "tab\t"],
)
def test_hostile_text_stays_on_one_line(text: str) -> None:
    line = _line("model %s", text)
    assert len(line.splitlines()) == 1
    assert line.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "sentinel-key",
        "x-goog-api-key: sentinel-key!",
        "AIza" + "Sy" * 18,
        "ya29.abc-def",
        "Bearer abc.def",
    ],
)
def test_secrets_are_replaced(text: str) -> None:
    line = _line("header %r", text)
    assert "***" in line
    assert not any(part in line for part in ("sentinel", "AIza", "ya29", "abc.def"))


def test_long_lines_are_cut() -> None:
    assert len(_line("x" * 100_000)) <= 2000


def test_traceback_is_scrubbed_too() -> None:
    try:
        raise ValueError("sentinel-key\nsecond line")
    except ValueError as error:
        kind = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "", 1, "failed", (), kind)
    line = SafeFormatter([Secret("sentinel-key")]).format(record)
    assert "sentinel" not in line.replace('"sentinel-key', "")
    assert "second line" in line
    assert len(line.splitlines()) == 1
