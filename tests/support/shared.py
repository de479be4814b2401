"""The shared checker of OpenAI's wire and the recordings of Gemini's, where they are there.

A checkout without them skips what needs them.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[3] / "shared"
RECORDINGS = SHARED / "gemini" / "recorded"
CHECKER = SHARED / "openai" / "check_openai.py"

needs_checker = pytest.mark.skipif(not CHECKER.exists(), reason="the OpenAI checker is not there")
needs_recordings = pytest.mark.skipif(
    not RECORDINGS.exists(), reason="the recorded answers are not there"
)


@cache
def checker() -> Any:
    """Load check_openai.py, which is a program, as a module."""
    spec = importlib.util.spec_from_file_location("check_openai", CHECKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def schemas() -> Any:
    """Load OpenAI's schemas once."""
    return checker().Schemas(False)


def findings(kind: str, raw: bytes, request: dict[str, Any] | None = None) -> list[Any]:
    """Check a body (`chat`), a stream (`chat-stream`) or a request (`chat-request`); return what is wrong."""
    module = checker()
    report = module.Report()
    if kind == "chat-stream":
        module.check_chat_stream(report, schemas(), raw, request)
    elif kind == "chat":
        module.check_chat(report, schemas(), json.loads(raw), request)
    elif kind == "chat-request":
        schemas().check(report, "CreateChatCompletionRequest", json.loads(raw), "body")
    else:
        module.check_error(report, schemas(), json.loads(raw), None)
    return list(report.items)
