"""The command line: one-line refusals, the demo, draining, and what explain prints."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from oaicompat_server.cli import main
from oaicompat_server.simulator import running


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the settings of the person who runs the tests out."""
    for name in list(os.environ):
        if name.startswith(("OAICOMPAT_", "GEMINI_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def test_serving_without_credentials_names_three_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve"]) == 2
    shown = capsys.readouterr().err
    assert all(way in shown for way in ("GEMINI_API_KEY", "[[credentials]]", "--demo"))
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--demo", "--host", "0.0.0.0"], "needs a key"),
        (["serve", "--demo", "--host", "0.0.0.0", "--auth-mode", "off"], "--insecure"),
        (["serve", "--demo", "--auth-mode", "strict"], "needs a key"),
        (
            ["serve", "--demo", "--host", "192.0.2.1", "--auth-mode", "off", "--insecure"],
            "cannot listen",
        ),
        (
            ["serve", "--demo", "--host", "no such host", "--insecure", "--auth-mode", "off"],
            "cannot listen",
        ),
        (["serve", "--demo", "--port", "70000"], "flag --port"),
        (["serve", "--config", "/nonexistent.toml"], "no such file"),
        (["explain", "/nonexistent.json"], "No such file"),
        (["explain", "--dialect", "nope", os.devnull], "no dialect 'nope'; there are: chat"),
        (["check"], "no credentials"),
        (["models"], "no credentials"),
    ],
)
def test_refusals_are_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert expected in shown
    assert shown.startswith("oaicompat: ")
    assert "Traceback" not in shown


def test_taken_port_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--demo", "--port", port]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_check_says_which_credential_works(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as simulator:
        monkeypatch.setenv("OAICOMPAT_BASE_URL", simulator.url)
        monkeypatch.setenv("GEMINI_API_KEY", "good-key,invalid-key")
        assert main(["check"]) == 1
        shown = capsys.readouterr().out
        assert shown.count("works") == 1
        assert shown.count("fails") == 1
        assert "good-key" not in shown
        assert "invalid-key" not in shown
        monkeypatch.setenv("GEMINI_API_KEY", "good-key")
        assert main(["check"]) == 0
        assert main(["models"]) == 0
        assert "gemini-2.5-flash\n" in capsys.readouterr().out
        monkeypatch.setenv("GEMINI_API_KEY", "invalid-key,good-key")
        assert main(["models"]) == 0
        shown = capsys.readouterr().out
        assert "gemini-2.5-flash\n" in shown
        assert "gpt-4o -> gemini-2.5-flash\n" in shown
        monkeypatch.setenv("GEMINI_API_KEY", "invalid-key")
        assert main(["models"]) == 2
        assert capsys.readouterr().err.startswith("oaicompat: the model list cannot be read")


def test_check_refuses_whatever_serve_refuses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "a-key")
    monkeypatch.setenv("OAICOMPAT_MEDIA__ALLOWED_HOSTS", "127.0.0.1")
    monkeypatch.setenv("OAICOMPAT_PORT", "0")
    monkeypatch.setenv("OAICOMPAT_STATE__STORE", "memory")
    for command in ("check", "serve"):
        assert main([command]) == 2
        shown = capsys.readouterr()
        assert "valid\n" not in shown.out
        assert "media.allowed_hosts" in shown.err


def test_models_says_which_credentials_can_list_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("[[credentials]]\nkind = 'express'\nkey = 'a-key'\n")
    settings.chmod(0o600)
    assert main(["models", "--config", str(settings)]) == 2
    assert "only credentials of kind 'api_key'" in capsys.readouterr().err


def test_explain_prints_model_body_and_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = tmp_path / "body.json"
    body.write_text(
        json.dumps(
            {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "user": "me"}
        )
    )
    assert main(["explain", str(body)]) == 0
    shown = capsys.readouterr().out
    assert "gpt-4o -> gemini-2.5-flash" in shown
    assert '"contents"' in shown
    assert "note: user: dropped" in shown
    body.write_text("{}")
    assert main(["explain", str(body)]) == 2


@pytest.mark.parametrize(
    "stored",
    [
        {"input": "hi", "previous_response_id": "resp_1"},
        {"input": "hi", "conversation": "conv_1"},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ],
)
def test_explain_says_that_it_reads_nothing_stored(
    stored: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model": "gpt-5", **stored}))
    assert main(["explain", "--dialect", "responses", str(body)]) == 2
    assert "explain reads nothing that is stored" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_fault(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(
        json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]})
    )
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "oaicompat_server.cli", "explain", str(body)]
    ended = subprocess.run(
        command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=30, check=False
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_simulate_names_the_port_it_was_given() -> None:
    command = [sys.executable, "-m", "oaicompat_server.cli", "simulate", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:([1-9]\d*)", process.stdout.readline())
            assert found
        finally:
            process.kill()


@contextmanager
def _demo(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the demo as its own process; give it and its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "oaicompat_server.cli", "serve", "--demo", "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+/v1", process.stdout.readline())
        assert found
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def _ask(url: str, text: str, stream: bool = False) -> urllib.request.Request:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "stream": stream}
    return urllib.request.Request(
        url + "/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": "Bearer any"},
    )


def test_simulate_refuses_settings_that_it_would_not_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--config", "gateway.toml"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --config gateway.toml" in capsys.readouterr().err


@pytest.mark.parametrize("known", ["nowhere", "in a file", "in the environment"])
def test_what_the_demo_shows_can_be_pasted(
    known: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "config.toml"
    settings.write_text('[auth]\nkeys = ["sk-a"]\n' if known == "in a file" else "")
    settings.chmod(0o600)
    if known == "in the environment":
        monkeypatch.setenv("OAICOMPAT_API_KEY", "sk-a")
    with _demo("--config", str(settings)) as (process, _):
        assert process.stdout is not None
        shown = ""
        while "OPENAI_API_KEY" not in shown:
            line = process.stdout.readline()
            assert line, "the demo ended"
            shown += line
        [command] = re.findall(r"(curl .*?)\n\n", shown, re.DOTALL)
        shown_key = {"nowhere": "none", "in a file": "YOUR_KEY"}.get(known, "$OAICOMPAT_API_KEY")
        assert f"OPENAI_API_KEY={shown_key}\n" in shown
        words = shlex.split(os.path.expandvars(command.replace("YOUR_KEY", "sk-a")))
        headers = [
            each.split(": ") for each, flag in zip(words[1:], words, strict=False) if flag == "-H"
        ]
        body = words[words.index("-d") + 1].encode()
        request = urllib.request.Request(words[1], body, dict(headers))
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert json.load(reply)["choices"][0]["message"]["content"] == "Hello"


def test_demo_answers_and_a_signal_lets_streams_finish() -> None:
    with _demo() as (process, url):
        with urllib.request.urlopen(_ask(url, "hello"), timeout=10) as reply:
            assert json.load(reply)["choices"][0]["message"]["content"] == "hello"
        with urllib.request.urlopen(
            _ask(url, "#script:long:6 #script:pace:150", stream=True), timeout=10
        ) as reply:
            first = reply.read1()
            process.send_signal(signal.SIGTERM)
            rest = reply.read()
        assert first.startswith(b"data: ")
        assert rest.endswith(b"data: [DONE]\n\n")
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert "Traceback" not in errors


def test_second_signal_leaves_at_once() -> None:
    with _demo() as (process, url):
        with urllib.request.urlopen(
            _ask(url, "#script:long:9 #script:stall-after:2", stream=True), timeout=10
        ) as reply:
            assert reply.read1()
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert process.poll() is None
            second = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=10)
        assert time.monotonic() - second < 2
        assert process.returncode == 0
        assert "Traceback" not in errors


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"oaicompat {version('oaicompat-server')}\n"
