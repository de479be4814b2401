"""The command `oaicompat`: serve, check, simulate, models, explain.

One rule: what can be wrong before serving is said in one line on stderr with exit status 2, never as a
traceback; what a command finds goes to stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from oaicompat.dialects.registry import find_dialect
from oaicompat.errors import OaicompatError
from oaicompat.exchange import Exchange
from oaicompat.providers.gemini.endpoints import Target
from oaicompat_server.app import create_app
from oaicompat_server.auth import is_loopback, plan_access
from oaicompat_server.checking import check_credential
from oaicompat_server.config import ConfigError, Loaded, load, secrets_of
from oaicompat_server.listing import fetch_models
from oaicompat_server.logs import set_up
from oaicompat_server.pool import Credential
from oaicompat_server.relay import Relay
from oaicompat_server.reload import Reloader, reloading
from oaicompat_server.secret import Secret
from oaicompat_server.serving import (
    EXIT_SECONDS,
    Server,
    bind,
    leave_within,
    loop_factory,
    make_server,
)
from oaicompat_server.settings import Config, CredentialSettings
from oaicompat_server.snapshot import Snapshot, Sources, model_map, pinned, snapshot
from oaicompat_server.store.opening import open_store
from oaicompat_server.supervising import Supervisor, command_line
from oaicompat_server.upstream import Upstream
from oaicompat_server.vertex import token_source
from oaicompat_server.worker import DRAIN, FORGET, LEAVE, RELOAD, Worker

_NO_CREDENTIALS = """no credentials. Three ways to go on:
  1. export GEMINI_API_KEY=...   (one key, or several separated by commas)
  2. put [[credentials]] into a settings file and pass it with --config
  3. oaicompat serve --demo      (a built-in simulator answers; no key, no network)"""

_NO_STORE = (
    "explain reads nothing that is stored: put the items themselves into the input, in place of "
    "'previous_response_id', 'conversation' and 'item_reference'"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    options.command = command_line(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        status = run(options)
        sys.stdout.flush()
        return status
    except ConfigError as error:
        print(f"oaicompat: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader has seen enough; without this the flush at the exit would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="oaicompat", description="Serve the OpenAI API on Google Gemini."
    )
    parser.add_argument(
        "--version", action="version", version=f"oaicompat {version('oaicompat-server')}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _serve_options(_command(commands, "serve", _serve, "run the gateway"))
    _command(commands, "check", _check, "validate the settings and try every credential")
    _command(commands, "models", _models, "print the upstream's models and the mapped names")
    simulate = _command(commands, "simulate", _simulate, "run the built-in Gemini simulator alone")
    simulate.add_argument(
        "--port", type=int, default=8046, help="port to listen on (default 8046; 0: any free one)"
    )
    explain = _command(commands, "explain", _explain, "show what becomes of an OpenAI body")
    explain.add_argument("file", nargs="?", default="-", help="JSON file, - for stdin")
    explain.add_argument(
        "--dialect", default="chat", help="shape of the answer: chat (default), responses, ..."
    )
    return parser


def _serve_options(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (default 8045)")
    serve.add_argument("--workers", type=int, help="processes that serve (default 1)")
    serve.add_argument(
        "--auth-mode",
        choices=("auto", "off", "strict", "all_except_health"),
        help="on which paths clients show a key (default auto: on none while loopback and keyless)",
    )
    serve.add_argument(
        "--insecure",
        action="store_true",
        default=None,
        help="accept --auth-mode off on an address that others can reach",
    )
    serve.add_argument(
        "--strict",
        action="store_true",
        default=None,
        help="refuse with 400 what would be dropped or approximated",
    )
    serve.add_argument("--base-url", help="upstream scheme://host[:port]")
    serve.add_argument("--demo", action="store_true", help="answer from the built-in simulator")
    serve.add_argument("--verbose", action="store_true", help="log more")


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    # The simulator has no settings.
    if run is not _simulate:
        command.add_argument("--config", help="settings file (TOML)")
    command.set_defaults(run=run)
    return command


def _loaded(options: argparse.Namespace) -> Loaded:
    loaded = _load(options)
    for warning in loaded.warnings:
        print(f"oaicompat: warning: {warning}", file=sys.stderr)
    return loaded


def _load(options: argparse.Namespace) -> Loaded:
    flags = {
        "server.host": getattr(options, "host", None),
        "server.port": getattr(options, "port", None),
        "server.workers": getattr(options, "workers", None),
        "auth.mode": getattr(options, "auth_mode", None),
        "server.insecure": getattr(options, "insecure", None),
        "request.strict": getattr(options, "strict", None),
        "upstream.base_url": getattr(options, "base_url", None),
    }
    # What a demo was told is nothing to keep.
    defaults = {"state.store": "memory"} if getattr(options, "demo", False) else None
    return load(options.config, flags=flags, defaults=defaults)


def _run(work: Awaitable[int]) -> int:
    async def awaited() -> int:
        return await work

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(awaited())


def _serve(options: argparse.Namespace) -> int:
    worker = Worker.given(os.environ)
    if worker is not None:
        return _serve_beside(worker, options)
    loaded = _loaded(options)
    config = loaded.config
    plan_access(config)
    if not config.credentials and not options.demo:
        raise ConfigError(_NO_CREDENTIALS)
    if options.demo and config.server.workers > 1:
        raise ConfigError("--demo runs in one process: leave out --workers and server.workers")
    set_up(secrets_of(config), _level(options))
    listening = bind(config.server.host, config.server.port)
    if config.server.workers == 1:
        return _run(_serve_on(listening, loaded, options))
    banner = _welcome(config, listening.getsockname()[1], demo=False)
    announce = partial(print, banner, flush=True)
    return Supervisor(config, listening, options.command, announce).run()


def _serve_beside(worker: Worker, options: argparse.Namespace) -> int:
    """Serve as one of several; what is said once was said by the supervisor."""
    loaded = _load(options)
    if not loaded.config.credentials:
        raise ConfigError(_NO_CREDENTIALS)
    # What is read at the start only holds for a worker that is started later, too.
    config, _ = pinned(worker.settings(), loaded.config)
    set_up(secrets_of(config), _level(options), f"[{worker.index}] ")
    loaded = structs.replace(loaded, config=config)
    return _run(_serve_on(worker.listening, loaded, options, worker))


def _level(options: argparse.Namespace) -> int:
    return logging.DEBUG if options.verbose else logging.INFO


async def _serve_on(
    listening: socket.socket,
    loaded: Loaded,
    options: argparse.Namespace,
    worker: Worker | None = None,
) -> int:
    config, demo = loaded.config, options.demo
    simulator = None
    try:
        # Opened before anything is printed, so that one that cannot be used is one clear line.
        store = await open_store(config.state, os.environ)
        if demo:
            from oaicompat_server.simulator import Simulator

            simulator = Simulator(any_model=True, helpful=True)
            await simulator.start()
            config = with_upstream(config, simulator.url, "demo")
            _ignore_hangups()
        sources = Sources(token_source)
        app = create_app(config, store=store, sources=sources)
        server = make_server(app, relay=app.state.relay, worker=worker)
        reloader = Reloader(app.state.relay, lambda: _load(options), sources)
        if worker is None:
            print(_welcome(config, listening.getsockname()[1], demo), flush=True)
        else:
            _work(worker, app.state.relay, server, reloader)
        async with nullcontext() if demo else reloading(reloader, loaded):
            await server.serve(sockets=[listening])
        leave_within(EXIT_SECONDS)
    finally:
        listening.close()
        if simulator is not None:
            await simulator.stop()
    return 0


def _work(worker: Worker, relay: Relay, server: Server, reloader: Reloader) -> None:
    """Do what the supervisor says, and have it tell the others what they have to know."""
    relay.worker = worker.index
    relay.others_forget = worker.others_forget
    worker.obey(
        {
            RELOAD: reloader.request,
            DRAIN: server.drain,
            LEAVE: server.leave,
            FORGET: lambda account, model: relay.sharing.forget(account, model),
        }
    )


def _ignore_hangups() -> None:
    """Let SIGHUP pass: a demo has no settings to load anew."""
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def with_upstream(config: Config, url: str, key: str) -> Config:
    """Return the settings with one credential, used against the upstream at `url`."""
    origin = "/".join(url.split("/")[:3])
    return structs.replace(
        config,
        upstream=structs.replace(config.upstream, base_url=origin),
        credentials=(CredentialSettings(key=Secret(key), label=key),),
    )


def _welcome(config: Config, port: int, demo: bool) -> str:
    host = config.server.host
    shown = "127.0.0.1" if is_loopback(host) or host in ("0.0.0.0", "::") else host
    url = f"http://{shown}:{port}/v1"
    told = "$OAICOMPAT_API_KEY" if os.environ.get("OAICOMPAT_API_KEY") else "YOUR_KEY"
    key = told if config.auth.keys else "none"
    lines = [f"oaicompat serves the OpenAI API on {url}"]
    if demo:
        lines.append("Demo: a built-in simulator answers; nothing leaves this machine.")
    body = '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}'
    lines += [
        "",
        f"  curl {url}/chat/completions -H 'Content-Type: application/json' \\",
        f"    -H \"Authorization: Bearer {key}\" -d '{body}'",
        "",
        f"  export OPENAI_BASE_URL={url} OPENAI_API_KEY={key}",
        "",
    ]
    return "\n".join(lines)


def _check(options: argparse.Namespace) -> int:
    loaded = _loaded(options)
    found = snapshot(loaded.config, token_source)
    print(f"settings: {loaded.path or 'no file'}: valid")
    if not found.pool.credentials:
        raise ConfigError(_NO_CREDENTIALS)
    return _run(_check_credentials(found))


async def _check_credentials(settings: Snapshot) -> int:
    upstream = Upstream(settings.config.upstream)
    failed = 0
    for credential in settings.pool.credentials:
        try:
            base_url = settings.config.upstream.base_url
            seen = await check_credential(upstream, credential, base_url)
            print(f"credential {credential.account}: works ({seen})")
        except OaicompatError as error:
            failed += 1
            print(f"credential {credential.account}: fails: {error.message}")
    await upstream.aclose()
    return 1 if failed else 0


def _models(options: argparse.Namespace) -> int:
    config = _loaded(options).config
    models = model_map(config)
    if not config.credentials:
        raise ConfigError(_NO_CREDENTIALS)
    for name in dict.fromkeys((*config.models.aliases, *models.aliases())):
        targets = config.models.aliases.get(name) or models.resolve(name).model
        print(f"{name} -> {targets if isinstance(targets, str) else ', then '.join(targets)}")
    return _run(_print_models(config))


async def _print_models(config: Config) -> int:
    """Print what the first credential that works may use."""
    upstream = Upstream(config.upstream)
    reason = "only credentials of kind 'api_key' can list models"
    try:
        for credential in (
            Credential.of(entry) for entry in config.credentials if entry.kind == "api_key"
        ):
            try:
                found = await fetch_models(
                    upstream, credential.target(config.upstream.base_url), credential
                )
            except OaicompatError as error:
                reason = error.message
                continue
            print("\n".join(sorted(found)))
            return 0
    finally:
        await upstream.aclose()
    raise ConfigError(f"the model list cannot be read: {reason}")


def _simulate(options: argparse.Namespace) -> int:
    from oaicompat_server.simulator import serve

    with bind("127.0.0.1", options.port) as bound:
        port = bound.getsockname()[1]
    print(f"the simulator answers on http://127.0.0.1:{port}", flush=True)

    async def run() -> int:
        await serve("127.0.0.1", port)
        return 0

    return _run(run())


def _explain(options: argparse.Namespace) -> int:
    config = _loaded(options).config
    try:
        data = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{options.file}: {error.strerror}") from None
    try:
        find_dialect(options.dialect)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    try:
        exchange = Exchange(options.dialect, data, models=model_map(config))
        needs = exchange.needs()
        if needs.responses or needs.conversations or needs.items:
            raise ConfigError(_NO_STORE)
        for call in exchange.calls():
            request = exchange.begin_attempt(call, Target(base_url=config.upstream.base_url))
            print(f"model: {exchange.requested_model} -> {call.model}")
            print(f"{request.method} {request.url}")
            print(msgspec.json.format(request.body, indent=2).decode("utf-8"))
    except OaicompatError as error:
        raise ConfigError(f"refused with {error.status}: {error.message}") from None
    for note in exchange.notes:
        print(f"note: {note.path}: {note.action}: {note.reason}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
