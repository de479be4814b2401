"""Which store serves: what is kept over a restart, what a demo leaves behind, and stores that are of no use."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.support.asking import ask
from tests.support.gateway import gateway

from oaicompat_server.cli import main
from oaicompat_server.settings import Config, StateSettings


def _environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """Return an environment in which every default place lies in `tmp_path`."""
    names = ("HOME", "USERPROFILE", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "APPDATA")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OAICOMPAT_")}
    return kept | dict.fromkeys(names, str(tmp_path)) | more


def test_what_is_stored_survives_the_gateway(tmp_path: Path) -> None:
    config = Config(state=StateSettings(path=str(tmp_path / "state.sqlite3")))
    with gateway(config) as first:
        body = {"model": "gpt-4o", "input": "hello"}
        made = ask(first, "POST", "/v1/responses", body).data
        events = ask(first, "GET", f"/v1/responses/{made['id']}?stream=true").content
        sent = {"items": [{"role": "user", "content": "one"}], "metadata": {"a": "b"}}
        conversation = ask(first, "POST", "/v1/conversations", sent).data
        path = f"/v1/conversations/{conversation['id']}"
        items = ask(first, "GET", f"{path}/items").data
    with gateway(config) as second:
        assert ask(second, "GET", f"/v1/responses/{made['id']}").data == made
        replayed = ask(second, "GET", f"/v1/responses/{made['id']}?stream=true").content
        assert replayed == events
        assert ask(second, "GET", path).data == conversation
        assert ask(second, "GET", f"{path}/items").data == items
        assert ask(second, "DELETE", f"{path}/items/{items['first_id']}").status == 200
        for kept in (f"/v1/responses/{made['id']}", path):
            assert ask(second, "DELETE", kept).status == 200
            assert ask(second, "GET", kept).status == 404


def test_a_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "oaicompat_server.cli", "serve", "--demo", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(tmp_path),
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+/v1", process.stdout.readline())
        assert found
        made = _ask(f"{found[0]}/responses", {"model": "gpt-4o", "input": "hello"})
        assert _ask(f"{found[0]}/responses/{made['id']}") == made
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.communicate()


def _ask(url: str, body: dict[str, str] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=10) as reply:
        return json.load(reply)


def test_a_store_that_cannot_be_used_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in os.environ:
        monkeypatch.delenv(name)
    state = {"OAICOMPAT_STATE__STORE": "sqlite", "OAICOMPAT_STATE__PATH": str(tmp_path)}
    for name, value in _environment(tmp_path, **state).items():
        monkeypatch.setenv(name, value)
    assert main(["serve", "--demo", "--port", "0"]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.count("\n") == 1
    assert errors.startswith("oaicompat: state.path: ")
