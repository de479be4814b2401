"""The neutral request: what every dialect decodes to and every provider encodes from.

A field enters only if some dialect can send it and some provider can act on it; the rest stays in its dialect
or travels in `Request.extra`. Values are frozen, `Part` and `Tool` are closed unions: a new member makes the
type checker list every converter that must learn it. `path` is always the client's own JSON path, so that a
note or an error raised far from the dialect still names the field the client wrote. None can be part of a
cycle, hence `gc=False`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from msgspec import Raw, Struct

from oaicompat.sampling import Sampling

Backend = Literal["gemini", "vertex"]


class Signature(Struct, frozen=True, gc=False):
    """A thought signature: opaque base64, valid only on the backend that made it (empty: not known)."""

    value: str
    backend: str = ""


class Text(Struct, frozen=True, tag=True, gc=False):
    """Visible text."""

    text: str
    signature: Signature | None = None


class Thought(Struct, frozen=True, tag=True, gc=False):
    """A summary of what the model thought."""

    text: str
    signature: Signature | None = None


class Refusal(Struct, frozen=True, tag=True, gc=False):
    """The text of a refusal: the model's in history, or ours where the provider blocked the answer."""

    text: str


class Media(Struct, frozen=True, tag=True, gc=False):
    """An image, sound, video or document: base64 `data`, or a `uri` the provider reads itself.

    `mime` may be empty where only the provider can know it; `detail` is OpenAI's image detail; `start` and
    `end` are seconds and `rate` frames per second of a video.
    """

    mime: str
    data: str = ""
    uri: str = ""
    name: str | None = None
    detail: str | None = None
    start: float | None = None
    end: float | None = None
    rate: float | None = None
    thought: bool = False
    signature: Signature | None = None
    path: str = ""


class ToolCall(Struct, frozen=True, tag=True, gc=False):
    """A call the model made. `arguments` is JSON text, or free text for a custom tool."""

    id: str
    name: str
    arguments: str
    custom: bool = False
    thought: bool = False
    signature: Signature | None = None
    path: str = ""


class ToolResult(Struct, frozen=True, tag=True, gc=False):
    """What the client answers to one call, `parts` in the client's order."""

    call_id: str
    parts: tuple[Text | Media, ...]
    name: str | None = None
    path: str = ""


class Code(Struct, frozen=True, tag=True, gc=False):
    """Code the provider ran for the model."""

    code: str
    language: str = "PYTHON"
    id: str | None = None
    thought: bool = False
    signature: Signature | None = None


class CodeResult(Struct, frozen=True, tag=True, gc=False):
    """The outcome of code the provider ran."""

    outcome: str
    output: str = ""
    id: str | None = None
    thought: bool = False
    signature: Signature | None = None


class ServerTool(Struct, frozen=True, tag=True, gc=False):
    """A call of, or an answer from, a tool the provider ran itself.

    `kind` is the name of the wire part (toolCall, toolResponse), `data` its value as JSON.
    """

    kind: str
    data: Raw
    thought: bool = False
    signature: Signature | None = None


Part = Text | Thought | Refusal | Media | ToolCall | ToolResult | Code | CodeResult | ServerTool

Role = Literal["system", "user", "assistant", "tool"]


class Message(Struct, frozen=True, gc=False):
    """One turn of one speaker. A `tool` message holds exactly one `ToolResult`."""

    role: Role
    parts: tuple[Part, ...]
    path: str = ""


class FunctionTool(Struct, frozen=True, tag=True, gc=False):
    """A function of the client's. `parameters` is its JSON Schema exactly as the client wrote it.

    Where it was declared in a `namespace`, `name` begins with that and a dot. `form` is set where the dialect
    writes calls of it in a form of their own.
    """

    name: str
    description: str | None = None
    parameters: Raw | None = None
    strict: bool = False
    path: str = ""
    namespace: str | None = None
    form: str | None = None


class CustomTool(Struct, frozen=True, tag=True, gc=False):
    """A tool that takes free text; `grammar` (of `syntax` lark or regex) describes it but is not enforced."""

    name: str
    description: str | None = None
    syntax: str | None = None
    grammar: str | None = None
    path: str = ""
    namespace: str | None = None


class HostedTool(Struct, frozen=True, tag=True, gc=False):
    """A tool the provider runs.

    `kind` is one of `HOSTED`; `options` are the client's own, as JSON, for the provider to read what it can.
    """

    kind: str
    options: Raw | None = None
    path: str = ""


Tool = FunctionTool | CustomTool | HostedTool


class Declared(tuple[Tool, ...]):
    """Tools, no name twice, that are the same object in all requests that declare them alike.

    What follows from them alone can therefore be remembered. Only `oaicompat.dialects.declared` makes one.
    """

    @cached_property
    def names(self) -> frozenset[str]:
        """Return the names of those that the client runs."""
        return frozenset([tool.name for tool in self if not isinstance(tool, HostedTool)])


HOSTED = ("web_search", "code_execution", "url_context", "maps", "file_search", "computer_use")


class ToolChoice(Struct, frozen=True, gc=False):
    """Which tools may or must be used. `names` restricts to declared tools (one name: a forced tool)."""

    mode: Literal["none", "auto", "required"]
    names: tuple[str, ...] = ()
    path: str = "tool_choice"


class OutputFormat(Struct, frozen=True, gc=False):
    """The form of the visible answer; `schema` is the client's JSON Schema, untouched."""

    kind: Literal["json_object", "json_schema"]
    schema: Raw | None = None
    name: str | None = None
    strict: bool = False
    path: str = "response_format"


class Reasoning(Struct, frozen=True, gc=False):
    """How hard to think and whether to show it; `None` means the client did not say."""

    effort: str | None = None
    visible: bool | None = None
    path: str = "reasoning_effort"


class AudioOutput(Struct, frozen=True, gc=False):
    """Speech wanted as answer: the voice's name and the container format."""

    voice: str
    format: str
    path: str = "audio"


class Request(Struct, frozen=True, gc=False):
    """One request, whichever dialect it came in.

    `extra` is provider pass-through by name (`extra_body.google`), each value JSON. `spelling` maps neutral
    parameter names to the client's, for notes and errors; see `spelled`.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    output: OutputFormat | None = None
    reasoning: Reasoning | None = None
    modalities: tuple[str, ...] = ()
    audio: AudioOutput | None = None
    service_tier: str | None = None
    metadata: Mapping[str, str] | None = None
    extra: Mapping[str, Raw] = {}
    stream: bool = False
    include_usage: bool = False
    legacy_functions: bool = False
    spelling: Mapping[str, str] = {}

    def spelled(self, name: str) -> str:
        """Name a neutral parameter as the client did."""
        return self.spelling.get(name, name)


MINTED = "call_oaic_"
"""How call ids begin that this library made because the provider gave none; they are never sent upstream."""
