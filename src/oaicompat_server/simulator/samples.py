"""Small real media and grounding texts for scripted answers.

The one rule: what goes out is what the MIME type says (a PNG that decodes, PCM at the stated rate), so a
client that checks it is satisfied.
"""

from __future__ import annotations

import base64
import struct
import zlib

from .status import JSON

PCM_TYPE = "audio/L16;codec=pcm;rate=24000"
REDIRECT = "https://vertexaisearch.cloud.google.com/grounding-api-redirect/simulated-"
GROUNDED_TEXT = "Zürich liegt am Zürichsee. 東京タワー 🗼 is 333 m tall."


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int = 2) -> str:
    """Return a square red PNG of `side` pixels as base64."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = (b"\x00" + b"\xff\x00\x00" * side) * side
    image = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
    image += _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return base64.b64encode(image).decode()


def pcm(samples: int = 240) -> str:
    """Return `samples` of a 16-bit little-endian sawtooth as base64."""
    wave = [(at * 1_000) % 20_000 - 10_000 for at in range(samples)]
    return base64.b64encode(struct.pack(f"<{samples}h", *wave)).decode()


def grounding() -> JSON:
    """Return groundingMetadata for `GROUNDED_TEXT`: UTF-8 byte offsets, a start of 0 left out."""
    first, _, second = GROUNDED_TEXT.partition(". ")
    middle = len((first + ". ").encode())
    end = len(GROUNDED_TEXT.encode())
    supports = [
        {
            "segment": {"endIndex": len((first + ".").encode()), "text": first + "."},
            "groundingChunkIndices": [0],
        },
        {
            "segment": {"startIndex": middle, "endIndex": end, "text": second},
            "groundingChunkIndices": [0, 1],
        },
    ]
    return {
        "searchEntryPoint": {"renderedContent": '<div class="container">Zürich</div>'},
        "groundingChunks": [
            {"web": {"uri": REDIRECT + "1", "title": "example.org", "domain": "example.org"}},
            {"web": {"uri": REDIRECT + "2", "title": "example.com"}},
        ],
        "groundingSupports": supports,
        "webSearchQueries": ["Zürich", "東京タワー height"],
    }
