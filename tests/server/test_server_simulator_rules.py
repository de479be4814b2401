"""The rules of the simulated service, one line each: a body, and the phrase of the refusal or None."""

from __future__ import annotations

import base64
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from oaicompat_server.simulator import Refusal, Target, check_generate, find_model
from oaicompat_server.simulator.instances import instance
from oaicompat_server.simulator.signatures import mint

FLASH, LITE, PRO = "gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro"
OLD, THREE, PRO31, NEW, FOUR = (
    "gemini-2.0-flash",
    "gemini-3-flash-preview",
    "gemini-3.1-pro-preview",
    "gemini-3.6-flash",
    "gemini-4-argon",
)
HELLO = [{"role": "user", "parts": [{"text": "hello"}]}]
DOG = {"functionDeclarations": [{"name": "dog"}, {"name": "cat"}]}


def judge(body: Any, model: str = FLASH, backend: Any = "gemini", **options: Any) -> dict[str, Any]:
    known = find_model(model)
    assert known is not None
    return check_generate(body, Target(model=known, backend=backend, **options))


def expect(phrase: str | None, body: Any, model: str = FLASH, backend: str = "gemini") -> None:
    if phrase is None:
        judge(body, model, backend)
        return
    with pytest.raises(Refusal) as caught:
        judge(body, model, backend)
    assert phrase in caught.value.message
    assert caught.value.code == 400


def user(*parts: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": list(parts)}]}


def config(**fields: Any) -> dict[str, Any]:
    return {"contents": HELLO, "generationConfig": fields}


def thinking(**fields: Any) -> dict[str, Any]:
    return config(thinkingConfig=fields)


def parameters(**schema: Any) -> dict[str, Any]:
    declaration = {"name": "f", "parameters": {"type": "object", **schema}}
    return {"contents": HELLO, "tools": [{"functionDeclarations": [declaration]}]}


def tools(*items: Any, **fields: Any) -> dict[str, Any]:
    return {"contents": HELLO, "tools": list(items), **fields}


def calling(**fields: Any) -> dict[str, Any]:
    return tools(DOG, toolConfig={"functionCallingConfig": fields})


STRUCTURE = [
    (None, {"contents": HELLO}),
    (None, {"contents": HELLO[0], "generation_config": {"top_p": 0.5, "topK": 3}}),
    (None, {"contents": {"parts": {"text": "lone"}}, "tools": None, "safetySettings": None}),
    (None, {"contents": HELLO, "generationConfig": {"maxOutputTokens": "12", "topK": "3.0"}}),
    (None, thinking(thinkingBudget=1024.0)),
    (None, parameters(properties={"a": {"type": 1}})),
    ("Root element must be a message", []),
    ('Unknown name "nope": Cannot find field.', {"contents": HELLO, "nope": 1}),
    ("Unknown name \"x\" at 'generation_config': Cannot find field.", config(x=1)),
    (
        "Unknown name \"$schema\" at 'tools[0].function_declarations[0].parameters'",
        parameters(**{"$schema": "x"}),
    ),
    (
        "'tools[0].function_declarations[0].parameters.properties[0].value': Cannot find field",
        parameters(properties={"a": {"type": "string", "const": 1}}),
    ),
    (
        'Unknown name "type" at',
        parameters(properties={"a": {"type": ["string", "null"]}}),
    ),
    (
        "Proto field is not repeating, cannot start list.",
        parameters(properties={"a": {"type": ["string", "null"]}}),
    ),
    ("Invalid value at 'contents[0].parts[0].text' (TYPE_STRING), 3", user({"text": 3})),
    ("Invalid value at 'generation_config.seed' (TYPE_INT32)", config(seed=2**31)),
    ("Invalid value at 'generation_config.temperature' (TYPE_FLOAT)", config(temperature=True)),
    ("v1beta.ThinkingLevel), \"extreme\"", thinking(thinkingLevel="extreme")),
    ("v1beta.GenerationConfig), 3", {"contents": HELLO, "generationConfig": 3}),
    ("(TYPE_BYTES), Base64 decoding failed", user({"inlineData": {"data": "a b"}})),
    ("Cannot set 'inlineData'", user({"text": "a", "inlineData": {"mimeType": "image/png"}})),
    ('Unknown name "labelz"', {"contents": HELLO, "labelz": {}}),
    ('Unknown name "modelArmorConfig"', {"contents": HELLO, "modelArmorConfig": {}}),
    ("parameters.properties[0].value.enum[0]' (TYPE_STRING), 3",
     parameters(properties={"a": {"type": "string", "enum": [3]}})),
]  # fmt: skip

CONVERSATION = [
    ("contents is not specified", {"contents": []}),
    ("contents is not specified", {}),
    ("contents[0].parts: contents.parts must not be empty.", {"contents": [{"role": "user"}]}),
    ("parts[0].data: required oneof field 'data' must have one initialized field", user({})),
    ("required oneof field 'data'", user({"thought": True})),
    (None, user({"text": ""})),
    (None, user({"text": "a"}, {"videoMetadata": {"fps": 1}})),
    ("must be in the range (0, 24]", user({"text": "a", "videoMetadata": {"fps": 25}})),
    ("Please use a valid role: user, model.", {"contents": [{"role": "system", "parts": [{"text": "a"}]}]}),
    ("Unsupported MIME type: png", user({"inlineData": {"mimeType": "png", "data": "aaaa"}})),
    ("Unsupported MIME type: image/tiff", user({"inlineData": {"mimeType": "image/tiff", "data": "aaaa"}})),
    ("mime_type must not be empty", user({"inlineData": {"data": "aaaa"}})),
    ("Unsupported file URI type: gs://", user({"fileData": {"fileUri": "gs://b/o.png"}})),
    ("Unsupported file URI type: http:", user({"fileData": {"fileUri": "http://a/o.png"}})),
    (None, user({"fileData": {"fileUri": "https://a/o.png"}})),
    ("starts with a user turn", {"contents": [{"role": "model", "parts": [{"text": "a"}]}, *HELLO]}),
    ("only supports text parts", {"contents": HELLO, "systemInstruction": {
        "parts": [{"inlineData": {"mimeType": "image/png", "data": "aaaa"}}]}}),
]  # fmt: skip


@pytest.mark.parametrize(("phrase", "body"), STRUCTURE + CONVERSATION)
def test_structure_and_contents(phrase: str | None, body: Any) -> None:
    expect(phrase, body)


def test_every_violation_is_listed_with_its_path() -> None:
    with pytest.raises(Refusal) as caught:
        judge({"contents": HELLO, "a": 1, "generationConfig": {"b": 2}})
    (detail,) = caught.value.body()["error"]["details"]
    assert [entry.get("field") for entry in detail["fieldViolations"]] == [
        None,
        "generation_config",
    ]
    assert len(caught.value.message.splitlines()) == 2


CONFIGURATION = [
    (FLASH, "gemini", "temperature must be in the range", config(temperature=2.1)),
    (FLASH, "vertex", "a temperature value of 3 but the supported range is from 0 (inclusive) to 2.0001",
     config(temperature=3)),
    (FLASH, "gemini", "top_p must be in the range", config(topP=1.1)),
    (FLASH, "gemini", "the number of stop_sequences must not exceed 5", config(stopSequences=["a"] * 6)),
    (FLASH, "vertex", "it has a stopSequences value of 6", config(stopSequences=["a"] * 6)),
    (FLASH, "gemini", "max_output_tokens must be positive", config(maxOutputTokens=0)),
    (FLASH, "vertex", "a maxOutputTokens value of 70000", config(maxOutputTokens=70_000)),
    (FOUR, "vertex", None, config(maxOutputTokens=70_000)),
    (FLASH, "gemini", None, config(candidateCount=8)),
    (FLASH, "gemini", "candidate_count must be in the range", config(candidateCount=9)),
    (THREE, "gemini", "Multiple candidates is not enabled", config(candidateCount=2)),
    (PRO31, "vertex", None, config(candidateCount=4)),
    (FOUR, "vertex", "Multiple candidates is not enabled", config(candidateCount=2)),
    (OLD, "gemini", None, config(presencePenalty=1)),
    (FLASH, "gemini", "Penalty is not enabled for models/gemini-2.5-flash", config(presencePenalty=1)),
    (FLASH, "gemini", None, config(presencePenalty=0, frequencyPenalty=0.0)),
    (FLASH, "vertex", None, config(frequencyPenalty=1)),
    (THREE, "vertex", "Penalty is not enabled for this model", config(frequencyPenalty=1)),
    (OLD, "gemini", "in the range [-2.0, 2.0)", config(frequencyPenalty=2)),
    (FLASH, "gemini", "Logprobs is not enabled for models/", config(responseLogprobs=True)),
    (FLASH, "vertex", None, config(responseLogprobs=True, logprobs=20)),
    (FLASH, "vertex", "it has a logprobs value of 21", config(responseLogprobs=True, logprobs=21)),
    (FLASH, "gemini", "allowed mimetypes are", config(responseMimeType="text/html")),
    (FLASH, "gemini", "only allowed for response_mime_type", config(responseJsonSchema={})),
    (FLASH, "gemini", "Only one of response_schema",
     config(responseMimeType="application/json", responseSchema={}, responseJsonSchema={})),
    (FLASH, "gemini", "combination of response modalities (IMAGE)", config(responseModalities=["IMAGE"])),
    ("gemini-2.5-flash-image", "gemini", None, config(responseModalities=["image", "TEXT"])),
    ("gemini-3.8-flash-tts", "gemini", "* AUDIO", config()),
    ("gemini-3.8-flash-tts", "gemini", None, config(responseModalities=["AUDIO"])),
    (FLASH, "gemini", "set only one of thinking budget and thinking level",
     thinking(thinkingBudget=1, thinkingLevel="low")),
    (OLD, "gemini", "Thinking is not enabled for this model", thinking(includeThoughts=True)),
    (OLD, "vertex", "thinking is not supported by this model", thinking(thinkingBudget=0)),
    (OLD, "gemini", None, thinking()),
    (PRO, "gemini", "Budget 0 is invalid. This model only works in thinking mode.",
     thinking(thinkingBudget=0)),
    (PRO, "gemini", "choose a value between 128 and 32768", thinking(thinkingBudget=127)),
    (PRO, "gemini", None, thinking(thinkingBudget=-1)),
    (FLASH, "gemini", None, thinking(thinkingBudget=0)),
    (FLASH, "gemini", "between 1 and 24576", thinking(thinkingBudget=24_577)),
    (LITE, "gemini", "between 512 and 24576", thinking(thinkingBudget=511)),
    (FLASH, "gemini", "Thinking level is not supported for this model.", thinking(thinkingLevel="LOW")),
    (PRO31, "gemini", "Thinking level MINIMAL is not supported", thinking(thinkingLevel="minimal")),
    (PRO31, "gemini", "Budget 0 is invalid", thinking(thinkingBudget=0)),
    (PRO31, "vertex", None, thinking(thinkingBudget=0)),
    (THREE, "gemini", None, thinking(thinkingLevel="minimal")),
    ("gemini-3.1-flash-image", "gemini", "level LOW is not supported", thinking(thinkingLevel="LOW")),
    ("gemini-3.1-flash-image", "vertex", None, thinking(thinkingLevel="LOW")),
    (FOUR, "gemini", "Thinking budget is not supported", thinking(thinkingBudget=1024)),
    (FLASH, "gemini", "is already present", {"contents": HELLO, "safetySettings": [
        {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}] * 2}),
    (FLASH, "vertex", 'Unknown name "serviceTier"', {"contents": HELLO, "serviceTier": "flex"}),
    (FLASH, "gemini", None, {"contents": HELLO, "serviceTier": "flex"}),
    (FLASH, "gemini", "CachedContent can not be used", tools(DOG, cachedContent="cachedContents/a")),
]  # fmt: skip


@pytest.mark.parametrize(("model", "backend", "phrase", "body"), CONFIGURATION)
def test_configuration(model: str, backend: str, phrase: str | None, body: Any) -> None:
    expect(phrase, body, model, backend)


def test_a_missing_cache_is_a_403() -> None:
    with pytest.raises(Refusal) as caught:
        judge({"contents": HELLO, "cachedContent": "cachedContents/missing"})
    assert caught.value.code == 403


SEARCH: dict[str, Any] = {"googleSearch": {}}
CIRCULATE = {"toolConfig": {"includeServerSideToolInvocations": True}}
JSON_MODE = {"generationConfig": {"responseMimeType": "application/json"}}
NAMED = [
    {"functionDeclarations": [{"name": "8bad"}]},
    {"functionDeclarations": [{"name": "a" * 65}]},
]

TOOLS = [
    (FLASH, "gemini", "Invalid function name", tools(NAMED[0])),
    (FLASH, "gemini", "maximum length of 64", tools(NAMED[1])),
    (FLASH, "gemini", None, tools({"functionDeclarations": [{"name": "_a.b:c-d"}]})),
    (FLASH, "gemini", "Duplicate function declaration found: dog", tools(DOG, DOG)),
    (FLASH, "gemini", "properties[a].items: missing field.",
     parameters(properties={"a": {"type": "array"}})),
    (FLASH, "gemini", "required[0]: property is not defined", parameters(required=["a"])),
    (FLASH, "gemini", "enum[1]: cannot be empty",
     parameters(properties={"a": {"type": "string", "enum": ["a", ""]}})),
    (FLASH, "gemini", "only allowed for STRING type",
     parameters(properties={"a": {"type": "integer", "enum": ["1"]}})),
    (THREE, "gemini", None, parameters(properties={"a": {"type": "integer", "enum": ["1"]}})),
    (FLASH, "gemini", 'Unknown name "additionalProperties"', parameters(additionalProperties=False)),
    (FLASH, "vertex", None, parameters(additionalProperties=False)),
    (FLASH, "gemini", None, tools({"functionDeclarations": [{"name": "f", "parametersJsonSchema": {
        "$schema": "x", "type": "object", "additionalProperties": False, "oneOf": [1]}}]})),
    (FLASH, "gemini", None, tools({})),
    (FLASH, "vertex", "required one_of 'tool_type'", tools({})),
    (FLASH, "gemini", None, calling(mode="any", allowedFunctionNames=["dog"])),
    (FLASH, "gemini", None, calling(mode="validated", allowedFunctionNames=["dog"])),
    (FLASH, "gemini", "only when function calling mode is ANY", calling(allowedFunctionNames=["dog"])),
    (FLASH, "gemini", "function cow is not declared", calling(mode="ANY", allowedFunctionNames=["cow"])),
    (FLASH, "gemini", "config is set without function_declarations",
     {"contents": HELLO, "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}),
    (FLASH, "gemini", 'Unknown name "streamFunctionCallArguments"',
     calling(streamFunctionCallArguments=True)),
    (FLASH, "gemini", "Tool use with function calling is unsupported", tools(DOG, SEARCH)),
    (THREE, "gemini", "Built-in tools ({google_search}) and Function Calling", tools(DOG, SEARCH)),
    (THREE, "gemini", None, tools(DOG, SEARCH, **CIRCULATE)),
    (THREE, "vertex", None, tools(DOG, SEARCH)),
    (THREE, "vertex", 'Unknown name "includeServerSideToolInvocations"', tools(DOG, **CIRCULATE)),
    (FLASH, "gemini", "circulation is not enabled for models/", tools(DOG, **CIRCULATE)),
    (FLASH, "gemini", "Function calling with a response mime type", tools(DOG, **JSON_MODE)),
    (FLASH, "gemini", "Tool use with a response mime type", tools(SEARCH, **JSON_MODE)),
    (THREE, "gemini", None, tools(DOG, **JSON_MODE)),
]  # fmt: skip


@pytest.mark.parametrize(("model", "backend", "phrase", "body"), TOOLS)
def test_tools(model: str, backend: str, phrase: str | None, body: Any) -> None:
    expect(phrase, body, model, backend)


def test_a_schema_may_not_be_endlessly_deep() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        schema = {"type": "object", "properties": {"a": schema}}
    expect("exceeds the maximum allowed nesting depth", parameters(properties={"a": schema}))


def call(name: str = "dog", signature: str | None = None, **fields: Any) -> dict[str, Any]:
    part: dict[str, Any] = {"functionCall": {"name": name, "args": {}, **fields}}
    return part | ({"thoughtSignature": signature} if signature else {})


def result(name: str = "dog", **fields: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": {"output": "wuff"}, **fields}}


def loop(*turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Build a conversation that starts with a user turn; turns alternate from the model on."""
    contents = list(HELLO)
    for at, parts in enumerate(turns):
        contents.append({"role": "user" if at % 2 else "model", "parts": parts})
    return {"contents": contents}


OWN, VERTEX = mint("gemini", "seed"), mint("vertex", "seed")
BYPASS = "skip_thought_signature_validator"
ENCODED = base64.b64encode(BYPASS.encode()).decode()
MISSING = "Function call is missing a thought_signature in functionCall parts"
UNEVEN = "number of function response parts is equal to the number of function call parts"
TEXT = {"text": "now this"}

LOOPS = [
    (FLASH, "gemini", None, loop([call()], [result()])),
    (FLASH, "gemini", None, loop([call(), call("cat")], [result(), result("cat")])),
    (FLASH, "gemini", UNEVEN, loop([call(), call("cat")], [result()])),
    (FLASH, "gemini", UNEVEN, loop([call()], [TEXT])),
    (OLD, "gemini", None, loop([call()], [TEXT])),
    (FLASH, "gemini", "comes immediately after a function call turn", loop([TEXT], [result()])),
    (FLASH, "gemini", "function call turn comes immediately after a user turn",
     {"contents": [{"role": "model", "parts": [call()]}, *HELLO]}),
    (FLASH, "gemini", None, {"contents": [*loop([call()], [result()])["contents"], *HELLO]}),
    (FLASH, "gemini", 'to unknown part "#/a"', loop([call()], [result(response={"a": {"$ref": "#/a"}})])),
    (FLASH, "gemini", "(type.googleapis.com/google.protobuf.Struct)",
     loop([call()], [result(response="wuff")])),
    (FLASH, "gemini", "Multimodal function response",
     loop([call()], [result(parts=[{"inlineData": {"mimeType": "image/png", "data": "aaaa"}}])])),
    (FLASH, "gemini", None, loop([call(id="1")], [result(id="1")])),
    (FLASH, "vertex", "Unknown name \"id\" at 'contents[1].parts[0].function_call'",
     loop([call(id="1")], [result()])),
    (THREE, "vertex", None, loop([call(id="1", signature=VERTEX)], [result(id="1")])),
    (NEW, "gemini", "does not carry the id", loop([call(id="1", signature=OWN)], [result()])),
    (THREE, "gemini", None, loop([call(id="1", signature=OWN)], [result()])),
    (THREE, "gemini", MISSING, loop([call()], [result()])),
    (THREE, "gemini", "function call `default_api:dog` , position 2.", loop([call()], [result()])),
    (THREE, "gemini", None, loop([call(signature=OWN)], [result()])),
    (THREE, "gemini", None, loop([call(signature=OWN), call("cat")], [result(), result("cat")])),
    (THREE, "gemini", MISSING, loop([call(), call(signature=OWN)], [result(), result()])),
    (THREE, "gemini", MISSING, loop([call(signature=OWN)], [result()], [call()], [result()])),
    (THREE, "gemini", None, {"contents": [*loop([call()], [result()], [TEXT])["contents"], *HELLO]}),
    (THREE, "gemini", None, loop([call(signature=BYPASS)], [result()])),
    (THREE, "gemini", None, loop([call(signature=ENCODED)], [result()])),
    (THREE, "gemini", "Corrupted thought signature.", loop([call(signature=VERTEX)], [result()])),
    (THREE, "gemini", "Corrupted thought signature.", loop([call(signature="Zm9v")], [result()])),
    (THREE, "vertex", None, loop([call(signature=VERTEX)], [result()])),
    ("gemini-3.1-flash-image", "gemini", None, loop([call()], [result()])),
    (THREE, "gemini", None, loop([TEXT])),
    (NEW, "gemini", "Requests ending with a model turn are not supported.", loop([TEXT])),
    ("gemini-3.5-flash-lite", "gemini", "ending with a model turn", loop([TEXT])),
    (THREE, "gemini", "Please use a valid role",
     {"contents": [*loop([call(signature=OWN)])["contents"], {"role": "function", "parts": [result()]}]}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "backend", "phrase", "body"), LOOPS)
def test_tool_loops_and_signatures(model: str, backend: str, phrase: str | None, body: Any) -> None:
    expect(phrase, body, model, backend)


def test_foreign_signatures_pass_only_where_allowed_and_never_those_of_the_other_backend() -> None:
    judge(loop([call(signature="Zm9v")], [result()]), THREE, foreign_signatures=True)
    with pytest.raises(Refusal, match="Corrupted"):
        judge(loop([call(signature=VERTEX)], [result()]), THREE, foreign_signatures=True)


INSTANCES = [
    ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1}),
    ({"type": "OBJECT", "properties": {"a": {"type": "ARRAY", "items": {"type": "STRING"}}}},
     {"a": ["text"]}),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"enum": [3, 4]}}}, 3),
    ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
    ({"type": ["null", "boolean"]}, True),
    ({"const": {"a": 1}}, {"a": 1}),
    ({"type": "array", "items": {"type": "number"}, "minItems": 3}, [1, 1, 1]),
    ({"type": "array", "prefixItems": [{"const": 1}, {"const": "b"}], "maxItems": 2}, [1, "b"]),
    ({"type": "integer", "minimum": 5, "maximum": 9}, 5),
    ({"type": "number", "exclusiveMinimum": 1, "multipleOf": 3}, 3),
    ({"type": "string", "minLength": 6, "maxLength": 6}, "textxx"),
    ({"type": "string", "format": "date"}, "2026-01-31"),
    ({"allOf": [{"type": "object", "properties": {"a": {"const": 1}}},
                {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
    ({"type": "object", "required": ["z"]}, {"z": "text"}),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "value"), INSTANCES)
def test_an_instance_is_minimal(schema: Any, value: Any) -> None:
    assert instance(schema) == value


@pytest.mark.parametrize(
    "child",
    [
        {"$ref": "#/$defs/node"},
        {"type": "array", "items": {"$ref": "#/$defs/node"}},
        {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
    ],
    ids=["optional", "list", "nullable"],
)
def test_an_instance_of_a_schema_that_contains_itself_ends_and_is_valid(child: Any) -> None:
    required = ["name", "next"] if "anyOf" in child else ["name"]
    properties = {"name": {"type": "string"}, "next": child}
    node = {"type": "object", "properties": properties, "required": required}
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    made = instance(schema)
    assert made["next"]
    jsonschema.validate(made, schema)
