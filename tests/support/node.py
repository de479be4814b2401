"""Runs the cases of a script with Node and hands back what became of each.

One rule: a script stands in a directory of its own beside `cases.mjs`, with the installed packages linked in,
so that several checkouts can share those.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.installed import node_and_npm, npm_packages

SCRIPTS = Path(__file__).parents[1] / "clients"


def cases(script: str) -> list[str]:
    """Return the names of a script's cases."""
    text = (SCRIPTS / script).read_text("utf-8")
    return re.findall(r'^test\("([^"]+)"', text, re.MULTILINE)


def outcome(script: str, urls: Mapping[str, str], place: Path) -> dict[str, str]:
    """Run a script in an empty directory; return for each case "ok" or what went wrong."""
    packages = npm_packages(json.loads((SCRIPTS / "packages.json").read_text("utf-8")))
    (place / "node_modules").symlink_to(packages / "node_modules")
    for name in (script, "cases.mjs"):
        shutil.copy(SCRIPTS / name, place)
    node, _ = node_and_npm()
    ended = subprocess.run(
        [node, script, json.dumps(urls)], cwd=place, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    told: dict[str, str] = json.loads(ended.stdout.splitlines()[-1])
    return told
