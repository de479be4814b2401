"""The two distributions: versions, public names, and what importing the core loads."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import oaicompat
import oaicompat_server

ROOT = Path(__file__).parent.parent
PROJECTS = {
    "oaicompat": "pyproject.toml",
    "oaicompat-server": "src/oaicompat_server/pyproject.toml",
}
FORBIDDEN = (
    "asyncio",
    "socket",
    "ssl",
    "starlette",
    "httpcore",
    "anyio",
    "hypothesis",
    "oaicompat_server",
)

_LOADED = """
import time
started = time.perf_counter()
import oaicompat
took = time.perf_counter() - started
import sys
print(f"{took * 1000:.1f}")
print(*sys.modules)
"""


def project(path: str) -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / path).read_text("utf-8"))["project"]
    return table


@pytest.mark.parametrize("distribution", PROJECTS)
def test_installed_version_is_the_declared_one(distribution: str) -> None:
    assert version(distribution) == project(PROJECTS[distribution])["version"]


def test_core_tells_its_version() -> None:
    assert oaicompat.__version__ == version("oaicompat")


def test_server_accepts_this_core() -> None:
    required = project(PROJECTS["oaicompat-server"])["dependencies"]
    assert isinstance(required, list)
    major, minor, _ = version("oaicompat").split(".")
    assert f"oaicompat>={major}.{minor},<{major}.{int(minor) + 1}" in required


def test_changelog_has_an_entry_for_each_version() -> None:
    changelog = (ROOT / "docs/changelog.md").read_text("utf-8")
    for distribution in PROJECTS:
        assert f"## {distribution} {version(distribution)}" in changelog


def test_both_licences_are_the_same() -> None:
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "src/oaicompat_server/LICENSE").read_bytes()


def test_public_names_exist_and_are_sorted() -> None:
    assert [name for name in oaicompat.__all__ if not hasattr(oaicompat, name)] == []
    assert list(oaicompat.__all__) == sorted(
        oaicompat.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )


def test_every_public_name_in_the_namespace_is_declared() -> None:
    """A name that is imported into the package and not listed is public by accident."""
    submodules = {path.stem for path in Path(oaicompat.__file__).parent.iterdir()}
    found = {name for name in vars(oaicompat) if not name.startswith("_")}
    assert found - submodules - {"annotations"} <= set(oaicompat.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = oaicompat.nothing


@pytest.mark.parametrize("package", [oaicompat, oaicompat_server])
def test_typed_marker_is_there(package: object) -> None:
    assert Path(str(getattr(package, "__file__", ""))).with_name("py.typed").exists()


def test_importing_the_core_loads_nothing_that_does_io() -> None:
    ended = subprocess.run(
        [sys.executable, "-I", "-c", _LOADED], capture_output=True, text=True, check=True
    )
    took, modules = ended.stdout.splitlines()
    print(f"cold import of oaicompat: {took} ms")
    assert set(FORBIDDEN) & set(modules.split()) == set()
    assert "oaicompat.exchange" in modules.split()
