"""Rows G1-G4 of the fault matrix: no secret is in anything that comes out, whatever goes wrong.

One rule: the settings hold a secret in every place that takes one, all runs at debug level, and everything that
was written, answered, raised or kept is searched for every form of every secret.
"""

from __future__ import annotations

import asyncio
import copy
import http.client
import json
import logging
import os
import pickle
import signal
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support import raw, sentinels
from tests.support.gateway import Gateway, gateway, serving
from tests.support.processes import GatewayProcess
from tests.support.sentinels import leaks, leaks_of_bytes
from tests.support.token_service import key_file, pem

from oaicompat.errors import OaicompatError
from oaicompat.providers.gemini.endpoints import Target
from oaicompat.providers.gemini.endpoints import headers as endpoint_headers
from oaicompat_server import logs
from oaicompat_server.app import create_app
from oaicompat_server.cli import main
from oaicompat_server.config import load, secrets_of
from oaicompat_server.credential_entries import service_account
from oaicompat_server.secret import Secret
from oaicompat_server.settings import Config, ConfigError, CredentialSettings, UpstreamSettings
from oaicompat_server.simulator import Body, Finish, Head, Simulator, running
from oaicompat_server.store import StoreError
from oaicompat_server.store.redis_client import Client
from oaicompat_server.upstream import Upstream
from oaicompat_server.vertex import token_source

LOUD = """
import logging, socket, sys
from oaicompat_server import cli, logs
def nowhere(host, *rest, **named):
    raise OSError("no such host")
socket.getaddrinfo = nowhere
set_up = cli.set_up
def loud(known, level):
    set_up(known, logging.DEBUG)
    for name in ("", "oaicompat", "google", "redis", "uvicorn.access", *logs._QUIET):
        logging.getLogger(name).setLevel(logging.DEBUG)
cli.set_up = loud
sys.exit(cli.main())
"""
"""The command with every logger at debug level, and no names but its own machine's."""

SCRIPTS = (
    "hello", "#script:error:400", "#script:error:400:key", "#script:error:401", "#script:error:403",
    "#script:error:403:leaked", "#script:error:404", "#script:error:429", "#script:error:500",
    "#script:error:503", "#script:html:502", "#script:garbage", "#script:reset-after:0",
    "#script:reset-after:2", "#script:cut-after:1", "#script:framed-error-after:1", "#script:redirect:302",
    "#script:gzip:10", "#script:headers:5",
)  # fmt: skip


class _Refusing(socketserver.StreamRequestHandler):
    """A proxy that refuses and says all it was told."""

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n") and (line := self.rfile.readline()):
            head += line
        self.wfile.write(b"HTTP/1.1 407 " + head.replace(b"\r\n", b" ") + b"\r\n" + head + head)


@pytest.fixture(scope="module")
def proxy() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def closed() -> str:
    """Return an address on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as plug:
        return f"127.0.0.1:{plug.getsockname()[1]}"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Leave no settings of the person who runs the tests, and no names but this machine's."""
    for name in [*os.environ]:
        if name.startswith(("OAICOMPAT_", "GEMINI_", "GOOGLE_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(sentinels.VARIABLE, sentinels.BY_VARIABLE)

    look_up = socket.getaddrinfo

    def nowhere(host: str, *more: Any, **named: Any) -> Any:
        if not host.startswith("127."):
            raise OSError("no such host")
        return look_up(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    return tmp_path


@contextmanager
def loud_process(place: Path) -> Iterator[GatewayProcess]:
    environment = {name: text for name, text in os.environ.items() if name in ("PATH", "LANG")}
    environment |= {"HOME": str(place)}
    environment |= {
        sentinels.VARIABLE: sentinels.BY_VARIABLE,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    arguments = ["serve", "--verbose", "--port", "0", "--config", str(place / "settings.toml")]
    log = place / "log"
    with (
        log.open("w") as output,
        (place / "out").open("w") as out,
        subprocess.Popen(
            [sys.executable, "-c", LOUD, *arguments], stdout=out, stderr=output, env=environment
        ) as process,
    ):
        try:
            raw.until(lambda: "/v1\n" in (place / "out").read_text() or process.poll(), 20)
            assert process.poll() is None, log.read_text()
            port = int((place / "out").read_text().partition("/v1")[0].rpartition(":")[2])
            made: Any = process
            yield GatewayProcess(made, port, log)
        finally:
            process.terminate()
            process.wait(10)


class Seen:
    """Asks a gateway in a process, and keeps every answer whole."""

    def __init__(self, process: GatewayProcess) -> None:
        self.process = process
        self.texts: list[str] = []
        self.statuses: set[int] = set()

    def ask(self, method: str, path: str, body: object = None, key: str = sentinels.CLIENT) -> int:
        connection = self.process.open(method, path, body, key)
        with closing(connection):
            reply = connection.getresponse()
            try:
                content = reply.read()
            except http.client.IncompleteRead as error:
                content = error.partial
            self.texts.append(f"{reply.status} {reply.reason} {reply.getheaders()} {content!r}")
        self.statuses.add(reply.status)
        return reply.status

    def logged(self, text: str, times: int = 1) -> None:
        raw.until(lambda: self.process.log.read_text().count(text) >= times, 10)


def echo(status: int, secret: str) -> list[Any]:
    """Return an answer of an upstream that says with which key it was called."""
    message = f"API key {secret} of Bearer {secret} is wrong; see ?key={secret}."
    error = {"code": status, "message": message, "status": "INVALID_ARGUMENT"}
    data = json.dumps({"error": error}).encode()
    return [Head(status, length=len(data)), Body(data), Finish()]


SHOWN: Mapping[str, str] = {
    "inline": sentinels.INLINE,
    "plain": sentinels.PLAIN,
    "variable": sentinels.BY_VARIABLE,
    "file": sentinels.BY_FILE,
    "express": sentinels.EXPRESS,
    "bearer": sentinels.BEARER,
}
"""What the upstream is shown by credentials that get through to it."""

BROKEN = (
    'key = "{0}',
    '[[credentials]]\nkey = "{0}"\nkye = "{0}"',
    '[[credentials]]\nkey = "{0} \\u0007"',
    '[[credentials]]\nkey = "{0}é"',
    '[[credentials]]\nkey = ["{0}"]',
    '[[credentials]]\nkind = "bearer"\nkey = "{0} x"\nproject = "my-project"',
    '[[credentials]]\nkind = "service_account"\nkey = \'{{"type": "service_account", "private_key": "{0}"}}\'',
    '[[credentials]]\nkind = "service_account"\nkey = "{0}"',
    '[[credentials]]\nkey = "k"\nproxy = "ftp://u:{0}@h:1"',
    '[[credentials]]\nkey = "k"\nproxy = "http://u:{0}@h:port"',
    '[[credentials]]\nkey = "k"\nbase_url = "https://u:{0}@h"',
    '[[credentials]]\nkey = "k"\n[upstream]\nbase_url = "https://u:{0}@h"',
    '[[credentials]]\nkey = "k"\nkey_env = "{0}"',
    '[[credentials]]\nkey = "k"\n[auth]\nkeys = "{0}"',
    '[[credentials]]\nkey = "k"\n[auth]\nkeys = ["{0} é"]',
    '[[credentials]]\nkey = "k"\n[auth]\nkeys = [["{0}"]]',
    '[[credentials]]\nkey = "k"\n[state]\nredis_url = ["{0}"]',
    '[credentials]\nkey = "{0}"',
    'credentials = "{0}"',
    'credentials = ["{0}"]',
    'auth = "{0}"',
)
"""Settings that are of no use and hold a secret at the place of the fault."""


@pytest.mark.parametrize("http_kind", ["fast", "httpcore"])
def test_g2_no_secret_comes_out_of_a_process_full_of_faults(
    tmp_path: Path, proxy: str, closed: str, http_kind: str
) -> None:
    """Every kind of secret, every kind of fault, at debug level in a real process: none is in any output."""
    with running(any_model=True) as simulator:
        credentials = sentinels.kinds(simulator.url, proxy, closed)
        path = sentinels.write_settings(tmp_path, simulator.url, credentials, http=http_kind)
        good = path.read_text()
        with loud_process(tmp_path) as process:
            seen = Seen(process)
            faults_of_the_upstream(seen, simulator, credentials)
            faults_of_clients(seen)
            faults_of_settings(seen, path, good, tmp_path)
            faults_of_the_store(seen, tmp_path / "state.sqlite3")
        assert {200, 400, 401, 403, 413, 429, 502, 503} <= seen.statuses
        log, out = process.log.read_text(), (tmp_path / "out").read_text()
        assert "DEBUG" in log
        assert "Traceback" not in log
        assert leaks("\n".join((log, out, *seen.texts))) == []
        kept = [each for each in tmp_path.iterdir() if each.name.startswith("state.sqlite3")]
        assert kept
        assert [leaks_of_bytes(each.read_bytes()) for each in kept] == [[]] * len(kept)


def faults_of_the_upstream(
    seen: Seen, simulator: Simulator, credentials: Mapping[str, object]
) -> None:
    for number, script in enumerate(SCRIPTS):
        for at, name in enumerate(credentials):
            path = (raw.CHAT, raw.RESPONSES)[(number + at) % 2]
            body = raw.words(path, script, stream=(number + at) % 3 == 0) | {
                "model": f"model-{name}"
            }
            seen.ask("POST", path.removeprefix("/v1"), body)
        seen.ask("GET", "/oaicompat/status")
        seen.ask("POST", "/oaicompat/reset", {})
    for name, secret in SHOWN.items():
        for status in (400, 401, 403, 404, 413, 429, 500, 503):
            simulator.enqueue(echo(status, secret))
            body = raw.words(raw.CHAT, "hello") | {"model": f"model-{name}"}
            seen.ask("POST", "/chat/completions", body)
            seen.ask("GET", "/oaicompat/status")
            seen.ask("POST", "/oaicompat/reset", {})
        told(simulator, seen, name, secret)
    simulator.enqueue(echo(400, sentinels.PLAIN))
    seen.ask("GET", "/models")
    made = [each for each in simulator.requests if each.method == "POST"]
    assert len({each.key for each in made}) >= len(SHOWN)


def told(simulator: Simulator, seen: Seen, name: str, secret: str) -> None:
    """Have the upstream repeat the key inside of a stream: as its first event, and after one."""
    error = echo(500, secret)[1].data
    text = b'data: {"candidates":[{"content":{"parts":[{"text":"hello"}]}}]}\r\n\r\n'
    for before in (b"", text):
        data = before + b"data: " + error + b"\r\n\r\n"
        head = Head(200, "text/event-stream", framing="chunked")
        for path in (raw.CHAT, raw.RESPONSES):
            simulator.enqueue([head, Body(data), Finish()])
            body = raw.words(path, "hello", stream=True) | {"model": f"model-{name}", "store": True}
            seen.ask("POST", path.removeprefix("/v1"), body)
            seen.ask("POST", "/oaicompat/reset", {})


def faults_of_clients(seen: Seen) -> None:
    body: object = raw.words(raw.CHAT, "hello") | {"model": "model-inline"}
    for key in (
        sentinels.WRONG,
        f"{sentinels.CLIENT}x",
        sentinels.CLIENT.upper(),
        sentinels.INLINE,
    ):
        for method, path in (
            ("POST", "/chat/completions"),
            ("GET", f"/models?key={sentinels.WRONG}"),
        ):
            assert seen.ask(method, path, body if method == "POST" else None, key=key) == 401
    seen.ask("GET", f"/models?key={sentinels.WRONG}")
    wrong: tuple[object, ...] = (
        {},
        {"model": 1},
        [],
        "x",
        {"model": "model-inline", "messages": 1},
    )
    for body in wrong:
        seen.ask("POST", "/chat/completions", body)


def faults_of_settings(seen: Seen, path: Path, good: str, place: Path) -> None:
    process: Any = seen.process.process
    for times, text in enumerate(BROKEN, 1):
        path.write_text(text.format(sentinels.MISPLACED))
        process.send_signal(signal.SIGHUP)
        seen.logged("the old ones stay", times)
    (place / "key").write_text(f"{sentinels.BY_FILE}\n{sentinels.MISPLACED}")
    path.write_text(good)
    process.send_signal(signal.SIGHUP)
    seen.logged("the old ones stay", len(BROKEN) + 1)
    (place / "key").write_text(sentinels.BY_FILE)
    path.write_text(good.replace(sentinels.INLINE, sentinels.ROTATED).replace(sentinels.REDIS, "x"))
    process.send_signal(signal.SIGHUP)
    seen.logged("settings loaded")
    body = raw.words(raw.CHAT, "#script:error:500") | {"model": "model-inline"}
    seen.ask("POST", "/chat/completions", body)


def faults_of_the_store(seen: Seen, file: Path) -> None:
    body = raw.words(raw.RESPONSES, "hello") | {"model": "model-plain", "store": True}
    assert seen.ask("POST", "/responses", body) == 200
    with closing(sqlite3.connect(file)) as database:
        for table in ("bodies", "frames", "items", "responses", "conversations"):
            database.execute(f"DROP TABLE {table}")
        database.commit()
    seen.ask("POST", "/responses", body)
    seen.ask("GET", "/responses/resp_1")
    assert seen.ask("POST", "/conversations", {"items": []}) >= 500


START: Mapping[str, tuple[str, ...]] = {
    "header-breaking key of a file": ('key_file = "{place}/breaking"',),
    "header-breaking key": ('key = "{0}\\r\\nX: y"',),
    "account without a private key that can be read": (
        'kind = "service_account"',
        'project = "my-project"',
        "key = '''{account}'''",
    ),
    "redis that is not there": (
        'key = "{0}"',
        "[state]",
        'store = "redis"',
        'redis_url = "{redis}"',
    ),
    "redis at no port": ('key = "{0}"', "[state]", 'store = "redis"', 'redis_url = "{redis}x"'),
    "redis with options": (
        'key = "{0}"',
        "[state]",
        'store = "redis"',
        'redis_url = "{redis}/0?x={0}"',
    ),
    "state that is a directory": ('key = "{0}"', "[state]", 'path = "{place}"'),
    "preset that is none": ('key = "{0}"', "[models]", 'preset = "x"'),
}


@pytest.mark.parametrize("name", START)
@pytest.mark.parametrize("command", ["serve", "check", "models"])
def test_g2_no_secret_is_in_what_a_command_says(
    alone: Path, closed: str, capfd: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    """Commands that fail say why on stderr, without a secret of the settings that made them fail."""
    account = {"type": "service_account", "client_email": "a@b", "private_key": sentinels.MISPLACED}
    (alone / "breaking").write_text(f"{sentinels.MISPLACED}\nX: y")
    (alone / "breaking").chmod(0o600)
    redis = f"redis://someone:{sentinels.REDIS}@{closed}"
    text = "\n".join(("[[credentials]]", f'base_url = "http://{closed}"', *START[name]))
    for mark, value in {
        "{0}": sentinels.MISPLACED,
        "{place}": str(alone),
        "{redis}": redis,
        "{account}": json.dumps(account),
    }.items():
        text = text.replace(mark, value)
    path = alone / "settings.toml"
    path.write_text(text)
    path.chmod(0o600)
    more = ["--port", "0"] if command == "serve" else []
    assert main([command, "--config", str(path), *more]) in (1, 2)
    told = capfd.readouterr()
    assert told.err + told.out
    assert leaks(told.out + told.err) == []


@pytest.mark.parametrize(
    "name", ["OAICOMPAT_CREDENTIALS", "OAICOMPAT_API_KEYS", "GEMINI_API_KEY", "GOOGLE_API_KEY"]
)
def test_g2_no_secret_of_a_variable_is_in_the_refusal_of_it(alone: Path, name: str) -> None:
    """A variable with a key that would break a header is named, and not quoted."""
    for text in (f"{sentinels.MISPLACED}\n{sentinels.INLINE}", f"good,{sentinels.MISPLACED} é"):
        with pytest.raises(ConfigError) as caught:
            load(environ={name: text, "HOME": str(alone)})
        assert name in str(caught.value)
        assert leaks("".join(traceback.format_exception(caught.value))) == []


def raising(work: Callable[[], Any]) -> BaseException:
    """Return what work raises, plain or as a coroutine."""
    try:
        result = work()
        if asyncio.iscoroutine(result):
            asyncio.run(result)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


async def opened(url: str, secret: str, proxy: str = "", kind: str = "fast") -> None:
    """Call an upstream and show it a secret."""
    settings = UpstreamSettings(
        http="httpcore" if kind == "httpcore" else "fast", connect_timeout=1.0
    )
    upstream = Upstream(settings)
    request: Any = type("Asked", (), {"method": "POST", "url": url, "body": b"{}"})()
    try:
        async with upstream.open(
            request, [("x-goog-api-key", secret)], proxy=Secret(proxy)
        ) as answer:
            _ = [piece async for piece in answer]
    finally:
        await upstream.aclose()


@pytest.mark.parametrize("kind", ["fast", "httpcore"])
def test_g2_no_secret_is_in_an_error_of_a_call(
    proxy: str, closed: str, kind: str, alone: Path
) -> None:
    """Errors of calls, tokens and stores hold no secret in their text, their fields or their traceback."""
    secret, login = sentinels.PLAIN, f"http://someone:{sentinels.PROXY.replace('@', '%40')}@"
    account = CredentialSettings(kind="service_account", key=Secret.document(key_file()))
    redis = Secret(f"redis://someone:{sentinels.REDIS}@{closed}/0")
    with running() as simulator:
        plain = f"{simulator.url}/v1beta/models"
        cases: dict[str, Callable[[], Any]] = {
            "refused": lambda: opened(f"http://{closed}/", secret, kind=kind),
            "TLS": lambda: opened(plain.replace("http:", "https:"), secret, kind=kind),
            "breaking": lambda: opened(plain, f"{secret}\r\nX: y", kind=kind),
            "line end": lambda: opened(plain, f"{secret}\n", kind=kind),
            "beyond ASCII": lambda: opened(plain, f"{secret}é", kind=kind),
            "no name": lambda: opened("http://nowhere.invalid/", secret, kind=kind),
            "proxy refuses": lambda: opened(plain, secret, f"{login}{proxy}", kind),
            "no proxy": lambda: opened(plain, secret, f"{login}{closed}", kind),
            "secret": lambda: Secret(f"{secret} é"),
            "headers": lambda: endpoint_headers(Target(), f"{secret}\n"),
            "account": lambda: service_account(Secret.document(f'{{"private_key": "{pem()}"')),
            "token": lambda: token_source(account).token(),
            "redis": lambda: Client(redis).one("GET", sentinels.CLIENT),
            "pickle": lambda: pickle.dumps(Secret(secret)),
        }
        for name, work in cases.items():
            error = raising(work)
            assert isinstance(error, OaicompatError | StoreError | ValueError | TypeError), (
                name,
                error,
            )
            told = "".join(traceback.format_exception(error))
            fields = repr(getattr(error, "__dict__", {}))
            assert leaks(f"{error!r} {error} {told} {fields} {error.args}") == [], name


def objects(start: object) -> Iterator[object]:
    """Yield everything of ours that can be reached from an object, each once."""
    known: dict[int, object] = {}
    left = [start]
    while left:
        one = left.pop()
        if id(one) in known or isinstance(one, str | bytes | int | float | type(None)):
            continue
        known[id(one)] = one
        yield one
        if isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            left += one
        elif type(one).__module__.startswith("oaicompat"):
            if isinstance(one, Secret):
                continue
            names = [*getattr(one, "__dict__", {}), *getattr(type(one), "__struct_fields__", ())]
            names += [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
            left += [getattr(one, name) for name in names if hasattr(one, name)]


def settings_of(place: Path, upstream: str, proxy: str, closed: str) -> Config:
    path = sentinels.write_settings(place, upstream, sentinels.kinds(upstream, proxy, closed))
    flags = {"state.store": "memory"}
    variables = {sentinels.VARIABLE: sentinels.BY_VARIABLE}
    return load(path, environ=variables, flags=flags).config


def test_g3_no_object_shows_a_secret(alone: Path, proxy: str, closed: str) -> None:
    """No object of a running gateway shows a secret by repr, str, format, or a copy of it; none is pickled."""
    with running(any_model=True) as simulator:
        config = settings_of(alone, simulator.url, proxy, closed)
        app = create_app(config, tune=False, sources=token_source)
        with serving(app, relay=app.state.relay) as made:
            served = Gateway(made, simulator)
            seen = [config, served.relay, *served.relay.pool.credentials]
            found = list(objects(seen))
            kinds = {type(one).__name__ for one in found}
            assert {
                "Secret",
                "Config",
                "Credential",
                "Pool",
                "Snapshot",
                "Upstream",
                "Access",
            } <= kinds
            assert {"VertexTokens", "CredentialSettings", "Relay", "Slot"} <= kinds
            for one in found:
                shown = (
                    f"{one!r} {one} {one:}"
                    if type(one).__format__ is object.__format__
                    else f"{one!r} {one}"
                )
                # A digest of a client's key is of no use to who has it.
                assert leaks(shown) == [], type(one)
    for secret in secrets_of(config):
        if secret:
            for shown in (
                repr(secret),
                str(secret),
                f"{secret}",
                f"{secret:>30}",
            ):
                assert leaks(shown) == []
            assert copy.deepcopy(secret) is secret
            with pytest.raises(TypeError):
                pickle.dumps(secret)
            assert not hasattr(secret, "__dict__")


def test_g3_every_secret_of_the_settings_is_known_to_the_log(
    alone: Path, proxy: str, closed: str
) -> None:
    """What the log keeps out is every secret of the settings, with what is secret inside of it."""
    config = settings_of(alone, f"http://{closed}", proxy, closed)
    formatter = logs.SafeFormatter(secrets_of(config))
    configured = set(sentinels.SECRETS) - {sentinels.WRONG, sentinels.MISPLACED, sentinels.ROTATED}
    for secret in sorted(configured):
        record = logging.LogRecord("x", logging.INFO, "", 1, "it is %s", (secret,), None)
        assert leaks(formatter.format(record)) == [], secret
    for text in (pem(), repr(pem()), key_file()):
        record = logging.LogRecord("x", logging.INFO, "", 1, "it is %s", (text,), None)
        assert leaks(formatter.format(record)) == []


@pytest.mark.parametrize("path", [raw.CHAT, raw.RESPONSES, "/v1/responses/input_tokens"])
def test_g1_no_key_is_in_a_url(path: str, alone: Path, proxy: str, closed: str) -> None:
    """Keys and tokens travel in one header; no upstream URL has a key in it, for no kind of credential."""
    shown = ("inline", "express", "bearer")
    with running(any_model=True) as simulator:
        config = settings_of(alone, simulator.url, proxy, closed)
        app = create_app(config, tune=False, sources=token_source)
        with serving(app, relay=app.state.relay) as made:
            process = GatewayProcess(object(), made.port, alone)  # type: ignore[arg-type]
            for name in shown:
                for stream in (False, True):
                    body = raw.words(path, "hello", stream=stream) | {"model": f"model-{name}"}
                    process.ask("POST", path.removeprefix("/v1"), body, key=sentinels.CLIENT)
            process.ask("GET", "/models", key=sentinels.CLIENT)
    assert len(simulator.requests) > len(shown)
    for each in simulator.requests:
        assert "key" not in each.query
        assert set(each.query) <= {"alt", "pageSize", "pageToken"}
        assert leaks(each.target) == []
        assert len({"x-goog-api-key", "authorization"} & set(each.headers)) == 1


def test_g4_the_loggers_of_libraries_are_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Even with --verbose the libraries log no more than warnings, so that no header of theirs is written."""
    root = logging.getLogger()
    names = ("", "oaicompat", *logs._QUIET)
    before = {name: logging.getLogger(name).level for name in names}
    handlers = root.handlers[:]
    try:
        logs.set_up([], logging.DEBUG)
        for name in (
            "httpcore.http11",
            "httpcore.connection",
            "uvicorn.access",
            "uvicorn.error",
            "asyncio",
        ):
            assert not logging.getLogger(name).isEnabledFor(logging.INFO), name
        for name in ("redis", "google.auth", "websockets", "anyio"):
            assert not logging.getLogger(name).isEnabledFor(logging.INFO), name
        assert logging.getLogger("oaicompat").isEnabledFor(logging.DEBUG)
    finally:
        root.handlers[:] = handlers
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def test_g4_no_query_and_no_header_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With every logger at debug level neither the query of a client nor a header of its is in the log."""
    with caplog.at_level(logging.DEBUG), gateway() as served:
        for number in range(3):
            time.sleep(0.001)
            with raw.connect(served.port) as plug:
                data = raw.head(
                    served.port, f"/v1/models?key={sentinels.WRONG}&n={number}", 0,
                    f"x-api-key: {sentinels.WRONG}", f"cookie: {sentinels.WRONG}", "connection: close",
                    method="GET",
                )  # fmt: skip
                plug.sendall(data)
                assert raw.read(plug).startswith(b"HTTP/1.1 200")
    assert leaks(caplog.text) == []
