"""generationConfig: how the answer is made.

One rule: a field is sent because the client asked for it. What the model is known to refuse is left out and
noted, what it ignores is sent and noted, and no default is invented. Sources: peers 1.4, gemini-wire
section 3 "Model-generation restrictions".
"""

from __future__ import annotations

from msgspec.structs import replace

from oaicompat.errors import InvalidRequestError
from oaicompat.messages import OutputFormat
from oaicompat.providers.gemini.context import Context
from oaicompat.providers.gemini.json_schema import prepare
from oaicompat.providers.gemini.media import RESOLUTIONS
from oaicompat.providers.gemini.schema import GenerationConfig, ThinkingConfig
from oaicompat.providers.gemini.speech import encode_modalities, encode_speech
from oaicompat.providers.gemini.tools import compiled
from oaicompat.sampling import Sampling

# Gemini's range ends before 2; OpenAI's includes it.
PENALTY_BELOW_2 = 1.9999
_HALF, _WHOLE = 2**31, 2**32
_DEFAULT_TEMPERATURE = 1
_NOTHING = GenerationConfig()


_INT32 = 2**31 - 1


def encode_generation(
    context: Context, candidates: int | None, thinking: ThinkingConfig | None
) -> GenerationConfig | None:
    """Encode everything that shapes the answer; `None` where the client asked for nothing.

    `candidates` is how many answers this one call is to give, `None` for as many as the client wants. Raises
    `InvalidRequestError` for more stop sequences than the model takes and for a sound format there is no
    encoder for.
    """
    request = context.request
    sampling = request.sampling
    wanted = candidates or sampling.candidates or 1
    presence, frequency = sampling.presence_penalty, sampling.frequency_penalty
    logprobs = True if (sampling.logprobs or sampling.top_logprobs) and _logprobs(context) else None
    if not context.profile.samples:
        _note_ignored(sampling, context)
    # By position where the order allows: each keyword is looked for among all fields.
    config = GenerationConfig(
        sampling.temperature,
        sampling.top_p,
        sampling.top_k,
        _candidate_count(wanted, context) if wanted > 1 else None,
        sampling.max_output_tokens and _limit(context),
        _stop(context) if request.stop else (),
        sampling.seed and _seed(sampling.seed, context),
        presence and _penalty("presence_penalty", presence, context),
        frequency and _penalty("frequency_penalty", frequency, context),
        logprobs,
        logprobs and (sampling.top_logprobs or None),
        response_modalities=encode_modalities(context) if request.modalities else (),
        speech_config=encode_speech(context) if request.audio else None,
        media_resolution=_media_resolution(context) if context.media else None,
        thinking_config=thinking,
    )
    if request.output is not None:
        config = _formatted(config, request.output, context)
    return None if config == _NOTHING else config


def _note_ignored(sampling: Sampling, context: Context) -> None:
    """Note what is sent although the model does not heed it: the profile may be behind the model."""
    asked = {
        "temperature": sampling.temperature not in (None, _DEFAULT_TEMPERATURE),
        "top_p": sampling.top_p is not None,
        "top_k": sampling.top_k is not None,
    }
    for name, given in asked.items():
        if given:
            context.notes.dropped(context.request.spelled(name), "this model ignores it")


def _candidate_count(wanted: int, context: Context) -> int | None:
    path = context.request.spelled("candidates")
    if not context.profile.multiple_candidates:
        context.notes.dropped(path, "this model gives one answer to a call")
        return None
    most = context.profile.maximum_candidates
    if wanted > most:
        context.notes.clamped(path, f"one call gives at most {most} answers")
    return min(wanted, most)


def _stop(context: Context) -> tuple[str, ...]:
    """Return the stop sequences; an empty one, which stops nothing, is refused upstream."""
    stop = context.request.stop
    if "" in stop:
        context.notes.dropped(context.request.spelled("stop"), "it is empty", inert=True)
        stop = tuple([each for each in stop if each])
    if len(stop) > context.profile.maximum_stops:
        path = context.request.spelled("stop")
        raise InvalidRequestError(
            f"Invalid '{path}': array too long. Expected an array with maximum length "
            f"{context.profile.maximum_stops}, but got an array with length {len(stop)} instead.",
            code="array_above_max_length",
            param=path,
        )
    return stop


def _seed(seed: int, context: Context) -> int:
    folded = (seed + _HALF) % _WHOLE - _HALF
    if folded != seed:
        context.notes.rewritten(
            context.request.spelled("seed"), f"folded into 32 bits as {folded}", inert=True
        )
    return folded


def _penalty(name: str, value: float, context: Context) -> float | None:
    path = context.request.spelled(name)
    if not context.profile.penalties:
        context.notes.dropped(path, "this model refuses penalties")
        return None
    if value > PENALTY_BELOW_2:
        context.notes.clamped(path, f"the model takes penalties up to {PENALTY_BELOW_2}")
        return PENALTY_BELOW_2
    return value


def _limit(context: Context) -> int | None:
    limit = context.request.sampling.max_output_tokens
    if limit is not None and limit > _INT32:
        name = context.request.spelled("max_output_tokens")
        raise InvalidRequestError(
            f"Invalid '{name}': integer above maximum value. Expected a value <= {_INT32}, "
            f"but got {limit} instead.",
            param=name,
            code="integer_above_max_value",
        )
    return limit


def _logprobs(context: Context) -> bool:
    request, profile = context.request, context.profile
    if not request.sampling.logprobs:
        if request.sampling.top_logprobs:
            context.notes.dropped(request.spelled("top_logprobs"), "it needs logprobs to be on")
        return False
    if profile.logprobs and (profile.logprobs_streamed or not request.stream):
        return True
    why = "while streaming" if profile.logprobs else "at all"
    context.notes.dropped(request.spelled("logprobs"), f"this model gives no logprobs {why}")
    return False


def _formatted(
    config: GenerationConfig, output: OutputFormat, context: Context
) -> GenerationConfig:
    if output.schema is None:
        return replace(config, response_mime_type="application/json")
    if context.profile.json_schema:
        schema = prepare(bytes(output.schema), output.path, context.notes)
        return replace(config, response_mime_type="application/json", response_json_schema=schema)
    schema = compiled(bytes(output.schema), output.path, context.notes)
    return replace(config, response_mime_type="application/json", response_schema=schema)


def _media_resolution(context: Context) -> str | None:
    """Choose one resolution for all media, for models that take none per part: the highest asked for.

    An image without a wish counts as the default, which lies between low and medium.
    """
    if context.profile.media_resolution_per_part:
        return None
    details = {
        media.detail or "auto"
        for media in context.media
        if media.detail or media.mime.startswith("image/")
    }
    if not details:
        return None
    ranked = ("high", "original", "medium", "auto", "low")
    known = [detail for detail in ranked if detail in details]
    if len(known) > 1:
        context.notes.approximated(
            context.request.spelled("detail"), f"one resolution for all media: {known[0]}"
        )
    return RESOLUTIONS["high"] if known[0] == "original" else RESOLUTIONS.get(known[0])
