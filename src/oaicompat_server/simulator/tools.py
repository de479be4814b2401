"""What the service asks of tools: names, schemas, which tools go together, when a call may be forced.

The one rule: `parameters` is checked keyword by keyword (by `fields`) and shape by shape (here), while
`parametersJsonSchema` is free-form (gemini-wire section 3, "Schemas"). Sources: gemini-wire sections 3 and 6,
mappings section 3.
"""

from __future__ import annotations

import re

from .status import JSON
from .target import Target

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")
_NOT_BUILT_IN = frozenset({"functionDeclarations"})
_MAX_DEPTH = 32


def declared_functions(request: JSON) -> list[JSON]:
    """Return all function declarations of a canonical request, in order."""
    return [
        declaration
        for tool in request.get("tools") or []
        for declaration in tool.get("functionDeclarations") or []
    ]


def built_in_tools(request: JSON) -> list[str]:
    """Return the names of the server-side tools a request switches on."""
    return [
        name for tool in request.get("tools") or [] for name in tool if name not in _NOT_BUILT_IN
    ]


def check_tools(request: JSON, target: Target) -> None:
    """Refuse tools the service would refuse.

    Raises:
        Refusal: with the text of the first rule that is broken.
    """
    _check_empty(request, target)
    _check_declarations(request, target)
    _check_calling(request, target)
    _check_combinations(request, target)
    config = request.get("generationConfig") or {}
    if config.get("responseSchema") is not None:
        check_schema(config["responseSchema"], "generation_config.response_schema", target)


def _check_empty(request: JSON, target: Target) -> None:
    for at, tool in enumerate(request.get("tools") or []):
        if not tool and target.vertex:
            raise target.refuse(
                f"tools[{at}].tool_type: required one_of 'tool_type' must have one initialized field"
            )


def _check_declarations(request: JSON, target: Target) -> None:
    names: set[str] = set()
    for at, tool in enumerate(request.get("tools") or []):
        for place, declaration in enumerate(tool.get("functionDeclarations") or []):
            path = f"tools[{at}].function_declarations[{place}]"
            name = declaration.get("name", "")
            _check_name(name, path, target)
            if name in names:
                raise target.refuse(f"Duplicate function declaration found: {name}")
            names.add(name)
            _check_schemas(declaration, path, target)


def _check_name(name: str, path: str, target: Target) -> None:
    if _NAME.fullmatch(name) is None:
        raise target.refuse_at(
            f"{path}.name",
            "Invalid function name. Must start with a letter or an underscore. Must be alphameric "
            "(a-z, A-Z, 0-9), underscores (_), dots (.), colons (:), or dashes (-), with a maximum "
            "length of 64.",
        )


def _check_schemas(declaration: JSON, path: str, target: Target) -> None:
    for subset, free in (
        ("parameters", "parametersJsonSchema"),
        ("response", "responseJsonSchema"),
    ):
        if declaration.get(subset) is not None and declaration.get(free) is not None:
            # ~ wording
            raise target.refuse_at(path, f"only one of {subset} and its JSON Schema can be set.")
    parameters = declaration.get("parameters")
    if parameters is None:
        return
    if parameters.get("type", "OBJECT") != "OBJECT":
        raise target.refuse_at(f"{path}.parameters.type", "must be OBJECT")
    check_schema(parameters, f"{path}.parameters", target)


def check_schema(schema: JSON, path: str, target: Target, depth: int = 0) -> None:
    """Refuse an OpenAPI-subset schema whose keywords do not fit together."""
    if depth > _MAX_DEPTH:
        where = (
            "A FunctionDeclaration" if path.startswith("tools") else "A schema in GenerationConfig"
        )
        raise target.refuse(f"{where} in the request exceeds the maximum allowed nesting depth.")
    kind = schema.get("type", "TYPE_UNSPECIFIED")
    if kind == "ARRAY" and schema.get("items") is None:
        raise target.refuse_at(f"{path}.items", "missing field.")
    _check_enum(schema, kind, path, target)
    properties = schema.get("properties") or {}
    for at, name in enumerate(schema.get("required") or []):
        if name not in properties:
            raise target.refuse_at(f"{path}.required[{at}]", "property is not defined")
    for name, child in properties.items():
        check_schema(child, f"{path}.properties[{name}]", target, depth + 1)
    if schema.get("items") is not None:
        check_schema(schema["items"], f"{path}.items", target, depth + 1)
    for at, child in enumerate(schema.get("anyOf") or []):
        check_schema(child, f"{path}.any_of[{at}]", target, depth + 1)


def _check_enum(schema: JSON, kind: str, path: str, target: Target) -> None:
    values = schema.get("enum")
    if not values:
        return
    if "" in values:
        raise target.refuse_at(f"{path}.enum[{values.index('')}]", "cannot be empty")
    if kind not in ("STRING", "TYPE_UNSPECIFIED") and target.generation < (3, 0):
        raise target.refuse_at(f"{path}.enum", "only allowed for STRING type")


def _check_calling(request: JSON, target: Target) -> None:
    calling = (request.get("toolConfig") or {}).get("functionCallingConfig")
    if calling is None:
        return
    names = [declaration["name"] for declaration in declared_functions(request)]
    mode = calling.get("mode", "MODE_UNSPECIFIED")
    if not names and mode in ("ANY", "VALIDATED"):
        raise target.refuse("Function calling config is set without function_declarations.")
    allowed = calling.get("allowedFunctionNames") or []
    if allowed and mode not in ("ANY", "VALIDATED"):
        # ~ wording
        raise target.refuse(
            "Please set allowed_function_names only when function calling mode is ANY or VALIDATED."
        )
    for name in allowed:
        if name not in names:
            raise target.refuse(
                "tool_config.function_calling_config.allowed_function_names: "
                f"function {name} is not declared."
            )


def _check_combinations(request: JSON, target: Target) -> None:
    functions = bool(declared_functions(request))
    built_in = built_in_tools(request)
    circulates = (request.get("toolConfig") or {}).get("includeServerSideToolInvocations")
    if target.generation >= (3, 0):
        if functions and built_in and not circulates and not target.vertex:
            spelled = ", ".join(re.sub(r"([A-Z])", r"_\1", name).lower() for name in built_in)
            raise target.refuse(
                f"Built-in tools ({{{spelled}}}) and Function Calling cannot be combined in the same "
                "request. Please set tool_config.include_server_side_tool_invocations to true."
            )
        return
    if circulates:
        name = target.model.name
        raise target.refuse(f"Tool call context circulation is not enabled for models/{name}")
    if functions and built_in:
        raise target.refuse("Tool use with function calling is unsupported")
    _check_json_with_tools(request, functions=functions, built_in=bool(built_in), target=target)


def _check_json_with_tools(
    request: JSON, *, functions: bool, built_in: bool, target: Target
) -> None:
    mime_type = (request.get("generationConfig") or {}).get("responseMimeType")
    if mime_type != "application/json":
        return
    if functions:
        raise target.refuse(
            "Function calling with a response mime type: 'application/json' is unsupported"
        )
    if built_in:
        raise target.refuse("Tool use with a response mime type: 'application/json' is unsupported")
