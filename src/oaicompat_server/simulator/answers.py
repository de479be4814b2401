"""The shapes an answer can take, before it is written as JSON: events with parts and finish reasons.

Owns `Scene` (what is asked), `Event` and `Answer` (what is answered) and the two common forms, text and
function calls, in the manner of each model generation (gemini-wire section 5). The one rule: an answer is a
list of events; the unary body is folded from it, never built apart.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from .configuration import output_schema
from .instances import instance
from .signatures import mint
from .status import JSON
from .target import Target
from .tools import declared_functions
from .turns import Turn

CALL_MESSAGE = "Model generated function call(s)."
_PIECES = 4


class Event(msgspec.Struct, frozen=True):
    """One response chunk: delta parts of one candidate, its finish reason, further candidate fields."""

    parts: list[JSON] | None = None
    finish: str | None = None
    index: int = 0
    extra: JSON = {}


class Answer(msgspec.Struct, frozen=True):
    """A whole answer: its events, or a blocked prompt; token counts that its parts do not show."""

    events: list[Event]
    prompt_feedback: JSON | None = None
    without_candidates: bool = False
    tool_tokens: int = 0
    thought_tokens: int | None = None


class Scene(msgspec.Struct, frozen=True):
    """A request that was accepted: canonical body, target, current turn.

    `helpful` has questions answered by the tool they ask for.
    """

    request: JSON
    target: Target
    turn: Turn
    helpful: bool = False

    @property
    def config(self) -> JSON:
        """Return the generation config, empty when there is none."""
        return self.request.get("generationConfig") or {}

    @property
    def functions(self) -> list[JSON]:
        """Return the declared functions."""
        return declared_functions(self.request)

    @property
    def calling(self) -> JSON:
        """Return the function calling config, empty when there is none."""
        return (self.request.get("toolConfig") or {}).get("functionCallingConfig") or {}

    @property
    def is_three(self) -> bool:
        """Tell whether the model answers in the manner of Gemini 3 and later."""
        return self.target.generation >= (3, 0)

    @property
    def thinks(self) -> bool:
        """Tell whether the model thinks before this answer."""
        thinking = self.target.model.thinking
        if thinking is None:
            return False
        config = self.config.get("thinkingConfig") or {}
        budget = config.get("thinkingBudget")
        if budget is not None:
            return bool(budget != 0)
        return thinking.on_by_default or "thinkingLevel" in config

    def signature(self, seed: str) -> str:
        """Mint a signature of this backend for a position of this answer."""
        return mint(self.target.backend, f"{self.target.model.name}/{seed}")


def split(text: str, pieces: int = _PIECES, least: int = 8) -> list[str]:
    """Cut text into at most `pieces` pieces of at least `least` characters (the last may be shorter)."""
    size = max(least, -(-len(text) // pieces))
    return [text[at : at + size] for at in range(0, len(text), size)] or [""]


def text_events(scene: Scene, text: str, *, finish: str = "STOP", index: int = 0) -> list[Event]:
    """Stream `text`: 2.x ends on the last piece, 3.x on an empty part that carries the signature."""
    pieces = [Event([{"text": piece}], index=index) for piece in split(text)]
    if scene.is_three and scene.thinks and finish == "STOP":
        last = {"text": "", "thoughtSignature": scene.signature("text:" + text)}
        return [*pieces, Event([last], finish, index)]
    return [*pieces[:-1], Event(pieces[-1].parts, finish, index)]


def text_answer(scene: Scene, text: str, *, finish: str = "STOP") -> Answer:
    """Answer with `text`, once per wanted candidate (`[i] text` when there are several)."""
    count = scene.config.get("candidateCount") or 1
    if count == 1:
        return Answer(text_events(scene, text, finish=finish))
    lanes = [text_events(scene, f"[{at}] {text}", finish=finish, index=at) for at in range(count)]
    longest = max(map(len, lanes))
    return Answer([lane[at] for at in range(longest) for lane in lanes if at < len(lane)])


def call_part(scene: Scene, call: JSON, position: int) -> JSON:
    """Return a functionCall part; 3.x calls have an id, and the first call of a step has a signature."""
    body: JSON = {"name": call["name"], "args": call["args"]}
    if scene.is_three:
        seed = f"{call['name']}/{position}/{len(scene.turn.called)}/{scene.turn.text}"
        mark = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()
        body["id"] = mark[:8]
    part: JSON = {"functionCall": body}
    if position == 0 and scene.thinks:
        part["thoughtSignature"] = scene.signature(f"call:{call['name']}")
    return part


def call_events(scene: Scene, calls: list[JSON], *, apart: bool = False) -> list[Event]:
    """Call functions in one event or one event each, then finish as the model generation does."""
    parts = [call_part(scene, call, at) for at, call in enumerate(calls)]
    groups = [[part] for part in parts] if apart else [parts]
    extra = {} if scene.target.vertex else {"finishMessage": CALL_MESSAGE}
    if scene.is_three and scene.target.streaming:
        return [*(Event(group) for group in groups), Event([{"text": ""}], "STOP")]
    return [*(Event(group) for group in groups[:-1]), Event(groups[-1], "STOP", extra=extra)]


def declared(scene: Scene, name: str) -> JSON | None:
    """Return the function called `name`, else one whose name ends so, else None."""
    functions = scene.functions
    exact = [function for function in functions if function["name"] == name]
    ending = [function for function in functions if function["name"].endswith(name)]
    return next(iter(exact + ending), None)


def invented_call(function: JSON) -> JSON:
    """Return a call of `function` with arguments made from its schema."""
    schema = function.get("parametersJsonSchema") or function.get("parameters") or {}
    made: Any = instance(schema) if schema else {}
    return {"name": function["name"], "args": made if isinstance(made, dict) else {}}


def wanted_call(scene: Scene) -> JSON | None:
    """Return the call the turn names by `#call:`, else one of the first tool; None when there is none."""
    named = scene.turn.named_call
    if named is not None:
        function = declared(scene, named["name"])
        return None if function is None else {"name": function["name"], "args": named["args"]}
    if "#call:" in scene.turn.text:
        return None
    functions = allowed_functions(scene)
    return invented_call(functions[0]) if functions else None


def allowed_functions(scene: Scene) -> list[JSON]:
    """Return the functions the model may call under the calling config."""
    if scene.calling.get("mode") == "NONE":
        return []
    names = scene.calling.get("allowedFunctionNames") or []
    functions = scene.functions
    return [function for function in functions if not names or function["name"] in names]


def structured(scene: Scene, text: str, *, fill: bool) -> str | None:
    """Return JSON text for the wanted schema or JSON mode, None when plain text is wanted.

    With `fill` the first free string property of the top level takes `text`.
    """
    schema = output_schema(scene.config)
    mime_type = scene.config.get("responseMimeType")
    if schema is None and mime_type != "application/json":
        return None
    if schema is None:
        return _encode({"text": text})
    value = instance(schema)
    if mime_type == "text/x.enum":
        return str(value)
    if fill and isinstance(value, dict) and isinstance(schema, dict):
        _fill(value, schema.get("properties") or {}, text)
    return _encode(value)


def _fill(value: JSON, properties: JSON, text: str) -> None:
    bound = {"enum", "const", "format", "maxLength", "pattern", "$ref"}
    for name, child in properties.items():
        is_free = isinstance(child, dict) and bound.isdisjoint(child)
        if is_free and str(child.get("type")).lower() == "string":
            value[name] = text
            return


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()
