"""Parameters of a generation that several dialects write the same way, or nearly.

One rule: each function takes the wire's value and the client's path of it, and returns the neutral value.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Literal

from msgspec import Raw, Struct

from oaicompat.dialects.parts import Wire
from oaicompat.errors import InvalidRequestError
from oaicompat.messages import OutputFormat
from oaicompat.notes import Notes
from oaicompat.wire import given, json_object

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]
ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]

NO_MODEL = "you must provide a model parameter"


class JsonSchema(Wire, frozen=True):
    """A schema under `json_schema`."""

    name: str
    schema: Raw = Raw()
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Wire, frozen=True):
    """The form of the answer; Responses writes the schema flat."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    name: str | None = None
    schema: Raw = Raw()
    description: str | None = None
    strict: bool | None = None


class Inert(Struct, frozen=True):
    """A field that is accepted and does nothing: why, and whether the answer would be another with it."""

    reason: str
    inert: bool = True
    harmless: tuple[bytes, ...] = ()


def model_of(model: str | None) -> str:
    """Return the model's name; raises `InvalidRequestError` where there is none."""
    if not model:
        raise InvalidRequestError(NO_MODEL)
    return model


class Unused:
    """The fields of a wire struct that reach no model, all of them `Raw`."""

    def __init__(self, rules: Mapping[str, Inert]) -> None:
        self._rules = tuple(rules.items())
        self._values = attrgetter(*rules)
        self._absent = (Raw(),) * len(rules)

    def note(self, wire: Struct, notes: Notes) -> None:
        """Note what the client sent.

        A value in `harmless` asks for what happens anyway and leaves no trace in the answer, so it is inert.
        """
        values = self._values(wire)
        if values == self._absent:
            return
        for (name, rule), value in zip(self._rules, values, strict=True):
            if given(value):
                inert = rule.inert or bytes(value) in rule.harmless
                notes.dropped(name, rule.reason, inert=inert)


def output_format(form: ResponseFormat | None, path: str, notes: Notes) -> OutputFormat | None:
    """Read the form of the answer; raises `InvalidRequestError` for a schema without a name or no object."""
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return OutputFormat("json_object", path=path)
    nested = form.json_schema
    if nested is None:
        if form.name is None:
            missing = f"{path}.json_schema"
            message = f"Missing required parameter: '{missing}'."
            raise InvalidRequestError(message, param=missing, code="missing_required_parameter")
        nested = JsonSchema(form.name, form.schema, form.description, form.strict)
    else:
        path = f"{path}.json_schema"
    if nested.description:
        notes.dropped(f"{path}.description", "the provider takes no description of the format")
    schema = json_object(nested.schema, f"{path}.schema")
    return OutputFormat("json_schema", schema, nested.name, bool(nested.strict), path)
