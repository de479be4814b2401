"""Chooses the answer: the scripting convention and every directive that decides what is said.

The one rule: without a directive the answer is the text of the last user turn, unchanged; each directive is
one function of the table `ANSWERS`. Directives that decide how an answer is *delivered* (delays, cuts,
broken framing) are in `faults`; docs/simulator.md lists all of them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

import msgspec

from . import samples
from .answers import (
    CALL_MESSAGE,
    Answer,
    Event,
    Scene,
    allowed_functions,
    call_events,
    invented_call,
    split,
    structured,
    text_answer,
    text_events,
    wanted_call,
)
from .status import JSON, Refusal
from .turns import result_text

_TOKEN_PREFIX = "simulated-continuation/"


def answer(scene: Scene) -> Answer:
    """Return the scripted answer to an accepted request."""
    chosen = _choose(scene)
    if "thoughts" in scene.turn.directives:
        chosen = _with_thoughts(scene, chosen)
    wants_logprobs = bool(scene.config.get("responseLogprobs"))
    if wants_logprobs or "logprobs" in scene.turn.directives:
        chosen = _with_logprobs(chosen)
    return chosen


def _choose(scene: Scene) -> Answer:
    for name, make in ANSWERS.items():
        if name in scene.turn.directives:
            return make(scene)
    if not scene.turn.results:
        for name, make in CALLS.items():
            if name in scene.turn.directives and allowed_functions(scene):
                return make(scene)
    return _forced(scene) or _asked_for(scene) or _plain(scene)


def _asked_for(scene: Scene) -> Answer | None:
    """Call what a question asks for: the tool `get_weather`, where it is about the weather."""
    if not scene.helpful or scene.turn.results or scene.turn.directives:
        return None
    words = set(re.findall(r"\w+", scene.turn.text.lower()))
    for function in allowed_functions(scene):
        verb, *rest = re.findall(r"[a-z]+", function["name"].lower())
        if verb == "get" and rest and words.issuperset(rest):
            return Answer(call_events(scene, [invented_call(function)]))
    return None


def _forced(scene: Scene) -> Answer | None:
    if scene.calling.get("mode") != "ANY" or _is_scripted_call(scene):
        return None
    left = [item for item in allowed_functions(scene) if item["name"] not in scene.turn.called]
    return Answer(call_events(scene, [invented_call(left[0])])) if left else None


def _is_scripted_call(scene: Scene) -> bool:
    return any(name in scene.turn.directives for name in CALLS)


def _plain(scene: Scene) -> Answer:
    results = scene.turn.results
    said = _said(scene)
    return text_answer(scene, structured(scene, said, fill=bool(results)) or said)


def _said(scene: Scene) -> str:
    turn = scene.turn
    if turn.results:
        return "\n".join(filter(None, [result_text(turn.results[-1]), turn.text_after_results]))
    return turn.text


def _tool_then_text(scene: Scene) -> Answer:
    call = wanted_call(scene)
    return _plain(scene) if call is None else Answer(call_events(scene, [call]))


def _every_call(scene: Scene) -> list[JSON]:
    return [invented_call(function) for function in allowed_functions(scene)]


def _parallel_calls(scene: Scene) -> Answer:
    return Answer(call_events(scene, _every_call(scene)))


def _calls_apart(scene: Scene) -> Answer:
    return Answer(call_events(scene, _every_call(scene), apart=True))


def _partial_args(scene: Scene) -> Answer:
    call = wanted_call(scene)
    if call is None:
        return _plain(scene)
    if not scene.target.streaming:
        return Answer(call_events(scene, [call]))
    first: JSON = {"functionCall": {"name": call["name"], "willContinue": True}}
    if scene.thinks:
        first["thoughtSignature"] = scene.signature("call:" + call["name"])
    pieces = [
        Event([{"functionCall": {"partialArgs": [piece], "willContinue": True}}])
        for piece in _pieces("$", call["args"])
    ]
    return Answer([Event([first]), *pieces, Event([{"functionCall": {}}], "STOP")])


def _pieces(path: str, value: Any) -> list[JSON]:
    match value:
        case dict():
            return [
                piece for key, item in value.items() for piece in _pieces(f"{path}.{key}", item)
            ]
        case list():
            return [
                piece for at, item in enumerate(value) for piece in _pieces(f"{path}[{at}]", item)
            ]
        case str():
            cut = split(value, pieces=2, least=4)
            told: list[JSON] = [
                {"jsonPath": path, "stringValue": piece, "willContinue": True} for piece in cut
            ]
            return [*told, {"jsonPath": path, "stringValue": ""}]
        case bool():
            return [{"jsonPath": path, "boolValue": value}]
        case None:
            return [{"jsonPath": path, "nullValue": None}]
        case _:
            return [{"jsonPath": path, "numberValue": value}]


def _long(scene: Scene) -> Answer:
    count = max(1, scene.turn.number("long", 10))
    pieces = [Event([{"text": f"chunk {at + 1} of {count}. "}]) for at in range(count)]
    return Answer([*pieces[:-1], Event(pieces[-1].parts, "STOP")])


def _block(scene: Scene) -> Answer:
    reason = scene.turn.argument("block", "PROHIBITED_CONTENT").upper()
    feedback: JSON = {"blockReason": reason}
    if scene.target.vertex:
        feedback["blockReasonMessage"] = "The prompt was blocked."
    return Answer([], prompt_feedback=feedback)


def _finish(scene: Scene) -> Answer:
    reason = scene.turn.argument("finish", "OTHER").upper()
    events = text_events(scene, scene.turn.text, finish=reason)
    if reason != "SAFETY":
        return Answer(events)
    rating = {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
    last = msgspec.structs.replace(events[-1], extra={"safetyRatings": [rating]})
    return Answer([*events[:-1], last])


def _max_tokens(scene: Scene) -> Answer:
    text = scene.turn.text
    return text_answer(scene, text[: max(1, len(text) // 2)], finish="MAX_TOKENS")


def _thinking_ate_all(scene: Scene) -> Answer:
    spent = scene.config.get("maxOutputTokens") or 64
    return Answer([Event(None, "MAX_TOKENS")], thought_tokens=spent)


def _malformed_call(scene: Scene) -> Answer:
    text = "Malformed function call: print(default_api.get_weather(city=)"
    return Answer([Event(None, "MALFORMED_FUNCTION_CALL", extra={"finishMessage": text})])


def _unexpected_call(scene: Scene) -> Answer:
    call = {"name": "undeclared_function", "args": {"why": "not declared"}}
    text = f"Unexpected tool call: {CALL_MESSAGE}"
    part = {"functionCall": call}
    return Answer([Event([part], "UNEXPECTED_TOOL_CALL", extra={"finishMessage": text})])


def _image(scene: Scene) -> Answer:
    blob: JSON = {"inlineData": {"mimeType": "image/png", "data": samples.png()}}
    if scene.is_three:
        blob["thoughtSignature"] = scene.signature("image")
    return Answer([Event([{"text": "Here is the image."}]), Event([blob]), _empty_stop()])


def _audio(scene: Scene) -> Answer:
    blob = {"inlineData": {"mimeType": samples.PCM_TYPE, "data": samples.pcm()}}
    return Answer([Event([blob]), _empty_stop()])


def _empty_stop() -> Event:
    return Event([{"text": ""}], "STOP")


def _grounding(scene: Scene) -> Answer:
    events = text_events(scene, samples.GROUNDED_TEXT)
    last = msgspec.structs.replace(events[-1], extra={"groundingMetadata": samples.grounding()})
    return Answer([*events[:-1], last], tool_tokens=0)


def _code(scene: Scene) -> Answer:
    code = {"language": "PYTHON", "code": "print(6 * 7)\nprint(1 / 0)\n"}
    passed = {"outcome": "OUTCOME_OK", "output": "42\n"}
    failed = {"outcome": "OUTCOME_FAILED", "output": "ZeroDivisionError: division by zero\n"}
    events = [
        Event([{"executableCode": code}]),
        Event([{"codeExecutionResult": passed}, {"codeExecutionResult": failed}]),
    ]
    return Answer([*events, *text_events(scene, "The first result is 42.")], tool_tokens=32)


def _empty(scene: Scene) -> Answer:
    return Answer([Event([], "STOP")])


def _no_candidates(scene: Scene) -> Answer:
    return Answer([], without_candidates=True)


def _late_text(scene: Scene) -> Answer:
    return Answer([_empty_stop(), *text_events(scene, scene.turn.text)])


def _stop_early(scene: Scene) -> Answer:
    text = scene.turn.text
    for stop in scene.config.get("stopSequences") or []:
        text = text.split(stop, 1)[0]
    return text_answer(scene, text)


def _continuation(scene: Scene) -> Answer:
    hops = scene.turn.number("continuation", 1)
    hop = _read_token(scene.request.get("continuationToken"))
    pieces = split(scene.turn.text, pieces=hops + 1, least=1)
    if hop >= len(pieces) - 1:
        return Answer(text_events(scene, "".join(pieces[hop:])))
    events = text_events(scene, pieces[hop], finish="CONTINUATION")
    token = base64.b64encode(f"{_TOKEN_PREFIX}{hop + 1}".encode()).decode()
    last = msgspec.structs.replace(events[-1], extra={"continuationToken": token})
    return Answer([*events[:-1], last])


def _read_token(token: str | None) -> int:
    if not token:
        return 0
    try:
        text = base64.b64decode(token).decode()
    except (binascii.Error, ValueError):
        text = ""
    hop = text.removeprefix(_TOKEN_PREFIX)
    if hop == text or not hop.isdecimal():
        raise Refusal("Invalid continuation token.")
    return int(hop)


def _with_thoughts(scene: Scene, said: Answer) -> Answer:
    if not scene.thinks or not said.events:
        return said
    events = list(said.events)
    if not scene.is_three and events[-1].finish == "STOP":
        signed = {"text": "", "thoughtSignature": scene.signature("thoughts")}
        last = events[-1]
        events[-1] = msgspec.structs.replace(last, finish=None, extra={})
        events.append(Event([signed], "STOP", last.index, last.extra))
    if (scene.config.get("thinkingConfig") or {}).get("includeThoughts"):
        told = ["**Reading the request**\n\nI look at it.\n\n", "**Answering**\n\nI answer it.\n\n"]
        events = [Event([{"text": text, "thought": True}]) for text in told] + events
    return msgspec.structs.replace(said, events=events)


def _with_logprobs(said: Answer) -> Answer:
    if not said.events:
        return said
    texts = [part.get("text", "") for event in said.events for part in event.parts or []]
    tokens = split("".join(texts), pieces=16, least=4)
    chosen = [
        {"token": token, "tokenId": at + 1, "logProbability": -0.25}
        for at, token in enumerate(tokens)
    ]
    top = [{"candidates": [one, {**one, "token": "…", "logProbability": -2.5}]} for one in chosen]
    result = {"chosenCandidates": chosen, "topCandidates": top}
    last = said.events[-1]
    extra = {**last.extra, "logprobsResult": result, "avgLogprobs": -0.25}
    events = [*said.events[:-1], msgspec.structs.replace(last, extra=extra)]
    return msgspec.structs.replace(said, events=events)


ANSWERS: dict[str, Callable[[Scene], Answer]] = {
    "long": _long,
    "block": _block,
    "finish": _finish,
    "max-tokens": _max_tokens,
    "thinking-ate-all": _thinking_ate_all,
    "malformed-call": _malformed_call,
    "unexpected-call": _unexpected_call,
    "image": _image,
    "audio": _audio,
    "grounding": _grounding,
    "code": _code,
    "empty": _empty,
    "no-candidates": _no_candidates,
    "late-text": _late_text,
    "stop-early": _stop_early,
    "continuation": _continuation,
}

CALLS: dict[str, Callable[[Scene], Answer]] = {
    "tool-then-text": _tool_then_text,
    "parallel-calls": _parallel_calls,
    "calls-apart": _calls_apart,
    "partial-args": _partial_args,
}
