"""Log lines on stderr: one line each, whatever is in them, and never a secret.

One rule: control characters are escaped and known secrets replaced at the last moment, in the formatter, so
that no logger, ours or a library's, can get around it. Bodies are not logged at all.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from oaicompat_server.secret import Secret

_KEY_SHAPES = re.compile(
    r"AIza[0-9A-Za-z_-]{20,}|ya29\.[0-9A-Za-z._-]+|(?i:bearer)\s+\S+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LONGEST_LINE = 2000
_SHORTEST = 4
_QUIET = {"httpcore": logging.WARNING, "asyncio": logging.WARNING, "uvicorn": logging.ERROR}


class SafeFormatter(logging.Formatter):
    """Formats a record as one line without secrets; a traceback follows with its line ends escaped."""

    def __init__(self, known: Iterable[Secret] = (), source: str = "") -> None:
        super().__init__(f"%(asctime)s %(levelname)s {source}%(message)s")
        self.known: dict[str, None] = {}
        self.add(known)

    def add(self, known: Iterable[Secret]) -> None:
        """Keep more secrets out, those of settings that were loaded since."""
        for secret in known:
            value = secret.reveal()
            self.known |= dict.fromkeys(each for each in (value, *_parts(value)) if each)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for value in self.known:
            text = text.replace(value, "***")
        text = _KEY_SHAPES.sub("***", text)
        return _UNSAFE.sub(_escaped, text)[: _LONGEST_LINE if record.exc_info is None else None]


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def _is_news(record: logging.LogRecord) -> bool:
    """Tell cancellation at shutdown, which the server logs as an error, from real errors."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, asyncio.CancelledError)


def set_up(known: Iterable[Secret], level: int = logging.INFO, source: str = "") -> None:
    """Send our log and the libraries' warnings to stderr through the safe formatter; `source` begins each."""
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter(known, source))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("oaicompat").setLevel(level)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)
    handler.addFilter(_is_news)


def redact(known: Iterable[Secret]) -> None:
    """Keep these secrets, too, out of what the log shows from here on."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, SafeFormatter):
            handler.formatter.add(known)


def _parts(value: str) -> tuple[str, ...]:
    """Return what in a secret URL is secret by itself: the password, and the login that a proxy is shown."""
    if "://" not in value:
        return ()
    try:
        url = urlsplit(value)
    except ValueError:
        return ()
    password = url.password
    if not password or len(password) < _SHORTEST:
        return ()
    login = f"{unquote(url.username or '')}:{unquote(password)}".encode()
    return password, unquote(password), base64.b64encode(login).decode("ascii")
