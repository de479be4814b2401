"""Agents of openai-agents and LangChain models against the gateway: the cases of `agents_python.py`.

They have a virtual environment of their own, since what they depend on is several times this project.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.support.gateway import Gateway
from tests.support.installed import python_packages

pytestmark = pytest.mark.clients

SCRIPT = Path(__file__).with_name("agents_python.py")
CASES = re.findall(r"^@case\ndef (\w+)", SCRIPT.read_text("utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def results(served: Gateway) -> dict[str, str]:
    python = python_packages(("openai-agents", "langchain-openai"))
    ended = subprocess.run(
        [python, "-I", SCRIPT, served.url], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    outcome: dict[str, str] = json.loads(ended.stdout.splitlines()[-1])
    return outcome


@pytest.mark.parametrize("case", CASES)
def test_case(results: dict[str, str], case: str) -> None:
    assert results[case] == "ok"


def test_every_case_ran(results: dict[str, str]) -> None:
    assert list(results) == CASES
    assert len(CASES) > 8
