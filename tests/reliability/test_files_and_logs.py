"""Rows G5-G9 of the fault matrix: log lines, upstream texts, files, faults of our own, wheels."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import re
import sqlite3
import stat
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from tests.support import raw
from tests.support.asking import ask
from tests.support.gateway import gateway
from tests.support.plain import line, send

from oaicompat_server import session
from oaicompat_server.config import load
from oaicompat_server.handlers.models import Models
from oaicompat_server.logs import SafeFormatter
from oaicompat_server.secret import Secret
from oaicompat_server.settings import (
    Config,
    ConfigError,
    CredentialSettings,
    StateSettings,
    UpstreamSettings,
)
from oaicompat_server.simulator import Body, Finish, Head

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="there are no such modes")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Log as the command does, at debug level, into a text."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(SafeFormatter())
    logger = logging.getLogger("oaicompat")
    level, spread = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield text
    logger.removeHandler(handler)
    logger.setLevel(level)
    logger.propagate = spread


HOSTILE = (
    *("a\nFAKE", "a\r\n2026-01-01 00:00:00,000 INFO FAKE", "\r"),
    *("\n\n\n", "\x00", "\x1b[2J\x1b[1;1H", "\x1b]0;x\x07"),
    *("\x08\x08\x08", "\x7f", "\x85", "\u2028", "\u2029", "\u202eFAKE", "\u2066FAKE\u2069", "\u200e", "\u200f"),
    *("%s%s%n", "%(message)s", "{0}", "${jndi:ldap://x}", "'; DROP TABLE"),
    *("<script>", '"', "\\", "\t", "x" * 100_000),
    *("\ud800".encode("utf-8", "replace").decode(), "\U000e0041", "\x0b\x0c", "\x1c\x1d\x1e"),
)  # fmt: skip
_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?:DEBUG|INFO|WARNING|ERROR) \S.*")


def test_g5_whatever_is_logged_is_one_line(log: io.StringIO) -> None:
    """Hostile labels, model names, headers and paths never begin a line of the log, nor end one."""
    assert len(HOSTILE) >= 30
    entries = tuple(
        CredentialSettings(key=Secret(f"invalid-{number}"), label=text)
        for number, text in enumerate(HOSTILE)
    )
    settings = UpstreamSettings(attempts=1)
    with gateway(Config(upstream=settings, credentials=entries)) as served:
        for number, text in enumerate(HOSTILE):
            ask(served, "POST", raw.CHAT, raw.words(raw.CHAT, f"hello {number}"))
            ask(served, "POST", raw.CHAT, raw.words(raw.CHAT, "hello") | {"model": text})
            logging.getLogger("oaicompat").warning("model %s, path %r", text, text)
            target = text.encode("utf-8", "surrogatepass").hex("%")
            send(served, line(b"GET", b"/v1/%" + target.encode()[:9000], b"X-Request-Id: %0a"))
    lines = log.getvalue().removesuffix("\n").split("\n")
    assert len(lines) >= len(HOSTILE) * 2
    for each in lines:
        assert _LINE.fullmatch(each), each[:200]
        assert each.isprintable() or "\U000e0041" in each, each[:200]
        assert len(each) <= 2000
        assert len(each.splitlines()) == 1


PROJECT, KEY_ID = "987654321012", "abcdef0123456789abcdef0123456789abcdef01"
UPSTREAM_TEXTS = {
    403: (
        f"Permission 'aiplatform.endpoints.predict' denied on resource "
        f"'//aiplatform.googleapis.com/projects/{PROJECT}/locations/us-central1' (or it may not exist).",
        f"Generative Language API has not been used in project {PROJECT} before or it is disabled. Enable it "
        f"by visiting https://console.developers.google.com/apis/api/x/overview?project={PROJECT} then retry.",
        f"Consumer 'api_key:{KEY_ID}' has been suspended.",
        f"Consumer 'project_number:{PROJECT}' has been suspended.",
        f"Requests from service account robot@{PROJECT}.iam.gserviceaccount.com are blocked.",
        "x" * 5000,
    ),
    429: (
        f"Quota exceeded for quota metric 'Generate Content API requests per minute' and limit "
        f"'GenerateContent request limit per minute for a region' of service "
        f"'generativelanguage.googleapis.com' for consumer 'project_number:{PROJECT}'.",
        f"Resource has been exhausted for projects/{PROJECT} (key {KEY_ID}).",
        "x" * 5000,
    ),
}  # fmt: skip


@pytest.mark.parametrize("status", UPSTREAM_TEXTS)
@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
def test_g6_texts_of_the_upstream_name_no_project_and_no_key(status: int, path: str) -> None:
    """Real refusals lose project numbers, key ids, accounts and hosts, and are at most 500 characters long."""
    with gateway(Config(upstream=UpstreamSettings(attempts=1))) as served:
        for text in UPSTREAM_TEXTS[status]:
            named = {403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}[status]
            details = [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "metadata": {"consumer": f"projects/{PROJECT}", "containerInfo": PROJECT},
                }
            ]
            error = {"code": status, "message": text, "status": named, "details": details}
            data = json.dumps({"error": error}).encode()
            served.simulator.enqueue([Head(status, length=len(data)), Body(data), Finish()])
            found = ask(served, "POST", path, raw.words(path, "hello"))
            page = ask(served, "GET", "/oaicompat/status")
            served.relay.pool.reset()
            assert found.status in (403, 429, 503)
            assert len(found.error["message"]) <= 600
            told = found.content + page.content + str(found.headers).encode()
            for secret in (PROJECT, KEY_ID, "gserviceaccount", "googleapis.com"):
                assert secret.encode() not in told, (text, found.content)


def modes(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.parametrize(
    "mode", [0o600, 0o400, 0o640, 0o604, 0o644, 0o660, 0o620, 0o666, 0o777, 0o610]
)
@pytest.mark.parametrize("place", ["settings", "client key", "key file", "account file"])
def test_g7_files_with_secrets_that_others_can_read_are_told_of(
    tmp_path: Path, mode: int, place: str
) -> None:
    """A file with a secret that others may read or write is warned about, and refused in strict mode."""
    account = {
        "type": "service_account",
        "client_email": "a@b.c",
        "private_key": "x",
        "project_id": "my-project",
    }
    key = tmp_path / "key"
    key.write_text(json.dumps(account) if place == "account file" else "some-key")
    entry = {
        "settings": 'key = "some-key"',
        "client key": "key_env = 'K'",
        "key file": f"key_file = '{key}'",
        "account file": f"kind = 'service_account'\nkey_file = '{key}'",
    }[place]
    settings = tmp_path / "settings.toml"
    clients = "keys = ['client']" if place == "client key" else ""
    text = f"[auth]\nmode = '{{}}'\n{clients}\n[[credentials]]\n{entry}\n"
    settings.write_text(text.format("auto"))
    shown = key if place in ("key file", "account file") else settings
    for each in (key, settings):
        each.chmod(0o600)
    shown.chmod(mode)
    variables = {"K": "some-key", "OAICOMPAT_AUTH__KEYS": ""} if not clients else {"K": "some-key"}
    warnings = load(settings, environ=variables).warnings
    if not mode & 0o077:
        assert warnings == ()
    else:
        assert len(warnings) == 1
        assert f"chmod 600 {shown}" in warnings[0]
    settings.chmod(0o600)
    settings.write_text(text.format("strict"))
    settings.chmod(mode if shown == settings else 0o600)
    if not mode & 0o077:
        assert load(settings, environ=variables).warnings == ()
        return
    with pytest.raises(ConfigError, match="chmod 600"):
        load(settings, environ=variables)


@posix
def test_g7_a_file_without_secrets_may_be_read_by_all(tmp_path: Path) -> None:
    """Settings that hold no secret themselves may be anybody's to read."""
    settings = tmp_path / "settings.toml"
    settings.write_text("[auth]\nmode = 'strict'\n[[credentials]]\nkey_env = 'K'\n")
    settings.chmod(0o644)
    assert load(settings, environ={"K": "k", "OAICOMPAT_API_KEY": "c"}).warnings == ()


@posix
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_g7_the_state_is_its_owners_alone(tmp_path: Path, mask: int) -> None:
    """The state file, those beside it and the directory made for it are closed to others by any umask."""
    path = tmp_path / "made" / "below" / "state.sqlite3"
    before = os.umask(mask)
    try:
        with gateway(Config(state=StateSettings(path=str(path)))) as served:
            body = raw.words(raw.RESPONSES, "hello") | {"store": True}
            assert ask(served, "POST", raw.RESPONSES, body).status == 200
            files = sorted(path.parent.iterdir())
            assert len(files) >= 2
            assert {modes(each) for each in files} == {0o600}
            assert modes(path.parent) == 0o700
    finally:
        os.umask(before)


@posix
def test_g7_a_state_file_that_is_open_is_closed_to_others(tmp_path: Path) -> None:
    """A state file that others could read is closed to them when the gateway starts."""
    path = tmp_path / "state.sqlite3"
    for mode in (0o600, 0o644, 0o666):
        if path.exists():
            path.chmod(mode)
        with gateway(Config(state=StateSettings(path=str(path)))) as served:
            assert ask(served, "GET", "/healthz").status == 200
            assert {modes(each) for each in tmp_path.iterdir()} == {0o600}
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


class _Fault(Exception):
    """What no code expects."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES])
def test_g8_a_fault_of_our_own_is_opaque(
    monkeypatch: pytest.MonkeyPatch, log: io.StringIO, path: str, stream: bool
) -> None:
    """A bug is answered with 500 and the request's id; its text and its traceback are in the log alone."""

    def broken(*_: object, **__: object) -> None:
        raise _Fault("sentinel of a bug")

    with gateway() as served:
        monkeypatch.setattr(session, "endpoint_headers", broken)
        found = ask(
            served, "POST", path, raw.words(path, "hello", stream=stream), x_request_id="mine"
        )
        monkeypatch.undo()
        assert found.status == 500
        assert found.error["type"] == "server_error"
        assert "mine" in found.error["message"]
        for told in (b"sentinel", b"Traceback", b"_Fault", b".py"):
            assert told not in found.content + str(found.headers).encode()
        assert "sentinel of a bug" in log.getvalue()
        assert ask(served, "POST", path, raw.words(path, "hello")).status == 200


@pytest.mark.parametrize("method", ["_detect", "_list"])
def test_g8_no_route_shows_a_traceback(
    monkeypatch: pytest.MonkeyPatch, log: io.StringIO, method: str
) -> None:
    """A bug in a handler is as opaque, and the framework has no page for it."""

    async def broken(*_: object) -> None:
        raise _Fault("sentinel of a bug")

    monkeypatch.setattr(Models, method, broken)
    with gateway() as served:
        detect = method == "_detect"
        found = ask(
            served,
            "POST" if detect else "GET",
            f"/v1/models{'/detect' if detect else ''}",
            b"{}" if detect else None,
        )
        assert found.status == 500
        assert found.headers["x-request-id"] in found.error["message"]
        assert b"sentinel" not in found.content
        app: Any = served.serving.app
        assert app.debug is False


def wheels() -> Any:
    """Return the module that checks wheels, which is no package's."""
    spec = importlib.util.spec_from_file_location("wheels", ROOT / ".ci" / "wheels.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(place: Path, extra: str = "", package: str = "oaicompat") -> str:
    """Return a wheel as it would be built, with one file more where that is named."""
    path = place / f"{package}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for source in sorted((ROOT / "src" / package).rglob("*")):
            if source.suffix == ".py" or source.name == "py.typed":
                wheel.write(source, source.relative_to(ROOT / "src"))
        info = f"{package}-0.1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Name: x")
        wheel.writestr(f"{info}/licenses/LICENSE", "MIT")
        if extra:
            wheel.writestr(extra, "import os")
    return str(path)


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("oaicompat.pth", "oaicompat.pth"),
        ("oaicompat/x.pth", "x.pth"),
        ("oaicompat-0.1.0.dist-info/x.pth", "x.pth"),
        ("sitecustomize.py", "sitecustomize"),
        ("oaicompat/__pycache__/x.pyc", "x.pyc"),
        ("tests/x.py", "tests"),
    ],
)
def test_g9_a_wheel_with_what_runs_by_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str, told: str
) -> None:
    """A wheel is its package and no more: a .pth, a sitecustomize or compiled code ends the build."""
    monkeypatch.chdir(ROOT)
    check = wheels()
    check.contents(made(tmp_path), "oaicompat")
    with pytest.raises(SystemExit, match=re.escape(told)):
        check.contents(made(tmp_path, extra), "oaicompat")


def test_g9_few_packages_are_needed() -> None:
    """The core needs one package, and the server eight besides the core."""
    for name, path, most in (
        ("oaicompat", "pyproject.toml", 1),
        ("oaicompat-server", "src/oaicompat_server/pyproject.toml", 8),
    ):
        project = tomllib.loads((ROOT / path).read_text("utf-8"))["project"]
        foreign = [each for each in project["dependencies"] if not each.startswith("oaicompat")]
        assert len(foreign) <= most
        required = [each for each in distribution(name).requires or [] if "extra ==" not in each]
        assert len(required) == len(project["dependencies"])


def test_g9_nothing_is_run_by_the_build() -> None:
    """Neither distribution has a build script or a hook of its own."""
    for path in (ROOT, ROOT / "src" / "oaicompat_server"):
        text = (path / "pyproject.toml").read_text("utf-8")
        assert tomllib.loads(text)["build-system"]["requires"] == ["hatchling"]
        assert "hooks" not in text
        assert not (path / "setup.py").exists()
    assert not list((ROOT / "src").rglob("*.pth"))
