"""A string that must not be seen: API keys of credentials and of the gateway's own clients.

One rule: only `reveal()` shows the value. Every other way of turning a secret into text (repr, str, format,
an f-string, a traceback's locals, pickle) gives a mask or fails, so that a careless log line leaks nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from oaicompat.errors import OaicompatError

_SHORTEST = 8
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]*\Z")


class Secret:
    """Holds one secret value; empty means "none".

    The value is stripped, because a key pasted with its newline would be refused by the HTTP layer with a
    message that quotes it. Raises `ValueError` for anything but visible ASCII, without naming the value.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        stripped = value.strip()
        if not _VISIBLE_ASCII.match(stripped):
            raise ValueError("a key may hold visible ASCII characters only")
        self._value = stripped

    @classmethod
    def document(cls, text: str) -> Secret:
        """Return the secret that is a whole document, such as a key file; it never stands in a header."""
        secret = cls("")
        secret._value = text.strip()
        return secret

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def fingerprint(self) -> str:
        """Return eight hexadecimal digits that tell keys apart and cannot be turned back."""
        return hashlib.sha256(self._value.encode("utf-8")).hexdigest()[:8]

    def kept_out(self, text: str) -> str:
        """Return a text of somebody else's without the value in it; what is very short is no secret."""
        return text.replace(self._value, "***") if len(self._value) >= _SHORTEST else text

    def kept_out_of_bytes(self, data: bytes) -> bytes:
        """Return bytes of somebody else's without the value in them."""
        known = self._value.encode("utf-8")
        return data.replace(known, b"***") if len(known) >= _SHORTEST else data

    def keep_out_of(self, error: OaicompatError) -> None:
        """Take the value out of an error's message: whoever was shown it may have repeated it."""
        error.message = self.kept_out(error.message)
        error.args = (error.message,)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('***')" if self._value else "Secret('')"

    def __str__(self) -> str:
        return "***" if self._value else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


@contextmanager
def keeping_out(secret: Secret) -> Iterator[None]:
    """Take a secret out of the errors that this block ends with: whoever was shown it may have repeated it."""
    try:
        yield
    except OaicompatError as error:
        secret.keep_out_of(error)
        raise
