"""Tokens that nobody can guess, without asking the system for each of them.

One rule: no token is given out twice, by several threads or after a fork neither.
"""

from __future__ import annotations

import os
from collections import deque

_BYTES = 16
_AT_ONCE = 256

_stock: deque[str] = deque()


def token() -> str:
    """Return 32 hexadecimal digits of the system's randomness."""
    try:
        return _stock.pop()
    except IndexError:
        first, *others = os.urandom(_AT_ONCE * _BYTES).hex(" ", _BYTES).split()
        _stock.extend(others)
        return first


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stock.clear)
