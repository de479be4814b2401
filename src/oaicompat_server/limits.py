"""What one client may do at most: how long it may take, how much it may send.

One rule: plain numbers, so that a test can make them small.
"""

from __future__ import annotations

from msgspec import Struct

LENGTH_DIGITS = 20
"""No Content-Length has more that is no longer than 64 bits; Python reads no number of thousands of them."""


class Limits(Struct, frozen=True):
    """Deadlines in seconds, sizes in bytes, and counts."""

    header_seconds: float = 10.0
    header_bytes: int = 64 * 1024
    header_count: int = 100
    body_gap_seconds: float = 30.0
    write_stall_seconds: float = 30.0
    connections: int = 4096
    chunks_free: int = 1000
    chunk_mean: int = 64
    pipelined: int = 16
    message_bytes: int = 110 * 1024 * 1024
