"""The simulator's rules against what the real services said.

Every recorded request that was accepted passes, every recorded refusal of the request itself is repeated.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from oaicompat_server.simulator import NEWEST, Refusal, Target, check_generate, find_model

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "gemini" / "recorded"
GENERATE = re.compile(r":(generateContent|streamGenerateContent)\b")
FOREIGN = "Zm9yZWlnbg=="

if not RECORDED.is_dir():
    pytest.skip("the recorded interactions are not here", allow_module_level=True)


def load(status: int) -> list[Any]:
    found = []
    for path in sorted(RECORDED.glob("*.json")):
        case = json.loads(path.read_text())
        if GENERATE.search(case["endpoint"] or "") and case["status"] == status:
            found.append(pytest.param(case, id=path.stem[:40]))
    return found


def judge(case: dict[str, Any]) -> None:
    text = re.sub(r'"signature_REDACTED_\d+"', json.dumps(FOREIGN), json.dumps(case["request"]))
    model = find_model(case["model"]) or NEWEST
    target = Target(
        model=model,
        backend=case["backend"],
        streaming=case["stream"],
        foreign_signatures=True,
    )
    check_generate(json.loads(text), target)


ACCEPTED = load(200)


def test_the_recordings_are_worth_the_name() -> None:
    assert len(ACCEPTED) > 120


@pytest.mark.parametrize("case", ACCEPTED)
def test_an_accepted_request_is_accepted(case: dict[str, Any]) -> None:
    judge(case)


REASONS_OUTSIDE_THE_BODY = ("API key not valid", "Cannot fetch content", "input token count")


@pytest.mark.parametrize("case", load(400))
def test_a_refused_request_is_refused_with_the_same_text(case: dict[str, Any]) -> None:
    message = case["response"]["error"]["message"]
    if any(reason in message for reason in REASONS_OUTSIDE_THE_BODY):
        judge(case)
        return
    with pytest.raises(Refusal) as caught:
        judge(case)
    assert caught.value.message == message


@pytest.mark.parametrize("case", load(404))
def test_an_unknown_model_is_unknown(case: dict[str, Any]) -> None:
    assert find_model(case["model"]) is None
