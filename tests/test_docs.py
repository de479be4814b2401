"""Everything the documentation shows is run: code, commands, settings, links.

One rule: the blocks of a page are one program, run top to bottom, in a fresh namespace. Where a page speaks of
http://127.0.0.1:8045 a gateway of its own, on the simulator, takes that place.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.support.gateway import gateway

from oaicompat_server.cli import main
from oaicompat_server.config import load
from oaicompat_server.routes import resolve

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "src/oaicompat_server/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

ADDRESS = "http://127.0.0.1:8045"
KEY_FILE = json.dumps(
    {"type": "service_account", "client_email": "a@b", "private_key": "k", "project_id": "project"}
)

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"(?:^|[\s/])oaicompat (\w+)([^\n]*)")
_LANGUAGES = {"python", "sh", "toml", "json", "text", ""}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def blocks(page: Path, *languages: str) -> list[str]:
    return [
        code for language, code in _BLOCK.findall(page.read_text("utf-8")) if language in languages
    ]


def program(page: Path) -> str:
    """Return the page's Python at its own line numbers, so that a failure names the page's line."""
    text = page.read_text("utf-8")
    lines = [""] * (text.count("\n") + 1)
    for found in _BLOCK.finditer(text):
        if found[1] == "python":
            first = text.count("\n", 0, found.start(2))
            code = found[2].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_runs(page: Path) -> None:
    source = program(page)
    namespace: dict[str, Any] = {"__name__": f"docs.{page.stem}"}
    if ADDRESS not in source:
        exec(compile(source, page, "exec"), namespace)
        return
    with gateway() as served:
        exec(compile(source.replace(ADDRESS, served.origin), page, "exec"), namespace)


@every_page
def test_languages_are_known(page: Path) -> None:
    found = {language for language, _ in _BLOCK.findall(page.read_text("utf-8"))}
    assert found <= _LANGUAGES, "a block in a language that nothing here checks"


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target), link


def headings(page: Path) -> set[str]:
    found = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in found}


@every_page
def test_commands_exist_with_their_flags(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(blocks(page, "sh", ""))
    inline = "\n".join(re.findall(r"`([^`\n]+)`", page.read_text("utf-8")))
    for command, rest in _COMMAND.findall(f"{code}\n{inline}"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, f"there is no command {command}"
        known = capsys.readouterr().out
        for flag in re.findall(r"--[a-z][a-z-]*", rest):
            assert re.search(rf"{flag}\b", known), f"oaicompat {command} knows no {flag}"


@every_page
def test_addresses_in_commands_are_served(page: Path) -> None:
    for code in blocks(page, "sh", ""):
        for path in re.findall(rf"{ADDRESS}(/[^\s'\"]*)", code):
            assert path == "/v1" or resolve(path) is not None, path


@every_page
def test_settings_are_valid(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that name variables and files are given some; those of Codex only have to be TOML."""
    for code in blocks(page, "toml"):
        if "[model_providers." in code:
            assert tomllib.loads(code)["model_providers"]
            continue
        secret = tmp_path / "secret"
        secret.write_text(KEY_FILE if "service_account" in code else "k" * 20, "ascii")
        secret.chmod(0o600)
        code = re.sub(r'(key_file = )"[^"]*"', rf'\1"{secret}"', code)
        names = re.findall(r'key_env = "([^"]*)"', code)
        assert tomllib.loads(code)
        settings = tmp_path / "settings.toml"
        settings.write_text(code, "utf-8")
        settings.chmod(0o600)
        assert load(settings, environ=dict.fromkeys(names, "k" * 20)).config


@every_page
def test_json_is_valid(page: Path) -> None:
    for code in blocks(page, "json"):
        json.loads(code)


def test_every_page_is_in_the_index_and_in_the_readme() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert {
        "chat.md", "changelog.md", "configuration.md", "design.md", "errors.md", "index.md", "mapper.md",
        "parameters.md", "quickstart.md", "simulator.md", "testing.md",
    } <= pages  # fmt: skip
    linked = set(_LINK.findall((ROOT / "docs/index.md").read_text("utf-8")))
    assert pages - {"index.md"} <= linked
    shown = set(_LINK.findall((ROOT / "README.md").read_text("utf-8")))
    assert {f"docs/{name}" for name in pages} <= shown


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 120


def test_readme_commands_do_their_own_set_up() -> None:
    """Both start from `python3 -m venv`, are valid shell, and name what is in the repository."""
    commands = [code.strip() for code in blocks(ROOT / "README.md", "sh")]
    assert [command.rsplit("/", 1)[-1] for command in commands] == [
        "oaicompat serve --demo",
        "pytest",
    ]
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        steps = [shlex.split(step) for step in command.split("&&")]
        assert steps[0] == ["python3", "-m", "venv", ".venv"]
        paths = [word for step in steps for word in step if "src/" in word or word == "."]
        assert all((ROOT / path).exists() for path in paths)
        assert "\n" not in command


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci/run").read_text("utf-8")
    wanted = re.search(r"grep -E '([^']+)' README.md", script)
    assert wanted is not None
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len([line for line in lines if re.match(wanted[1], line)]) == 1
