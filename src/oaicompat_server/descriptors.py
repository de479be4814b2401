"""How many connections the system lets one process hold.

One rule: the soft limit is raised to what is allowed before anything listens; where there are no limits,
nothing is done.
"""

from __future__ import annotations

import contextlib


def connection_cap() -> int:
    """Return how many connections the descriptor limit allows, two descriptors each; at most 4096."""
    try:
        import resource
    except ImportError:
        return 4096
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(8, min(4096, (soft - 64) // 2))


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open descriptors to the hard one where the platform has such limits."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    # macOS calls the hard limit infinite and still refuses more than 10240.
    for wanted in (hard, 10_240):
        if wanted > soft or wanted == resource.RLIM_INFINITY:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return
