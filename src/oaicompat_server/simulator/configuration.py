"""What the service asks of `generationConfig`, safety settings and cached content, per model.

The one rule: the model's catalogue entry and its generation decide, never its name. Sources: gemini-wire
section 3 ("Thinking", "Model-generation restrictions") and section 6.
"""

from __future__ import annotations

from typing import Any

from .status import JSON, Refusal
from .target import Target

_MIME_TYPES = (
    "text/plain",
    "application/json",
    "application/xml",
    "application/yaml",
    "text/x.enum",
)
_OUTPUTS: dict[str, tuple[frozenset[str], ...]] = {
    "text": (frozenset({"TEXT"}),),
    "gemma": (frozenset({"TEXT"}),),
    "image": (frozenset({"TEXT", "IMAGE"}), frozenset({"IMAGE"}), frozenset({"TEXT"})),
    "tts": (frozenset({"AUDIO"}),),
}


def check_configuration(request: JSON, target: Target) -> None:
    """Refuse settings the model refuses.

    Raises:
        Refusal: with the text of the first rule that is broken.
    """
    config = request.get("generationConfig") or {}
    _check_sampling(config, target)
    _check_lengths(config, target)
    _check_candidates(config, target)
    _check_penalties(config, target)
    _check_logprobs(config, target)
    _check_output(config, target)
    _check_modalities(config, target)
    _check_thinking(config.get("thinkingConfig") or {}, target)
    _check_safety(request, target)
    _check_cache(request, target)


def _check_sampling(config: JSON, target: Target) -> None:
    temperature = config.get("temperature")
    if temperature is not None and not 0 <= temperature <= 2:
        raise target.out_of_range(
            "temperature",
            temperature,
            "from 0 (inclusive) to 2.0001 (exclusive)",
            "temperature must be in the range [0.0, 2.0].",
        )
    top_p = config.get("topP")
    if top_p is not None and not 0 <= top_p <= 1:
        raise target.out_of_range(
            "top_p",
            top_p,
            "from 0 (inclusive) to 1 (inclusive)",
            "top_p must be in the range [0.0, 1.0].",
        )
    top_k = config.get("topK")
    if top_k is not None and top_k < 1:
        raise target.out_of_range(
            "top_k", top_k, "from 1 (inclusive) to 1000 (exclusive)", "top_k must be positive."
        )


def _check_lengths(config: JSON, target: Target) -> None:
    limit = config.get("maxOutputTokens")
    too_many = target.vertex and target.generation < (4, 0) and (limit or 0) > 65_536
    if limit is not None and (limit < 1 or too_many):
        raise target.out_of_range(
            "max_output_tokens",
            limit,
            "from 1 (inclusive) to 65537 (exclusive)",
            "max_output_tokens must be positive.",
        )
    stops = config.get("stopSequences") or []
    if len(stops) > 5:
        raise target.out_of_range(
            "stop_sequences",
            len(stops),
            "from 1 (inclusive) to 6 (exclusive)",
            "the number of stop_sequences must not exceed 5",
        )
    if "" in stops:
        raise target.refuse_at(
            "generation_config.stop_sequences", "stop sequence must not be empty"
        )


def _check_candidates(config: JSON, target: Target) -> None:
    count = config.get("candidateCount")
    if count is None:
        return
    if not 1 <= count <= 8:
        raise target.out_of_range(
            "candidate_count",
            count,
            "from 1 (inclusive) to 9 (exclusive)",
            "candidate_count must be in the range [1, 8].",
        )
    since_three = target.generation >= (3, 0) and not target.vertex
    single = since_three or target.generation >= (4, 0) or target.model.kind in ("image", "tts")
    if count > 1 and single:
        raise target.refuse("Multiple candidates is not enabled for this model")


def _check_penalties(config: JSON, target: Target) -> None:
    for name, spelled in (
        ("presencePenalty", "presence_penalty"),
        ("frequencyPenalty", "frequency_penalty"),
    ):
        value = config.get(name)
        if value is None:
            continue
        if not -2 <= value < 2:
            raise target.out_of_range(
                spelled,
                value,
                "from -2 (inclusive) to 2 (exclusive)",
                f"{spelled} must be in the range [-2.0, 2.0).",
            )
        if value and target.generation >= ((3, 0) if target.vertex else (2, 5)):
            newer = target.generation >= (3, 0)
            where = "this model" if newer else f"models/{target.model.name}"
            raise target.refuse(f"Penalty is not enabled for {where}")


def _check_logprobs(config: JSON, target: Target) -> None:
    if not config.get("responseLogprobs"):
        if config.get("logprobs") is not None:
            raise target.refuse_at(
                "generation_config.logprobs", "only allowed when response_logprobs is true"
            )
        return
    works = target.generation < (3, 0) if target.vertex else target.generation < (2, 5)
    if not works or target.streaming:
        raise target.refuse(f"Logprobs is not enabled for models/{target.model.name}")
    if not 0 <= config.get("logprobs", 0) <= 20:
        raise target.out_of_range(
            "logprobs",
            config["logprobs"],
            "from 0 (inclusive) to 21 (exclusive)",
            "logprobs must be in the range [0, 20].",
        )


def output_schema(config: JSON) -> Any:
    """Return the schema an answer has to satisfy, in whichever field it stands, or None."""
    for name in ("responseJsonSchema", "_responseJsonSchema", "responseSchema"):
        if config.get(name) is not None:
            return config[name]
    for form in config.get("responseFormat") or []:
        if form.get("text", {}).get("schema") is not None:
            return form["text"]["schema"]
    return None


def _check_output(config: JSON, target: Target) -> None:
    mime_type = config.get("responseMimeType") or "text/plain"
    if mime_type not in _MIME_TYPES:
        raise target.refuse_at(
            "generation_config.response_mime_type",
            "allowed mimetypes are `text/plain`, `application/json`, `application/xml`, "
            "`application/yaml` and `text/x.enum`.",
        )
    given = [
        name
        for name in ("responseSchema", "responseJsonSchema", "_responseJsonSchema")
        if config.get(name) is not None
    ]
    if len(given) > 1:
        # ~ wording
        raise target.refuse("Only one of response_schema and response_json_schema can be set.")
    if given and mime_type == "text/plain":
        raise target.refuse_at(
            "generation_config.response_schema",
            "only allowed for response_mime_type `application/json` and `text/x.enum`.",
        )


def _check_modalities(config: JSON, target: Target) -> None:
    wanted = frozenset(config.get("responseModalities") or ())
    if target.model.name == "newest" or (not wanted and target.model.kind != "tts"):
        return
    allowed = _OUTPUTS.get(target.model.kind, ())
    if wanted in allowed:
        return
    shown = ", ".join(sorted(wanted)) or "TEXT"
    lines = "\n".join("* " + ", ".join(sorted(names)) for names in allowed)
    raise target.refuse(
        f"The requested combination of response modalities ({shown}) is not supported by the model. "
        f"models/{target.model.name} accepts the following combination of response modalities:\n{lines}"
    )


def _check_thinking(thinking: JSON, target: Target) -> None:
    budget, level = thinking.get("thinkingBudget"), thinking.get("thinkingLevel")
    if budget is None and level is None and not thinking.get("includeThoughts"):
        return
    if budget is not None and level is not None:
        raise target.refuse("You can only set only one of thinking budget and thinking level.")
    if target.model.thinking is None:
        raise target.refuse(
            "Thinking is not enabled for this model",
            vertex="Unable to submit request because thinking is not supported by this model. Learn "
            "more: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/gemini",
        )
    if level is not None:
        _check_level(level, target)
    if budget is not None:
        _check_budget(budget, target)


def _check_level(level: str, target: Target) -> None:
    levels = target.model.levels(vertex=target.vertex)
    if not levels:
        raise target.refuse("Thinking level is not supported for this model.")
    if level not in levels:
        raise target.refuse(
            f"Thinking level {level} is not supported for this model. Please retry with other "
            "thinking level."
        )


def _check_budget(budget: int, target: Target) -> None:
    thinking = target.model.thinking
    if thinking is None or thinking.budget is None:
        # ~ wording; Gemini 4 takes levels only.
        raise target.refuse("Thinking budget is not supported for this model.")
    low, high = thinking.budget
    if budget == -1 or low <= budget <= high:
        return
    if budget == 0:
        if thinking.can_stop or (target.vertex and target.generation >= (3, 0)):
            return
        raise target.refuse("Budget 0 is invalid. This model only works in thinking mode.")
    raise target.refuse(
        f"The thinking budget {budget} is invalid. Please choose a value between {low} and {high}."
    )


def _check_safety(request: JSON, target: Target) -> None:
    seen: set[str] = set()
    for at, setting in enumerate(request.get("safetySettings") or []):
        category = setting.get("category", "HARM_CATEGORY_UNSPECIFIED")
        if category in seen:
            path = f"safety_settings[{at}]"
            raise target.refuse_at(path, f"element with category {category} is already present")
        seen.add(category)
    if seen and request.get("modelArmorConfig"):
        raise target.refuse("Only one of safety_settings and model_armor_config can be set.")


def _check_cache(request: JSON, target: Target) -> None:
    name = request.get("cachedContent")
    if not name:
        return
    if any(request.get(key) for key in ("systemInstruction", "tools", "toolConfig")):
        raise target.refuse(
            "CachedContent can not be used with GenerateContent request setting system_instruction, "
            "tools or tool_config.\n\nProposed fix: move those values to CachedContent from "
            "GenerateContent request."
        )
    if target.generation >= (4, 0):
        raise target.refuse("Explicit caching is not supported for this model.")
    if "cachedContents/" not in name or "missing" in name:
        raise Refusal("CachedContent not found (or permission denied)", code=403)
