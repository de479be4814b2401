"""Which address means which method of which service.

The one rule: both front doors are told apart by the path alone, because they share one port. An address that
is neither is a 404 page of HTML, as the real hosts answer.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from .target import Backend

Operation = Literal[
    "generateContent",
    "streamGenerateContent",
    "countTokens",
    "embedContent",
    "batchEmbedContents",
    "predict",
    "listModels",
    "getModel",
]

_METHODS = (
    "generateContent|streamGenerateContent|countTokens|embedContent|batchEmbedContents|predict"
)
_GEMINI = re.compile(rf"/(v1|v1beta|v1alpha)/models/([^/:]+):({_METHODS})")
_VERTEX = re.compile(
    rf"/(v1|v1beta1)/((?:projects/[^/]+/locations/[^/]+/)?publishers/google/models/([^/:]+)):({_METHODS})"
)
_LIST = re.compile(r"/(v1|v1beta|v1alpha)/models/?")
_GET = re.compile(r"/(v1|v1beta|v1alpha)/models/([^/:]+)")


class Route(msgspec.Struct, frozen=True):
    """A method call: what, on which model, behind which door; `resource` is Vertex's full name."""

    operation: Operation
    version: str
    model: str = ""
    backend: Backend = "gemini"
    resource: str = ""

    @property
    def express(self) -> bool:
        """Tell whether this is Vertex express mode: no project in the path, an API key instead."""
        return self.backend == "vertex" and not self.resource.startswith("projects/")


def find_route(method: str, path: str) -> Route | None:
    """Return the method call a request means, or None."""
    if method == "POST":
        if found := _GEMINI.fullmatch(path):
            return msgspec.convert(
                {"operation": found[3], "version": found[1], "model": found[2]}, Route
            )
        if found := _VERTEX.fullmatch(path):
            fields = {"operation": found[4], "version": found[1], "model": found[3]}
            return msgspec.convert(fields | {"backend": "vertex", "resource": found[2]}, Route)
        return None
    if method not in ("GET", "HEAD"):
        return None
    if found := _LIST.fullmatch(path):
        return Route("listModels", found[1])
    if found := _GET.fullmatch(path):
        return Route("getModel", found[1], found[2])
    return None
