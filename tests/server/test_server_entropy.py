"""Tokens are never given out twice."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from oaicompat_server.entropy import token


def test_threads_never_get_the_same_token() -> None:
    with ThreadPoolExecutor(8) as threads:
        parts = threads.map(lambda _: [token() for _ in range(500)], range(8))
        tokens = [each for part in parts for each in part]
    assert len(set(tokens)) == len(tokens) == 4000
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in tokens)


FORK = """
import os
from oaicompat_server.entropy import token
token()
child = os.fork()
os.write(1, f"{token()} ".encode())
if child:
    os.waitpid(child, 0)
else:
    os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_fork_does_not_repeat_its_parent() -> None:
    told = subprocess.run([sys.executable, "-c", FORK], check=True, capture_output=True, text=True)
    first, second = told.stdout.split()
    assert first != second
