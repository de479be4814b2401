"""Links that may be downloaded: one strict way to read them, redirects included.

One rule: a link is taken apart once, by one pattern, and what is sent is put together from its parts, so that
no second parser can see another host (CVE-2026-24779). What the pattern does not know is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from msgspec import Struct

_LONGEST = 8192
_LINK = re.compile(
    r"[hH][tT][tT][pP][sS]://(?P<host>[A-Za-z0-9._-]{1,253})(?P<port>:[0-9]{0,5})?"
    r"(?P<target>[/?][^\x00-\x20\x7f\\#]*)?(?:#[^\x00-\x20\x7f\\]*)?"
)
_NAME = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# Names that never belong to a public host (RFC 6761, 6762, 7686, 9476, ICANN's internal): not even looked up.
_PRIVATE_NAMES = frozenset(
    {"arpa", "alt", "internal", "invalid", "local", "localhost", "onion", "test"}
)

_MALFORMED = "The media link is malformed."


class Unfetchable(Exception):
    """Media that cannot be had; the text is for the client and quotes nothing."""


class Link(Struct, frozen=True):
    """An https link on port 443: the lower-case name of its host, its path and query."""

    host: str
    target: str

    @property
    def url(self) -> str:
        """Return the link as it is sent."""
        return f"https://{self.host}{self.target}"


def parse_link(text: str) -> Link:
    """Take a link apart; raises `Unfetchable`."""
    found = _LINK.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise Unfetchable(_MALFORMED)
    if found["port"] not in (None, ":443"):
        raise Unfetchable("Media links must use port 443.")
    host = found["host"].lower()
    if not is_public_name(host):
        raise Unfetchable("The media link must name a public host.")
    target = found["target"] or "/"
    if not target.startswith("/"):
        target = f"/{target}"
    return Link(host, re.sub(r"[^\x00-\x7f]+", _quoted, target))


def _quoted(found: re.Match[str]) -> str:
    return quote(found[0], errors="replace")


def is_public_name(host: str) -> bool:
    """Tell whether this is a name a public host can have: no address in any spelling, no single label."""
    if not _NAME.fullmatch(host):
        return False
    return host.rpartition(".")[2] not in _PRIVATE_NAMES


def follow(link: Link, location: str) -> Link:
    """Return where a redirect leads; `location` as latin-1. Raises `Unfetchable`."""
    location = location.encode("latin-1", "replace").decode("utf-8", "replace")
    if not location:
        raise Unfetchable(_MALFORMED)
    if _SCHEME.match(location):
        return parse_link(location)
    if location.startswith("//"):
        return parse_link(f"https:{location}")
    path = link.target.partition("?")[0]
    if location.startswith("?"):
        location = f"{path}{location}"
    elif not location.startswith("/"):
        location = f"{path.rpartition('/')[0]}/{location}"
    return parse_link(f"https://{link.host}{location}")


class Hosts:
    """The hosts that may be asked: names, and `*.` before a name for all below it. None named: every one.

    Raises `ValueError` for what is no such pattern.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        lowered = [pattern.lower() for pattern in patterns]
        for pattern in lowered:
            if not is_public_name(pattern.removeprefix("*.")):
                raise ValueError(f"{pattern!r} is not a host name, nor '*.' and one")
        self._names = frozenset(each for each in lowered if not each.startswith("*."))
        self._suffixes = tuple(each[1:] for each in lowered if each.startswith("*."))

    def allow(self, host: str) -> bool:
        """Tell whether this host may be asked."""
        if not self._names and not self._suffixes:
            return True
        return host in self._names or host.endswith(self._suffixes)
