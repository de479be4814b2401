"""What kinds of answer are wanted, and in which voice.

One rule: a voice that Gemini has is passed on by name; for one of OpenAI's voices the Gemini voice nearest in
pitch and temper stands in, and that is noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oaicompat.errors import InvalidRequestError
from oaicompat.providers.gemini.context import Context

# A choice, not a fact: no two vendors have the same voice.
VOICES: Mapping[str, str] = {
    "alloy": "Kore",
    "ash": "Charon",
    "ballad": "Enceladus",
    "cedar": "Algieba",
    "coral": "Aoede",
    "echo": "Orus",
    "fable": "Puck",
    "marin": "Sulafat",
    "nova": "Leda",
    "onyx": "Algenib",
    "sage": "Despina",
    "shimmer": "Zephyr",
    "verse": "Iapetus",
}
FORMATS = ("wav", "pcm16")


def encode_modalities(context: Context) -> tuple[str, ...]:
    """Return the kinds of answer wanted; speech models give sound alone."""
    wanted = tuple(dict.fromkeys(each.upper() for each in context.request.modalities))
    if context.profile.audio_output and "AUDIO" in wanted and "TEXT" in wanted:
        context.notes.approximated(
            context.request.spelled("modalities"), "a speech model answers with sound alone"
        )
        return tuple(each for each in wanted if each != "TEXT")
    return wanted


def encode_speech(context: Context) -> Mapping[str, Any] | None:
    """Return the speechConfig for the voice wanted.

    Raises `InvalidRequestError` for a container format the library cannot write.
    """
    audio = context.request.audio
    if audio is None:
        return None
    if audio.format not in FORMATS:
        raise InvalidRequestError(
            f"Invalid value: {audio.format[:64]!r}. Supported values are: 'wav' and 'pcm16'.",
            code="unsupported_value",
            param=f"{audio.path}.format",
        )
    return speech_config(named_voice(audio.voice, f"{audio.path}.voice", context))


def named_voice(voice: str, path: str, context: Context) -> str:
    """Translate the name of a voice."""
    stand_in = VOICES.get(voice.lower())
    if stand_in is None:
        return voice[:1].upper() + voice[1:]
    context.notes.approximated(path, f"spoken by Gemini's voice {stand_in}")
    return stand_in


def speech_config(voice: str) -> Mapping[str, Any]:
    """Return the speechConfig of one Gemini voice."""
    return {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}}
