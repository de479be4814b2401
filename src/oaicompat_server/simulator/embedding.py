"""Embeddings that are the same for the same text, and unit length in every dimension count.

The one rule: equal input, equal vector; the values mean nothing.
"""

from __future__ import annotations

import hashlib
import math
import struct
from typing import Any

import msgspec

from .bodies import prompt_tokens, tokens
from .catalogue import Model
from .status import JSON, Refusal

DIMENSIONS = 3_072


def vector(seed: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return `dimensions` floats of unit length, made from `seed`."""
    raw = hashlib.shake_256(seed.encode("utf-8", "surrogatepass")).digest(dimensions * 2)
    values = [value / 32_768 for value in struct.unpack(f">{dimensions}h", raw)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [round(value / length, 8) for value in values]


def embed(request: JSON) -> JSON:
    """Return the embedding of one canonical embedContent request."""
    config = request.get("embedContentConfig") or {}
    wanted = request.get("outputDimensionality") or config.get("outputDimensionality") or DIMENSIONS
    if not 1 <= wanted <= DIMENSIONS:
        raise Refusal(
            "* EmbedContentRequest.output_dimensionality: must be in the range [1, 3072]\n"
        )
    seed = msgspec.json.encode(request["content"].get("parts")).decode()
    return {"values": vector(seed, wanted)}


def usage(requests: list[JSON], model: Model) -> JSON:
    """Return the usage fields of an embedding answer; gemini-embedding-001 has none."""
    if model.generation < (2, 0):
        return {}
    total = sum(prompt_tokens({"contents": [request["content"]]}) for request in requests)
    details = [{"modality": "TEXT", "tokenCount": total}]
    return {"usageMetadata": {"promptTokenCount": total, "promptTokenDetails": details}}


def predict(body: Any) -> JSON:
    """Answer Vertex `:predict` for text embeddings."""
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list) or not instances:
        raise Refusal("Request contains an invalid argument.")
    wanted = (body.get("parameters") or {}).get("outputDimensionality") or DIMENSIONS
    predictions = []
    characters = 0
    for item in instances:
        text = item.get("content") if isinstance(item, dict) else None
        if not isinstance(text, str) or not text:
            raise Refusal("The text content is empty.")
        characters += len(text)
        statistics = {"token_count": tokens(text), "truncated": False}
        values = vector(text, int(wanted))
        predictions.append({"embeddings": {"values": values, "statistics": statistics}})
    return {"predictions": predictions, "metadata": {"billableCharacterCount": characters}}
