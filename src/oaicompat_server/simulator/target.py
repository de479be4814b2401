"""What a request is judged against: model, front door, tolerance.

One rule: every rule module takes a `Target` and nothing else from outside, so a rule is a pure function of
the canonical request and the target.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .catalogue import Model
from .status import Refusal

Backend = Literal["gemini", "vertex"]


class Target(msgspec.Struct, frozen=True):
    """The model and front door a request is for; `foreign_signatures` lets unknown signatures pass."""

    model: Model
    backend: Backend = "gemini"
    streaming: bool = False
    foreign_signatures: bool = False

    @property
    def vertex(self) -> bool:
        """Tell whether the request came through Vertex AI."""
        return self.backend == "vertex"

    @property
    def generation(self) -> tuple[int, int]:
        """Return the model's generation as (major, minor)."""
        return self.model.generation

    def refuse(self, text: str, *, vertex: str | None = None) -> Refusal:
        """Build a 400 with the text of the front door in use."""
        if self.vertex:
            return Refusal(vertex or text)
        return Refusal(text)

    def refuse_at(self, path: str, text: str) -> Refusal:
        """Build a 400 for one field: each front door words it in its own way."""
        if self.vertex:
            return Refusal(f"Unable to submit request because {path}: {text}")
        return Refusal(f"* GenerateContentRequest.{path}: {text}\n")

    def out_of_range(self, name: str, value: float, bounds: str, text: str) -> Refusal:
        """Build the 400 for a number out of range: `bounds` for Vertex, `text` for the Gemini API."""
        if self.vertex:
            shown = int(value) if value == int(value) else value
            camel = name.split("_")[0] + "".join(word.title() for word in name.split("_")[1:])
            return Refusal(
                f"Unable to submit request because it has a {camel} value of {shown} but the supported "
                f"range is {bounds}. Update the value and try again."
            )
        return Refusal(f"* GenerateContentRequest.generation_config.{name}: {text}\n")
